//! One warm-up client: a connection to the listener that it keeps, one request at a time.
//!
//! The connection is driven by the client's own future, so dropping that closes it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{HeaderName, HeaderValue};

use super::http::{Open, Recipe, exchange};
use super::stats::Outcome;
use crate::check::own::one_line;

/// Where and how to send.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub address: SocketAddr,
    /// Of one request, connecting included.
    pub timeout: Duration,
    pub recipes: Vec<Recipe>,
    /// Name and value of the field that lets a request pass the gate.
    pub token: (HeaderName, HeaderValue),
}

/// How one request ended, and why, if not well.
#[derive(Debug)]
pub(super) struct Answered {
    pub outcome: Outcome,
    /// One line: `GET /api answered 500, expected 200-399`.
    pub why: Option<String>,
}

/// The listener itself cannot be reached: no request can.
#[derive(Debug)]
pub(super) struct Unreachable(pub std::io::Error);

/// A client with at most one open connection.
#[derive(Debug)]
pub(super) struct Client {
    plan: Arc<Plan>,
    open: Option<Open>,
}

impl Client {
    pub(super) fn new(plan: Arc<Plan>) -> Self {
        Self { plan, open: None }
    }

    /// Sends the request and reads the whole answer.
    ///
    /// # Errors
    ///
    /// Only if the listener cannot be connected to; what the app does is an [`Answered`].
    pub(super) async fn send(&mut self, recipe: usize) -> Result<Answered, Unreachable> {
        let plan = Arc::clone(&self.plan);
        let recipe = &plan.recipes[recipe % plan.recipes.len()];
        let began = Instant::now();
        // A connection that broke or ran out of time is not used again.
        let open = self.open.take();
        let ended = tokio::time::timeout(plan.timeout, exchange(&plan, recipe, open)).await;
        let latency = began.elapsed();
        let why = match ended {
            Ok(Ok((open, verdict))) => {
                self.open = open;
                verdict.err()
            }
            Ok(Err(Trouble::Unreachable(error))) => return Err(Unreachable(error)),
            Ok(Err(Trouble::Broken(error))) => Some(error),
            Err(_) => Some(format!("got no answer within {}", humantime::format_duration(plan.timeout))),
        };
        let place = |why: String| one_line(&format!("{} {} {why}", recipe.method, recipe.target.path()), 200);
        Ok(Answered { outcome: Outcome { ok: why.is_none(), latency }, why: why.map(place) })
    }
}

/// Why there is no answer to judge.
pub(super) enum Trouble {
    Unreachable(std::io::Error),
    Broken(String),
}

/// Whether the answer is good, else why not.
pub(super) type Verdict = Result<(), String>;

/// What an error of the data plane means, by its name.
pub(super) fn in_words(kind: &HeaderValue) -> String {
    match kind.to_str().unwrap_or_default() {
        "connect_refused" => "the app refuses connections".to_owned(),
        "connect_timeout" | "connect_failed" => "the app cannot be connected to".to_owned(),
        "upstream_closed" | "upstream_broken" => "the app closed the connection".to_owned(),
        "upstream_protocol" => "the app's answer is not HTTP".to_owned(),
        "response_timeout" => "the app did not answer in time".to_owned(),
        "queue_full" => "too many requests wait (limits.queue, limits.in_flight)".to_owned(),
        other => other.replace('_', " "),
    }
}
