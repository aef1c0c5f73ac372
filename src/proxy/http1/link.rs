//! A client's socket, and what was read from it and not used: shared by who serves the connection and who reads the
//! body of its request, which may be another task.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::AsyncWrite;

use super::super::lane::Lane;
use super::super::message::content::{self, Content};
use super::super::message::request::{Bounds, Head, Partial, Refusal};
use super::super::message::{Framing, Outgoing};
use super::super::metered::{Metered, Tally};
use super::super::registry::{ConnectionState, Order, Stage};
use super::super::scratch;
use super::super::terminate::Stream;
use super::super::tunnel::Transport as _;

/// The socket, counted.
pub type Io = Metered<Stream, ClientSide>;

/// Both ends of one connection.
pub struct Link {
    state: Rc<ConnectionState>,
    bounds: Bounds,
    inner: RefCell<Inner>,
}

struct Inner {
    io: Io,
    /// Of a head that has not come to its end.
    partial: Partial,
    content: Content,
    /// Somebody reads the body.
    reader: bool,
    /// What asks for the body, or is left of it, goes out before the body is read.
    interim: &'static [u8],
    /// The client sends nothing more.
    ended: bool,
    /// Who serves the connection, while it waits for the reader.
    server: Option<Waker>,
}

/// What the client wants next.
// Handed from one place to the next and kept nowhere: a box would cost more than the room.
#[expect(clippy::large_enum_variant, reason = "nearly all are requests")]
pub enum Asked {
    Request(Head),
    /// Nothing, and has wanted nothing for a while.
    Rest,
    /// Nothing any more, or the worker wants nothing of it.
    End,
    /// What came is no request that is taken.
    Refused(Refusal),
    /// The connection broke.
    Gone(io::Error),
    /// The worker closes it now.
    Cut,
}

impl Link {
    /// `early` was read from the socket already.
    pub fn new(stream: Stream, early: Bytes, state: &Rc<ConnectionState>, lane: &Rc<Lane>) -> Rc<Self> {
        let side = ClientSide { state: Rc::clone(state), lane: Rc::clone(lane) };
        let limits = &lane.settings().listener.limits;
        let bounds = Bounds { bytes: limits.header_bytes, fields: limits.headers };
        lane.counters.received(early.len() as u64);
        let inner = Inner {
            io: Metered::new(stream, Bytes::new(), side),
            partial: Partial::default(),
            content: Content::new(early),
            reader: false,
            interim: &[],
            ended: false,
            server: None,
        };
        Rc::new(Self { state: Rc::clone(state), bounds, inner: RefCell::new(inner) })
    }

    /// Waits for the head of a request.
    pub fn poll_request(&self, cx: &mut Context<'_>) -> Poll<Asked> {
        let order = self.state.order(cx);
        if order == Order::Cut {
            return Poll::Ready(Asked::Cut);
        }
        let inner = &mut *self.inner.borrow_mut();
        loop {
            match inner.partial.next(&mut inner.content.rest, self.bounds) {
                Ok(Some(head)) => return Poll::Ready(Asked::Request(head)),
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Asked::Refused(refusal)),
            }
            if !inner.partial.is_empty() && matches!(self.state.stage(), Stage::Silent | Stage::Idle) {
                self.state.enter(Stage::Head, &inner.io.tally().lane.clock);
            }
            if inner.ended {
                return Poll::Ready(Asked::End);
            }
            match inner.poll_read(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Asked::Gone(error)),
                // Only after a look at what has come: a request that has begun is answered.
                Poll::Pending if order == Order::Finish && self.state.stage() != Stage::Head => {
                    return Poll::Ready(Asked::End);
                }
                Poll::Pending if self.state.may_rest() && inner.partial.is_empty() => {
                    return Poll::Ready(Asked::Rest);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The body of the request whose head came last. `expects`: the client waits until it is asked for it.
    pub fn open(self: &Rc<Self>, framing: Framing, expects: bool) -> Incoming {
        let inner = &mut *self.inner.borrow_mut();
        inner.content.begin(framing);
        inner.reader = true;
        // One that has begun waits for nothing (RFC 9110, 10.1.1).
        inner.interim = if expects && inner.content.rest.is_empty() { CONTINUE } else { &[] };
        Incoming(Rc::clone(self))
    }

    /// Whether the client broke the connection while it is served. What it sends ahead is kept, as far as it comes with
    /// one read.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Option<io::Error> {
        let inner = &mut *self.inner.borrow_mut();
        // Who reads the body hears of it there.
        if !inner.content.is_over() || inner.ended || !inner.content.rest.is_empty() {
            return None;
        }
        // Most answers come sooner than it pays to have a client watched that has asked for nothing else.
        if !inner.io.get_ref().is_watched() && !self.state.takes_long() {
            return None;
        }
        match inner.poll_read(cx) {
            Poll::Ready(Err(error)) => Some(error),
            Poll::Ready(Ok(())) | Poll::Pending => None,
        }
    }

    /// The answer begins: whether the client was never asked for the body that it holds back. What is left of an
    /// interim answer that was begun comes first.
    pub fn answer_begins(&self, out: &mut Outgoing) -> bool {
        let interim = std::mem::take(&mut self.inner.borrow_mut().interim);
        if interim.len() < CONTINUE.len() {
            out.head().extend_from_slice(interim);
            return false;
        }
        true
    }

    /// Writes what waits.
    pub fn poll_write(&self, cx: &mut Context<'_>, out: &mut Outgoing) -> Poll<io::Result<usize>> {
        out.poll_write(cx, Pin::new(&mut self.inner.borrow_mut().io))
    }

    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner.borrow_mut().io).poll_flush(cx)
    }

    /// Waits until nobody reads the body, then says whether another request may follow: if the body came to its end, or
    /// what is left of it is here.
    pub fn poll_through(&self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.state.order(cx) == Order::Cut {
            return Poll::Ready(false);
        }
        let inner = &mut *self.inner.borrow_mut();
        if inner.content.is_over() {
            return Poll::Ready(true);
        }
        if inner.reader {
            inner.server = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut passed = 0;
        while passed < MOST_PASSED {
            match inner.content.poll_frame(cx, Pin::new(&mut inner.io), scratch::SIZE) {
                Poll::Ready(None) => return Poll::Ready(true),
                Poll::Ready(Some(Ok(frame))) => passed += frame.data_ref().map_or(0, Bytes::len),
                Poll::Ready(Some(Err(_))) | Poll::Pending => break,
            }
        }
        Poll::Ready(inner.content.is_over())
    }

    fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, content::Broken>>> {
        let inner = &mut *self.inner.borrow_mut();
        while !inner.interim.is_empty() {
            match ready!(Pin::new(&mut inner.io).poll_write(cx, inner.interim)) {
                Ok(written @ 1..) => inner.interim = &inner.interim[written..],
                Ok(0) => return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::WriteZero).into()))),
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            // It goes on with the next read where it cannot be done now.
            if let Poll::Ready(Err(error)) = Pin::new(&mut inner.io).poll_flush(cx) {
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        let polled = inner.content.poll_frame(cx, Pin::new(&mut inner.io), scratch::SIZE);
        // Of a request whose answer is over.
        if polled.is_ready() && self.state.stage() == Stage::Idle {
            self.state.touch(&inner.io.tally().lane.clock);
        }
        polled
    }

    /// Makes the close to come a reset.
    pub fn reset_on_close(&self) {
        self.inner.borrow().io.reset_on_close();
    }

    /// The socket, and what came after the last request. None while somebody reads a body.
    pub fn into_parts(self: Rc<Self>) -> Option<(Io, Bytes)> {
        let inner = Rc::into_inner(self)?.inner.into_inner();
        Some((inner.io, inner.content.rest))
    }
}

impl Inner {
    /// Reads once; the end of what the client sends is noted.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = Pin::new(&mut self.io);
        self.content.rest = ready!(scratch::take(stream, cx, scratch::SIZE))?;
        self.ended = self.content.rest.is_empty();
        Poll::Ready(Ok(()))
    }
}

/// The body of a request, as it comes.
pub struct Incoming(Rc<Link>);

impl Incoming {
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, content::Broken>>> {
        self.0.poll_body(cx)
    }

    pub fn is_end_stream(&self) -> bool {
        self.0.inner.borrow().content.is_over()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.0.inner.borrow().content.size_hint()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let inner = &mut *self.0.inner.borrow_mut();
        inner.reader = false;
        if let Some(server) = inner.server.take() {
            server.wake();
        }
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}

/// Counts bytes, and notes when the client takes none.
#[derive(Debug)]
pub struct ClientSide {
    state: Rc<ConnectionState>,
    lane: Rc<Lane>,
}

impl Tally for ClientSide {
    fn received(&self, bytes: &[u8]) {
        self.lane.counters.received(bytes.len() as u64);
        if self.state.stage() == Stage::Tunnel {
            self.state.touch(&self.lane.clock);
        }
    }

    fn blocked(&self) {
        self.state.blocked(&self.lane.clock);
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

/// RFC 9110, 15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Bytes of a body that nobody wants which are read so that the connection can go on.
const MOST_PASSED: usize = 64 << 10;
