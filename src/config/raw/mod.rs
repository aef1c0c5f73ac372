//! What a user may write, key by key, with the default of each.
//!
//! These types are the single source of the accepted keys, the JSON Schema and the defaults. They hold
//! what can be judged key by key; rules that span keys are in `rules`. The own keys of a check's kind are
//! not here: the kinds bring them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::address::Listen;
use super::units::{Period, Workers};
use super::{AccessLog, DrainReady, Gates, Guard, LogFormat};

mod listener;

pub use self::listener::RawListener;

/// Configuration of readygate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of keys")]
pub struct RawConfig {
    /// The ports that clients talk to, each with the app behind it. The key is the listener's name.
    pub listeners: BTreeMap<String, RawListener>,
    /// The port for kubelet, hooks and operators.
    pub admin: RawAdmin,
    /// How the pod leaves without losing a request.
    pub drain: RawDrain,
    /// The evidence that this pod can serve, by name. If there is none: one `tcp` check on the app.
    pub checks: BTreeMap<String, Value>,
    /// Threads that carry traffic; `auto` is the container's number of CPUs, at most 4.
    pub workers: Workers,
    /// What the program says, and how.
    pub log: RawLog,
}

impl Default for RawConfig {
    fn default() -> Self {
        RawConfig {
            listeners: BTreeMap::from([("http".to_owned(), RawListener::default())]),
            admin: RawAdmin::default(),
            drain: RawDrain::default(),
            checks: BTreeMap::new(),
            workers: Workers(None),
            log: RawLog::default(),
        }
    }
}

/// The port for kubelet, hooks and operators.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of keys")]
#[schemars(rename = "Admin")]
pub struct RawAdmin {
    /// IP address and port of `/ready`, `/startup`, `/live`, `/status`, `/metrics` and the hooks.
    pub listen: Listen,
    /// No sign of life from the data plane for this long: not ready.
    pub stale_after: Period,
    /// File that holds the bearer token which `/drain` and the other hooks then ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_token_file: Option<PathBuf>,
}

impl Default for RawAdmin {
    fn default() -> Self {
        RawAdmin { listen: Listen(any_address(8801)), stale_after: Period::seconds(3), hook_token_file: None }
    }
}

/// How the pod leaves.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of keys")]
#[schemars(rename = "Drain")]
pub struct RawDrain {
    /// Keep serving at least this long: the removal of the endpoint has to travel.
    pub min: Period,
    /// Then until no new request came for this long, and none is in flight.
    pub quiet: Period,
    /// But never longer than this.
    pub deadline: Period,
    /// What `/ready` says while draining: `fail`, or `hold` to keep saying what it said.
    pub ready: DrainReady,
    /// The app's hook alone for this long: the app restarts, the pod stays.
    pub restart_window: Period,
}

impl Default for RawDrain {
    fn default() -> Self {
        RawDrain {
            min: Period::seconds(5),
            quiet: Period::seconds(2),
            deadline: Period::seconds(25),
            ready: DrainReady::Fail,
            restart_window: Period::seconds(2),
        }
    }
}

/// What the program says, and how.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of keys")]
#[schemars(rename = "Log")]
pub struct RawLog {
    /// `error`, `warn`, `info`, `debug` or `trace`; also by module: `info,readygate::proxy=debug`.
    pub level: String,
    /// `json`, `text`, or `auto`: JSON unless on a terminal.
    pub format: LogFormat,
    /// A line for no request, for those that failed, or for all.
    pub access: AccessLog,
}

impl Default for RawLog {
    fn default() -> Self {
        RawLog { level: "info".to_owned(), format: LogFormat::Auto, access: AccessLog::Off }
    }
}

/// The keys that every check has; beside them stands one key that names the kind.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of keys")]
pub struct RawCheck {
    /// When the check counts: `startup` must pass once before the first ready and again after the app
    /// restarted, `always` makes the pod not ready at any time, `never` is reported only. The default
    /// depends on the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Gates", extend("default" = null))]
    pub gates: Option<Gates>,
    /// Names of checks that must have passed first.
    pub after: Vec<String>,
    /// Time between runs while passing.
    pub interval: Period,
    /// Time between runs while not passing; at most `interval` by default.
    #[schemars(with = "Period", extend("default" = "1s"))]
    pub interval_failing: Option<Period>,
    /// Longest time of one run, at most `interval`.
    #[schemars(with = "Period", extend("default" = "1s"))]
    pub timeout: Option<Period>,
    /// Passes in a row to count as passing.
    pub success_threshold: NonZeroU32,
    /// Failures in a row to count as failing; a pass resets the count.
    pub failure_threshold: NonZeroU32,
    /// `{ peers: payments-headless:8801, min_ready: 50% }`, for `gates: always`: before its failure makes this pod not
    /// ready, ask the others; stay ready, guarded, unless that many remain ready without it, or it fails here alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Guard", extend("default" = null))]
    pub guard: Option<Guard>,
}

impl Default for RawCheck {
    fn default() -> Self {
        RawCheck {
            gates: None,
            after: Vec::new(),
            interval: Period::seconds(5),
            interval_failing: None,
            timeout: None,
            success_threshold: NonZeroU32::MIN,
            failure_threshold: NonZeroU32::MIN.saturating_add(2),
            guard: None,
        }
    }
}

impl RawCheck {
    /// The names of these keys; any other key of a check names its kind.
    pub(super) const KEYS: &[&str] = &[
        "gates",
        "after",
        "interval",
        "interval_failing",
        "timeout",
        "success_threshold",
        "failure_threshold",
        "guard",
    ];

    /// Fills in what depends on `interval`: a short one alone must not be an error.
    pub(super) fn with_dependent_defaults(mut self) -> Self {
        let short = Period(self.interval.0.min(Duration::from_secs(1)));
        self.interval_failing.get_or_insert(short);
        self.timeout.get_or_insert(short);
        self
    }
}

fn any_address(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}
