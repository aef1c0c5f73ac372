//! A socket that tells what came and how many bytes went.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tunnel::Transport;

/// Who is told.
pub trait Tally {
    /// These bytes came, at least one.
    fn received(&self, bytes: &[u8]);

    /// That many bytes went out.
    fn sent(&self, bytes: usize);

    /// There are bytes to go out, and the other side takes none.
    fn blocked(&self) {}
}

pin_project! {
    /// The socket.
    #[derive(Debug)]
    pub struct Metered<S, T> {
        #[pin]
        stream: S,
        // Read from the socket before this was made.
        early: Option<Bytes>,
        tally: T,
    }
}

impl<S, T: Tally> Metered<S, T> {
    /// `early` was read from the socket already.
    pub fn new(stream: S, early: Bytes, tally: T) -> Self {
        Self { stream, early: (!early.is_empty()).then_some(early), tally }
    }

    pub fn tally(&self) -> &T {
        &self.tally
    }

    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The socket. What was read from it early, and not from here, is lost.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead, T: Tally> AsyncRead for Metered<S, T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        let polled = match this.early {
            Some(early) => {
                let fitting = early.len().min(buf.remaining());
                buf.put_slice(&early.split_to(fitting));
                if early.is_empty() {
                    *this.early = None;
                }
                Poll::Ready(Ok(()))
            }
            None => this.stream.poll_read(cx, buf),
        };
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            this.tally.received(read);
        }
        polled
    }
}

impl<S: AsyncWrite, T: Tally> AsyncWrite for Metered<S, T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        told(this.stream.poll_write(cx, buf), this.tally)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        told(this.stream.poll_write_vectored(cx, bufs), this.tally)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }
}

impl<S: Transport, T: Tally> Transport for Metered<S, T>
where
    Self: Unpin,
{
    fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }
}

fn told(polled: Poll<io::Result<usize>>, tally: &impl Tally) -> Poll<io::Result<usize>> {
    match &polled {
        Poll::Ready(Ok(bytes)) => tally.sent(*bytes),
        Poll::Ready(Err(_)) => {}
        Poll::Pending => tally.blocked(),
    }
    polled
}
