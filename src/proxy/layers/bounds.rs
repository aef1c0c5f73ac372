//! What no request may exceed: `limits.headers` and, where its length is known, `limits.body_bytes`.
//!
//! A client of HTTP/1 with too many fields is refused where they are read; a body of unknown length is counted
//! as it passes (see `upload`).

use std::task::{Context, Poll};

use http::{HeaderValue, Response, Version, header};
use http_body::Body as _;
use tower::Service;

use crate::traffic::ErrorKind;

use super::super::body::Body;
use super::super::error::ProxyError;
use super::super::stack::Inbound;
use super::Passage;

#[derive(Clone, Debug)]
pub struct Bounds<S>(pub S);

impl<S: Service<Inbound, Response = Response<Body>, Error = ProxyError>> Service<Inbound> for Bounds<S> {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Passage<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        match exceeded(&inbound) {
            Some(kind) => Passage::refused(ProxyError::new(kind)),
            None => Passage::straight(self.0.call(inbound)),
        }
    }
}

fn exceeded(inbound: &Inbound) -> Option<ErrorKind> {
    let (request, limits) = (&inbound.request, &inbound.settings.listener.limits);
    if request.version() == Version::HTTP_2 && request.headers().len() > limits.headers {
        return Some(ErrorKind::TooManyFields);
    }
    let most = limits.body_bytes? as u64;
    // Of a request that waits for `100 Continue` the hint is as good.
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(length);
    let least = request.body().size_hint().lower();
    (declared.unwrap_or(least) > most).then_some(ErrorKind::BodyTooLarge)
}

fn length(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.parse().ok()
}
