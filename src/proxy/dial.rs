//! Connects to the app.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;
use rustls::AlertDescription;
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{Address, Upstream};
use crate::tls::{Client, HTTP_1_1, InForce};
use crate::traffic::ErrorKind;

use super::Tls;
use super::error::ProxyError;
use super::tunnel::Transport;

pin_project! {
    /// A connection to the app, whatever it is made of.
    #[project = StreamProjection]
    #[derive(Debug)]
    pub enum Stream {
        Tcp { #[pin] stream: TcpStream },
        Unix { #[pin] stream: UnixStream },
        Tls { stream: Box<TlsStream<TcpStream>> },
    }
}

impl Stream {
    /// What ALPN agreed on (RFC 7301).
    pub fn protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Tcp { .. } | Self::Unix { .. } => None,
            Self::Tls { stream } => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// Whether nothing came and the other side has not hung up, as far as this thread has heard. Asks the kernel only if
    /// it said that there is something. Whoever waits to read is not woken afterwards.
    pub fn is_silent(&mut self) -> bool {
        let would_block =
            |read: io::Result<usize>| matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        let mut byte = [0];
        match self {
            Self::Tcp { stream } => would_block(stream.try_read(&mut byte)),
            Self::Unix { stream } => would_block(stream.try_read(&mut byte)),
            Self::Tls { stream } => {
                let mut byte = ReadBuf::new(&mut byte);
                Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut byte).is_pending()
            }
        }
    }
}

/// What an app behind TLS may choose to speak (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// What the configuration says: HTTP/2 before HTTP/1.1, for HTTP.
    All,
    /// For a request that asks for an upgrade: HTTP/2 has none.
    Http1,
}

/// The app's port accepts, and no TLS connection comes of it.
#[derive(Debug, thiserror::Error)]
enum TlsError {
    #[error("TLS: {0}")]
    Failed(String),
    /// It speaks nothing of what was offered.
    #[error("TLS: the app speaks no protocol that was offered")]
    NoProtocol,
}

/// One attempt.
///
/// # Errors
///
/// [`io::ErrorKind::ConnectionRefused`] where nobody listens: this passes when the app is up. `TimedOut`
/// after `timeout`, a TLS handshake included.
pub async fn dial(upstream: &Upstream, tls: &Tls, offer: Offer, timeout: Duration) -> io::Result<Stream> {
    let attempt = async {
        match (connect(&upstream.address).await?, &tls.client) {
            (Stream::Tcp { stream }, Some(client)) => secure(stream, upstream, client, offer).await,
            (stream, _) => Ok(stream),
        }
    };
    match tokio::time::timeout(timeout, attempt).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Shakes hands with the app, which must be whom the configuration names.
async fn secure(
    stream: TcpStream,
    upstream: &Upstream,
    client: &InForce<Client>,
    offer: Offer,
) -> io::Result<Stream> {
    let failed = |error: String| io::Error::other(TlsError::Failed(error));
    let host = match &upstream.address {
        Address::Tcp { host, .. } => host.as_str(),
        Address::Unix(_) => "localhost",
    };
    let name = upstream.tls.server_name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned()).map_err(|error| failed(error.to_string()))?;
    let client = client.load().ok_or_else(|| failed("no certificate authorities yet".to_owned()))?;
    let protocols = match offer {
        Offer::All => client.0.alpn_protocols.clone(),
        Offer::Http1 => vec![HTTP_1_1.to_vec()],
    };
    let connector = TlsConnector::from(Arc::clone(&client.0));
    let connecting = connector
        .with_alpn(protocols)
        .connect_with(name, stream, |session| session.set_buffer_limit(Some(UNSENT)));
    // Boxed: a request's future is the larger for it, and few requests make a connection.
    match Box::pin(connecting).await {
        Ok(stream) => Ok(Stream::Tls { stream: Box::new(stream) }),
        Err(error) if is_no_protocol(&error) => Err(io::Error::other(TlsError::NoProtocol)),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn is_no_protocol(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)))
}

/// Whether an error of [`dial`] says that the app speaks nothing of what was offered.
pub fn speaks_otherwise(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<TlsError>());
    matches!(cause, Some(TlsError::NoProtocol))
}

/// Bytes of a request that a session may keep while the app does not read: two records.
const UNSENT: usize = 32 << 10;

async fn connect(address: &Address) -> io::Result<Stream> {
    match address {
        Address::Tcp { host, port } => {
            let connected = match host.parse::<IpAddr>() {
                Ok(ip) => TcpStream::connect(SocketAddr::new(ip, *port)).await,
                Err(_) => TcpStream::connect((host.as_str(), *port)).await,
            };
            let stream = connected.map_err(|error| match error.kind() {
                // Its kernel accepted, and then the app's socket went away: a moment later it would have refused.
                io::ErrorKind::ConnectionReset => io::ErrorKind::ConnectionRefused.into(),
                _ => error,
            })?;
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
    } else if error.get_ref().is_some_and(|cause| cause.downcast_ref::<TlsError>().is_some()) {
        ErrorKind::UpstreamTls
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
            Self::Tls { stream } => stream.get_ref().0.reset_on_close(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            StreamProjection::Tcp { stream } => stream.poll_read(cx, buf),
            StreamProjection::Unix { stream } => stream.poll_read(cx, buf),
            StreamProjection::Tls { stream } => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.project() {
            StreamProjection::Tcp { stream } => stream.poll_write(cx, buf),
            StreamProjection::Unix { stream } => stream.poll_write(cx, buf),
            StreamProjection::Tls { stream } => Pin::new(stream).poll_write(cx, buf),
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
            StreamProjection::Tls { stream } => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp { stream } => stream.is_write_vectored(),
            Self::Unix { stream } => stream.is_write_vectored(),
            Self::Tls { stream } => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            StreamProjection::Tcp { stream } => stream.poll_flush(cx),
            StreamProjection::Unix { stream } => stream.poll_flush(cx),
            StreamProjection::Tls { stream } => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            StreamProjection::Tcp { stream } => stream.poll_shutdown(cx),
            StreamProjection::Unix { stream } => stream.poll_shutdown(cx),
            StreamProjection::Tls { stream } => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Its kernel had accepted, and resets what nobody took.
    #[tokio::test]
    async fn app_that_goes_away_while_it_is_dialled_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let upstream = Upstream::http(listener.local_addr().expect("its address"));
        let tls = Tls::default();
        let mut dialling = std::pin::pin!(dial(&upstream, &tls, Offer::All, Duration::from_secs(10)));
        assert!(futures_util::poll!(&mut dialling).is_pending());
        drop(listener);
        let error = dialling.await.map(|_| ()).expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
