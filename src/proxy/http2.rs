//! A client that speaks HTTP/2 (RFC 9113).
//!
//! h2 bounds what a hostile client can cost: streams at once, resets, header lists and their CONTINUATION
//! frames; it answers a PING or SETTINGS before it reads on, so that a flood of them waits in the client.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};

use super::coalesce::Coalesced;
use super::lane::Lane;
use super::metered::{Metered, Tally};
use super::registry::{ConnectionState, Order, Protocol, Stage};
use super::stack::Stack;

/// Serves streams until the client, or the worker, wants no more.
pub async fn serve<S>(stream: S, early: Bytes, state: Rc<ConnectionState>, lane: Rc<Lane>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    state.speaks(Protocol::Http2);
    state.enter(Stage::Idle, &lane.clock);
    let limits = lane.settings().listener.limits.clone();
    let side = ClientSide { state: Rc::clone(&state), lane: Rc::clone(&lane) };
    let io = Coalesced::new(Metered::new(stream, early, side));
    let connection = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_local_error_reset_streams(Some(RESETS))
        .keep_alive_interval(Some(PING))
        .keep_alive_timeout(PONG)
        .serve_connection(TokioIo::new(io.clone()), Stack::new(Rc::clone(&lane), Rc::clone(&state)));
    let peer = state.peer;
    if let Err(error) = (Driver { connection, io, state, finishing: false }).await {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// Bytes of request bodies that may wait here on one stream, as long as the app does not take them: 1 Gb/s
/// at a round trip of 4 ms.
const STREAM_WINDOW: u32 = 512 << 10;

/// The same for all streams of a connection together: what one client can make us hold.
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Bytes of an answer that a stream takes from the app before the client has room for them.
pub const SEND_BUFFER: usize = 64 << 10;

/// Streams that a client may make us reset before it is sent away (h2 counts those it resets itself too).
const RESETS: usize = 256;

/// A client with open streams that says nothing for so long is asked whether it lives.
const PING: Duration = Duration::from_secs(30);

/// How long it may take to say so.
const PONG: Duration = Duration::from_secs(20);

/// Runs what hyper spawns on the worker that has the connection.
#[derive(Clone, Copy, Debug)]
pub struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

pin_project! {
    /// hyper's connection, and an ear for the worker's orders.
    struct Driver<S> {
        #[pin]
        connection: http2::Connection<TokioIo<Io<S>>, Stack, Local>,
        io: Io<S>,
        state: Rc<ConnectionState>,
        finishing: bool,
    }
}

/// The socket, counted.
type Io<S> = Coalesced<Metered<S, ClientSide>>;

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Future for Driver<S> {
    type Output = Result<(), Ended>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        match this.state.order(cx) {
            Order::Cut => return Poll::Ready(Ok(())),
            Order::Finish if !*this.finishing => {
                *this.finishing = true;
                // GOAWAY; streams that are open, or opened before the client hears of it, go on.
                this.connection.as_mut().graceful_shutdown();
            }
            Order::Finish | Order::Serve => {}
        }
        let polled = this.connection.poll(cx)?;
        if polled.is_pending() {
            // A client that takes nothing wakes this task once it does.
            let _ = this.io.poll_out(cx)?;
        }
        polled.map(Ok)
    }
}

/// Why a connection was not ended by either side's wish.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Counts bytes, and notes when the client takes none.
struct ClientSide {
    state: Rc<ConnectionState>,
    lane: Rc<Lane>,
}

impl Tally for ClientSide {
    fn received(&self, bytes: &[u8]) {
        self.lane.counters.received(bytes.len() as u64);
    }

    fn sent(&self, bytes: usize) {
        self.lane.counters.sent(bytes as u64);
        self.state.took(bytes, &self.lane.clock);
    }

    fn blocked(&self) {
        self.state.blocked(&self.lane.clock);
    }
}
