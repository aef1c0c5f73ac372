//! From a request to a reply, without a socket: which endpoint, which method, who may, what it says.
//!
//! [`respond`] is synchronous and quick: a probe costs two atomic loads and, if the answer is no, a few
//! lines of text. What has to wait (hooks) or goes on (events) is only named here; the server does it.

use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};

use crate::drain::{self, Call};
use crate::gate::{Phase, Verdict};
use crate::metrics::{self, ListenerFigures};
use crate::traffic::{DURATION_BUCKETS, ErrorKind};

use super::probe::{self, Question};
use super::words::Seen;
use super::{State, page, status, token};

/// What the server has to do.
#[derive(Debug)]
pub enum Reply {
    /// Send this.
    Full(Response<Bytes>),
    /// Answer when the pod is drained; the call has been made.
    WaitForDrained,
    /// Make the app hook's call, and answer when the drain does.
    WaitForDrain,
    /// Send events until the client goes.
    Events,
}

/// An endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'a> {
    Page,
    Ready,
    ReadyOne(&'a str),
    Startup,
    Live,
    Balancers,
    Status,
    Events,
    Metrics,
    Drain,
    WaitForDrain,
    Quit,
}

/// Says what to reply. `now` is the moment of the request.
pub fn respond(state: &State, request: &Parts, now: Instant) -> Reply {
    let Some(route) = Route::of(request.uri.path()) else {
        return Reply::Full(text(StatusCode::NOT_FOUND, ENDPOINTS));
    };
    if let Some(refusal) = refusal(state, route, request) {
        return Reply::Full(refusal);
    }
    let query = request.uri.query().unwrap_or_default();
    Reply::Full(match route {
        Route::Page => page::page(),
        Route::Ready => ready(state, query, now),
        Route::ReadyOne(name) => match seen(state, now, |seen| probe::one(seen, name)) {
            Some(answer) => probed(answer),
            None => text(StatusCode::NOT_FOUND, "no check has this name; GET /ready?verbose lists them\n"),
        },
        Route::Startup if state.started.load(Ordering::Acquire) => text(StatusCode::OK, "started\n"),
        Route::Startup => {
            text(StatusCode::SERVICE_UNAVAILABLE, "not started: the listeners are not bound yet\n")
        }
        Route::Live => text(StatusCode::OK, "live\n"),
        Route::Balancers => balancers(state, now),
        Route::Status => {
            full(StatusCode::OK, "application/json", format!("{:#}\n", status::status(state, now)))
        }
        Route::Metrics => full(StatusCode::OK, metrics::CONTENT_TYPE, scrape(state, now)),
        Route::Events => return Reply::Events,
        Route::Drain => {
            state.drain.call(Call::SidecarHook);
            if !parameters(query).any(|(name, value)| name == "wait" && is_off(value)) {
                return Reply::WaitForDrained;
            }
            text(StatusCode::ACCEPTED, "draining\n")
        }
        Route::WaitForDrain => return Reply::WaitForDrain,
        Route::Quit => {
            state.drain.call(Call::Quit);
            state.quit.notify_one();
            text(StatusCode::ACCEPTED, "quitting: drains first, then the process ends\n")
        }
    })
}

/// Refuses methods that an endpoint does not take, and hooks without the token.
fn refusal(state: &State, route: Route<'_>, request: &Parts) -> Option<Response<Bytes>> {
    if !route.methods().contains(&request.method) {
        let allow = route.methods().iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let body = format!("this endpoint takes {allow}\n");
        return Some(with(text(StatusCode::METHOD_NOT_ALLOWED, body), ALLOW, &allow));
    }
    if route.is_hook()
        && let Err(reason) = token::check(state.hook_token_file.as_deref(), &request.headers)
    {
        let body = format!("{reason}\n");
        return Some(with(text(StatusCode::UNAUTHORIZED, body), WWW_AUTHENTICATE, "Bearer"));
    }
    None
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Self> {
        Some(match path {
            "/" => Self::Page,
            "/ready" | "/readyz" => Self::Ready,
            "/startup" | "/startupz" => Self::Startup,
            "/live" | "/livez" => Self::Live,
            "/lb" => Self::Balancers,
            "/status" => Self::Status,
            "/events" => Self::Events,
            "/metrics" => Self::Metrics,
            "/drain" => Self::Drain,
            "/wait-for-drain" => Self::WaitForDrain,
            "/quit" => Self::Quit,
            path => {
                let name = path.strip_prefix("/ready/").or_else(|| path.strip_prefix("/readyz/"))?;
                Self::ReadyOne(name)
            }
        })
    }

    /// A HEAD has the meaning of its GET, which for a hook is no small one: it takes none.
    fn methods(self) -> &'static [Method] {
        match self {
            Self::Drain => &[Method::GET, Method::POST],
            Self::WaitForDrain => &[Method::GET],
            Self::Quit => &[Method::POST],
            _ => &[Method::GET, Method::HEAD],
        }
    }

    fn is_hook(self) -> bool {
        matches!(self, Self::Drain | Self::WaitForDrain | Self::Quit)
    }
}

fn ready(state: &State, query: &str, now: Instant) -> Response<Bytes> {
    let verdict = state.view.verdict(now);
    let mut question = Question::default();
    for (name, value) in parameters(query) {
        match name {
            "verbose" => question.verbose = !is_off(value),
            "exclude" => question.exclude.push(value),
            _ => {}
        }
    }
    if verdict == Verdict::Ready && !question.verbose {
        return yes();
    }
    probed(seen(state, now, |seen| probe::verdict(seen, &question)))
}

fn balancers(state: &State, now: Instant) -> Response<Bytes> {
    let verdict = state.view.verdict(now);
    if state.view.word().is_ready_for_balancers() && !matches!(verdict, Verdict::Silent(_)) {
        return yes();
    }
    probed(seen(state, now, probe::for_balancers))
}

/// What there is to tell at this moment.
pub fn seen<T>(state: &State, now: Instant, tell: impl FnOnce(&Seen<'_>) -> T) -> T {
    // The verdict first: the report is then not older, and holds the reasons for a no.
    let verdict = state.view.verdict(now);
    let (report, plans) = (state.view.report(), state.view.plans());
    // Not asked before it matters: the drain's state is behind a lock, though only this thread writes it.
    let leaves = (report.phase == Phase::Draining).then(|| state.drain.state());
    let drained_by = match leaves {
        Some(drain::State::Draining { by, .. }) => Some(by.name()),
        _ => None,
    };
    tell(&Seen { verdict, report: &report, plans: &plans, drained_by, now })
}

/// The usual yes, from static bytes.
fn yes() -> Response<Bytes> {
    text(StatusCode::OK, probe::READY)
}

/// Brings the metrics up to date with what the gate and the data plane say, and renders them.
fn scrape(state: &State, now: Instant) -> String {
    (state.scrape)();
    state.metrics.ready(state.view.verdict(now) == Verdict::Ready);
    state.metrics.phase(state.view.word().phase().name());
    for (name, totals) in state.traffic.totals() {
        let mut errors = [("", 0); ErrorKind::ALL.len()];
        for (error, (kind, count)) in errors.iter_mut().zip(ErrorKind::ALL.into_iter().zip(totals.errors)) {
            *error = (kind.name(), count);
        }
        state.metrics.listener(
            &name,
            &ListenerFigures {
                codes: totals.codes,
                errors: &errors,
                in_flight: totals.in_flight,
                held: totals.held,
                connections: totals.connections,
                connections_total: totals.connections_total,
                received_bytes: totals.received_bytes,
                sent_bytes: totals.sent_bytes,
                duration_bounds: &DURATION_BUCKETS,
                durations: &totals.durations,
                duration_sum: totals.duration_sum,
            },
        );
    }
    state.metrics.render()
}

/// Names and values of a query. Names of checks need no percent-decoding.
fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn is_off(value: &str) -> bool {
    matches!(value, "0" | "false")
}

fn probed(answer: probe::Answer) -> Response<Bytes> {
    text(if answer.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, answer.body)
}

/// A response of plain text.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    full(status, TEXT, body)
}

/// A response of any type, never stored by anybody.
pub fn full(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn with(mut response: Response<Bytes>, name: HeaderName, value: &str) -> Response<Bytes> {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

const TEXT: &str = "text/plain; charset=utf-8";

/// For whom a typo brought to no endpoint.
const ENDPOINTS: &str = "\
no such endpoint; there are:

GET  /                the status page, for browsers
GET  /ready           200 if this pod can serve, or 503 with the reasons (also /readyz)
                      ?verbose lists every check, ?exclude=NAME leaves one out, /ready/NAME is one
GET  /startup         200 once the listeners are bound
GET  /live            200 while the process is sound
GET  /lb              as /ready, but 503 from the first moment of a drain
GET  /status          everything, as JSON
GET  /events          transitions and results of checks, as server-sent events
GET  /metrics         for Prometheus
GET  /drain           starts the drain, answers when drained (?wait=0: at once)
GET  /wait-for-drain  for the app's preStop hook: answers when drained
POST /quit            drains, then ends the process
";

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
