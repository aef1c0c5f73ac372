//! One layer a file, in the order of `stack.rs`.

pub mod admit;
pub mod bounds;
pub mod gated;
pub mod headers;
pub mod observe;
pub mod probe;
pub mod rescue;
pub mod strict;

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;

use super::body::Body;
use super::error::ProxyError;

pin_project! {
    /// The future of a layer that mostly passes requests on at once: only those that wait cost a box.
    #[project = PassageProjection]
    pub enum Passage<F> {
        Straight { #[pin] inner: F },
        Refused { error: Option<ProxyError> },
        Detour { inner: Pin<Box<dyn Future<Output = Outcome>>> },
    }
}

type Outcome = Result<Response<Body>, ProxyError>;

impl<F> Passage<F> {
    fn straight(inner: F) -> Self {
        Self::Straight { inner }
    }

    fn refused(error: ProxyError) -> Self {
        Self::Refused { error: Some(error) }
    }

    fn detour(inner: impl Future<Output = Outcome> + 'static) -> Self {
        Self::Detour { inner: Box::pin(inner) }
    }
}

impl<F: Future<Output = Outcome>> Future for Passage<F> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        match self.project() {
            PassageProjection::Straight { inner } => inner.poll(cx),
            PassageProjection::Detour { inner } => inner.as_mut().poll(cx),
            PassageProjection::Refused { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending, // polled after it ended
            },
        }
    }
}
