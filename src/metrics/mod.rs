//! The numbers for `/metrics`.
//!
//! [`Metrics`] is a cheap handle over one recorder. It is not the global one: a process may hold several,
//! as tests do. Setters take the plain types of `input`; those who call them are the gate's observer, the
//! supervisor, the drain's listener and the reload. The totals of the listeners are handed in at each scrape
//! ([`Metrics::listener`]).
//!
//! Every series is there from the start, with 0, or NaN where 0 would be a lie. The series of checks that
//! a reload removed are no longer rendered; their counters go on if the check comes back.

mod families;
mod handles;
mod input;
mod process;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use self::families::{FAMILIES, Family, Kind};
pub use self::input::{
    CertificateResult, CheckSeries, GuardDecision, ListenerFigures, ReloadResult, RunResult, Sets,
};

use self::families::{
    APP_RESTARTS, BUILD_INFO, BYTES, CONFIG_RELOADS, CONNECTIONS, CONNECTIONS_TOTAL, DRAIN_CUT,
    DRAIN_LAST_REQUEST, DRAIN_SECONDS, HELD_REQUESTS, LOG_LINES_DROPPED, PHASE, PHASE_TRANSITIONS,
    PROXY_ERRORS, READY, REQUESTS, REQUESTS_IN_FLIGHT, TIME_TO_READY, TLS_CERTIFICATE_EXPIRY, TLS_RELOADS,
};
use self::handles::{Check, Maker};

/// `content-type` of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The handle. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Shared>);

struct Shared {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    ready: Gauge,
    phases: Vec<(&'static str, Gauge)>,
    time_to_ready: Gauge,
    app_restarts: Counter,
    drain_seconds: Gauge,
    drain_last_request: Gauge,
    drain_cut: Counter,
    reloads: [Counter; ReloadResult::ALL.len()],
    log_lines_dropped: Counter,
    /// Those that are configured right now. One short lock and one look-up an event: a check runs once a
    /// second or so, and a warm-up sends some thousand requests at most.
    checks: Mutex<BTreeMap<String, Check>>,
    /// Sample lines of the request durations by listener, as of the last scrape.
    durations: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Metrics {
    pub fn new(sets: Sets<'_>) -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&CHECK_BUCKETS)
            .expect("buckets are not empty")
            .build_recorder();
        let make = Maker(&recorder);
        make.gauge(BUILD_INFO, &[sets.version, sets.revision]).set(1.0);
        for (from, to, reason) in sets.transitions {
            make.counter(PHASE_TRANSITIONS, &[from, to, reason]).increment(0);
        }
        let unknown = |family| {
            let gauge = make.gauge(family, &[]);
            gauge.set(f64::NAN);
            gauge
        };
        Self(Arc::new(Shared {
            handle: recorder.handle(),
            ready: make.gauge(READY, &[]),
            phases: sets.phases.iter().map(|phase| (*phase, make.gauge(PHASE, &[phase]))).collect(),
            time_to_ready: unknown(TIME_TO_READY),
            app_restarts: make.counter(APP_RESTARTS, &[]),
            drain_seconds: unknown(DRAIN_SECONDS),
            drain_last_request: unknown(DRAIN_LAST_REQUEST),
            drain_cut: make.counter(DRAIN_CUT, &[]),
            reloads: ReloadResult::ALL.map(|result| make.counter(CONFIG_RELOADS, &[result.name()])),
            log_lines_dropped: make.counter(LOG_LINES_DROPPED, &[]),
            checks: Mutex::default(),
            durations: Mutex::default(),
            recorder,
        }))
    }

    /// Sets the checks that are configured: at the start, and again after each reload.
    pub fn checks(&self, checks: &[CheckSeries<'_>]) {
        let make = Maker(&self.0.recorder);
        let mut known = lock(&self.0.checks);
        let mut old = std::mem::take(&mut *known);
        for series in checks {
            let same = |check: &Check| {
                check.kind == series.kind
                    && check.guard.is_some() == series.guarded
                    && check.quantiles().eq(series.warmup_quantiles.iter().copied())
            };
            let kept = old.remove(series.name).filter(same);
            known.insert(series.name.to_owned(), kept.unwrap_or_else(|| make.check(series)));
        }
    }

    pub fn ready(&self, ready: bool) {
        self.0.ready.set(f64::from(u8::from(ready)));
    }

    /// Sets the phase that the gate is in, by one of the names given at the start.
    pub fn phase(&self, name: &str) {
        for (phase, gauge) in &self.0.phases {
            gauge.set(f64::from(u8::from(*phase == name)));
        }
    }

    pub fn transition(&self, from: &'static str, to: &'static str, reason: &'static str) {
        Maker(&self.0.recorder).counter(PHASE_TRANSITIONS, &[from, to, reason]).increment(1);
    }

    pub fn time_to_ready(&self, took: Duration) {
        self.0.time_to_ready.set(took.as_secs_f64());
    }

    /// Counts a run of a check; those that were not configured with [`Metrics::checks`] are ignored, here and below.
    pub fn check_run(&self, check: &str, result: RunResult, took: Duration) {
        self.with_check(check, |check| {
            check.runs[result as usize].increment(1);
            check.duration.record(took.as_secs_f64());
        });
    }

    pub fn check_passing(&self, check: &str, passing: bool) {
        self.with_check(check, |check| check.passing.set(f64::from(u8::from(passing))));
    }

    /// Sets the time from the last arm to the pass; none when the gate was armed again.
    pub fn check_time_to_pass(&self, check: &str, took: Option<Duration>) {
        let seconds = took.map_or(f64::NAN, |took| took.as_secs_f64());
        self.with_check(check, |check| check.time_to_pass.set(seconds));
    }

    /// Sets whether a check's guard keeps the pod ready.
    pub fn check_guarded(&self, check: &str, guarded: bool) {
        self.with_check(check, |check| {
            if let Some(guard) = &check.guard {
                guard.guarded.set(f64::from(u8::from(guarded)));
            }
        });
    }

    pub fn guard_decision(&self, check: &str, decision: GuardDecision) {
        self.with_check(check, |check| {
            if let Some(guard) = &check.guard {
                guard.decisions[decision as usize].increment(1);
            }
        });
    }

    pub fn warmup_request(&self, check: &str, ok: bool) {
        self.with_check(check, |check| {
            if let Some(warmup) = &check.warmup {
                if ok { &warmup.ok } else { &warmup.failed }.increment(1);
            }
        });
    }

    /// Sets a quantile (0 to 1) that was announced with the check.
    pub fn warmup_latency(&self, check: &str, quantile: f64, latency: Duration) {
        self.with_check(check, |check| {
            let latencies = check.warmup.iter().flat_map(|warmup| &warmup.latencies);
            for (_, gauge) in latencies.filter(|(q, _)| *q == quantile) {
                gauge.set(latency.as_secs_f64());
            }
        });
    }

    pub fn app_restart(&self) {
        self.0.app_restarts.increment(1);
    }

    pub fn reload(&self, result: ReloadResult) {
        self.0.reloads[result as usize].increment(1);
    }

    /// Makes the series of a listener with files of TLS.
    pub fn tls_files(&self, name: &str) {
        let make = Maker(&self.0.recorder);
        for result in CertificateResult::ALL {
            make.counter(TLS_RELOADS, &[name, result.name()]).increment(0);
        }
    }

    /// Sets the end of the certificate that a listener serves; none while it has no certificate.
    pub fn tls_certificate(&self, listener: &str, not_after: Option<SystemTime>) {
        // A date before 1970 counts as 1970.
        let since = |end: SystemTime| end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let gauge = Maker(&self.0.recorder).gauge(TLS_CERTIFICATE_EXPIRY, &[listener]);
        gauge.set(not_after.map_or(f64::NAN, since));
    }

    pub fn tls_reload(&self, listener: &str, result: CertificateResult) {
        Maker(&self.0.recorder).counter(TLS_RELOADS, &[listener, result.name()]).increment(1);
    }

    /// Sets how the drain ended: its length, the time to its last new request, the requests it cut.
    pub fn drained(&self, took: Duration, last_request: Duration, cut: u64) {
        self.0.drain_seconds.set(took.as_secs_f64());
        self.0.drain_last_request.set(last_request.as_secs_f64());
        self.0.drain_cut.absolute(cut);
    }

    /// Sets how many log lines were lost since the start.
    pub fn log_lines_dropped(&self, total: u64) {
        self.0.log_lines_dropped.absolute(total);
    }

    /// Sets the totals of a listener: called for each of them before [`Metrics::render`].
    pub fn listener(&self, name: &str, figures: &ListenerFigures<'_>) {
        let make = Maker(&self.0.recorder);
        for (code, total) in ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(figures.codes) {
            make.counter(REQUESTS, &[name, code]).absolute(total);
        }
        for (kind, total) in figures.errors {
            make.counter(PROXY_ERRORS, &[name, kind]).absolute(*total);
        }
        for (direction, total) in [("received", figures.received_bytes), ("sent", figures.sent_bytes)] {
            make.counter(BYTES, &[name, direction]).absolute(total);
        }
        make.counter(CONNECTIONS_TOTAL, &[name]).absolute(figures.connections_total);
        for (family, value) in [
            (REQUESTS_IN_FLIGHT, figures.in_flight),
            (HELD_REQUESTS, figures.held),
            (CONNECTIONS, figures.connections),
        ] {
            make.gauge(family, &[name]).set(value as f64);
        }
        lock(&self.0.durations).insert(name.to_owned(), text::duration_lines(name, figures));
    }

    /// Moves what histograms have collected into their buckets. They keep every sample until then: call
    /// this once a second, whether anybody scrapes or not.
    pub fn upkeep(&self) {
        self.0.handle.run_upkeep();
    }

    /// The text of `/metrics`.
    pub fn render(&self) -> String {
        let durations = lock(&self.0.durations).values().flatten().cloned().collect();
        text::render(&self.0.handle.render(), &lock(&self.0.checks), durations)
    }

    fn with_check(&self, name: &str, with: impl FnOnce(&Check)) {
        if let Some(check) = lock(&self.0.checks).get(name) {
            with(check);
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(…)")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each of the maps is whole at every point where a panic could happen.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Upper bounds for the runs of checks, in seconds: a tcp check takes a millisecond, a warm-up a minute.
const CHECK_BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
