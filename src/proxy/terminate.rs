//! TLS of clients ends here: before their protocol is known, under the deadline of the first byte.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::traffic::ErrorKind;

use super::lane::Lane;
use super::registry::{ConnectionState, Entrance, Stage};
use super::socket::Socket;
use super::tunnel::Transport;

pin_project! {
    /// A client's connection, once nothing stands between it and its protocol.
    #[project = StreamProjection]
    #[derive(Debug)]
    pub enum Stream {
        Plain { #[pin] stream: Socket },
        // Boxed: a connection without TLS need not be as large as one with it.
        Tls { stream: Box<TlsStream<TcpStream>> },
    }
}

/// Shakes hands with the client where its listener speaks TLS. None: the connection has ended.
pub async fn terminate(stream: Socket, state: &ConnectionState, lane: &Lane) -> Option<Stream> {
    let Some(identity) = lane.tls.identity.as_ref().filter(|_| state.entrance == Entrance::Clients) else {
        return Some(Stream::Plain { stream });
    };
    let peer = state.peer;
    // Boxed: most connections have none, and all have room for it otherwise.
    let handshake = Box::pin(async {
        let stream = stream.into_watched()?;
        // Nothing is set up for a connection that says nothing, as those of probes and of port scanners.
        let first = first_byte(&stream).await?;
        state.shakes_hands(first.is_some());
        match first {
            None => return Ok(None),
            Some(HANDSHAKE) => {}
            Some(byte) => return Err(not_tls(stream, byte).await),
        }
        let Some(identity) = identity.load() else {
            return Err(io::Error::other("there is no certificate yet"));
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&identity.config));
        let accepted = acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(UNSENT)));
        let stream = Box::new(accepted.await?);
        state.shakes_hands(false);
        Ok(Some(Stream::Tls { stream }))
    });
    let ended = match state.until_cut(handshake).await {
        Some(ended) => ended,
        None if state.stage() == Stage::Handshake => Err(io::Error::other("it took too long")),
        None => Ok(None),
    };
    ended.unwrap_or_else(|error: io::Error| {
        lane.counters.error(ErrorKind::TlsHandshake);
        tracing::debug!(listener = %lane.shared.name, %peer, %error, "TLS handshake failed");
        None
    })
}

async fn first_byte(stream: &TcpStream) -> io::Result<Option<u8>> {
    let mut first = [0];
    Ok((stream.peek(&mut first).await? > 0).then_some(first[0]))
}

/// Whoever speaks HTTP here has mistaken the port, and is told so in its own language.
async fn not_tls(mut stream: TcpStream, first: u8) -> io::Error {
    if first.is_ascii_alphabetic() {
        // What has come is taken first: closing over it would be a reset, which overtakes the answer.
        let _ = stream.try_read(&mut [0; 4096]);
        let _ = stream.write_all(WRONG_PORT.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
    io::Error::other("the client does not speak TLS")
}

const WRONG_PORT: &str = "HTTP/1.1 400 Bad Request\r\nx-readygate-error: tls_handshake\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 21\r\nconnection: close\r\n\r\nthis port speaks TLS\n";

/// The first byte of every TLS connection: the type of its first record (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// Bytes of an answer that a session may keep while its client does not read: two records.
const UNSENT: usize = 32 << 10;

impl Stream {
    /// Whether the runtime says when something comes.
    pub fn is_watched(&self) -> bool {
        match self {
            Self::Plain { stream } => stream.is_watched(),
            Self::Tls { .. } => true,
        }
    }
}

impl Transport for Stream {
    fn reset_on_close(&self) {
        match self {
            Self::Plain { stream } => stream.reset_on_close(),
            Self::Tls { stream } => stream.get_ref().0.reset_on_close(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            StreamProjection::Plain { stream } => stream.poll_read(cx, buf),
            StreamProjection::Tls { stream } => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.project() {
            StreamProjection::Plain { stream } => stream.poll_write(cx, buf),
            StreamProjection::Tls { stream } => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.project() {
            StreamProjection::Plain { stream } => stream.poll_write_vectored(cx, bufs),
            StreamProjection::Tls { stream } => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain { stream } => stream.is_write_vectored(),
            Self::Tls { stream } => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            StreamProjection::Plain { stream } => stream.poll_flush(cx),
            StreamProjection::Tls { stream } => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.project() {
            StreamProjection::Plain { stream } => stream.poll_shutdown(cx),
            StreamProjection::Tls { stream } => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
