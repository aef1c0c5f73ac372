//! One client connection: counted, registered, and handed to what speaks its protocol.
//!
//! hyper-util would tell HTTP/2 from HTTP/1 too, but without a deadline: a client that stops in the middle of
//! the preface would stay for ever. Here the worker's tick closes it, as it does a head that does not end.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::Scheme;

use super::lane::Lane;
use super::registry::{ConnectionState, Entrance, Stage};
use super::socket::Socket;
use super::terminate::{Stream, terminate};
use super::{http1, http2, rest, tcp};

/// Serves one connection until it ends.
pub async fn serve(stream: Socket, peer: SocketAddr, entrance: Entrance, lane: Rc<Lane>) {
    let state = ConnectionState::new(peer, entrance, &lane.clock);
    lane.connections.add(&state);
    lane.counters.connection_opened();
    let _open = Open(Rc::clone(&lane));
    let Some(mut stream) = terminate(stream, &state, &lane).await else { return };
    if lane.settings().listener.upstream.scheme == Scheme::Tcp {
        return Box::pin(tcp::serve(stream, state, lane)).await;
    }
    match listen(&mut stream, &state, &lane).await {
        Ok(Some(Spoken::Http1(early))) => converse(stream, early, state, lane).await,
        // Boxed: the future of every connection would be as large as this one.
        Ok(Some(Spoken::Http2(early))) => Box::pin(http2::serve(stream, early, state, lane)).await,
        ended => leave(stream, &state, ended.map(|_| ())).await,
    }
}

/// Serves a client of HTTP/1. Whatever serves its requests is let go when there are none for a while.
async fn converse(mut stream: Stream, mut early: Bytes, state: Rc<ConnectionState>, lane: Rc<Lane>) {
    loop {
        // Boxed: a connection at rest need not be as large as one with requests.
        let served = http1::serve(stream, early, Rc::clone(&state), Rc::clone(&lane));
        let Some(resting) = Box::pin(served).await else { return };
        stream = resting;
        tracing::debug!(peer = %state.peer, "connection rests");
        early = match rest::next_bytes(&mut stream, &state).await {
            Ok(Some(bytes)) => bytes,
            ended => return leave(stream, &state, ended.map(|_| ())).await,
        };
    }
}

/// Ends a connection that has no requests.
async fn leave(mut stream: Stream, state: &ConnectionState, ended: io::Result<()>) {
    match ended {
        Ok(()) => Box::pin(rest::end(&mut stream)).await,
        Err(error) => tracing::debug!(peer = %state.peer, %error, "connection ended"),
    }
}

/// What a client's first bytes are, and those bytes.
enum Spoken {
    Http1(Bytes),
    Http2(Bytes),
}

/// Reads until it is clear what the client speaks. None: there is nothing to serve.
async fn listen(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    state: &ConnectionState,
    lane: &Lane,
) -> io::Result<Option<Spoken>> {
    let mut early = Bytes::new();
    loop {
        let Some(came) = rest::next_bytes(stream, state).await? else {
            // Part of the preface is no request either, and is answered as such.
            let is_part = !early.is_empty() && !state.is_cut();
            return Ok(is_part.then_some(Spoken::Http1(early)));
        };
        if state.stage() == Stage::Silent {
            state.enter(Stage::Head, &lane.clock);
        }
        early = if early.is_empty() { came } else { [early, came].concat().into() };
        if early.starts_with(PREFACE) {
            return Ok(Some(Spoken::Http2(early)));
        }
        if !PREFACE.starts_with(&early) {
            return Ok(Some(Spoken::Http1(early)));
        }
    }
}

/// RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Counts the connection as closed, however it ended.
struct Open(Rc<Lane>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.connection_closed();
    }
}
