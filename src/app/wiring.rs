//! What one part tells another, as closures: the gate's observer, the drain's listener, the scrape.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tokio::sync::{broadcast, watch};

use crate::admin;
use crate::check::Report;
use crate::config::{CheckSpec, Config, DrainReady};
use crate::drain::{self, Activity, Drain, Notice, State};
use crate::gate::{self, Event, Gate, Phase, Standing, Transition};
use crate::metrics::{CheckSeries, Metrics, Sets};
use crate::proxy::{Order, Ramps};
use crate::supervisor::{self, News};
use crate::telemetry::Telemetry;
use crate::traffic::Traffic;

/// Version and revision of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
pub const REVISION: &str = match option_env!("READYGATE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The closed sets of the metrics' labels.
pub fn new_metrics() -> Metrics {
    let phases = Phase::ALL.map(Phase::name);
    let transitions = Transition::POSSIBLE.map(|(from, to, cause)| (from.name(), to.name(), cause.name()));
    Metrics::new(Sets { version: VERSION, revision: REVISION, phases: &phases, transitions: &transitions })
}

/// Makes the series of the checks that are configured now.
pub fn register_checks(metrics: &Metrics, checks: &[CheckSpec]) {
    let series: Vec<_> = checks
        .iter()
        .map(|check| CheckSeries {
            name: &check.name,
            kind: check.kind,
            warmup_quantiles: if check.kind == "warmup" { &[0.5, 0.95, 0.99] } else { &[] },
            guarded: check.guard.is_some(),
        })
        .collect();
    metrics.checks(&series);
}

/// Tells logs, metrics and `/events` what the gate did.
pub fn gate_observer(metrics: Metrics, events: broadcast::Sender<Arc<str>>, ramps: Ramps) -> gate::Observer {
    let standings: Mutex<HashMap<Arc<str>, Standing>> = Mutex::default();
    let restarts = Mutex::new(0);
    let guarded = Mutex::default();
    metrics.phase(Phase::Starting.name());
    Box::new(move |event, transition, report| {
        let mut restarts = restarts.lock().unwrap_or_else(PoisonError::into_inner);
        if report.restarts > std::mem::replace(&mut *restarts, report.restarts) {
            metrics.app_restart();
            let _ =
                events.send(json!({ "event": "app_restart", "count": report.restarts }).to_string().into());
        }
        if let Event::Checked { check, passed, line, took, .. } = event {
            let event = json!({
                "event": "check", "check": &**check, "passed": passed, "line": line,
                "took_seconds": took.as_secs_f64(),
            });
            // Fails where nobody listens.
            let _ = events.send(event.to_string().into());
        }
        let mut standings = standings.lock().unwrap_or_else(PoisonError::into_inner);
        for check in &report.checks {
            let before = standings.insert(Arc::clone(&check.name), check.standing);
            if before == Some(check.standing) {
                continue;
            }
            metrics.check_passing(&check.name, check.standing == Standing::Passing);
            metrics.check_time_to_pass(&check.name, check.time_to_pass);
            match check.standing {
                Standing::Passing => tracing::info!(check = %check.name, line = %check.line, "check passes"),
                Standing::Failing => tracing::warn!(check = %check.name, line = %check.line, "check fails"),
                Standing::Unknown => {}
            }
        }
        guards(&guarded, report, &metrics, &events);
        if let Some(transition) = transition {
            match transition.to {
                Phase::Ready if is_of_traffic(event, report) => ramps.rejoined(transition.at),
                Phase::Ready => ramps.opened(transition.at),
                Phase::Starting => ramps.armed(),
                Phase::Failing | Phase::Draining | Phase::Drained => {}
            }
            moved(transition, report, &metrics, &events);
        }
    })
}

/// Tells when a guard begins to keep the pod ready, and when that ends. `known` are those that do.
fn guards(
    known: &Mutex<HashSet<Arc<str>>>,
    report: &gate::Report,
    metrics: &Metrics,
    events: &broadcast::Sender<Arc<str>>,
) {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    for check in &report.checks {
        if !check.guarded && !known.contains(&check.name) {
            continue;
        }
        let name = &check.name;
        let excuse = check.excuse.as_ref().filter(|excuse| excuse.guarded);
        metrics.check_guarded(name, excuse.is_some());
        let changed = match excuse {
            Some(_) => known.insert(Arc::clone(name)),
            None => known.remove(name),
        };
        if !changed {
            continue;
        }
        let line = excuse.map_or(check.line.as_str(), |excuse| excuse.line.as_str());
        let because = match (excuse, check.standing) {
            (Some(_), _) => {
                tracing::warn!(check = %name, said = %check.line, peers = %line, "check fails and is guarded: the pod stays ready");
                "too few peers would remain ready"
            }
            (None, Standing::Passing) => "it passes",
            (None, Standing::Failing) => "the pod leaves",
            (None, Standing::Unknown) => "the gate was armed again",
        };
        if excuse.is_none() {
            tracing::info!(check = %name, line, because, "check is no longer guarded");
        }
        let event = json!({ "event": "guard", "check": &**name, "guarded": excuse.is_some(), "line": line, "because": because });
        let _ = events.send(event.to_string().into());
    }
}

/// Whether it is the verdict on live traffic that changed.
fn is_of_traffic(event: &Event, report: &gate::Report) -> bool {
    let Event::Checked { check: name, .. } = event else { return false };
    report.checks.iter().any(|check| check.name == *name && check.kind == "traffic")
}

fn moved(
    transition: &Transition,
    report: &gate::Report,
    metrics: &Metrics,
    events: &broadcast::Sender<Arc<str>>,
) {
    let Transition { from, to, cause, detail, at } = transition;
    metrics.transition(from.name(), to.name(), cause.name());
    metrics.phase(to.name());
    let armed_for = at.saturating_duration_since(report.armed_at);
    if *to == Phase::Ready && *from == Phase::Starting {
        metrics.time_to_ready(armed_for);
    }
    let mut event = admin::transition(SystemTime::now(), transition);
    event["event"] = "transition".into();
    let _ = events.send(event.to_string().into());
    tracing::info!(
        from = from.name(),
        to = to.name(),
        reason = cause.name(),
        %detail,
        armed_for_seconds = armed_for.as_secs_f64(),
        "phase changed"
    );
}

/// Tells metrics of each run of a check.
pub fn check_observer(metrics: Metrics) -> supervisor::Observer {
    Box::new(move |check, news| match news {
        News::Ran(outcome) => {
            tracing::debug!(check, line = %outcome.line, took = ?outcome.took, "check ran");
            metrics.check_run(check, outcome.result, outcome.took);
        }
        News::Heard(Report::WarmupRequest { ok }) => metrics.warmup_request(check, *ok),
        News::Heard(Report::WarmupLatency { quantile, latency }) => {
            metrics.warmup_latency(check, *quantile, *latency);
        }
        News::Heard(Report::Progress(_)) => {}
        News::Decided(decision) => metrics.guard_decision(check, decision),
    })
}

/// Tells the gate, the data plane and metrics how the pod leaves.
pub fn drain_listener(
    gate: Gate,
    orders: Arc<watch::Sender<Order>>,
    metrics: Metrics,
    config: watch::Receiver<Arc<Config>>,
) -> drain::Listener {
    Box::new(move |notice| {
        let event = match notice {
            Notice::AppStopping => Event::AppStopping,
            Notice::AppRestarting => Event::AppRestarting,
            Notice::Started { by } => {
                tracing::info!(by = by.name(), "drain started");
                // Fails only where no worker is left to hear it.
                let _ = orders.send(Order::Drain);
                Event::DrainStarted { hold_ready: config.borrow().drain.ready == DrainReady::Hold }
            }
            Notice::Drained(outcome) => {
                metrics.drained(outcome.took, outcome.last_request, outcome.left);
                tracing::info!(
                    took_seconds = outcome.took.as_secs_f64(),
                    last_request_seconds = outcome.last_request.as_secs_f64(),
                    left = outcome.left,
                    "drained"
                );
                Event::Drained
            }
        };
        gate.apply(event, Instant::now());
    })
}

pub fn drain_settings(config: &Config) -> drain::Settings {
    let drain = &config.drain;
    drain::Settings {
        min: drain.min,
        quiet: drain.quiet,
        deadline: drain.deadline,
        restart_window: drain.restart_window,
    }
}

/// What is in flight, for the drain.
pub fn activity(traffic: &Traffic) -> Activity {
    Activity { in_flight: traffic.in_flight(), last_request: traffic.last_request() }
}

/// When what is still open is cut: at the drain's deadline, and not before the accept queues could be served.
pub fn close_deadline(drain: &Drain, config: &Config) -> tokio::time::Instant {
    let took = match drain.state() {
        State::Drained(outcome) => outcome.took,
        State::Idle { .. } | State::AppHookAlone { .. } | State::Draining { .. } => Duration::ZERO,
    };
    tokio::time::Instant::now() + config.drain.deadline.saturating_sub(took).max(LAST_ANSWERS)
}

const LAST_ANSWERS: Duration = Duration::from_millis(250);

/// Sets what no other part can see, before each scrape.
pub fn scrape(metrics: Metrics, telemetry: &Telemetry) -> Arc<dyn Fn() + Send + Sync> {
    let dropped = telemetry.dropped_lines_counter();
    Arc::new(move || metrics.log_lines_dropped(dropped()))
}

/// An address under which this machine reaches what listens on `bound`.
pub fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

/// A secret that nobody outside this process knows.
///
/// # Errors
///
/// The system has no random bytes to give.
pub fn random_token() -> io::Result<Arc<str>> {
    random_text(16)
}

/// A name of this process that no other has. No secret.
///
/// # Errors
///
/// The system has no random bytes to give.
pub fn instance() -> io::Result<Arc<str>> {
    random_text(8)
}

/// That many random bytes, in hexadecimal.
fn random_text(bytes: usize) -> io::Result<Arc<str>> {
    use std::fmt::Write as _;
    use std::io::Read as _;
    let mut bytes = vec![0; bytes];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut token = String::new();
    for byte in bytes {
        let _ = write!(token, "{byte:02x}"); // a String takes everything
    }
    Ok(token.into())
}

/// Seed of the checks' jitter: differs between pods that start together.
pub fn seed() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    time.as_nanos() as u64 ^ u64::from(std::process::id()) << 32
}
