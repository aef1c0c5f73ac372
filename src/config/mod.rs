//! What the sidecar is told to do.
//!
//! Two shapes: `raw` is what a user wrote, key by key, with every key optional; [`Config`] is what is true
//! after file, environment and flags were merged, defaults filled in and every rule checked. Code outside
//! this module sees only `Config` and has no error path for it.
//!
//! ```text
//! file, variables, flags ─ merge ─▶ tree ─ fit ─▶ raw ─ rules ─▶ Config
//!                          walk, place           checks
//!                          (where it was)        (one kind each)
//! ```
//!
//! Every step notes what is wrong and goes on, so that [`load()`] shows all problems at once; `tree` keeps what
//! was written apart from what secrets became, and only the first is ever shown.
//!
//! The names, defaults and meanings of the keys are the product's contract. The crate `config` is named
//! only inside this folder, which imports nothing else of this crate.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod address;
mod checks;
mod cpus;
mod error;
mod fit;
mod listener;
mod load;
mod merge;
mod place;
mod raw;
mod reload;
mod rules;
mod schema;
mod secret;
#[cfg(test)]
mod tests;
mod tree;
pub mod units;
mod walk;
mod watch;

pub use cpus::available_cpus;
pub use error::{Problem, Problems, dotted, nearest};
pub use listener::{
    Address, Forwarded, Hold, Limits, Listener, ListenerTls, NotReady, Ramp, Scheme, Timeouts, Upstream,
    UpstreamTls,
};
pub use load::{Flags, Loaded, Sources, load};
pub use place::{Path as KeyPath, Place};
pub use reload::restart_needed;
pub use schema::schema;
pub use watch::Watch;

/// Everything the sidecar needs to know, valid by construction.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// At least one, in the order of their names.
    pub listeners: Vec<Listener>,
    pub admin: Admin,
    pub drain: Drain,
    /// In the order of the file; `after` names only checks of this list and has no cycle.
    pub checks: Vec<CheckSpec>,
    /// Data-plane threads.
    pub workers: NonZeroUsize,
    pub log: Log,
}

/// The port for kubelet, hooks and operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub listen: SocketAddr,
    /// No sign of life from a worker for this long: not ready.
    pub stale_after: Duration,
    /// File that holds the bearer token of the hooks.
    pub hook_token_file: Option<PathBuf>,
}

/// How the pod leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Keep serving at least this long.
    pub min: Duration,
    /// … and until no new request came for this long and none is in flight.
    pub quiet: Duration,
    /// … but never longer than this.
    pub deadline: Duration,
    pub ready: DrainReady,
    /// The app's hook alone for this long: the app restarts, the pod stays.
    pub restart_window: Duration,
}

/// What `/ready` says while draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum DrainReady {
    Fail,
    Hold,
}

/// One configured check: the keys every check has, and those of its kind.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckSpec {
    pub name: String,
    /// Name of a row in the table of kinds.
    pub kind: &'static str,
    pub gates: Gates,
    /// Names of checks that must have passed first.
    pub after: Vec<String>,
    /// Between runs while passing.
    pub interval: Duration,
    /// Between runs while not passing.
    pub interval_failing: Duration,
    /// One run.
    pub timeout: Duration,
    /// Passes in a row to count as passing.
    pub success_threshold: u32,
    /// Failures in a row to count as failing.
    pub failure_threshold: u32,
    /// The keys of the kind, secrets filled in, already accepted by [`Kind::accept`].
    pub own: Own,
}

/// When a check counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Gates {
    /// Must pass once before the first ready, and again after the app restarted.
    Startup,
    /// Its failure makes the pod not ready at any time.
    Always,
    /// Reported only.
    Never,
}

/// The keys of a check's kind. Holds secrets: `Debug` shows nothing.
#[derive(Clone, PartialEq)]
pub struct Own(pub Value);

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own(…)")
    }
}

/// What the program says, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A `tracing` filter: `info`, or `info,readygate::proxy=debug`.
    pub level: String,
    pub format: LogFormat,
    pub access: AccessLog,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum LogFormat {
    /// JSON unless on a terminal.
    Auto,
    Json,
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum AccessLog {
    Off,
    Errors,
    All,
}

/// A row of the table of kinds, as configuration sees it. `check::KINDS` holds the rows; they are passed
/// in, since this module imports nothing of the crate.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The key that names the kind, e.g. `tcp`.
    pub name: &'static str,
    /// One line for the reference table: when it passes.
    pub passes_when: &'static str,
    /// The default of `gates`.
    pub gates: fn(&Own, &[Listener]) -> Gates,
    /// Checks the kind's own keys (after secrets were filled in).
    pub accept: fn(&Own, &[Listener]) -> Result<(), Vec<KeyError>>,
    /// The schema of the kind's own keys.
    pub schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
    /// URL schemes of `--check` that mean this kind.
    pub schemes: &'static [&'static str],
    /// Own keys for a `--check` URL of one of `schemes`; the error says what is wrong with it.
    pub from_url: fn(&str) -> Result<Value, String>,
    pub defaults: Defaults,
}

/// The common keys whose default depends on the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    pub interval: Duration,
    pub failure_threshold: u32,
}

impl Defaults {
    /// Those of most kinds.
    pub const COMMON: Self = Self { interval: Duration::from_secs(5), failure_threshold: 3 };
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A problem with one key below a check's kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError {
    /// Path below the kind's key, e.g. `["requests", "0", "expect"]`; empty for the kind itself.
    pub path: Vec<String>,
    /// What was found and what is allowed, lower case, no full stop. Never a secret.
    pub message: String,
    /// The names allowed there if an unknown key is the problem: the loader adds the nearest.
    pub known: Vec<String>,
}

/// Environment of the process, injected so that tests can bring their own.
pub type Environment = BTreeMap<String, String>;
