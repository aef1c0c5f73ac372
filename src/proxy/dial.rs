//! Connects to the app.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{Address, Upstream};
use crate::traffic::ErrorKind;

use super::error::ProxyError;
use super::tunnel::Transport;

pin_project! {
    /// A connection to the app, whatever it is made of.
    #[project = StreamProjection]
    #[derive(Debug)]
    pub enum Stream {
        Tcp { #[pin] stream: TcpStream },
        Unix { #[pin] stream: UnixStream },
    }
}

/// One attempt.
///
/// # Errors
///
/// [`io::ErrorKind::ConnectionRefused`] where nobody listens: this passes when the app is up. `TimedOut`
/// after `timeout`.
pub async fn dial(upstream: &Upstream, timeout: Duration) -> io::Result<Stream> {
    match tokio::time::timeout(timeout, connect(&upstream.address)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn connect(address: &Address) -> io::Result<Stream> {
    match address {
        Address::Tcp { host, port } => {
            let stream = match host.parse::<IpAddr>() {
                Ok(ip) => TcpStream::connect(SocketAddr::new(ip, *port)).await?,
                Err(_) => TcpStream::connect((host.as_str(), *port)).await?,
            };
            let _ = stream.set_nodelay(true);
            Ok(Stream::Tcp { stream })
        }
        Address::Unix(path) => match UnixStream::connect(path).await {
            Ok(stream) => Ok(Stream::Unix { stream }),
            // The app has not made its socket yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
            Err(error) => Err(error),
        },
    }
}

/// What a request gets for an error of [`dial`] that no wait would heal.
pub fn unreachable(error: io::Error) -> ProxyError {
    let kind = if error.kind() == io::ErrorKind::TimedOut {
        ErrorKind::ConnectTimeout
    } else {
        ErrorKind::ConnectFailed
    };
    ProxyError::io(kind, error)
}

impl Transport for TcpStream {
    fn reset_on_close(&self) {
        // Fails where the connection is gone already.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl Transport for Stream {
    fn reset_on_close(&self) {
        match self {
            Self::Tcp { stream } => stream.reset_on_close(),
            Self::Unix { .. } => {} // knows no reset
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            StreamProjection::Tcp { stream } => stream.poll_read(cx, buf),
            StreamProjection::Unix { stream } => stream.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.project() {
            StreamProjection::Tcp { stream } => stream.poll_write(cx, buf),
            StreamProjection::Unix { stream } => stream.poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.project() {
            StreamProjection::Tcp { stream } => stream.poll_write_vectored(cx, bufs),
            StreamProjection::Unix { stream } => stream.poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp { stream } => stream.is_write_vectored(),
            Self::Unix { stream } => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            StreamProjection::Tcp { stream } => stream.poll_flush(cx),
            StreamProjection::Unix { stream } => stream.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            StreamProjection::Tcp { stream } => stream.poll_shutdown(cx),
            StreamProjection::Unix { stream } => stream.poll_shutdown(cx),
        }
    }
}
