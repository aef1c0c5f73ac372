//! Innermost: takes a connection to the app and sends the request.
//!
//! A request is sent a second time only if the first copy provably never reached the app (not a byte of it was
//! written, or an app of HTTP/2 says so), or if its method is idempotent (RFC 9110, 9.2.2), it has no
//! body, and not one byte of an answer came.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::Service;

use crate::config::Scheme;
use crate::traffic::ErrorKind;

use super::answer;
use super::body::{Body, RequestBody};
use super::error::ProxyError;
use super::lease::{Failure, Fate, Lease};
use super::notable::Notable;
use super::registry::ConnectionState;
use super::resend::Copy;
use super::stack::{Entered, Inbound};
use super::upgrade::{self, Switch};
use super::upload;
use super::upstream::Patience;

/// The service at the bottom of the stack.
#[derive(Clone, Copy, Debug)]
pub struct Forward;

impl Service<Inbound> for Forward {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, ProxyError>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        Box::pin(forward(inbound))
    }
}

pub async fn forward(mut inbound: Inbound) -> Result<Response<Body>, ProxyError> {
    // The request stays in its box while it waits for a connection.
    let Entered { request, lines, notable, lane, connection, settings, upgrade, warmup, .. } = &mut *inbound;
    let upload = request.body().failure();
    address(request)?;
    let mut expects = notable.has(Notable::EXPECT) && request.headers().contains_key(header::EXPECT);
    // Idempotent (RFC 9110, 9.2.2) and without a body: a second copy does no harm, whatever became of the first.
    let harmless = request.method().is_idempotent() && request.body().is_end_stream();
    let copy = match settings.listener.upstream.scheme {
        Scheme::Http | Scheme::Unix | Scheme::Tcp => None,
        Scheme::H2c | Scheme::Https => {
            std::mem::take(lines).read_into(request.headers_mut());
            // hyper does not tell of a 100 of HTTP/2.
            request.headers_mut().remove(header::EXPECT);
            expects = false;
            Copy::of(request, &lane.resend)
        }
    };
    let mut patience = Patience::new(&settings.listener, *warmup);
    if upgrade.is_some() {
        patience = patience.for_an_upgrade();
    }
    let mut resent = 0;
    // One for all copies: to the client they are one request.
    let mut time = settings.listener.timeouts.response;
    loop {
        let mut lease = lane.upstream.lease(lane, &settings.listener, &mut patience).await?;
        if expects {
            lease.expect_continue();
        }
        let sent = {
            // In one place: moved to where it is waited for, it would have room in each.
            let sending = pin!(lease.send(request, lines));
            match &mut time {
                None => sending.await,
                Some(left) => Box::pin(within(left, sending)).await?,
            }
        };
        let Failure { error, fate } = match sent {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return switch(response, lease, upgrade.take(), Rc::clone(connection));
            }
            Ok(response) => return accept(response, lease),
            Err(failure) => failure,
        };
        if let Some(kind) = upload.as_ref().and_then(upload::Failure::kind) {
            // The client's fault, whatever became of the connection to the app.
            return Err(ProxyError::new(kind));
        }
        let again = match fate {
            // Bounded by the connections that `patience` has: those that died in the pool cost none.
            Fate::Unsent => true,
            Fate::Answered => false,
            _ if resent == RESENDS => false,
            Fate::Unprocessed => restore(request, copy.as_ref()),
            // HTTP/1 left the head where it was.
            Fate::Unanswered => harmless && (copy.is_none() || restore(request, copy.as_ref())),
        };
        if !again {
            return Err(error);
        }
        resent += u32::from(fate != Fate::Unsent);
        tracing::debug!(listener = %lane.shared.name, %error, "request is sent again");
    }
}

/// Puts a request back that was handed on; false if not all of it is there.
fn restore(request: &mut Request<RequestBody>, copy: Option<&Copy>) -> bool {
    copy.and_then(Copy::request).map(|copy| *request = copy).is_some()
}

/// Waits for the app for as long as is left of the request's time, and takes that off it: neither a line nor an app
/// that restarts is the app's slowness, so what passes between two copies does not count.
async fn within<F: Future>(left: &mut Duration, sending: F) -> Result<F::Output, ProxyError> {
    let began = Instant::now();
    let sent = tokio::time::timeout(*left, sending).await;
    *left = left.saturating_sub(began.elapsed());
    sent.map_err(|_| ProxyError::new(ErrorKind::ResponseTimeout))
}

/// How often a request that got no answer is sent again: an app that dies of it must not get it for ever.
const RESENDS: u32 = 2;

/// Turns the client's request target into the one for the app: origin form, HTTP/1.1. Host is there already
/// (see `layers::headers`) unless the client owed it.
fn address(request: &mut Request<RequestBody>) -> Result<(), ProxyError> {
    let refused = || ProxyError::new(ErrorKind::BadRequest);
    if request.method() == Method::CONNECT {
        // RFC 8441's form of it is not offered, so that browsers open WebSockets over HTTP/1.1.
        let is_http2 = request.version() == Version::HTTP_2;
        return Err(if is_http2 { ProxyError::new(ErrorKind::Unsupported) } else { refused() });
    }
    let uri = request.uri();
    if uri.authority().is_some() || uri.path().is_empty() {
        // Of a `:path` that is only a fragment the crate `http` keeps nothing, calls it `/` and writes nothing.
        let path = uri.path_and_query().filter(|path| path.as_str() != "/").cloned();
        let path = match path {
            // Of `http://app?a`: a query needs a path in front of it (RFC 9112, 3.2.1), which is written but not kept.
            Some(query) if query.as_str().starts_with('?') => {
                query.to_string().parse().map_err(|_| refused())?
            }
            Some(path) => path,
            None => PathAndQuery::from_static("/"),
        };
        *request.uri_mut() = Uri::from(path);
    }
    if !request.headers().contains_key(header::HOST) {
        return Err(refused());
    }
    *request.version_mut() = Version::HTTP_11;
    Ok(())
}

/// # Errors
///
/// The answer has no certain end.
fn accept(mut response: Response<Option<Incoming>>, lease: Lease) -> Result<Response<Body>, ProxyError> {
    // That of HTTP/1 was checked when it was read.
    if response.body().is_some() {
        answer::check(&mut response)
            .map_err(|fault| ProxyError::fault(ErrorKind::UpstreamProtocol, fault))?;
    }
    let mut response = response.map(|body| Body::app(body, lease));
    // The client's connection says which it is; the app's was 1.0 perhaps.
    *response.version_mut() = Version::HTTP_11;
    Ok(response)
}

/// The answer that ends HTTP on this connection.
///
/// # Errors
///
/// The app switched to what nobody asked for.
fn switch(
    response: Response<Option<Incoming>>,
    lease: Lease,
    offered: Option<HeaderValue>,
    connection: Rc<ConnectionState>,
) -> Result<Response<Body>, ProxyError> {
    let refused = || ProxyError::new(ErrorKind::UpstreamProtocol);
    if !offered.is_some_and(|offered| upgrade::is_one_of(response.headers(), &offered)) {
        return Err(refused());
    }
    let websocket = upgrade::is_websocket(response.headers());
    let (app, early) = lease.switch().ok_or_else(refused)?;
    Ok(response.map(|_| Body::switch(Switch { app, early, websocket, connection })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_is_asked_in_origin_form() {
        for (target, expected) in [
            ("/a?b", "/a?b"),
            ("http://app.test", "/"),
            ("http://app.test/", "/"),
            ("http://app.test?a", "/?a"),
            ("http://app.test/a?b", "/a?b"),
        ] {
            let request = Request::builder().uri(target).header(header::HOST, "app.test");
            let mut request = request.body(RequestBody::Empty).expect("a request");
            address(&mut request).expect("it is served");
            let asked = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
            assert_eq!(asked, expected, "{target}");
        }
    }
}
