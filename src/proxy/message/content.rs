//! The body of a message on its way in: read when it is asked for, in pieces of what came.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::AsyncRead;

use super::super::fault::Fault;
use super::super::scratch;
use super::chunked::Chunked;

/// What was read of a connection and not handed on, and what of it is a body's.
#[derive(Debug, Default)]
pub struct Content {
    /// Read, and not handed on.
    pub rest: Bytes,
    framing: Framing,
}

/// What is to come of a body (RFC 9112, 6).
#[derive(Debug)]
pub enum Framing {
    Length(u64),
    Chunked(Chunked),
    UntilEnd,
}

/// Why there is no more of it.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the connection was closed")]
    End,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Framing {
    /// No body.
    pub const NONE: Self = Self::Length(0);
}

impl Default for Framing {
    fn default() -> Self {
        Self::NONE
    }
}

impl Content {
    /// `rest` was read already.
    pub fn new(rest: Bytes) -> Self {
        Self { rest, ..Self::default() }
    }

    /// A body begins where `rest` does.
    pub fn begin(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// The next piece of the body, of at most so many bytes if it must be read.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        mut stream: Pin<&mut impl AsyncRead>,
        most: usize,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            match self.decode() {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Some(Err(Broken::Fault(fault)))),
            }
            if self.is_over() {
                return Poll::Ready(None);
            }
            match ready!(self.poll_read(cx, stream.as_mut(), most)) {
                Ok(()) => {}
                Err(Broken::End) if matches!(self.framing, Framing::UntilEnd) => self.framing = Framing::NONE,
                Err(broken) => return Poll::Ready(Some(Err(broken))),
            }
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: Pin<&mut impl AsyncRead>,
        most: usize,
    ) -> Poll<Result<(), Broken>> {
        self.rest = ready!(scratch::take(stream, cx, most))?;
        Poll::Ready(if self.rest.is_empty() { Err(Broken::End) } else { Ok(()) })
    }

    fn decode(&mut self) -> Result<Option<Frame<Bytes>>, Fault> {
        if self.rest.is_empty() && !matches!(self.framing, Framing::Chunked(_)) {
            return Ok(None);
        }
        Ok(match &mut self.framing {
            Framing::Length(0) => None,
            Framing::Length(left) => {
                let here = usize::try_from(*left).map_or(self.rest.len(), |left| left.min(self.rest.len()));
                *left -= here as u64;
                Some(Frame::data(self.rest.split_to(here)))
            }
            Framing::Chunked(chunked) => chunked.decode(&mut self.rest)?,
            Framing::UntilEnd => Some(Frame::data(std::mem::take(&mut self.rest))),
        })
    }

    /// Whether all of the body was handed on.
    pub fn is_over(&self) -> bool {
        match &self.framing {
            Framing::Length(left) => *left == 0,
            Framing::Chunked(chunked) => chunked.is_over(),
            Framing::UntilEnd => false,
        }
    }

    pub fn size_hint(&self) -> SizeHint {
        match &self.framing {
            Framing::Length(left) => SizeHint::with_exact(*left),
            Framing::Chunked(_) | Framing::UntilEnd => SizeHint::default(),
        }
    }
}
