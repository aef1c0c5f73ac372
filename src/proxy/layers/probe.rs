//! Tells apart what is not traffic: the readiness answer on the traffic port, and our own warm-up requests.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use pin_project_lite::pin_project;
use tower::Service;

use crate::gate::Verdict;
use crate::traffic::{ErrorKind, WARMUP_HEADER};

use super::super::body::Body;
use super::super::error::{Dialect, ProxyError};
use super::super::notable::Notable;
use super::super::registry::Entrance;
use super::super::stack::Inbound;

#[derive(Clone, Debug)]
pub struct Probe<S>(pub S);

impl<S: Service<Inbound, Response = Response<Body>, Error = ProxyError>> Service<Inbound> for Probe<S> {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Probed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut inbound: Inbound) -> Self::Future {
        inbound.connection.request_began(&inbound.lane.clock);
        if inbound.notable.has(Notable::WARMUP)
            && let Some(token) = inbound.request.headers_mut().remove(WARMUP_HEADER)
        {
            inbound.warmup = token.as_bytes() == inbound.lane.shared.warmup_token.as_bytes();
        }
        if inbound.connection.entrance == Entrance::Warmup && !inbound.warmup {
            let response = refusal(&inbound);
            inbound.connection.request_ended(&inbound.lane.clock);
            inbound.connection.finish();
            return Probed::Answered { response: Some(response) };
        }
        if let Some(path) = &inbound.settings.listener.ready_path
            && inbound.request.uri().path() == path
            && inbound.fault.is_none()
        {
            let response = readiness(&inbound);
            inbound.connection.request_ended(&inbound.lane.clock);
            return Probed::Answered { response: Some(response) };
        }
        Probed::Passed { inner: self.0.call(inbound) }
    }
}

/// Nobody but the warm-up comes by its entrance: that would go round TLS, and round who may speak it.
fn refusal(inbound: &Inbound) -> Response<Body> {
    inbound.lane.counters.error(ErrorKind::Forbidden);
    ProxyError::new(ErrorKind::Forbidden).answer(Dialect::of(&inbound.request))
}

/// What `/ready` says on the admin port, for those that can only probe this one.
fn readiness(inbound: &Inbound) -> Response<Body> {
    let ready = inbound.lane.view.verdict(Instant::now()) == Verdict::Ready;
    let text: &'static [u8] = if ready { b"ready\n" } else { b"not ready\n" };
    let mut response = Response::new(Body::full(Bytes::from_static(text)));
    *response.status_mut() = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pin_project! {
    /// The future of [`Probe`].
    #[project = ProbedProjection]
    #[derive(Debug)]
    pub enum Probed<F> {
        Passed { #[pin] inner: F },
        Answered { response: Option<Response<Body>> },
    }
}

impl<F: Future<Output = Result<Response<Body>, ProxyError>>> Future for Probed<F> {
    type Output = Result<Response<Body>, ProxyError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            ProbedProjection::Passed { inner } => inner.poll(cx),
            ProbedProjection::Answered { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                None => Poll::Pending, // polled after it ended
            },
        }
    }
}
