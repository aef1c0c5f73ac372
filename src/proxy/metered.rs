//! A socket that tells how many bytes passed through it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Who is told.
pub trait Tally {
    /// That many bytes came; never 0.
    fn received(&self, bytes: usize);

    /// That many bytes went out.
    fn sent(&self, bytes: usize);
}

pin_project! {
    /// The socket.
    #[derive(Debug)]
    pub struct Metered<T> {
        #[pin]
        stream: TcpStream,
        tally: T,
    }
}

impl<T: Tally> Metered<T> {
    pub fn new(stream: TcpStream, tally: T) -> Self {
        Self { stream, tally }
    }
}

impl<T: Tally> AsyncRead for Metered<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        let polled = this.stream.poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            this.tally.received(read);
        }
        polled
    }
}

impl<T: Tally> AsyncWrite for Metered<T> {
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

fn told(polled: Poll<io::Result<usize>>, tally: &impl Tally) -> Poll<io::Result<usize>> {
    if let Poll::Ready(Ok(bytes)) = polled {
        tally.sent(bytes);
    }
    polled
}
