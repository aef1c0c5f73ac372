//! `timeouts.response`: from the end of the request's head to the head of the answer.

use std::task::{Context, Poll};

use http::Response;
use tower::Service;

use crate::traffic::ErrorKind;

use super::super::body::Body;
use super::super::error::ProxyError;
use super::super::stack::Inbound;
use super::Passage;

#[derive(Clone, Debug)]
pub struct Deadline<S>(pub S);

impl<S> Service<Inbound> for Deadline<S>
where
    S: Service<Inbound, Response = Response<Body>, Error = ProxyError>,
    S::Future: 'static,
{
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Passage<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let limit = inbound.settings.listener.timeouts.response;
        let inner = self.0.call(inbound);
        match limit {
            None => Passage::straight(inner),
            Some(limit) => Passage::detour(async move {
                match tokio::time::timeout(limit, inner).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(ProxyError::new(ErrorKind::ResponseTimeout)),
                }
            }),
        }
    }
}
