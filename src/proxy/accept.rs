//! Accepting connections: a place first, then the connection.
//!
//! Overload waits in the kernel's accept queue, not in a pile of tasks. Each worker has a queue of its own, so it takes a
//! place only once a connection is there: one that it kept in hand would be missed by a worker whose queue is not
//! empty. The loop never ends by an error: what accept can fail with either concerns one connection only, or passes
//! (out of descriptors or memory).

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::task::TaskTracker;

use super::connection;
use super::lane::Lane;
use super::registry::Entrance;
use super::socket::Socket;

/// A listening socket that tells when a connection is there, before it is accepted.
pub type Listening = AsyncFd<std::net::TcpListener>;

/// Has this thread's runtime watch a socket.
///
/// # Errors
///
/// No descriptors or memory left.
#[allow(
    deprecated,
    reason = "its successor is unsafe, for types that lie about their descriptor; this one does not"
)]
pub fn watch(socket: std::net::TcpListener) -> io::Result<Listening> {
    // tokio's own listener only tells together with the connection.
    AsyncFd::with_interest(socket, Interest::READABLE)
}

/// Accepts until dropped.
pub async fn accept(listener: &Listening, lane: &Rc<Lane>, tasks: &TaskTracker, entrance: Entrance) {
    loop {
        // Fails only once the runtime has ended.
        let Ok(mut ready) = listener.ready(Interest::READABLE).await else { return };
        let Some(place) = lane.place(entrance).await else { return };
        match ready.try_io(|listener| take(listener.get_ref())) {
            Err(_) => {} // the queue is empty
            Ok(Ok((stream, peer))) => {
                let lane = Rc::clone(lane);
                tasks.spawn_local(async move {
                    let _place = place;
                    connection::serve(stream, peer, entrance, lane).await;
                });
            }
            Ok(Err(error)) if concerns_one_connection(&error) => {}
            Ok(Err(error)) => {
                drop(place);
                tracing::warn!(listener = %lane.shared.name, %error, "cannot accept connections");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Takes what waits in the accept queue, without waiting for more; places do not count any more.
pub fn empty_queue(listener: &std::net::TcpListener, lane: &Rc<Lane>, tasks: &TaskTracker) {
    while let Ok((stream, peer)) = take(listener) {
        tasks.spawn_local(connection::serve(stream, peer, Entrance::Clients, Rc::clone(lane)));
    }
}

/// Accepts what does not block from its first moment on: one system call less than by the standard library.
fn take(listener: &std::net::TcpListener) -> io::Result<(Socket, SocketAddr)> {
    let (stream, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    // A client of TCP has an address, unless it has gone.
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((Socket::new(stream.into()), peer))
}

/// accept(2): errors of the connection that was to be accepted are reported by accept itself on Linux.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// How long to wait where descriptors or memory ran out: retrying at once would burn a core.
const PAUSE: Duration = Duration::from_millis(50);
