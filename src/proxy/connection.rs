//! One client connection: counted, registered, and handed to what speaks its protocol.
//!
//! hyper-util would tell HTTP/2 from HTTP/1 too, but without a deadline: a client that stops in the middle of
//! the preface would stay for ever. Here the worker's tick closes it, as it does a head that does not end.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

use crate::config::Scheme;

use super::lane::Lane;
use super::registry::{ConnectionState, Entrance, Stage};
use super::terminate::terminate;
use super::{http1, http2, tcp};

/// Serves one connection until it ends.
pub async fn serve(stream: TcpStream, peer: SocketAddr, entrance: Entrance, lane: Rc<Lane>) {
    let state = ConnectionState::new(peer, entrance, &lane.clock);
    lane.connections.add(&state);
    lane.counters.connection_opened();
    let _open = Open(Rc::clone(&lane));
    let Some(mut stream) = terminate(stream, &state, &lane).await else { return };
    if lane.settings().listener.upstream.scheme == Scheme::Tcp {
        return Box::pin(tcp::serve(stream, state, lane)).await;
    }
    let Some(Ok(spoken)) = state.until_cut(listen(&mut stream, &state, &lane)).await else {
        return;
    };
    match spoken {
        Spoken::Http1(early) => http1::serve(stream, early, state, lane).await,
        // Boxed: the future of every connection would be as large as this one.
        Spoken::Http2(early) => Box::pin(http2::serve(stream, early, state, lane)).await,
    }
}

/// What a client's first bytes are, and those bytes.
enum Spoken {
    Http1(Bytes),
    Http2(Bytes),
}

/// Reads until it is clear what the client speaks.
async fn listen(
    stream: &mut (impl AsyncRead + Unpin),
    state: &ConnectionState,
    lane: &Lane,
) -> io::Result<Spoken> {
    let mut early = BytesMut::with_capacity(FIRST_READ);
    loop {
        let ended = stream.read_buf(&mut early).await? == 0;
        if state.stage() == Stage::Silent && !early.is_empty() {
            state.enter(Stage::Head, &lane.clock);
        }
        if early.starts_with(PREFACE) {
            return Ok(Spoken::Http2(early.freeze()));
        }
        if ended || !PREFACE.starts_with(&early) {
            return Ok(Spoken::Http1(early.freeze()));
        }
    }
}

/// RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Room for the head of most requests: what is read here costs no read later.
const FIRST_READ: usize = 4096;

/// Counts the connection as closed, however it ended.
struct Open(Rc<Lane>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.connection_closed();
    }
}
