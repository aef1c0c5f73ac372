//! Upgrades over HTTP/1.1 (RFC 9110, 7.8): a request asks for another protocol, the app's 101 grants it, and from
//! then on the connection carries bytes.
//!
//! ```text
//!  request ─► layers::headers: what is offered ─► forward ─► app ─► 101 that matches
//!                                                                    │ its body: the connection to the app,
//!  http1 ◄─ both connections, early bytes first ◄─ Handover ◄────────┘ the flight, the place in flight
//! ```
//!
//! Any protocol may pass but HTTP and TLS: a tunnel of requests that nobody checks would be a way around every rule
//! of ours, so an offer of `h2c` is dropped and its request served as any other.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Version};
use tokio::sync::OwnedSemaphorePermit;

use super::dial::Stream;
use super::lane::Lane;
use super::layers::observe::Flight;
use super::registry::ConnectionState;
use super::tunnel::{Broken, End, Side, Transport, Tunnel, carry};

/// What a request may ask the app to switch to; `None` if it is to be served as any other.
pub fn offered<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    // A server must ignore the offer of a client of HTTP/1.0.
    if request.version() != Version::HTTP_11
        || !items(headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"))
    {
        return None;
    }
    named(headers)
}

/// The protocols that a message names, but those that are not passed on; `None` if there are no others.
pub fn named(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocols: Vec<&str> =
        items(headers, &header::UPGRADE).filter(|protocol| is_passed_on(protocol)).collect();
    (!protocols.is_empty()).then(|| HeaderValue::from_str(&protocols.join(", ")).ok())?
}

/// Whether an answer switches to what was offered, and to nothing else.
pub fn is_one_of(answer: &HeaderMap, offered: &HeaderValue) -> bool {
    let offered = offered.to_str().unwrap_or_default();
    let is_offered = |protocol: &str| offered.split(", ").any(|offer| offer.eq_ignore_ascii_case(protocol));
    let mut protocols = items(answer, &header::UPGRADE).peekable();
    protocols.peek().is_some() && protocols.all(is_offered)
}

/// Whether an answer switches to a WebSocket.
pub fn is_websocket(answer: &HeaderMap) -> bool {
    answer.get(header::UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The items of a list that may stand in several lines.
fn items<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|item| !item.is_empty())
}

/// `name` or `name/version`, both tokens (RFC 9110, 5.6.2), of a protocol that is not ours to check.
fn is_passed_on(protocol: &str) -> bool {
    let is_token = |part: &str| {
        let byte = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !part.is_empty() && part.bytes().all(byte)
    };
    let (name, version) = protocol.split_once('/').unwrap_or((protocol, "1"));
    // `h2`, `h2c` and its drafts `h2c-14`.
    let is_http2 = name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("h2"));
    let is_ours = is_http2 || ["http", "tls"].iter().any(|ours| name.eq_ignore_ascii_case(ours));
    is_token(name) && is_token(version) && !is_ours
}

/// Where the answer to one request of a connection leaves what the connection goes on with.
// Boxed: every connection has room for it, and few ever have one.
#[derive(Debug, Default)]
pub struct Handover(RefCell<Option<Box<Granted>>>);

impl Handover {
    /// The upgrade that the app granted and the client was told of.
    pub fn take(&self) -> Option<Granted> {
        self.0.borrow_mut().take().map(|granted| *granted)
    }
}

/// The app's side of an upgrade; rides in the body of the 101.
#[derive(Debug)]
pub struct Switch {
    pub app: Stream,
    /// What the app sent right after its 101.
    pub early: Bytes,
    pub websocket: bool,
    pub connection: Rc<ConnectionState>,
}

impl Switch {
    /// Leaves it to the client's connection, with what counts the request as in flight.
    pub fn grant(self, permit: Option<OwnedSemaphorePermit>, flight: Option<Flight>) {
        let Self { app, early, websocket, connection } = self;
        let granted = Granted { app, early, websocket, permit, flight };
        *connection.handover.0.borrow_mut() = Some(Box::new(granted));
    }
}

/// An upgrade that the client was told of.
#[derive(Debug)]
pub struct Granted {
    app: Stream,
    early: Bytes,
    websocket: bool,
    permit: Option<OwnedSemaphorePermit>,
    flight: Option<Flight>,
}

impl Granted {
    /// Carries bytes until both sides ended, one broke, or the worker cut it. The request is in flight until then.
    pub async fn run(self, client: impl Transport, early: Bytes, state: &ConnectionState, lane: &Lane) {
        let Self { app, early: from_app, websocket, permit, flight } = self;
        let end = carry(Tunnel::new((client, early), (app, from_app), websocket), state, lane).await;
        drop(permit);
        let Some(flight) = flight else { return };
        match end {
            End::Whole | End::Cut => flight.landed(),
            End::Broken(Broken { side: Side::App, .. }) => flight.broken(),
            End::Broken(Broken { side: Side::Client, .. }) => drop(flight),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn offer_is_passed_on_if_connection_names_it() {
        let offer = |fields| offered(&request(fields));
        assert_eq!(offer(&[("connection", "Upgrade"), ("upgrade", "websocket")]).expect("one"), "websocket");
        let lines = [("connection", "keep-alive, upgrade"), ("upgrade", "a/1 ,"), ("upgrade", "b")];
        assert_eq!(offer(&lines).expect("two"), "a/1, b");
        assert_eq!(offer(&[("upgrade", "websocket")]), None);
        assert_eq!(offer(&[("connection", "upgrade")]), None);
        let mut old = request(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(offered(&old), None);
    }

    #[test]
    fn no_offer_of_http_or_tls_is_passed_on() {
        for protocol in
            ["h2c", "H2C", "h2", "h2c-14", "HTTP/2.0", "http/1.1", "HTTP", "TLS/1.0", "tls", "a b", "a/"]
        {
            let mut request = request(&[("connection", "upgrade, http2-settings")]);
            let both = format!("{protocol}, websocket");
            request.headers_mut().insert("upgrade", HeaderValue::from_static(protocol));
            assert_eq!(offered(&request), None, "{protocol}");
            request.headers_mut().insert("upgrade", both.parse().expect("a value"));
            assert_eq!(offered(&request).expect("one is left"), "websocket");
        }
    }

    #[test]
    fn answer_must_name_what_was_offered() {
        let offered = HeaderValue::from_static("websocket, foo/2");
        let answer = |lines: &[&'static str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("upgrade", *line)).collect();
            is_one_of(request(&lines).headers(), &offered)
        };
        assert!(answer(&["WebSocket"]) && answer(&["foo/2"]) && answer(&["foo/2", "websocket"]));
        assert!(!answer(&[]) && !answer(&["foo"]) && !answer(&["websocket, h2c"]) && !answer(&[""]));
    }
}
