//! The body of a client's request: bounded in size and in patience.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::config::Listener;
use crate::traffic::ErrorKind;

use super::http1;
use super::lane::Clock;
use super::message::content;
use super::octets::is_name;

/// Where a body comes from.
#[derive(Debug)]
pub enum Incoming {
    Http1(http1::Incoming),
    Http2(hyper::body::Incoming),
}

impl From<http1::Incoming> for Incoming {
    fn from(body: http1::Incoming) -> Self {
        Self::Http1(body)
    }
}

impl From<hyper::body::Incoming> for Incoming {
    fn from(body: hyper::body::Incoming) -> Self {
        Self::Http2(body)
    }
}

impl Incoming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self {
            Self::Http1(body) => body.poll_frame(cx).map_err(|broken| {
                let kind = match broken {
                    content::Broken::Fault(_) => ErrorKind::BadRequest,
                    content::Broken::End | content::Broken::Io(_) => ErrorKind::ClientClosed,
                };
                Broken { kind, source: None }
            }),
            Self::Http2(body) => {
                let polled = Pin::new(body).poll_frame(cx);
                polled.map_err(|error| Broken { kind: ErrorKind::ClientClosed, source: Some(error) })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// A body as it comes from the client, frame by frame.
#[derive(Debug)]
pub struct Upload {
    body: Incoming,
    /// A piece that was handed on and came back.
    unread: Bytes,
    /// Bytes that may still come.
    left: Option<u64>,
    patience: Option<Patience>,
    failure: Failure,
}

/// How long nothing may come.
#[derive(Debug)]
struct Patience {
    longest: Duration,
    clock: Rc<Clock>,
    /// When something came last, on the coarse clock.
    progress: u64,
    /// Made when a body is first waited for: most are there with their head.
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why a body did not come to its end, for who sent it to the app: hyper would lose the reason.
#[derive(Clone, Debug, Default)]
pub struct Failure(Rc<Cell<Option<ErrorKind>>>);

impl Failure {
    pub fn kind(&self) -> Option<ErrorKind> {
        self.0.get()
    }
}

/// The same, for hyper, which then closes the connection to the app, or resets the stream with the client's
/// reason, if it gave one.
#[derive(Debug, thiserror::Error)]
#[error("the request's body did not come to its end: {}", .kind.name())]
pub struct Broken {
    kind: ErrorKind,
    source: Option<hyper::Error>,
}

impl Upload {
    /// `patient`: pauses are part of the protocol, as in a stream of gRPC messages.
    pub fn new(body: Incoming, listener: &Listener, clock: &Rc<Clock>, patient: bool) -> Self {
        let patience = (!patient).then(|| Patience {
            longest: listener.timeouts.body_progress,
            clock: Rc::clone(clock),
            progress: clock.millis(),
            timer: None,
        });
        let left = listener.limits.body_bytes.map(|bytes| bytes as u64);
        Self { body, unread: Bytes::new(), left, patience, failure: Failure::default() }
    }

    pub fn failure(&self) -> Failure {
        self.failure.clone()
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if !self.unread.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.unread)))));
        }
        let polled = match self.body.poll_frame(cx) {
            Poll::Ready(polled) => polled,
            Poll::Pending => {
                if let Some(patience) = &mut self.patience {
                    ready!(patience.poll_lost(cx));
                    return self.fail(ErrorKind::BodyTimeout, None);
                }
                return Poll::Pending;
            }
        };
        let frame = match polled {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => frame,
            Some(Err(Broken { kind, source })) => return self.fail(kind, source),
        };
        if let Some(patience) = &mut self.patience {
            patience.progress = patience.clock.millis();
        }
        if frame.trailers_ref().is_some_and(|trailers| !trailers.keys().all(is_name)) {
            return self.fail(ErrorKind::BadRequest, None);
        }
        if let (Some(left), Some(data)) = (&mut self.left, frame.data_ref()) {
            match left.checked_sub(data.len() as u64) {
                Some(rest) => *left = rest,
                None => return self.fail(ErrorKind::BodyTooLarge, None),
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn fail(
        &self,
        kind: ErrorKind,
        source: Option<hyper::Error>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.failure.0.set(Some(kind));
        Poll::Ready(Some(Err(Broken { kind, source })))
    }

    pub fn is_end_stream(&self) -> bool {
        self.unread.is_empty() && self.body.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        let (mut hint, unread) = (self.body.size_hint(), self.unread.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + unread);
        }
        hint.set_lower(hint.lower() + unread);
        hint
    }

    /// Takes its last piece again.
    pub fn put_back(&mut self, piece: Bytes) {
        self.unread = piece;
    }
}

impl Patience {
    /// Ready once nothing came for too long. The timer is not touched for what comes: when it rings it is set
    /// to what is left.
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let longest = self.longest;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(longest)));
        loop {
            ready!(timer.as_mut().poll(cx));
            let idle = Duration::from_millis(self.clock.millis().saturating_sub(self.progress));
            let left = longest.saturating_sub(idle);
            if left.is_zero() {
                return Poll::Ready(());
            }
            // The coarse clock lags by up to a tick.
            timer.as_mut().reset(Instant::now() + left.max(Duration::from_millis(10)));
        }
    }
}
