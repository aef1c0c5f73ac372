//! `/events`: what happens, as server-sent events, until the client goes or falls behind.
//!
//! A client that reads too slowly is dropped and not waited for: its place in the channel is overwritten.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use http_body::{Body, Frame};
use http_body_util::{Either, Full};
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

use super::seats::Held;

/// Any body of the admin port.
pub type AdminBody = Either<Full<Bytes>, Events>;

/// The body of an event stream.
pub struct Events {
    next: Pin<Box<dyn Future<Output = (Source, Option<Bytes>)> + Send>>,
    held: Held,
}

struct Source {
    lines: broadcast::Receiver<Arc<str>>,
    closing: watch::Receiver<bool>,
}

/// Between two comments that show that the stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The response that goes on.
pub fn stream(
    lines: broadcast::Receiver<Arc<str>>,
    closing: watch::Receiver<bool>,
    held: Held,
) -> Response<AdminBody> {
    let hello = Bytes::from_static(b"retry: 2000\n\n");
    let source = Source { lines, closing };
    let events = Events { next: Box::pin(async move { (source, Some(hello)) }), held };
    let mut response = Response::new(Either::Right(events));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Source {
    async fn next(mut self) -> (Self, Option<Bytes>) {
        let event = tokio::select! {
            // Ended by the server, or by its own end.
            _ = self.closing.wait_for(|closing| *closing) => None,
            event = timeout(KEEP_ALIVE, self.lines.recv()) => match event {
                Err(_) => Some(Bytes::from_static(b": still here\n\n")),
                Ok(Ok(line)) => Some(Bytes::from(format!("data: {line}\n\n"))),
                // Fell behind, or there will be no more.
                Ok(Err(_)) => None,
            },
        };
        (self, event)
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Poll::Ready((source, event)) = self.next.as_mut().poll(context) else { return Poll::Pending };
        self.held.touch(tokio::time::Instant::now().into_std());
        self.next = Box::pin(source.next());
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events(…)")
    }
}
