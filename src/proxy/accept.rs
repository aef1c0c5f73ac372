//! Accepting connections: a place first, then the connection.
//!
//! Overload waits in the kernel's accept queue, not in a pile of tasks. The loop never ends by an error:
//! what accept can fail with either concerns one connection only, or passes (out of descriptors or memory).

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use super::connection;
use super::lane::Lane;
use super::registry::Entrance;

/// Accepts until dropped.
pub async fn accept(
    listener: &TcpListener,
    lane: &Rc<Lane>,
    tasks: &TaskTracker,
    workers: usize,
    entrance: Entrance,
) {
    let places = match entrance {
        Entrance::Clients => &lane.shared.connections,
        Entrance::Warmup => &lane.shared.warmup_connections,
    };
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else {
            return; // never closed
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let lane = Rc::clone(lane);
                tasks.spawn_local(async move {
                    let shared = Arc::clone(&lane.shared);
                    connection::serve(stream, peer, entrance, lane).await;
                    if entrance == Entrance::Clients {
                        shared.vacate(place);
                    }
                });
                if workers > 1 {
                    // Another worker may be idle: let it have the next one.
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(listener = %lane.shared.name, %error, "cannot accept connections");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Takes what waits in the accept queue, without waiting for more; places do not count any more.
pub fn empty_queue(listener: &std::net::TcpListener, lane: &Rc<Lane>, tasks: &TaskTracker) {
    while let Ok((stream, peer)) = listener.accept() {
        let lane = Rc::clone(lane);
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            tasks.spawn_local(connection::serve(stream, peer, Entrance::Clients, lane));
        }
    }
}

/// accept(2): errors of the connection that was to be accepted are reported by accept itself on Linux.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// How long to wait where descriptors or memory ran out: retrying at once would burn a core.
const PAUSE: Duration = Duration::from_millis(50);
