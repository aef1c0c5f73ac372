//! A socket that writes once for many small writes.
//!
//! h2 flushes after each DATA frame, which is one system call an answer. What it writes is held here until whoever
//! drives the connection says that there is nothing more to be done now: with many streams, the frames of all that
//! were ready go out together.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The socket; all copies are one. Who polls what writes to it calls [`Self::poll_out`] after each poll: only that, and
/// the end of the connection, sends everything. A flush does not.
#[derive(Debug)]
pub struct Coalesced<S>(Rc<RefCell<Inner<S>>>);

#[derive(Debug)]
struct Inner<S> {
    io: S,
    /// To be sent; the first bytes have gone already.
    held: Vec<u8>,
    gone: usize,
}

/// Bytes that are held at most. What does not fit goes out with them, as it is: the largest frames that peers are
/// told of are as large, and are not copied.
const MOST: usize = 16 << 10;

impl<S> Coalesced<S> {
    pub fn new(io: S) -> Self {
        Self(Rc::new(RefCell::new(Inner { io, held: Vec::new(), gone: 0 })))
    }
}

impl<S> Clone for Coalesced<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> Coalesced<S> {
    /// Sends all that is held.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub fn poll_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_out(cx)
    }
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.gone < self.held.len() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.held[self.gone..]))?;
            self.sent(written)?;
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Notes what of the held bytes went; they are let go of with the last one, so that a connection at rest has none.
    fn sent(&mut self, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.gone += bytes;
        if self.gone >= self.held.len() {
            (self.held, self.gone) = (Vec::new(), 0);
        }
        Ok(())
    }

    fn hold(&mut self, bytes: &[IoSlice<'_>]) {
        if self.held.is_empty() {
            self.held.reserve_exact(MOST);
        }
        for bytes in bytes {
            self.held.extend_from_slice(bytes);
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length = bytes.iter().map(|bytes| bytes.len()).sum::<usize>();
        if self.held.len() + length <= MOST {
            self.hold(bytes);
            return Poll::Ready(Ok(length));
        }
        loop {
            let waiting = self.held.len() - self.gone;
            if waiting == 0 {
                return Pin::new(&mut self.io).poll_write_vectored(cx, bytes);
            }
            let mut all = [IoSlice::new(&self.held[self.gone..]); PIECES];
            let pieces = bytes.len().min(PIECES - 1);
            all[1..=pieces].copy_from_slice(&bytes[..pieces]);
            let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &all[..=pieces]))?;
            self.sent(written.min(waiting))?;
            if written > waiting {
                return Poll::Ready(Ok(written - waiting));
            }
        }
    }
}

/// Pieces of one write: what is held, and h2's head and body of a frame.
const PIECES: usize = 3;

impl<S: AsyncRead + Unpin> AsyncRead for Coalesced<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalesced<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_out(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn out(socket: &Coalesced<DuplexStream>) -> Poll<io::Result<()>> {
        socket.poll_out(&mut Context::from_waker(Waker::noop()))
    }

    fn write(socket: &Coalesced<DuplexStream>, pieces: &[&[u8]]) -> Poll<io::Result<usize>> {
        let pieces: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        Pin::new(&mut socket.clone()).poll_write_vectored(&mut Context::from_waker(Waker::noop()), &pieces)
    }

    #[tokio::test]
    async fn small_writes_go_out_as_one_and_when_told() {
        let (near, mut far) = duplex(1 << 20);
        let mut socket = Coalesced::new(near);
        socket.write_all(b"one ").await.expect("held");
        assert!(matches!(write(&socket, &[b"two ", b"three"]), Poll::Ready(Ok(9))));
        socket.flush().await.expect("nothing to do");
        let mut came = [0; 32];
        let mut read = ReadBuf::new(&mut came);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut far).poll_read(&mut cx, &mut read).is_pending());
        assert!(matches!(out(&socket), Poll::Ready(Ok(()))));
        assert_eq!(far.read(&mut came).await.expect("all of it"), 13);
        assert_eq!(&came[..13], b"one two three");
        assert_eq!(socket.0.borrow().held.capacity(), 0);
    }

    /// Whatever the far end takes at a time, and however large the pieces are.
    #[tokio::test]
    async fn bytes_keep_their_order_and_none_is_lost() {
        for room in [1, 100, MOST - 1, MOST, MOST + 1, 100_000] {
            let (near, mut far) = duplex(room);
            let sizes = [1, 9, MOST - 10, 1, MOST, MOST + 1, 7, 3 * MOST, 100];
            let sent: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|at| (at % 251) as u8).collect();
            let expected = sent.clone();
            let sending = async move {
                let mut socket = Coalesced::new(near);
                let mut rest = &sent[..];
                for size in sizes {
                    let (mut piece, after) = rest.split_at(size);
                    rest = after;
                    while !piece.is_empty() {
                        let (head, body) = piece.split_at(piece.len().min(9));
                        let pieces = [IoSlice::new(head), IoSlice::new(body)];
                        let written = socket.write_vectored(&pieces).await.expect("the far end takes it");
                        piece = &piece[written..];
                    }
                }
                socket.shutdown().await.expect("the far end takes it");
            };
            let mut came = Vec::new();
            let (_, read) = tokio::join!(sending, far.read_to_end(&mut came));
            read.expect("all of it");
            assert!(came == expected, "{room}");
        }
    }
}
