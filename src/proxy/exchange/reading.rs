//! An answer on its way from the app: its head, then its body as the client takes it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};

use super::super::dial::Stream;
use super::super::fault::Fault;
use super::super::message::Lines;
use super::super::message::content::{self, Content};
use super::super::scratch;
use super::reply::{self, Reply};

/// What is known of the answer under way.
#[derive(Debug, Default)]
pub struct Reading {
    /// The request's method was HEAD.
    to_head: bool,
    /// Any byte came.
    begun: bool,
    /// A head of which more must come.
    partial: Vec<u8>,
    /// Of the last head: fields that pass through.
    lines: Lines,
    /// The app sent `100 Continue`.
    continued: bool,
    content: Content,
    /// The app takes another request afterwards.
    goes_on: bool,
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

impl From<content::Broken> for Broken {
    fn from(broken: content::Broken) -> Self {
        match broken {
            content::Broken::End => Self::End,
            content::Broken::Io(error) => Self::Io(error),
            content::Broken::Fault(fault) => Self::Fault(fault),
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
            let head = ready!(read(cx, stream, FIRST_READ, |bytes| {
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
            let Some(Reply { response, lines, length, body, goes_on }) = reply::parse(bytes, self.to_head)?
            else {
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
            self.content.rest = Bytes::copy_from_slice(bytes);
            self.content.begin(body);
            self.lines = lines;
            self.goes_on = goes_on;
            return Ok(Some(response));
        }
        Ok(None)
    }

    /// The fields of its head that pass through.
    pub fn take_lines(&mut self) -> Lines {
        std::mem::take(&mut self.lines)
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
        self.content.poll_frame(cx, Pin::new(stream), most).map_err(Broken::from)
    }

    /// Whether all of the body was handed on.
    pub fn is_end(&self) -> bool {
        self.content.is_over()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }

    /// Whether the answer ended so that another may follow.
    pub fn may_go_on(&self) -> bool {
        // What came beyond it is the answer to nothing.
        self.goes_on && self.is_end() && self.content.rest.is_empty()
    }

    pub fn into_rest(self) -> Bytes {
        self.content.rest
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

/// Room for a head, and for all of most answers.
const FIRST_READ: usize = 16 << 10;

const LONGEST_HEAD: usize = 32 << 10;
