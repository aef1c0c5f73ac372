//! A request on its way to the app: its head, then its body as it comes.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;
use tokio::time::Sleep;

use super::super::body::RequestBody;
use super::super::dial::Stream;

/// What is not written yet. One for all requests of a connection: what it has room for it keeps.
#[derive(Debug, Default)]
pub struct Sending {
    /// The head, or what frames a piece of the body: written before `data`.
    before: Vec<u8>,
    /// Bytes of `before` that were written.
    at: usize,
    data: Bytes,
    after: &'static [u8],
    body: RequestBody,
    length: Length,
    /// What the client announced (RFC 9110, 6.6.2).
    trailer: Option<HeaderValue>,
    /// Nothing follows.
    ended: bool,
    /// Any byte was written, or a piece taken from the body, which is not whole then.
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
    /// The app takes nothing, and has taken nothing.
    Unwritten(io::Error),
    /// It takes no more.
    Broken(io::Error),
}

impl Sending {
    /// Takes the body, and a copy of the head. `expects`: the body waits for the app's word.
    pub fn begin(&mut self, request: &mut Request<RequestBody>, expects: bool) {
        self.before.clear();
        self.at = 0;
        write_head(request, &mut self.before);
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
            let is_filled = !self.data.is_empty() || !self.after.is_empty();
            // Before the head is written, so that the first piece goes out with it.
            let more = if self.ended || is_filled { Poll::Ready(Ok(())) } else { self.poll_more(cx) };
            if let Poll::Ready(Err(stop)) = more {
                self.stuck = true;
                return Poll::Ready(Err(stop));
            }
            if self.is_written() {
                ready!(more)?;
                if self.ended && self.is_written() {
                    let flushed = ready!(Pin::new(&mut *stream).poll_flush(cx));
                    return Poll::Ready(flushed.map_err(|error| self.failed(error)));
                }
                continue;
            }
            match ready!(self.poll_write(cx, stream)) {
                Ok(0) => return Poll::Ready(Err(self.failed(io::ErrorKind::WriteZero.into()))),
                Ok(bytes) => self.wrote(bytes),
                Err(error) => return Poll::Ready(Err(self.failed(error))),
            }
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<usize>> {
        let before = &self.before[self.at..];
        let stream = Pin::new(stream);
        if self.data.is_empty() && self.after.is_empty() {
            return stream.poll_write(cx, before);
        }
        let parts = [IoSlice::new(before), IoSlice::new(&self.data), IoSlice::new(self.after)];
        stream.poll_write_vectored(cx, &parts)
    }

    fn wrote(&mut self, mut bytes: usize) {
        self.begun = true;
        let of_before = bytes.min(self.before.len() - self.at);
        self.at += of_before;
        bytes -= of_before;
        let of_data = bytes.min(self.data.len());
        self.data.advance(of_data);
        self.after = &self.after[bytes - of_data..];
        if self.at == self.before.len() {
            self.before.clear();
            self.at = 0;
        }
    }

    fn is_written(&self) -> bool {
        self.before.is_empty() && self.data.is_empty() && self.after.is_empty()
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
        let piece = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.begun = true;
        match piece {
            Some(Ok(frame)) => Poll::Ready(self.frame(frame)),
            Some(Err(_)) => Poll::Ready(Err(Stop::Body)),
            None => Poll::Ready(self.end()),
        }
    }

    fn frame(&mut self, frame: Frame<Bytes>) -> Result<(), Stop> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                return match self.length {
                    Length::Left(_) => self.end(),
                    Length::Chunked => {
                        self.before.extend_from_slice(b"0\r\n");
                        let announced = self.trailer.take();
                        write_fields(&announced_of(&trailers, announced.as_ref()), &mut self.before);
                        self.before.extend_from_slice(b"\r\n");
                        self.over();
                        Ok(())
                    }
                };
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
                if *left == 0 {
                    self.over();
                }
            }
            Length::Chunked => {
                let _ = write!(self.before, "{:x}\r\n", data.len());
                self.after = if is_last { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                if is_last {
                    self.over();
                }
            }
        }
        self.data = data;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stop> {
        match self.length {
            Length::Left(1..) => return Err(Stop::Body),
            Length::Left(0) => {}
            Length::Chunked => self.before.extend_from_slice(b"0\r\n\r\n"),
        }
        self.over();
        Ok(())
    }

    fn over(&mut self) {
        self.ended = true;
        self.body = RequestBody::Empty;
    }

    /// The app wants the body.
    pub fn go_on(&mut self) {
        self.waits = None;
    }

    /// Lets a body go that the app did not ask for: the client is not asked for it either, and the connection, on which
    /// it was announced, has no future.
    pub fn drop_expected(&mut self) -> bool {
        if self.waits.take().is_some() {
            self.over();
            self.stuck = true;
        }
        self.stuck
    }

    pub fn take_body(&mut self) -> RequestBody {
        std::mem::take(&mut self.body)
    }

    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Lets go of what a connection at rest has no use for.
    pub fn rest(&mut self) {
        self.trailer = None;
        if self.before.capacity() > KEPT {
            self.before = Vec::new();
        }
    }
}

/// RFC 9112, 3 and 5.
fn write_head(request: &Request<RequestBody>, head: &mut Vec<u8>) {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    for part in [request.method().as_str(), " ", target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    write_fields(request.headers(), head);
    head.extend_from_slice(b"\r\n");
}

fn write_fields(fields: &HeaderMap, to: &mut Vec<u8>) {
    for (name, value) in fields {
        to.reserve(name.as_str().len() + value.len() + 4);
        to.extend_from_slice(name.as_str().as_bytes());
        to.extend_from_slice(b": ");
        to.extend_from_slice(value.as_bytes());
        to.extend_from_slice(b"\r\n");
    }
}

/// The trailers that the head names, but those that mean something there only (RFC 9110, 6.5.1).
fn announced_of(trailers: &HeaderMap, announced: Option<&HeaderValue>) -> HeaderMap {
    let announced = announced.and_then(|names| names.to_str().ok()).unwrap_or_default();
    let is_announced =
        |name: &HeaderName| announced.split(',').any(|one| one.trim().eq_ignore_ascii_case(name.as_str()));
    let passed = trailers.iter().filter(|(name, _)| is_announced(name) && !OF_HEADS.contains(name));
    passed.map(|(name, value)| (name.clone(), value.clone())).collect()
}

static OF_HEADS: [HeaderName; 12] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::HOST,
    header::MAX_FORWARDS,
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
];

/// An app that knows nothing of `100 Continue` gets the body after this (RFC 9110, 10.1.1, wants no client to
/// wait for ever either; curl waits as long).
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of room for the next head that a connection at rest keeps.
const KEPT: usize = 2 << 10;
