//! A request on its way to the app: its head, then its body as it comes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite as _;
use tokio::time::Sleep;

use super::super::body::RequestBody;
use super::super::dial::Stream;
use super::super::message::outgoing::write_fields;
use super::super::message::{Lines, Outgoing};

/// What is not written yet. One for all requests of a connection.
#[derive(Debug, Default)]
pub struct Sending {
    out: Outgoing,
    body: RequestBody,
    length: Length,
    /// What the client announced (RFC 9110, 6.6.2).
    trailer: Option<HeaderValue>,
    /// Nothing follows.
    ended: bool,
    /// Any byte was written, or something taken from the body that cannot be given back.
    begun: bool,
    /// No more can be written.
    stuck: bool,
    /// Until when the body waits for the app's word.
    waits: Option<Pin<Box<Sleep>>>,
}

/// How the end of the body is told.
#[derive(Clone, Copy, Debug, Default)]
enum Length {
    /// Bytes that are to come.
    Left(u64),
    #[default]
    Chunked,
}

/// Why no more of a request is sent.
#[derive(Debug)]
pub enum Stop {
    /// Its body did not come to its end.
    Body,
    /// The app takes nothing, and has taken nothing: the request is whole.
    Unwritten(io::Error),
    /// It takes no more.
    Broken(io::Error),
}

impl Sending {
    /// Takes the body, and a copy of the head. `expects`: the body waits for the app's word.
    pub fn begin(&mut self, request: &mut Request<RequestBody>, lines: &Lines, expects: bool) {
        self.out.clear();
        write_head(request, lines, self.out.head());
        self.body = std::mem::take(request.body_mut());
        self.ended = self.body.is_end_stream();
        self.begun = false;
        if self.ended {
            return;
        }
        let headers = request.headers();
        let length =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        self.length = length.map_or(Length::Chunked, Length::Left);
        self.trailer = headers.get(header::TRAILER).cloned();
        self.waits = expects.then(|| Box::pin(tokio::time::sleep(PATIENCE)));
    }

    /// Writes as much as can be.
    pub fn poll(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<Result<(), Stop>> {
        loop {
            // Before the head is written, so that the first piece goes out with it.
            let more =
                if self.ended || self.out.has_piece() { Poll::Ready(Ok(())) } else { self.poll_more(cx) };
            if let Poll::Ready(Err(stop)) = more {
                self.stuck = true;
                return Poll::Ready(Err(stop));
            }
            if self.out.is_empty() {
                ready!(more)?;
                if self.ended && self.out.is_empty() {
                    let flushed = ready!(Pin::new(&mut *stream).poll_flush(cx));
                    return Poll::Ready(flushed.map_err(|error| self.failed(error)));
                }
                continue;
            }
            match ready!(self.out.poll_write(cx, Pin::new(&mut *stream))) {
                Ok(_) => {
                    self.begun = true;
                    if self.ended {
                        self.body = RequestBody::Empty;
                    }
                }
                Err(error) => return Poll::Ready(Err(self.failed(error))),
            }
        }
    }

    fn failed(&mut self, error: io::Error) -> Stop {
        self.stuck = true;
        if self.begun { Stop::Broken(error) } else { Stop::Unwritten(error) }
    }

    /// Takes the next piece of the body.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        if let Some(waits) = &mut self.waits {
            ready!(waits.as_mut().poll(cx));
            self.waits = None;
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(self.frame(frame)),
            Some(Err(_)) => Poll::Ready(Err(Stop::Body)),
            None => Poll::Ready(self.end(&HeaderMap::new())),
        }
    }

    fn frame(&mut self, frame: Frame<Bytes>) -> Result<(), Stop> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                self.begun = true;
                return self.end(&frame.into_trailers().unwrap_or_default());
            }
        };
        if data.is_empty() {
            return Ok(());
        }
        let is_last = self.body.is_end_stream();
        match &mut self.length {
            Length::Left(left) => {
                // More than was announced would be the next request.
                *left = left.checked_sub(data.len() as u64).ok_or(Stop::Body)?;
                self.ended = *left == 0;
                self.out.piece(data);
            }
            Length::Chunked => {
                self.ended = is_last;
                self.out.chunk(data, is_last);
            }
        }
        Ok(())
    }

    fn end(&mut self, trailers: &HeaderMap) -> Result<(), Stop> {
        match self.length {
            Length::Left(1..) => return Err(Stop::Body),
            Length::Left(0) => {}
            Length::Chunked => self.out.last_chunk(trailers, self.trailer.as_ref()),
        }
        self.ended = true;
        Ok(())
    }

    /// The app wants the body.
    pub fn go_on(&mut self) {
        self.waits = None;
    }

    /// Lets a body go that the app did not ask for: the client is not asked for it either, and the connection, on which
    /// it was announced, has no future.
    pub fn drop_expected(&mut self) -> bool {
        if self.waits.take().is_some() {
            self.ended = true;
            self.body = RequestBody::Empty;
            self.stuck = true;
        }
        self.stuck
    }

    /// The body as it was before [`Self::begin`], if nothing of the request was written.
    pub fn take_body(&mut self) -> RequestBody {
        let mut body = std::mem::take(&mut self.body);
        body.put_back(self.out.clear());
        body
    }

    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Lets go of what a connection at rest has no use for.
    pub fn rest(&mut self) {
        self.trailer = None;
        self.out.trim();
    }
}

/// RFC 9112, 3 and 5.
fn write_head(request: &Request<RequestBody>, lines: &Lines, head: &mut Vec<u8>) {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    for part in [request.method().as_str(), " ", target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    write_fields(request.headers(), head);
    head.extend_from_slice(lines.as_bytes());
    head.extend_from_slice(b"\r\n");
}

/// An app that knows nothing of `100 Continue` gets the body after this (RFC 9110, 10.1.1, wants no client to
/// wait for ever either; curl waits as long).
const PATIENCE: Duration = Duration::from_secs(1);
