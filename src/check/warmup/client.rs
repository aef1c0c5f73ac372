//! One warm-up client: a connection to the listener that it keeps, one request at a time.
//!
//! If the list has requests of both protocols of HTTP, it is one connection for each; those of TCP have one for each
//! exchange. Connections are driven by the client's own future, so dropping that closes them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{HeaderName, HeaderValue};

use super::stats::Outcome;
use super::{grpc, http as http1, tcp};
use crate::check::grpc::link::Link;
use crate::check::own::one_line;

/// One of the requests that warm the app, ready to be sent.
#[derive(Clone, Debug)]
pub(super) enum Recipe {
    Http(http1::Recipe),
    Grpc(grpc::Recipe),
    Tcp(tcp::Recipe),
}

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

/// A client with at most one open connection for each protocol.
#[derive(Debug)]
pub(super) struct Client {
    plan: Arc<Plan>,
    http: Option<http1::Open>,
    grpc: Option<Link>,
}

impl Client {
    pub(super) fn new(plan: Arc<Plan>) -> Self {
        Self { plan, http: None, grpc: None }
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
        let ended = tokio::time::timeout(plan.timeout, self.exchange(&plan, recipe)).await;
        let latency = began.elapsed();
        let why = match ended {
            Ok(Ok(verdict)) => verdict.err(),
            Ok(Err(Trouble::Unreachable(error))) => return Err(Unreachable(error)),
            Ok(Err(Trouble::Broken(why))) => Some(why),
            Err(_) => Some(format!("got no answer within {}", humantime::format_duration(plan.timeout))),
        };
        let place = |why: String| one_line(&format!("{recipe} {why}"), 200);
        Ok(Answered { outcome: Outcome { ok: why.is_none(), latency }, why: why.map(place) })
    }

    /// A connection that broke or ran out of time is not used again.
    async fn exchange(&mut self, plan: &Plan, recipe: &Recipe) -> Result<Verdict, Trouble> {
        match recipe {
            Recipe::Http(recipe) => {
                let (open, verdict) = http1::exchange(plan, recipe, self.http.take()).await?;
                self.http = open;
                Ok(verdict)
            }
            Recipe::Grpc(recipe) => {
                let (link, verdict) = grpc::exchange(plan, recipe, self.grpc.take()).await?;
                self.grpc = link;
                Ok(verdict)
            }
            Recipe::Tcp(recipe) => tcp::exchange(plan, recipe).await,
        }
    }

    /// Says goodbye where that is custom.
    pub(super) async fn close(self) {
        if let Some(link) = self.grpc {
            link.close().await;
        }
    }
}

impl fmt::Display for Recipe {
    /// `GET /api`, `/pkg.Service/Method`, `connection`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(recipe) => write!(f, "{} {}", recipe.method, recipe.target.path()),
            Self::Grpc(recipe) => f.write_str(recipe.path.path()),
            Self::Tcp(_) => f.write_str("connection"),
        }
    }
}

/// Sends each request once, until one is not answered well: then why.
pub(super) async fn send_each(plan: Arc<Plan>) -> Result<(), String> {
    let count = plan.recipes.len();
    let mut client = Client::new(plan);
    let mut verdict = Ok(());
    for recipe in 0..count {
        verdict = match client.send(recipe).await {
            Ok(answered) => answered.why.map_or(Ok(()), Err),
            Err(Unreachable(error)) => Err(format!("cannot connect to the listener: {error}")),
        };
        if verdict.is_err() {
            break;
        }
    }
    client.close().await;
    verdict
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
        "upstream_tls" => "no TLS connection to the app".to_owned(),
        "upstream_closed" | "upstream_broken" => "the app closed the connection".to_owned(),
        "upstream_protocol" => "the app's answer is not HTTP".to_owned(),
        "response_timeout" => "the app did not answer in time".to_owned(),
        "queue_full" => "too many requests wait (limits.queue, limits.in_flight)".to_owned(),
        other => other.replace('_', " "),
    }
}
