//! A client's socket that the runtime watches only once there is something to wait for.
//!
//! A connection that brings one request and ends with its answer finds it there when it first reads, and room whenever it
//! writes: to have epoll watch it, and stop watching, would be two of its nine system calls.

use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tunnel::Transport;

/// The socket. It does not block.
#[derive(Debug)]
pub enum Socket {
    /// None: to watch it failed.
    Unwatched {
        stream: Option<std::net::TcpStream>,
        used: bool,
    },
    Watched {
        stream: TcpStream,
    },
}

impl Socket {
    pub fn new(stream: std::net::TcpStream) -> Self {
        Self::Unwatched { stream: Some(stream), used: false }
    }

    pub fn is_watched(&self) -> bool {
        matches!(self, Self::Watched { .. })
    }

    /// The socket as the runtime has it, from now on.
    ///
    /// # Errors
    ///
    /// No memory left, or no room in epoll.
    pub fn into_watched(self) -> io::Result<TcpStream> {
        match self {
            Self::Unwatched { stream, .. } => TcpStream::from_std(stream.ok_or(io::ErrorKind::NotConnected)?),
            Self::Watched { stream } => Ok(stream),
        }
    }

    /// Does what can be done without waiting. None: the runtime must wait for it.
    fn at_once<T>(
        &mut self,
        work: impl FnOnce(&std::net::TcpStream) -> io::Result<T>,
    ) -> Option<io::Result<T>> {
        let Self::Unwatched { stream: Some(stream), used } = self else { return None };
        *used = true;
        let done = work(stream);
        (!matches!(&done, Err(error) if error.kind() == io::ErrorKind::WouldBlock)).then_some(done)
    }

    /// Has the runtime watch it from now on.
    fn watched(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Self::Unwatched { stream, used } = self {
            let unwatched = Self::Unwatched { stream: stream.take(), used: *used };
            *self = Self::Watched { stream: unwatched.into_watched()? };
        }
        match self {
            Self::Watched { stream } => Ok(Pin::new(stream)),
            Self::Unwatched { .. } => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Once: who sends more than that is waited for in the end. And what follows an answer must not overtake the news,
        // which epoll has, that the app closed a connection.
        if matches!(this, Self::Unwatched { used: true, .. }) {
            return this.watched()?.poll_read(cx, buf);
        }
        let read = this.at_once(|stream| {
            let mut room = [MaybeUninit::uninit(); FIRST_READ];
            let most = buf.remaining().min(FIRST_READ);
            let ((came, _), _) = recv(stream, &mut room[..most], RecvFlags::empty())?;
            buf.put_slice(came);
            Ok(())
        });
        match read {
            Some(read) => Poll::Ready(read),
            None => this.watched()?.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.at_once(|mut stream| stream.write(buf)) {
            Some(written) => Poll::Ready(written),
            None => this.watched()?.poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.at_once(|mut stream| stream.write_vectored(bufs)) {
            Some(written) => Poll::Ready(written),
            None => this.watched()?.poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.get_mut() {
            Self::Unwatched { stream: Some(stream), .. } => stream.shutdown(Shutdown::Write),
            Self::Unwatched { stream: None, .. } => Ok(()),
            Self::Watched { stream } => SockRef::from(&*stream).shutdown(Shutdown::Write),
        })
    }
}

impl Transport for Socket {
    fn reset_on_close(&self) {
        match self {
            Self::Unwatched { stream: Some(stream), .. } => {
                // Fails where the connection is gone already.
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            Self::Unwatched { stream: None, .. } => {}
            Self::Watched { stream } => stream.reset_on_close(),
        }
    }
}

/// Room for the head of most requests: what comes beyond it is read next.
const FIRST_READ: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn pair() -> (Socket, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let far =
            std::net::TcpStream::connect(listener.local_addr().expect("its address")).expect("it listens");
        let (near, _) = listener.accept().expect("the client");
        near.set_nonblocking(true).expect("a socket");
        (Socket::new(near), far)
    }

    #[tokio::test]
    async fn who_never_waits_is_never_watched() {
        let (mut near, mut far) = pair();
        far.write_all(b"again").expect("it takes it");
        let mut came = [0; 5];
        near.read_exact(&mut came).await.expect("all of it");
        assert_eq!(&came, b"again");
        near.write_all(b"hello").await.expect("there is room");
        near.shutdown().await.expect("a socket");
        assert!(!near.is_watched());
        let mut answer = String::new();
        far.read_to_string(&mut answer).expect("all of it");
        assert_eq!(answer, "hello");
    }

    #[tokio::test]
    async fn what_follows_an_answer_waits_for_its_turn() {
        let (mut near, mut far) = pair();
        near.write_all(b"hello").await.expect("there is room");
        far.write_all(b"again").expect("it takes it");
        let mut came = [0; 5];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut near).poll_read(&mut cx, &mut ReadBuf::new(&mut came)).is_pending());
        near.read_exact(&mut came).await.expect("all of it");
        assert_eq!(&came, b"again");
    }

    #[tokio::test]
    async fn who_sends_much_is_waited_for() {
        let (mut near, mut far) = pair();
        far.write_all(&[b'a'; FIRST_READ + 1]).expect("it takes it");
        let mut came = vec![0; FIRST_READ + 1];
        near.read_exact(&mut came).await.expect("all of it");
        assert!(came.iter().all(|byte| *byte == b'a'));
        assert!(near.is_watched());
    }

    #[tokio::test]
    async fn what_is_not_there_yet_is_waited_for() {
        let (mut near, mut far) = pair();
        let mut came = [0; 5];
        let reading = async {
            near.read_exact(&mut came).await.expect("all of it");
            near.is_watched()
        };
        let writing = async {
            tokio::task::yield_now().await;
            far.write_all(b"hello").expect("it takes it");
        };
        let (is_watched, ()) = tokio::join!(biased; reading, writing);
        assert!(is_watched);
        assert_eq!(&came, b"hello");
    }

    #[tokio::test]
    async fn who_takes_nothing_is_waited_for() {
        const MUCH: usize = 64 << 20;
        let (mut near, mut far) = pair();
        let writing = async move {
            near.write_all(&vec![b'a'; MUCH]).await.expect("the far end takes it");
            near.is_watched()
        };
        let reading = tokio::task::spawn_blocking(move || far.read_to_end(&mut Vec::new()));
        let (is_watched, read) = tokio::join!(writing, reading);
        assert!(is_watched);
        assert_eq!(read.expect("no panic").expect("all of it"), MUCH);
    }
}
