//! Any error below becomes an answer; the table is in `error.rs`.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Response, Version, header};
use pin_project_lite::pin_project;
use tower::Service;

use crate::traffic::ErrorKind;

use super::super::body::Body;
use super::super::error::{Dialect, ProxyError};
use super::super::lane::Lane;
use super::super::stack::Inbound;

#[derive(Clone, Debug)]
pub struct Rescue<S>(pub S);

impl<S: Service<Inbound, Response = Response<Body>, Error = ProxyError>> Service<Inbound> for Rescue<S> {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Rescued<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let lane = Rc::clone(&inbound.lane);
        let http1 = inbound.request.version() < Version::HTTP_2;
        let dialect = Dialect::of(&inbound.request);
        Rescued { warmup: inbound.warmup, inner: self.0.call(inbound), lane, http1, dialect }
    }
}

pin_project! {
    #[derive(Debug)]
    pub struct Rescued<F> {
        #[pin]
        inner: F,
        lane: Rc<Lane>,
        warmup: bool,
        http1: bool,
        dialect: Dialect,
    }
}

impl<F: Future<Output = Result<Response<Body>, ProxyError>>> Future for Rescued<F> {
    type Output = Result<Response<Body>, ProxyError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(ready!(this.inner.poll(cx)).or_else(|error| {
            if !*this.warmup {
                this.lane.counters.error(error.kind);
            }
            tracing::debug!(listener = %this.lane.shared.name, %error, "request failed");
            let mut answer = error.answer(*this.dialect);
            if *this.http1 && error.kind == ErrorKind::BadRequest {
                // Where the next request begins is anybody's guess. Ends the connection, too.
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer)
        }))
    }
}
