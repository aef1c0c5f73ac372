//! Header fields that end here, and those that say whom the request came from.
//!
//! Hop-by-hop fields belong to one connection (RFC 9110, 7.6.1): both directions lose them, and those that
//! `Connection` names, except the ones that frame the message or name its target.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version};
use http_body::Body as _;
use pin_project_lite::pin_project;
use tower::Service;

use super::super::body::Body;
use super::super::error::ProxyError;
use super::super::forwarded::{self, Whose};
use super::super::lane::Lane;
use super::super::message::names;
use super::super::notable::Notable;
use super::super::stack::Inbound;
use super::super::upgrade;

#[derive(Clone, Debug)]
pub struct Headers<S>(pub S);

impl<S: Service<Inbound, Response = Response<Body>, Error = ProxyError>> Service<Inbound> for Headers<S> {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Headed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut inbound: Inbound) -> Self::Future {
        // What has no length goes in chunks, and the app must hear of it.
        let (notable, has_body) = (inbound.notable, !inbound.request.body().is_end_stream());
        let chunked = has_body && !notable.has(Notable::CONTENT_LENGTH);
        let host = host(&inbound);
        // Without a body, or of an old client, `100-continue` means nothing (RFC 9110, 10.1.1).
        let expects = has_body && inbound.request.version() == Version::HTTP_11;
        let crumbled = inbound.request.version() == Version::HTTP_2;
        let headers = inbound.request.headers_mut();
        if let Some(host) = host {
            headers.insert(header::HOST, host);
        }
        if crumbled && notable.has(Notable::COOKIE) {
            join_cookies(headers);
        }
        // The one value that is passed on (RFC 9110, 10.1.4); gRPC needs it.
        let trailers = notable.has(Notable::TE) && names(headers, &header::TE, "trailers");
        if notable.has(Notable::UPGRADE) {
            inbound.upgrade = upgrade::offered(&inbound.request).filter(|_| !inbound.warmup);
        }
        let headers = inbound.request.headers_mut();
        strip(headers, notable);
        if let Some(protocols) = &inbound.upgrade {
            offer(headers, protocols.clone());
        }
        if !expects && notable.has(Notable::EXPECT) {
            headers.remove(header::EXPECT);
        }
        if chunked {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let listener = &inbound.settings.listener;
        // Warm-up requests come without TLS, and look to the app like those of clients.
        let proto = if listener.tls.is_some() { "https" } else { "http" };
        let whose = Whose { peer: &inbound.connection.peer_value, proto };
        forwarded::tell(headers, &mut inbound.lines, notable, listener.forwarded, whose);
        let lane = Rc::clone(&inbound.lane);
        let http1 = inbound.request.version() < Version::HTTP_2;
        Headed { inner: self.0.call(inbound), lane, http1 }
    }
}

pin_project! {
    /// The future of [`Headers`].
    #[derive(Debug)]
    pub struct Headed<F> {
        #[pin]
        inner: F,
        lane: Rc<Lane>,
        http1: bool,
    }
}

impl<F: Future<Output = Result<Response<Body>, ProxyError>>> Future for Headed<F> {
    type Output = Result<Response<Body>, ProxyError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut outcome = ready!(this.inner.poll(cx));
        if let Ok(response) = &mut outcome {
            let status = response.status();
            if !*this.http1 {
                let lines = response.body_mut().take_lines();
                lines.read_into(response.headers_mut());
            }
            let headers = response.headers_mut();
            let named = match status {
                StatusCode::SWITCHING_PROTOCOLS => headers.get(header::UPGRADE).cloned(),
                // Says what is wanted (RFC 9110, 15.5.22).
                StatusCode::UPGRADE_REQUIRED if *this.http1 => upgrade::named(headers),
                _ => None,
            };
            let notable = Notable::of(headers);
            strip(headers, notable);
            if let Some(protocols) = named {
                offer(headers, protocols);
                if status == StatusCode::SWITCHING_PROTOCOLS {
                    // A 101 has no content (RFC 9110, 8.6).
                    headers.remove(header::CONTENT_LENGTH);
                }
            }
        }
        Poll::Ready(outcome)
    }
}

/// What Host has to say, where that is not what the client's says: the absolute form's authority replaces it
/// (RFC 9112, 3.2.2), and a client of HTTP/1.0 need not send one, but we speak HTTP/1.1 to the app.
fn host(inbound: &Inbound) -> Option<HeaderValue> {
    let request = &inbound.request;
    if let Some(authority) = request.uri().authority() {
        return HeaderValue::from_str(authority.as_str()).ok();
    }
    if request.version() == Version::HTTP_10 && !request.headers().contains_key(header::HOST) {
        return HeaderValue::from_str(&inbound.settings.listener.upstream.host()).ok();
    }
    None
}

/// HTTP/2 lets clients send a cookie in pieces, HTTP/1 does not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs = headers.get_all(header::COOKIE);
    if crumbs.iter().nth(1).is_none() {
        return;
    }
    let line = crumbs.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(cookie) = HeaderValue::from_bytes(&line) {
        headers.insert(header::COOKIE, cookie);
    }
}

/// Removes hop-by-hop fields.
fn strip(headers: &mut HeaderMap, notable: Notable) {
    if notable.has(Notable::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            // What most clients say names nothing, and needs no further look.
            .filter(|value| !is_one_of(value.as_bytes(), &[b"close", b"keep-alive"]))
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|name| !is_one_of(name.as_bytes(), &[b"close", b"keep-alive"]))
            .filter_map(|name| name.parse().ok())
            .filter(|name| !KEPT.contains(name))
            .collect();
        headers.remove(header::CONNECTION);
        for name in named {
            headers.remove(name);
        }
    }
    if notable.has(Notable::HOP_BY_HOP_ALONE) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
}

/// In any case of letters.
fn is_one_of(option: &[u8], options: &[&[u8]]) -> bool {
    options.iter().any(|known| option.eq_ignore_ascii_case(known))
}

/// An upgrade is asked for and granted hop by hop (RFC 9110, 7.8): one that passes is ours to write.
fn offer(headers: &mut HeaderMap, protocols: HeaderValue) {
    headers.insert(header::UPGRADE, protocols);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
}

/// `Connection` also goes, in [`strip`]; `Trailer` stays: only trailers that are announced are written.
static HOP_BY_HOP: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Fields that `Connection` cannot take away: they frame the message or name its target.
static KEPT: [HeaderName; 3] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HOST];

#[cfg(test)]
mod tests {
    use super::super::super::message::map;
    use super::*;

    fn strip_all(headers: &mut HeaderMap) {
        strip(headers, Notable::of(headers));
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Mine"),
            ("connection", "other"),
            ("x-mine", "1"),
            ("other", "2"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("proxy-connection", "close"),
            ("x-kept", "3"),
        ]);
        strip_all(&mut headers);
        assert_eq!(headers, map(&[("x-kept", "3")]));
    }

    #[test]
    fn connection_cannot_take_away_what_frames_or_names() {
        let mut headers =
            map(&[("connection", "content-length, host"), ("content-length", "3"), ("host", "a")]);
        strip_all(&mut headers);
        assert_eq!(headers, map(&[("content-length", "3"), ("host", "a")]));
    }
}
