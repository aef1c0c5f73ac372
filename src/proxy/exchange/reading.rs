//! An answer on its way from the app: its head, then its body as the client takes it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};
use tokio_util::io::poll_read_buf;

use super::super::dial::Stream;
use super::super::fault::Fault;
use super::super::scratch;
use super::chunked::Chunked;
use super::reply::{self, Reply};

/// What is known of the answer under way.
#[derive(Debug)]
pub struct Reading {
    /// The request's method was HEAD.
    to_head: bool,
    /// Any byte came.
    begun: bool,
    /// A head of which more must come.
    partial: Vec<u8>,
    /// The app sent `100 Continue`.
    continued: bool,
    /// Read, and not handed on.
    rest: Bytes,
    body: Body,
    /// The app takes another request afterwards.
    goes_on: bool,
    /// For large pieces: one after the other in the same memory.
    large: BytesMut,
}

/// What is to come of a body.
#[derive(Debug)]
pub enum Body {
    Length(u64),
    Chunked(Chunked),
    UntilEnd,
}

/// Why there is no more of an answer.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the app closed the connection")]
    End,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("no head of an answer: {0}")]
    Head(httparse::Error),
    #[error("the head of the answer is longer than {} KiB", LONGEST_HEAD >> 10)]
    LongHead,
    #[error(transparent)]
    Fault(Fault),
    #[error("the client's body broke off")]
    GivenUp,
}

impl Broken {
    /// Whether what came is no HTTP.
    pub fn is_protocol(&self) -> bool {
        matches!(self, Self::Head(_) | Self::LongHead | Self::Fault(_))
    }

    /// Whether the connection ended, and nothing says why.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::End)
    }
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            to_head: false,
            begun: false,
            partial: Vec::new(),
            continued: false,
            rest: Bytes::new(),
            body: Body::Length(0),
            goes_on: false,
            large: BytesMut::new(),
        }
    }
}

impl Reading {
    /// A request is sent.
    pub fn begin(&mut self, to_head: bool) {
        self.to_head = to_head;
        self.begun = false;
        self.continued = false;
        self.goes_on = false;
    }

    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// The head of the answer.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<Result<Response<()>, Broken>> {
        loop {
            let head = ready!(read(cx, stream, scratch::SIZE, |bytes| {
                self.begun = true;
                if self.partial.is_empty() {
                    // Most heads come whole: no byte of them is kept.
                    return self.heads(bytes);
                }
                let mut partial = std::mem::take(&mut self.partial);
                partial.extend_from_slice(bytes);
                self.heads(&partial)
            }))?;
            if let Some(response) = head? {
                return Poll::Ready(Ok(response));
            }
        }
    }

    /// Reads heads to that of the answer, if it is among these bytes, and keeps what is left.
    fn heads(&mut self, mut bytes: &[u8]) -> Result<Option<Response<()>>, Broken> {
        while !bytes.is_empty() {
            let Some(Reply { response, length, body, goes_on }) = reply::parse(bytes, self.to_head)? else {
                if bytes.len() > LONGEST_HEAD {
                    return Err(Broken::LongHead);
                }
                self.partial = bytes.to_vec();
                return Ok(None);
            };
            bytes = &bytes[length..];
            let status = response.status();
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                self.continued |= status == StatusCode::CONTINUE;
                continue;
            }
            self.rest = Bytes::copy_from_slice(bytes);
            self.body = body;
            self.goes_on = goes_on;
            return Ok(Some(response));
        }
        Ok(None)
    }

    /// Whether the app asked for the request's body since this was last asked.
    pub fn take_continued(&mut self) -> bool {
        std::mem::take(&mut self.continued)
    }

    /// The next piece of the body, of at most so many bytes if it must be read.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        most: usize,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            match self.decode() {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Some(Err(Broken::Fault(fault)))),
            }
            if self.is_end() {
                return Poll::Ready(None);
            }
            match ready!(self.poll_read(cx, stream, most)) {
                Ok(()) => {}
                Err(Broken::End) if matches!(self.body, Body::UntilEnd) => self.body = Body::Length(0),
                Err(broken) => return Poll::Ready(Some(Err(broken))),
            }
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        most: usize,
    ) -> Poll<Result<(), Broken>> {
        if most <= scratch::SIZE {
            self.rest = ready!(read(cx, stream, most, Bytes::copy_from_slice))?;
            return Poll::Ready(Ok(()));
        }
        let room = match self.body {
            // One more, so that the socket is seen to be empty afterwards.
            Body::Length(left) => usize::try_from(left).map_or(most, |left| most.min(left.saturating_add(1))),
            Body::Chunked(_) | Body::UntilEnd => most,
        };
        self.large.reserve(room);
        let read = ready!(poll_read_buf(Pin::new(stream), cx, &mut self.large))?;
        self.rest = self.large.split().freeze();
        Poll::Ready(if read == 0 { Err(Broken::End) } else { Ok(()) })
    }

    fn decode(&mut self) -> Result<Option<Frame<Bytes>>, Fault> {
        if self.rest.is_empty() && !matches!(self.body, Body::Chunked(_)) {
            return Ok(None);
        }
        Ok(match &mut self.body {
            Body::Length(0) => None,
            Body::Length(left) => {
                let here = usize::try_from(*left).map_or(self.rest.len(), |left| left.min(self.rest.len()));
                *left -= here as u64;
                Some(Frame::data(self.rest.split_to(here)))
            }
            Body::Chunked(chunked) => chunked.decode(&mut self.rest)?,
            Body::UntilEnd => Some(Frame::data(std::mem::take(&mut self.rest))),
        })
    }

    /// Whether all of the body was handed on.
    pub fn is_end(&self) -> bool {
        match &self.body {
            Body::Length(left) => *left == 0,
            Body::Chunked(chunked) => chunked.is_over(),
            Body::UntilEnd => false,
        }
    }

    pub fn size_hint(&self) -> SizeHint {
        match &self.body {
            Body::Length(left) => SizeHint::with_exact(*left),
            Body::Chunked(_) | Body::UntilEnd => SizeHint::default(),
        }
    }

    /// Whether the answer ended so that another may follow.
    pub fn may_go_on(&self) -> bool {
        // What came beyond it is the answer to nothing.
        self.goes_on && self.is_end() && self.rest.is_empty()
    }

    /// Lets go of what a connection at rest has no use for.
    pub fn rest(&mut self) {
        self.large = BytesMut::new();
    }

    pub fn into_rest(self) -> Bytes {
        self.rest
    }
}

/// Has what comes looked at; its end is an error.
fn read<T>(
    cx: &mut Context<'_>,
    stream: &mut Stream,
    most: usize,
    look: impl FnOnce(&[u8]) -> T,
) -> Poll<Result<T, Broken>> {
    let read = scratch::read(Pin::new(stream), cx, most, |bytes| (!bytes.is_empty()).then(|| look(bytes)));
    Poll::Ready(ready!(read)?.ok_or(Broken::End))
}

const LONGEST_HEAD: usize = 32 << 10;
