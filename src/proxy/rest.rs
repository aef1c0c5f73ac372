//! A client's connection at rest: nothing has come yet, or nothing for a while after its last request.
//!
//! Such connections are many and stay for long, so they hold no buffers and nothing that serves requests: only the
//! socket, its entry in the registry, and a small task. Bytes are read into a buffer that the thread's connections
//! share, and what serves requests is made when the first ones are there.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::registry::{ConnectionState, Order, Stage};
use super::scratch;
use super::terminate::Stream;

/// Waits for the client's next bytes. None: the client has ended, or the worker told the connection to go and nothing
/// has come.
///
/// # Errors
///
/// The connection broke.
pub async fn next_bytes<S>(stream: &mut S, state: &ConnectionState) -> io::Result<Option<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| {
        let order = state.order(cx);
        if order == Order::Cut {
            return Poll::Ready(Ok(None));
        }
        // The last bytes of an answer may wait in a session of TLS.
        if let Poll::Ready(Err(error)) = Pin::new(&mut *stream).poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        match scratch::take(Pin::new(&mut *stream), cx, FIRST_READ) {
            // Only after a look at what has come. A client that has said nothing at all is told to go by a cut.
            Poll::Pending if order == Order::Finish && state.stage() == Stage::Idle => Poll::Ready(Ok(None)),
            polled => polled.map_ok(|bytes| (!bytes.is_empty()).then_some(bytes)),
        }
    })
    .await
}

/// Ends what is sent to a client that gets nothing more. Without TLS the close that follows says all there is to say.
pub async fn end(stream: &mut Stream) {
    if let Stream::Tls { stream } = stream {
        let _ = tokio::time::timeout(LAST_WORDS, stream.shutdown()).await;
    }
}

/// Room for the head of most requests.
const FIRST_READ: usize = 4 << 10;

/// How long the end of a connection may take to go out.
pub const LAST_WORDS: Duration = Duration::from_secs(1);
