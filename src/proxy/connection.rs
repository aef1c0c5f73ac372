//! One client connection: counted, registered, and handed to what speaks its protocol.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::config::Scheme;

use super::http1;
use super::lane::Lane;
use super::registry::ConnectionState;
use super::tcp;

/// Serves one connection until it ends.
pub async fn serve(stream: TcpStream, peer: SocketAddr, lane: Rc<Lane>) {
    let state = ConnectionState::new(peer, &lane.clock);
    lane.connections.add(&state);
    lane.counters.connection_opened();
    let _open = Open(Rc::clone(&lane));
    match lane.settings().listener.upstream.scheme {
        Scheme::Tcp => tcp::serve(stream, state, lane).await,
        _ => http1::serve(stream, Bytes::new(), state, lane).await,
    }
}

/// Counts the connection as closed, however it ended.
struct Open(Rc<Lane>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.connection_closed();
    }
}
