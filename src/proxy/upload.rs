//! The body of a client's request: bounded in size and in patience.

use std::cell::Cell;
use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::config::Listener;
use crate::traffic::ErrorKind;

use super::lane::Clock;
use super::octets::is_name;

/// A body as it comes from the client, frame by frame.
#[derive(Debug)]
pub struct Upload {
    body: Incoming,
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
        Self { body, left, patience, failure: Failure::default() }
    }

    pub fn failure(&self) -> Failure {
        self.failure.clone()
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let polled = match Pin::new(&mut self.body).poll_frame(cx) {
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
            Some(Err(error)) => {
                let malformed = is_malformed(&error);
                let kind = if malformed { ErrorKind::BadRequest } else { ErrorKind::ClientClosed };
                return self.fail(kind, Some(error));
            }
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
        self.body.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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

/// Whether bytes came that make no body, and not only too few of them.
fn is_malformed(error: &hyper::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput};
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|io| matches!(io.kind(), InvalidData | InvalidInput))
        {
            return true;
        }
        cause = error.source();
    }
    false
}
