//! What of a message is to be written next: in one call, whatever it consists of.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::io::AsyncWrite;

/// Bytes that wait. One for all messages of a connection: what it has room for it keeps.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// A head, or what frames a piece of a body: written before `data`.
    before: Vec<u8>,
    /// Bytes of `before` that were written.
    at: usize,
    data: Bytes,
    after: &'static [u8],
}

impl Outgoing {
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && !self.has_piece()
    }

    /// Whether a piece of a body waits: the next one does not come before it went.
    pub fn has_piece(&self) -> bool {
        !self.data.is_empty() || !self.after.is_empty()
    }

    /// Where to write a head.
    pub fn head(&mut self) -> &mut Vec<u8> {
        &mut self.before
    }

    /// A piece of a body that has a length, or goes on until the connection ends.
    pub fn piece(&mut self, data: Bytes) {
        self.data = data;
    }

    /// One chunk (RFC 9112, 7.1), and the end of the body if it is the last one and has no trailers.
    pub fn chunk(&mut self, data: Bytes, is_last: bool) {
        let _ = write!(self.before, "{:x}\r\n", data.len());
        self.data = data;
        self.after = if is_last { b"\r\n0\r\n\r\n" } else { b"\r\n" };
    }

    /// The end of a body in chunks. Of its trailers those are sent that the head announced.
    pub fn last_chunk(&mut self, trailers: &HeaderMap, announced: Option<&HeaderValue>) {
        self.before.extend_from_slice(b"0\r\n");
        write_fields(announced_of(trailers, announced), &mut self.before);
        self.before.extend_from_slice(b"\r\n");
    }

    /// Writes once. Says how many bytes went.
    ///
    /// # Errors
    ///
    /// The other side takes nothing any more.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: Pin<&mut impl AsyncWrite>,
    ) -> Poll<io::Result<usize>> {
        let before = &self.before[self.at..];
        let written = if self.has_piece() {
            let parts = [IoSlice::new(before), IoSlice::new(&self.data), IoSlice::new(self.after)];
            ready!(stream.poll_write_vectored(cx, &parts))?
        } else {
            ready!(stream.poll_write(cx, before))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn wrote(&mut self, mut bytes: usize) {
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

    /// Forgets all, and gives back the piece that waited.
    pub fn clear(&mut self) -> Bytes {
        self.before.clear();
        self.at = 0;
        self.after = &[];
        std::mem::take(&mut self.data)
    }

    /// Lets go of what a connection at rest has no use for.
    pub fn trim(&mut self) {
        if self.before.capacity() > KEPT {
            self.before = Vec::new();
        }
    }
}

/// Writes fields as they are.
pub fn write_fields<'h>(
    fields: impl IntoIterator<Item = (&'h HeaderName, &'h HeaderValue)>,
    to: &mut Vec<u8>,
) {
    for (name, value) in fields {
        write_field(name.as_str(), value.as_bytes(), to);
    }
}

/// Writes one field.
pub fn write_field(name: &str, value: &[u8], to: &mut Vec<u8>) {
    to.reserve(name.len() + value.len() + 4);
    to.extend_from_slice(name.as_bytes());
    to.extend_from_slice(b": ");
    to.extend_from_slice(value);
    to.extend_from_slice(b"\r\n");
}

/// The trailers that the head names, but those that mean something there only (RFC 9110, 6.5.1).
fn announced_of<'h>(
    trailers: &'h HeaderMap,
    announced: Option<&'h HeaderValue>,
) -> impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)> {
    let announced = announced.and_then(|names| names.to_str().ok()).unwrap_or_default();
    let is_announced =
        |name: &HeaderName| announced.split(',').any(|one| one.trim().eq_ignore_ascii_case(name.as_str()));
    trailers.iter().filter(move |(name, _)| is_announced(name) && !OF_HEADS.contains(name))
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

/// Bytes of room for the next head that a connection at rest keeps.
const KEPT: usize = 2 << 10;
