//! An answer on its way to the client: its head, then its body as the client takes it. Nothing is read of the app that
//! has nowhere to go.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame};

use super::super::body::{Body, BrokenOff};
use super::super::message::outgoing::{write_field, write_fields};
use super::super::message::{Outgoing, names};
use super::super::notable::Notable;
use super::link::Link;

/// What a request says of how it is to be answered.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    to_head: bool,
    /// HTTP/1.0.
    old: bool,
    /// The client takes trailers (RFC 9110, 10.1.4).
    trailers: bool,
    /// It may send another request (RFC 9112, 9.3).
    pub goes_on: bool,
}

impl Terms {
    pub fn of(request: &Request<()>, notable: Notable) -> Self {
        let (old, headers) = (request.version() == Version::HTTP_10, request.headers());
        let says = |option| notable.has(Notable::CONNECTION) && names(headers, &header::CONNECTION, option);
        Self {
            to_head: request.method() == Method::HEAD,
            old,
            trailers: notable.has(Notable::TE) && names(headers, &header::TE, "trailers"),
            goes_on: !says("close") && (!old || says("keep-alive")),
        }
    }
}

/// The answer.
#[derive(Debug)]
pub struct Answering {
    body: Body,
    end: End,
    /// The trailers that its head announces, if the client takes any.
    trailer: Option<HeaderValue>,
    /// Nothing follows.
    ended: bool,
}

/// How the client sees the end of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// There is none (RFC 9112, 6.3).
    None,
    /// Bytes that are to come.
    Left(u64),
    Chunked,
    /// The connection ends with it.
    Close,
}

/// Why an answer did not go out whole.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the client takes no more: {0}")]
    Client(io::Error),
    #[error("the app's answer broke off: {0}")]
    App(BrokenOff),
    #[error("the app's answer is not as long as it says")]
    Length,
}

impl Answering {
    /// Writes the head; says whether another request may follow. `last`: none may.
    pub fn begin(response: Response<Body>, terms: Terms, last: bool, out: &mut Outgoing) -> (Self, bool) {
        let (parts, mut body) = response.into_parts();
        let (status, headers) = (parts.status, &parts.headers);
        let switches = status == StatusCode::SWITCHING_PROTOCOLS;
        let (said, known) = (headers.get(header::CONTENT_LENGTH), body.size_hint().exact());
        let end = match (said, known) {
            _ if terms.to_head || has_no_body(status) => End::None,
            // Plain digits, see `answer`.
            (Some(length), _) => {
                length.to_str().ok().and_then(|length| length.parse().ok()).map_or(End::Close, End::Left)
            }
            (None, Some(length)) => End::Left(length),
            (None, None) if terms.old => End::Close,
            (None, None) => End::Chunked,
        };
        let connection = headers.get(header::CONNECTION);
        let closes = connection.is_some() && names(headers, &header::CONNECTION, "close");
        let goes_on = terms.goes_on && !last && !closes && !switches && end != End::Close;
        let head = out.head();
        head.reserve(ROOM);
        write_status(status, terms.old, head);
        write_fields(headers, head);
        head.extend_from_slice(body.take_lines().as_bytes());
        match (end, known) {
            (End::Left(length), _) if said.is_none() => write_length(length, head),
            // What GET would get, if that is known.
            (End::None, Some(length @ 1..)) if terms.to_head && said.is_none() => write_length(length, head),
            (End::Chunked, _) => write_field("transfer-encoding", b"chunked", head),
            _ => {}
        }
        match connection {
            None if !goes_on => write_field("connection", b"close", head),
            None if terms.old => write_field("connection", b"keep-alive", head),
            // It says so itself, or what it switches to.
            _ => {}
        }
        head.extend_from_slice(b"\r\n");
        let trailer = if terms.trailers { headers.get(header::TRAILER).cloned() } else { None };
        let ended = matches!(end, End::None | End::Left(0));
        (Self { body, end, trailer, ended }, goes_on)
    }

    /// Writes as much as the client takes, until all of it went.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outgoing,
        link: &Link,
    ) -> Poll<Result<(), Broken>> {
        loop {
            // Before the head is written, so that the first piece goes out with it.
            if !self.ended && !out.has_piece() {
                match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => self.frame(frame, out)?,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Broken::App(error))),
                    Poll::Ready(None) => self.end(out)?,
                    Poll::Pending => {
                        // All of it went, whatever else the app has to say.
                        self.ended = self.end == End::Left(0);
                    }
                }
            }
            if !out.is_empty() {
                ready!(link.poll_write(cx, out)).map_err(Broken::Client)?;
            } else if let Poll::Ready(flushed) = link.poll_flush(cx) {
                flushed.map_err(Broken::Client)?;
                return if self.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
            } else {
                return Poll::Pending;
            }
        }
    }

    fn frame(&mut self, frame: Frame<Bytes>, out: &mut Outgoing) -> Result<(), Broken> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                return self.end_with(&trailers, out);
            }
        };
        if data.is_empty() {
            return Ok(());
        }
        let is_last = self.body.is_end_stream();
        match &mut self.end {
            End::None => {}
            End::Left(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Broken::Length)?;
                self.ended = *left == 0 && is_last;
                out.piece(data);
            }
            End::Chunked => {
                self.ended = is_last;
                out.chunk(data, is_last);
            }
            End::Close => out.piece(data),
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Outgoing) -> Result<(), Broken> {
        self.end_with(&HeaderMap::new(), out)
    }

    fn end_with(&mut self, trailers: &HeaderMap, out: &mut Outgoing) -> Result<(), Broken> {
        match self.end {
            End::Left(1..) => return Err(Broken::Length),
            End::Chunked => out.last_chunk(trailers, self.trailer.as_ref()),
            End::None | End::Left(0) | End::Close => {}
        }
        self.ended = true;
        Ok(())
    }

    /// Whether a client could take what went so far for the whole answer, once the connection ends.
    pub fn seems_whole(&self) -> bool {
        self.end == End::Close
    }
}

fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// RFC 9112, 4.
fn write_status(status: StatusCode, old: bool, head: &mut Vec<u8>) {
    head.extend_from_slice(if old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    head.extend_from_slice(b"\r\n");
}

/// By hand: the standard library's way takes several times as long, and most answers have one.
fn write_length(mut length: u64, head: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (length % 10) as u8;
        length /= 10;
        if length == 0 {
            break;
        }
    }
    write_field("content-length", &digits[at..], head);
}

/// Room for most heads: to grow into it is to copy it.
const ROOM: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_everywhere() {
        for length in [0, 9, 10, 1234, u64::MAX] {
            let mut head = Vec::new();
            write_length(length, &mut head);
            assert_eq!(head, format!("content-length: {length}\r\n").as_bytes());
        }
    }
}
