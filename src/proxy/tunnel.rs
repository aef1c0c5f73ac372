//! Bytes between two ends, both ways, on one task: what a connection becomes after an upgrade, and all that a
//! TCP listener does.
//!
//! Each way lives by itself: the end of what one side sends is passed on as just that, and the other way goes
//! on, for as long as it likes (a `select!` over two copies would end both). Only when a side breaks do both
//! end, and the other side is told by a reset, as it would be without us.
//!
//! A tunnel at rest holds no buffer: bytes are read into one that the thread's tunnels share, and written at
//! once. Only what the other end does not take right away is kept, and nothing is read until it went. Not `splice`:
//! it wants a pipe for each way, which is two descriptors and a page, and sees neither frames nor TLS.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;

use super::lane::Lane;
use super::registry::{ConnectionState, Order, Stage as Phase};
use super::websocket::{Frames, Sender, going_away};

/// What a tunnel runs between.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Makes the close to come a reset, where there is such a thing.
    fn reset_on_close(&self);
}

/// The two ends, and what is under way between them. A future: ready when both ways ended.
#[derive(Debug)]
pub struct Tunnel<C, A> {
    client: C,
    app: A,
    /// From the client to the app.
    up: Way,
    /// From the app to the client.
    down: Way,
    /// One side takes nothing any more; what it sent before is still passed on.
    broken: Option<Broken>,
}

/// How a tunnel ended.
#[derive(Debug)]
pub enum End {
    /// Both sides said all they had to say, or were told to go and went.
    Whole,
    Broken(Broken),
    /// The worker wanted it to end.
    Cut,
}

/// A side that broke.
#[derive(Debug)]
pub struct Broken {
    pub side: Side,
    pub error: io::Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    App,
}

impl<C: Transport, A: Transport> Tunnel<C, A> {
    /// A tunnel between a client and an app, each with the bytes of it that were read already. Of a WebSocket
    /// the frames are followed, so that it can be told to go.
    pub fn new(client: (C, Bytes), app: (A, Bytes), websocket: bool) -> Self {
        Self {
            client: client.0,
            app: app.0,
            up: Way::new(client.1, websocket.then(|| Frames::new(Sender::Client))),
            down: Way::new(app.1, websocket.then(|| Frames::new(Sender::App))),
            broken: None,
        }
    }

    /// Tells both ends of a WebSocket that this connection goes away, each at the next boundary of frames, and
    /// passes nothing on after that. Says whether it could: the caller gives it only so long, and cuts what
    /// cannot be told.
    pub fn leave(&mut self) -> bool {
        let up = self.up.leave();
        self.down.leave() && up
    }

    /// Breaks the tunnel off: where an end was not told, this must not look like the end of what was sent.
    pub fn cut(self) {
        if !self.down.is_told() {
            self.client.reset_on_close();
        }
        if !self.up.is_told() {
            self.app.reset_on_close();
        }
    }
}

impl<C: Transport, A: Transport> Future for Tunnel<C, A> {
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = self.get_mut();
        let is_broken = this.broken.is_some();
        let (client, app) = (Pin::new(&mut this.client), Pin::new(&mut this.app));
        let up = this.up.poll(cx, client, app, is_broken);
        let is_broken = is_broken || matches!(up, Poll::Ready(Err(_)));
        let (client, app) = (Pin::new(&mut this.client), Pin::new(&mut this.app));
        let down = this.down.poll(cx, app, client, is_broken);
        let mut is_over = up.is_ready() && down.is_ready();
        for (polled, from, to) in [(up, Side::Client, Side::App), (down, Side::App, Side::Client)] {
            let Poll::Ready(Err(failure)) = polled else { continue };
            let (side, error) = match failure {
                Failure::Read(error) => {
                    is_over = true;
                    (from, error)
                }
                // What it sent before it closed may wait to be read, and is worth reading: a read says when
                // there is no more.
                Failure::Write(error) => (to, error),
            };
            this.broken.get_or_insert(Broken { side, error });
        }
        if !is_over {
            return Poll::Pending;
        }
        Poll::Ready(match this.broken.take() {
            None => End::Whole,
            Some(broken) => {
                this.client.reset_on_close();
                this.app.reset_on_close();
                End::Broken(broken)
            }
        })
    }
}

/// One way: from an end that is read to an end that is written.
#[derive(Debug)]
struct Way {
    /// Read, but not yet taken by the other end.
    rest: Bytes,
    stage: Stage,
    /// Written since the last flush.
    is_dirty: bool,
    frames: Option<Frames>,
    /// The end of the frame under way is the last to pass.
    leaves: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The last byte for the other end was read: it is told when it has them all.
    Ending {
        whole: bool,
    },
    /// The other end was told; what still comes is read for nothing: a close with bytes unread is a reset, and a
    /// reset may overtake what we sent last.
    Discarding,
    Done,
}

#[derive(Debug)]
enum Failure {
    Read(io::Error),
    Write(io::Error),
}

impl Way {
    fn new(early: Bytes, mut frames: Option<Frames>) -> Self {
        if let Some(frames) = &mut frames {
            frames.pass(&early);
        }
        Self { rest: early, stage: Stage::Open, is_dirty: false, frames, leaves: false }
    }

    fn leave(&mut self) -> bool {
        self.leaves = self.frames.as_ref().is_some_and(|frames| frames.is_followed() || frames.is_closed());
        self.leaves
    }

    /// Whether the other end knows that no more comes.
    fn is_told(&self) -> bool {
        matches!(self.stage, Stage::Discarding | Stage::Done)
    }

    /// Ready when this way ended, and the end was passed on, unless the tunnel `is_broken`. Ready with each
    /// further poll.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: Pin<&mut impl Transport>,
        to: Pin<&mut impl Transport>,
        is_broken: bool,
    ) -> Poll<Result<(), Failure>> {
        let polled = self.advance(cx, from, to, is_broken);
        if let Poll::Ready(Err(_)) = polled {
            self.rest = Bytes::new();
            self.stage = Stage::Done;
        }
        polled
    }

    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Pin<&mut impl Transport>,
        mut to: Pin<&mut impl Transport>,
        is_broken: bool,
    ) -> Poll<Result<(), Failure>> {
        // Ends by the budget that tokio gives each task, if not before: sockets count their operations.
        loop {
            while !self.rest.is_empty() {
                match ready!(to.as_mut().poll_write(cx, &self.rest)).map_err(Failure::Write)? {
                    0 => return Poll::Ready(Err(Failure::Write(io::ErrorKind::WriteZero.into()))),
                    written => self.rest.advance(written),
                }
                self.is_dirty = true;
            }
            self.rest = Bytes::new();
            match self.stage {
                Stage::Open => {
                    if let Some(goodbye) = self.goodbye() {
                        self.rest = goodbye;
                        self.stage = Stage::Ending { whole: false };
                        continue;
                    }
                    match self.copy(cx, from.as_mut(), to.as_mut()) {
                        Poll::Ready(read) => read?,
                        Poll::Pending => {
                            if self.is_dirty {
                                ready!(to.poll_flush(cx)).map_err(Failure::Write)?;
                                self.is_dirty = false;
                            }
                            return Poll::Pending;
                        }
                    }
                }
                // Soon a reset: until then it must not look whole.
                Stage::Ending { .. } if is_broken => self.stage = Stage::Done,
                Stage::Ending { whole } => {
                    match ready!(to.as_mut().poll_shutdown(cx)) {
                        // It broke; reading it will tell.
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                        shut => shut.map_err(Failure::Write)?,
                    }
                    self.stage = if whole { Stage::Done } else { Stage::Discarding };
                }
                Stage::Discarding => {
                    let read = with_buffer(|buffer| {
                        let read = from.as_mut().poll_read(cx, buffer);
                        read.map_ok(|()| buffer.filled().len())
                    });
                    if ready!(read).map_err(Failure::Read)? == 0 {
                        self.stage = Stage::Done;
                    }
                }
                Stage::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads once and writes once; what was not written is kept.
    fn copy(
        &mut self,
        cx: &mut Context<'_>,
        from: Pin<&mut impl Transport>,
        to: Pin<&mut impl Transport>,
    ) -> Poll<Result<(), Failure>> {
        with_buffer(|buffer| {
            match ready!(from.poll_read(cx, buffer)) {
                Ok(()) => {}
                // A TLS peer that closed without saying so: what that means is for the tunnelled protocol to say.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Poll::Ready(Err(Failure::Read(error))),
            }
            let mut bytes = buffer.filled();
            if bytes.is_empty() {
                self.stage = Stage::Ending { whole: true };
                return Poll::Ready(Ok(()));
            }
            match &mut self.frames {
                Some(frames) if self.leaves => bytes = &bytes[..frames.finish(bytes)],
                Some(frames) => frames.pass(bytes),
                None => {}
            }
            let written = match to.poll_write(cx, bytes) {
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Write(error))),
                Poll::Pending => 0,
            };
            self.is_dirty |= written > 0;
            if written < bytes.len() {
                self.rest = Bytes::copy_from_slice(&bytes[written..]);
            }
            Poll::Ready(Ok(()))
        })
    }

    /// The last bytes of this way, if it leaves and may do so here.
    fn goodbye(&self) -> Option<Bytes> {
        let frames = self.frames.as_ref().filter(|_| self.leaves)?;
        if frames.is_between() {
            return Some(going_away(frames.sender()));
        }
        // After a goodbye of its own none of ours may follow.
        (!frames.is_followed()).then(Bytes::new)
    }
}

/// Runs a tunnel for the connection `state` until it ended or the worker cut it: where nothing moved for
/// `timeouts.tunnel_idle`, and at the deadline of the drain.
pub async fn carry<C: Transport, A: Transport>(
    mut tunnel: Tunnel<C, A>,
    state: &ConnectionState,
    lane: &Lane,
) -> End {
    state.enter(Phase::Tunnel, &lane.clock);
    let mut goodbye = None;
    let end = poll_fn(|cx| {
        if state.order(cx) == Order::Cut && goodbye.is_none() {
            if !tunnel.leave() {
                return Poll::Ready(End::Cut);
            }
            goodbye = Some(Box::pin(sleep(GOODBYE)));
        }
        if let Poll::Ready(end) = Pin::new(&mut tunnel).poll(cx) {
            return Poll::Ready(end);
        }
        match &mut goodbye {
            Some(goodbye) => goodbye.as_mut().poll(cx).map(|()| End::Cut),
            None => Poll::Pending,
        }
    })
    .await;
    match &end {
        End::Whole => {}
        End::Broken(Broken { side, error }) => {
            tracing::debug!(listener = %lane.shared.name, peer = %state.peer, ?side, %error, "tunnel broke");
            if *side == Side::App {
                lane.upstream.suspect();
            }
        }
        End::Cut => tunnel.cut(),
    }
    end
}

/// Lends the buffer that the tunnels of this thread share.
fn with_buffer<T>(read: impl FnOnce(&mut ReadBuf<'_>) -> T) -> T {
    thread_local! {
        static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
    }
    SHARED.with_borrow_mut(|shared| read(&mut ReadBuf::new(shared)))
}

/// Bytes read at once, and so the most that one way can owe: large enough that copying costs little beside the
/// two system calls, small enough for thousands of readers that are slow.
const BUFFER: usize = 16 << 10;

/// How long both ends of a WebSocket have to hear that it goes away, and to say so too.
pub const GOODBYE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
