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

use crate::traffic::{ErrorKind, From};

use super::doubt::Doubt;
use super::error::ProxyError;
use super::lane::Lane;
use super::metered::{Metered, Tally};
use super::registry::{ConnectionState, Order, Stage};
use super::rest::{self, LAST_WORDS};
use super::stack::Stack;
use super::tunnel::Transport;
use super::wire::Wire;

/// Serves requests until the client, the app or the worker wants no more; gives the socket back where only the
/// client has nothing to ask right now.
pub async fn serve<S>(stream: S, early: Bytes, state: Rc<ConnectionState>, lane: Rc<Lane>) -> Option<S>
where
    S: Transport + 'static,
{
    let limits = lane.settings().listener.limits.clone();
    let wire = Rc::new(RefCell::new(Wire::new()));
    let side = ClientSide {
        state: Rc::clone(&state),
        lane: Rc::clone(&lane),
        wire: Rc::clone(&wire),
        doubt: Rc::default(),
    };
    let doubt = Rc::clone(&side.doubt);
    let io = Metered::new(stream, early, side);
    let stack = Stack::new(Rc::clone(&lane), Rc::clone(&state)).reading_along(Rc::clone(&wire));
    let mut builder = http1::Builder::new();
    builder
        // The app's client may have sent FIN after its request (`nc`, HTTP/1.0 clients) and still listen.
        .half_close(true)
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_buf_size(limits.header_bytes);
    if limits.headers != MAX_HEADERS {
        builder.max_headers(limits.headers);
    }
    let connection = builder.serve_connection(TokioIo::new(io), stack);
    let mut driver = Driver {
        connection,
        state: Rc::clone(&state),
        wire,
        finishing: false,
        doubt: Rc::clone(&doubt),
        owes: false,
    };
    let ended = poll_fn(|cx| driver.poll(cx)).await;
    // Taken in any case: it holds the state that holds it.
    let granted = state.handover.take();
    let peer = state.peer;
    match ended {
        Ok(Ended::Resting) => {
            // hyper has read no more than the parser: empty lines at most, which mean nothing.
            let (stream, _) = driver.connection.into_parts().io.into_inner().into_parts();
            return Some(stream);
        }
        Ok(Ended::ByItself) if state.handover.is_noted() => {
            let parts = driver.connection.into_parts();
            let mut io = parts.io.into_inner();
            match granted {
                // Boxed: most connections never come here, and their future would be as large.
                Some(granted) => Box::pin(granted.run(io, parts.read_buf, &state, &lane)).await,
                None => Box::pin(rest::end(&mut io)).await,
            }
        }
        Err(error) if error.is_parse() => {
            let refusal = ProxyError::http(doubt.open().unwrap_or(ErrorKind::BadRequest), error);
            tracing::debug!(%peer, error = %refusal, "request refused");
            lane.counters.error(refusal.kind);
            if doubt.open().is_some() {
                doubt.settle();
                Box::pin(refuse(driver.connection.into_parts().io.into_inner(), &refusal, &lane)).await;
            }
        }
        ended => {
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "connection ended");
            }
            if driver.owes {
                let mut io = driver.connection.into_parts().io.into_inner();
                Box::pin(rest::end(&mut io)).await;
            }
        }
    }
    None
}

/// Says in our words what hyper refused.
async fn refuse<S: Transport>(mut io: Metered<S, ClientSide>, refusal: &ProxyError, lane: &Lane) {
    io.unsay();
    let (status, answer) = refusal.last_words();
    lane.counters.request_began(lane.clock.millis());
    lane.counters.request_ended(status.as_u16(), Duration::ZERO, From::Other);
    let said = async {
        io.write_all(answer.as_bytes()).await?;
        io.shutdown().await
    };
    let _ = tokio::time::timeout(LAST_WORDS, said).await;
}

/// hyper's connection, and an ear for the worker's orders.
struct Driver<S> {
    connection: http1::Connection<TokioIo<Metered<S, ClientSide>>, Stack>,
    state: Rc<ConnectionState>,
    wire: Rc<RefCell<Wire>>,
    finishing: bool,
    doubt: Rc<Doubt>,
    /// The connection is over, and an answer of the app's waits.
    owes: bool,
}

enum Ended {
    ByItself,
    /// It has nothing to do, and the socket may be taken from it.
    Resting,
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
        if polled.is_pending() && self.may_rest() {
            return self.rest(cx);
        }
        polled
    }

    fn may_rest(&self) -> bool {
        self.state.may_rest()
            && !self.finishing
            && self.doubt.open().is_none()
            && self.wire.borrow().is_at_rest()
    }

    /// hyper does not say whether it is at rest, too. Asked to close, it is done at once if so. Otherwise nothing is
    /// lost: an answer of the app's came before all of a body did, and after such a one hyper closes anyway.
    fn rest(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<Ended>> {
        self.finishing = true;
        Pin::new(&mut self.connection).graceful_shutdown();
        match self.connection.poll_without_shutdown(cx) {
            Poll::Ready(ended) => Poll::Ready(ended.map(|()| Ended::Resting)),
            Poll::Pending => self.advance(cx),
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<Ended>> {
        let polled = self.step(cx);
        let refused = matches!(&polled, Poll::Ready(Err(error)) if error.is_parse());
        if self.doubt.open().is_none() || refused {
            return polled;
        }
        self.doubt.settle();
        match polled {
            // hyper flushes once more.
            Poll::Pending => self.step(cx),
            Poll::Ready(ended) => {
                self.owes = true;
                Poll::Ready(ended)
            }
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<Ended>> {
        let polled = match self.state.handover.is_noted() {
            true => self.connection.poll_without_shutdown(cx),
            false => Pin::new(&mut self.connection).poll(cx),
        };
        polled.map_ok(|()| Ended::ByItself)
    }
}

/// How many header fields hyper takes if it is not told. Told, it fills its room for them anew with each request.
const MAX_HEADERS: usize = 100;

/// Counts bytes, notes when a request's head begins, and has all of them read a second time.
struct ClientSide {
    state: Rc<ConnectionState>,
    lane: Rc<Lane>,
    wire: Rc<RefCell<Wire>>,
    doubt: Rc<Doubt>,
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

    fn doubts(&self, bytes: &[u8]) -> bool {
        self.doubt.has(bytes)
    }

    fn is_settled(&self) -> bool {
        self.doubt.open().is_none()
    }

    fn sent(&self, bytes: usize) {
        self.lane.counters.sent(bytes as u64);
        self.state.took(bytes, &self.lane.clock);
        // Idle, too: the end of an answer goes out to a slow reader, and that is no idle connection.
        if matches!(self.state.stage(), Stage::Idle | Stage::Tunnel) {
            self.state.touch(&self.lane.clock);
        }
    }
}
