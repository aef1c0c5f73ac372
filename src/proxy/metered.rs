//! A socket that tells what came and how many bytes went.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tunnel::Transport;

/// Who is told.
pub trait Tally {
    /// How many of these bytes, which came in, may be read. If not all, reading fails after them.
    fn sound(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }

    /// These bytes came, at least one.
    fn received(&self, bytes: &[u8]);

    /// That many bytes went out.
    fn sent(&self, bytes: usize);

    /// There are bytes to go out, and the other side takes none.
    fn blocked(&self) {}

    /// Whether these bytes, which are to go out, must wait.
    fn doubts(&self, _: &[u8]) -> bool {
        false
    }

    /// Whether bytes that waited may go.
    fn is_settled(&self) -> bool {
        true
    }
}

pin_project! {
    /// The socket.
    #[derive(Debug)]
    pub struct Metered<S, T> {
        #[pin]
        stream: S,
        // Read from the socket before this was made.
        early: Option<Bytes>,
        // What came is not to be read further.
        broken: bool,
        // Written from here, and not yet to the socket.
        waiting: Bytes,
        tally: T,
    }
}

impl<S, T: Tally> Metered<S, T> {
    /// `early` was read from the socket already.
    pub fn new(stream: S, early: Bytes, tally: T) -> Self {
        Self {
            stream,
            early: (!early.is_empty()).then_some(early),
            broken: false,
            waiting: Bytes::new(),
            tally,
        }
    }

    /// Forgets the bytes that wait.
    pub fn unsay(&mut self) {
        self.waiting.clear();
    }

    /// The socket, and what was read from it but not from here.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.early.unwrap_or_default())
    }
}

impl<S: AsyncRead, T: Tally> AsyncRead for Metered<S, T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        if *this.broken {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
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
        if read.is_empty() {
            return polled;
        }
        this.tally.received(read);
        let (came, sound) = (read.len(), this.tally.sound(read));
        if sound < came {
            *this.broken = true;
            if sound == 0 {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            buf.set_filled(before + sound);
        }
        polled
    }
}

impl<S: AsyncWrite, T: Tally> AsyncWrite for Metered<S, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.as_mut().poll_waiting(cx))?;
        let this = self.project();
        if this.tally.doubts(buf) {
            *this.waiting = Bytes::copy_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        told(this.stream.poll_write(cx, buf), this.tally)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = bufs {
            return self.poll_write(cx, only);
        }
        ready!(self.as_mut().poll_waiting(cx))?;
        let this = self.project();
        told(this.stream.poll_write_vectored(cx, bufs), this.tally)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.tally.is_settled() {
            ready!(self.as_mut().poll_waiting(cx))?;
        }
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.tally.is_settled() {
            // Not before those bytes.
            return Poll::Ready(Ok(()));
        }
        ready!(self.as_mut().poll_waiting(cx))?;
        self.project().stream.poll_shutdown(cx)
    }
}

impl<S: AsyncWrite, T: Tally> Metered<S, T> {
    /// Sends what waits.
    fn poll_waiting(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut this = self.project();
        while !this.waiting.is_empty() {
            let sent = ready!(told(this.stream.as_mut().poll_write(cx, this.waiting), this.tally))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.waiting.advance(sent);
        }
        Poll::Ready(Ok(()))
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
