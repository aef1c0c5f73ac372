//! One way of a tunnel.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;

use super::super::websocket::{Frames, going_away};
use super::Transport;

/// One way: from an end that is read to an end that is written.
#[derive(Debug)]
pub(super) struct Way {
    /// Read, but not yet taken by the other end.
    pub(super) rest: Bytes,
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

/// Which end broke.
#[derive(Debug)]
pub(super) enum Failure {
    Read(io::Error),
    Write(io::Error),
}

impl Way {
    pub(super) fn new(early: Bytes, mut frames: Option<Frames>) -> Self {
        if let Some(frames) = &mut frames {
            frames.pass(&early);
        }
        Self { rest: early, stage: Stage::Open, is_dirty: false, frames, leaves: false }
    }

    /// Makes the end of the frame under way the last byte to pass; says whether it can be found.
    pub(super) fn leave(&mut self) -> bool {
        self.leaves = self.frames.as_ref().is_some_and(|frames| frames.is_followed() || frames.is_closed());
        self.leaves
    }

    /// Whether the other end knows that no more comes.
    pub(super) fn is_told(&self) -> bool {
        matches!(self.stage, Stage::Discarding | Stage::Done)
    }

    /// Ready when this way ended, and the end was passed on, unless the tunnel `is_broken`. Ready with each
    /// further poll.
    pub(super) fn poll(
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

/// Lends the buffer that the tunnels of this thread share.
fn with_buffer<T>(read: impl FnOnce(&mut ReadBuf<'_>) -> T) -> T {
    thread_local! {
        static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
    }
    SHARED.with_borrow_mut(|shared| read(&mut ReadBuf::new(shared)))
}

/// Bytes read at once, and so the most that one way can owe: large enough that copying costs little beside the
/// two system calls, small enough for thousands of readers that are slow.
pub(super) const BUFFER: usize = 16 << 10;
