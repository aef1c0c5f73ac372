//! The first bytes that a server sends, kept to say what came instead of HTTP/2.
//!
//! A server's part of HTTP/2 begins with a SETTINGS frame (RFC 9113, section 3.4). Errors of the protocol say nothing
//! of use where a server speaks something else: "frame with invalid size" is HTTP/1.1.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::check::peer::quote;

/// A stream that notes how its peer begins.
#[derive(Debug)]
pub(super) struct Opening<S> {
    stream: S,
    heard: Heard,
    /// Enough has been noted.
    noted: bool,
}

/// What was noted; shared with the stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Mutex<Vec<u8>>>);

impl<S> Opening<S> {
    pub(super) fn new(stream: S) -> (Self, Heard) {
        let heard = Heard::default();
        (Self { stream, heard: heard.clone(), noted: false }, heard)
    }
}

impl Heard {
    /// None if the server speaks HTTP/2; else what it said, in words, or that it said nothing.
    pub(super) fn instead_of_http2(&self) -> Option<Option<String>> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match heard.as_slice() {
            [] => Some(None),
            // Length, type SETTINGS, flags without ACK, stream 0.
            [_, _, _, 4, flags, 0, 0, 0, 0, ..] if flags & 1 == 0 => None,
            bytes => Some(Some(quote(bytes))),
        }
    }

    /// Whether it was enough.
    fn note(&self, bytes: &[u8]) -> bool {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = LONGEST_NOTE - heard.len();
        heard.extend_from_slice(&bytes[..bytes.len().min(left)]);
        heard.len() == LONGEST_NOTE
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if !self.noted {
            self.noted = self.heard.note(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Enough for a status line and its header fields.
const LONGEST_NOTE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn instead(bytes: &[u8]) -> Option<Option<String>> {
        let heard = Heard::default();
        heard.note(bytes);
        heard.instead_of_http2()
    }

    #[test]
    fn http2_begins_with_settings_and_anything_else_is_told() {
        assert_eq!(instead(&[0, 0, 0, 4, 0, 0, 0, 0, 0]), None);
        assert_eq!(instead(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100]), None);
        assert_eq!(instead(b""), Some(None));
        assert_eq!(instead(b"+OK"), Some(Some("\"+OK\"".to_owned())));
        assert_eq!(instead(&[0x15, 3, 3, 0, 2, 2, 10]), Some(Some("in TLS (is tls missing?)".to_owned())));
        // An acknowledgement of ours, and settings of a stream.
        assert_eq!(instead(&[0, 0, 0, 4, 1, 0, 0, 0, 0]), Some(Some("0x000000040100000000".to_owned())));
        assert!(instead(&[0, 0, 0, 4, 0, 0, 0, 0, 1]).is_some());
    }

    #[tokio::test]
    async fn what_is_noted_has_a_bound_and_what_is_read_has_none() {
        use tokio::io::AsyncReadExt as _;
        let (mut stream, heard) = Opening::new(std::io::Cursor::new(vec![b'x'; 10_000]));
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.expect("bytes in memory");
        assert_eq!((read.len(), heard.0.lock().expect("not poisoned").len()), (10_000, LONGEST_NOTE));
    }
}
