//! A client that speaks HTTP/1.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::lane::Lane;
use super::metered::{Metered, Tally};
use super::registry::{ConnectionState, Order, Stage};
use super::stack::Stack;
use super::tunnel::Transport;
use super::wire::Wire;

/// Serves requests until the client, the app or the worker wants no more.
pub async fn serve<S>(stream: S, early: Bytes, state: Rc<ConnectionState>, lane: Rc<Lane>)
where
    S: Transport + 'static,
{
    let limits = lane.settings().listener.limits.clone();
    let wire = Rc::new(RefCell::new(Wire::new()));
    let side = ClientSide { state: Rc::clone(&state), lane: Rc::clone(&lane), wire: Rc::clone(&wire) };
    let io = Metered::new(stream, early, side);
    let stack = Stack::new(Rc::clone(&lane), Rc::clone(&state)).reading_along(wire);
    let connection = http1::Builder::new()
        // The app's client may have sent FIN after its request (`nc`, HTTP/1.0 clients) and still listen.
        .half_close(true)
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_buf_size(limits.header_bytes)
        .serve_connection(TokioIo::new(io), stack);
    let mut driver = Driver { connection, state: Rc::clone(&state), finishing: false };
    let ended = poll_fn(|cx| driver.poll(cx)).await;
    // Taken in any case: it holds the state that holds it.
    let granted = state.handover.take();
    let peer = state.peer;
    match ended {
        Ok(Ended::ByItself) if state.handover.is_noted() => {
            let parts = driver.connection.into_parts();
            let mut io = parts.io.into_inner();
            match granted {
                // Boxed: most connections never come here, and their future would be as large.
                Some(granted) => Box::pin(granted.run(io, parts.read_buf, &state, &lane)).await,
                None => {
                    let _ = tokio::time::timeout(LAST_WORDS, io.shutdown()).await;
                }
            }
        }
        Ok(Ended::ByItself | Ended::Cut) => {}
        Err(error) if error.is_parse() => {
            lane.counters.error(crate::traffic::ErrorKind::BadRequest);
            tracing::debug!(%peer, %error, "request refused");
        }
        Err(error) => tracing::debug!(%peer, %error, "connection ended"),
    }
}

/// hyper's connection, and an ear for the worker's orders.
struct Driver<S> {
    connection: http1::Connection<TokioIo<Metered<S, ClientSide>>, Stack>,
    state: Rc<ConnectionState>,
    finishing: bool,
}

enum Ended {
    ByItself,
    Cut,
}

impl<S: Transport + 'static> Driver<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<Ended>> {
        let order = self.state.order(cx);
        if order == Order::Cut {
            return Poll::Ready(Ok(Ended::Cut));
        }
        let polled = self.advance(cx);
        // Only after a look at what has come: hyper closes a connection at rest at once, and where the head
        // of the next request is coming, for hyper that is at rest. Such a request is answered first.
        let finish = order == Order::Finish && self.state.stage() != Stage::Head;
        if polled.is_pending() && finish && !self.finishing {
            self.finishing = true;
            Pin::new(&mut self.connection).graceful_shutdown();
            return self.advance(cx);
        }
        polled
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<Ended>> {
        let polled = match self.state.handover.is_noted() {
            true => self.connection.poll_without_shutdown(cx),
            false => Pin::new(&mut self.connection).poll(cx),
        };
        polled.map_ok(|()| Ended::ByItself)
    }
}

/// How long the end of a TLS connection may take to go out.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Counts bytes, notes when a request's head begins, and has all of them read a second time.
struct ClientSide {
    state: Rc<ConnectionState>,
    lane: Rc<Lane>,
    wire: Rc<RefCell<Wire>>,
}

impl Tally for ClientSide {
    /// A body that breaks is broken for hyper too, which may be content with it: its request ends there with 400.
    fn sound(&self, bytes: &[u8]) -> usize {
        // After a 101 there are no requests to read.
        if self.state.stage() == Stage::Tunnel { bytes.len() } else { self.wire.borrow_mut().see(bytes) }
    }

    fn received(&self, bytes: &[u8]) {
        self.lane.counters.received(bytes.len() as u64);
        match self.state.stage() {
            Stage::Silent | Stage::Idle => self.state.enter(Stage::Head, &self.lane.clock),
            Stage::Tunnel => self.state.touch(&self.lane.clock),
            Stage::Handshake | Stage::Head | Stage::Busy => {}
        }
    }

    fn blocked(&self) {
        self.state.blocked(&self.lane.clock);
    }

    fn sent(&self, bytes: usize) {
        self.lane.counters.sent(bytes as u64);
        self.state.took(bytes);
        // Idle, too: the end of an answer goes out to a slow reader, and that is no idle connection.
        if matches!(self.state.stage(), Stage::Idle | Stage::Tunnel) {
            self.state.touch(&self.lane.clock);
        }
    }
}
