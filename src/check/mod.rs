//! Evidence: one kind of check a file, and the table of kinds.
//!
//! A check makes one attempt and says what it saw. It knows neither schedule nor thresholds nor the gate:
//! the supervisor owns those. Adding a kind is one new file, a `mod` line and a row in [`KINDS`]; the
//! schema, the reference table in the README, `--check` URLs and `readygate check` come from the row.

mod amqp;
mod connect;
mod dns;
mod exec;
mod file;
mod grpc;
mod http;
mod kafka;
mod memcached;
mod mongodb;
mod mqtt;
mod mysql;
mod nats;
mod own;
mod peer;
mod postgres;
mod redis;
mod secret;
mod tcp;
mod tls;
mod traffic;
mod trust;
mod values;
mod warmup;

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::config::{self, CheckSpec};

pub use crate::traffic::Traffic;

/// One way to gain evidence. Runs on the checks thread; never blocks it.
pub trait Check {
    /// Makes one attempt: no retry, no deadline of its own (see [`Check::deadline`]).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any await; it then leaves no connection, process or task behind.
    fn run(&self) -> CheckFuture<'_>;

    /// What a run tests, in words that go on after the check's name: `connects to db:5432, and hangs up`. Shows what
    /// the failures of the kind may show, and so no secret: no header, body, argument or query.
    fn tests(&self) -> String;

    /// How long one run may take, given the check's `timeout`.
    fn deadline(&self, timeout: Duration) -> Duration {
        timeout
    }

    /// Whether the check rests once it passed, until the gate is armed again (a warm-up does).
    fn once_per_arm(&self) -> bool {
        false
    }

    /// The gate was armed anew: the app that runs now is another than the one that was seen before.
    fn armed(&self) {}
}

pub type CheckFuture<'a> = Pin<Box<dyn Future<Output = CheckResult> + 'a>>;
pub type CheckResult = Result<Evidence, CheckError>;

/// What a passing run saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// One line for people, without control characters: `50/50 ok, p95 12ms`. May be empty.
    pub summary: String,
    /// Figures for `/status`.
    pub figures: Option<Value>,
    /// Passed only because its budget was used up and the configuration says so (`on_budget_exhausted: pass`).
    pub exhausted: bool,
}

/// Why a run did not pass. `Display` is one line that says what was tried, what came and what was expected.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CheckError {
    /// Nothing listens there. The supervisor compares the address with the app's.
    #[error("connection refused by {address}")]
    Refused { address: SocketAddr },
    /// No connection, for another reason.
    #[error("cannot connect to {target}: {reason}")]
    Connect { target: String, reason: String },
    /// The run took longer than it may.
    #[error("no answer within {}", humantime::format_duration(*after))]
    Timeout { after: Duration },
    /// An answer came, and it is not the expected one.
    #[error("{message}")]
    Unexpected {
        message: String,
        /// Figures for `/status`.
        figures: Option<Value>,
    },
    /// The check cannot run here (`readygate check` without a running sidecar): SKIP, neither pass nor fail.
    #[error("not run: {reason}")]
    Skipped { reason: String },
}

/// What a check may use besides its own keys.
#[derive(Clone)]
pub struct Context {
    /// The running listeners; empty where no sidecar runs (`readygate check`).
    pub targets: Rc<[Target]>,
    /// Secret of this process: a request that carries it in [`WARMUP_HEADER`](crate::traffic::WARMUP_HEADER) passes the gate and is not
    /// counted as traffic.
    pub warmup_token: Arc<str>,
    /// What the data plane counts; None where no sidecar runs.
    pub traffic: Option<Traffic>,
    /// Where news of a long run goes.
    pub report: Rc<dyn Fn(Report)>,
}

impl fmt::Debug for Context {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("targets", &self.targets).finish_non_exhaustive()
    }
}

/// A listener as a check can reach it.
#[derive(Clone, Debug)]
pub struct Target {
    pub listener: String,
    /// Loopback address with the port that was really bound.
    pub address: SocketAddr,
}

/// News of a run that is still going on.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// One line for people: `41/50 ok, p95 180ms > 80ms`.
    Progress(String),
    /// One warm-up request ended.
    WarmupRequest { ok: bool },
    /// A quantile (0 to 1) of the last window of warm-up requests.
    WarmupLatency { quantile: f64, latency: Duration },
}

/// A row of the table of kinds: what configuration must know, and how to build one.
pub struct Kind {
    pub config: config::Kind,
    /// Never fails: `config.accept` took the same keys.
    pub build: fn(&CheckSpec, Context) -> Box<dyn Check>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.config.name)
    }
}

/// Every kind of check.
pub const KINDS: &[Kind] = &[
    amqp::KIND,
    dns::KIND,
    exec::KIND,
    file::KIND,
    grpc::KIND,
    http::KIND,
    kafka::KIND,
    memcached::KIND,
    mongodb::KIND,
    mqtt::KIND,
    mysql::KIND,
    nats::KIND,
    postgres::KIND,
    redis::KIND,
    tcp::KIND,
    tls::KIND,
    traffic::KIND,
    warmup::KIND,
];
