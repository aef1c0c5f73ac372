//! Counts what passes: clock, in flight, answers by class, access log. Asks clients to leave in a drain.
//!
//! The guard of a request, [`Flight`], rides in the answer's body, so that a request is in flight until its
//! last byte, and work that is cancelled counts too.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Response, StatusCode, header};
use pin_project_lite::pin_project;
use tower::Service;

use crate::config::AccessLog;
use crate::traffic::{ErrorKind, From};

use super::super::body::Body;
use super::super::error::ProxyError;
use super::super::lane::Lane;
use super::super::registry::{ConnectionState, Protocol};
use super::super::stack::Inbound;

#[derive(Clone, Debug)]
pub struct Observe<S>(pub S);

impl<S: Service<Inbound, Response = Response<Body>, Error = ProxyError>> Service<Inbound> for Observe<S> {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Observed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let flight = Flight::begin(&inbound);
        Observed { inner: self.0.call(inbound), flight: Some(flight) }
    }
}

pin_project! {
    /// The future of [`Observe`].
    #[derive(Debug)]
    pub struct Observed<F> {
        #[pin]
        inner: F,
        flight: Option<Flight>,
    }
}

impl<F: Future<Output = Result<Response<Body>, ProxyError>>> Future for Observed<F> {
    type Output = Result<Response<Body>, ProxyError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let outcome = ready!(this.inner.poll(cx));
        Poll::Ready(outcome.map(|mut response| {
            if let Some(mut flight) = this.flight.take() {
                flight.status = Some(response.status());
                if flight.judged && response.body().is_the_apps() {
                    flight.from = From::App;
                }
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    flight.answered_after = Some(flight.began.elapsed());
                } else if flight.lane.is_leaving() {
                    match flight.connection.protocol() {
                        // Also ends the connection after this answer.
                        Protocol::Http1 => {
                            let headers = response.headers_mut();
                            // A 426 names what it wants, hop by hop.
                            let upgrade = headers.contains_key(header::UPGRADE);
                            let options = if upgrade { "close, upgrade" } else { "close" };
                            headers.insert(header::CONNECTION, HeaderValue::from_static(options));
                        }
                        Protocol::Http2 => flight.connection.finish(),
                    }
                }
                response.body_mut().carry_flight(flight);
            }
            response
        }))
    }
}

/// A request in flight. Dropped before it landed, it was abandoned by the client.
pub struct Flight {
    lane: Rc<Lane>,
    connection: Rc<ConnectionState>,
    began: Instant,
    /// Of the answer, once its head is there.
    status: Option<StatusCode>,
    from: From,
    /// Whether the app's answer says something about its health.
    judged: bool,
    /// Of an upgrade, whose end says nothing of how fast the app is.
    answered_after: Option<Duration>,
    ended: bool,
    warmup: bool,
    /// Only if the access log is on.
    line: Option<Box<Line>>,
}

#[derive(Debug)]
struct Line {
    method: Method,
    path: String,
    all: bool,
}

impl Flight {
    fn begin(inbound: &Inbound) -> Self {
        let began = Instant::now();
        let lane = &inbound.lane;
        if !inbound.warmup {
            lane.counters.request_began(lane.clock.since_origin(began));
        }
        let line = (inbound.settings.access != AccessLog::Off && !inbound.warmup).then(|| {
            Box::new(Line {
                method: inbound.request.method().clone(),
                path: inbound.request.uri().path().to_owned(),
                all: inbound.settings.access == AccessLog::All,
            })
        });
        Self {
            lane: Rc::clone(lane),
            connection: Rc::clone(&inbound.connection),
            began,
            status: None,
            from: From::Other,
            judged: !lane.ignored.has(inbound.request.uri().path()),
            answered_after: None,
            ended: false,
            warmup: inbound.warmup,
            line,
        }
    }

    /// The client's connection.
    pub fn connection(&self) -> &ConnectionState {
        &self.connection
    }

    /// The answer went out whole.
    pub fn landed(mut self) {
        self.end(None);
    }

    /// The app's answer broke off.
    pub fn broken(mut self) {
        self.end(Some(ErrorKind::UpstreamBroken));
    }

    fn end(&mut self, error: Option<ErrorKind>) {
        self.ended = true;
        self.connection.request_ended(&self.lane.clock);
        let took = self.began.elapsed();
        if !self.warmup {
            let counters = &self.lane.counters;
            match self.status {
                Some(status) => {
                    // What broke off counts as a failure of the app, not as the answer it began as.
                    let from = if error == Some(ErrorKind::UpstreamBroken) { From::Other } else { self.from };
                    counters.request_ended(status.as_u16(), self.answered_after.unwrap_or(took), from);
                    if let Some(kind) = error {
                        counters.error(kind);
                    }
                }
                None => counters.request_abandoned(),
            }
        }
        if let Some(line) = &self.line {
            let status = self.status.map_or(0, |status| status.as_u16());
            if line.all || status == 0 || status >= 500 || error.is_some() {
                tracing::info!(
                    target: "access",
                    listener = %self.lane.shared.name,
                    peer = %self.connection.peer,
                    method = %line.method,
                    path = ?line.path,
                    status,
                    error = error.map(ErrorKind::name),
                    took_ms = took.as_secs_f64() * 1e3,
                    "request",
                );
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Some(ErrorKind::ClientClosed));
        }
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").field("status", &self.status).finish_non_exhaustive()
    }
}
