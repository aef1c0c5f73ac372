//! `traffic`: what users get right now looks healthy.
//!
//! Reads the data plane's counters, judges a sliding window, and leaves only on proof: few requests prove
//! little (see [`window`]). Once it left, it stays away for a while, twice as long each time, then wants the
//! app to answer probes and live traffic to look healthy before the case is closed (see [`ejection`]).

mod ejection;
mod keys;
#[cfg(test)]
mod tests;
mod window;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use self::ejection::{Ejection, Health, Hold, Verdict};
use self::keys::{Keys, accept};
use self::window::{Sample, Window};
use super::own;
use super::{Check, CheckError, CheckFuture, CheckResult, Context, Evidence, Kind};
use crate::config::{self, CheckSpec, Defaults, Gates};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "traffic",
        passes_when: "live answers through the listener look healthy: not provably more errors than `max_error_ratio`, and as fast as `max_latency` says. After an ejection it comes back through `probes` and a trickle. `interval` is 1s and `failure_threshold` 1 by default",
        gates: |_, _| Gates::Always,
        accept,
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &[],
        from_url: |_| Err("live traffic is no URL, expected the check in a configuration file".to_owned()),
        // It judges a window: a second look in a row proves nothing more.
        defaults: Defaults { interval: Duration::from_secs(1), failure_threshold: 1 },
    },
    build: |spec, context| Box::new(Traffic::new(spec, context)),
};

struct Traffic {
    keys: Keys,
    timeout: Duration,
    context: Context,
    state: RefCell<State>,
}

struct State {
    window: Window,
    ejection: Ejection,
}

impl Check for Traffic {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.judge())
    }

    fn tests(&self) -> String {
        self.keys.words()
    }

    /// Probes have the timeout to themselves, one after the other.
    fn deadline(&self, timeout: Duration) -> Duration {
        timeout * (self.keys.probes.len() as u32 + 1)
    }

    /// What the app did before it restarted is no news of the one that runs now.
    fn armed(&self) {
        *self.state.borrow_mut() = State::new(&self.keys, Instant::now());
    }
}

impl State {
    fn new(keys: &Keys, now: Instant) -> Self {
        let hold = Hold { base: keys.hold.base.0, max: keys.hold.max.0 };
        Self { window: Window::new(keys.window.0), ejection: Ejection::new(hold, now) }
    }
}

impl Traffic {
    fn new(spec: &CheckSpec, context: Context) -> Self {
        let keys: Keys = own::parse(&spec.own).expect("configuration accepted the keys");
        if let Some(ignored) = keys.ignored(&context) {
            ignored.set(keys.ignore_paths.clone());
        }
        let state = RefCell::new(State::new(&keys, Instant::now()));
        Self { keys, timeout: spec.timeout, context, state }
    }

    async fn judge(&self) -> CheckResult {
        let Some((listener, totals)) = self.keys.totals(&self.context) else {
            let reason = "live traffic is that of a running sidecar, and there is none here";
            return Err(CheckError::Skipped { reason: reason.to_owned() });
        };
        let now = Instant::now();
        let (sample, verdict) = {
            let State { window, ejection } = &mut *self.state.borrow_mut();
            let sample = window.add(totals, now, &self.keys.count);
            let verdict = ejection.step(self.keys.health(&sample), now);
            (sample, verdict)
        };
        match verdict {
            Verdict::Pass => Ok(self.evidence(&sample)),
            Verdict::Held(left) => Err(self.failure(&sample, Some(left), None)),
            Verdict::Probe => {
                if let Err(why) = self.probe(&listener).await {
                    return Err(self.failure(&sample, None, Some(&why)));
                }
                let State { window, ejection } = &mut *self.state.borrow_mut();
                window.clear();
                ejection.probed(Instant::now());
                Ok(self.evidence(&Sample::default()))
            }
        }
    }

    /// Sends each probe once, through the listener.
    async fn probe(&self, listener: &str) -> Result<(), String> {
        super::warmup::send_once(&self.context, listener, &self.keys.probes, self.timeout).await
    }

    fn evidence(&self, sample: &Sample) -> Evidence {
        let mut summary = self.keys.describe(sample);
        if self.state.borrow().ejection.is_half_open() {
            summary.push_str(", back on trial");
        }
        Evidence { summary, figures: Some(self.figures(sample)), ..Evidence::default() }
    }

    fn failure(&self, sample: &Sample, left: Option<Duration>, probe: Option<&str>) -> CheckError {
        let mut message = self.keys.describe(sample);
        let _ = match (left, probe) {
            (Some(left), _) => write!(message, "; stays out for {}s more", left.as_secs() + 1),
            (None, Some(why)) => write!(message, "; stays out, a probe failed: {why}"),
            (None, None) => Ok(()),
        };
        CheckError::Unexpected { message, figures: Some(self.figures(sample)) }
    }

    fn figures(&self, sample: &Sample) -> Value {
        let state = self.state.borrow();
        json!({
            "requests": sample.requests,
            "errors": sample.errors,
            "ratio": sample.ratio(),
            "proven_ratio": sample.proven_ratio(),
            "ejections": state.ejection.ejections(),
            "half_open": state.ejection.is_half_open(),
        })
    }
}

impl Keys {
    fn health(&self, sample: &Sample) -> Health {
        if sample.requests < self.min_requests {
            return Health::Unknown;
        }
        let latency_over = |share: f64| {
            self.max_latency.is_some_and(|limit| {
                let latency = sample.quantile(limit.quantile);
                latency.is_some_and(|latency| latency > limit.latency.0.mul_f64(share))
            })
        };
        if sample.proven_ratio() > self.max_error_ratio || latency_over(1.0) {
            Health::Unhealthy
        } else if sample.ratio() > self.max_error_ratio * CLEARLY || latency_over(CLEARLY) {
            Health::Unclear
        } else {
            Health::Healthy
        }
    }

    /// `15 of 50 answers in 5s are errors (30%, at most 10%)`.
    fn describe(&self, sample: &Sample) -> String {
        let percent = |share: f64| (share * 1000.0).round() / 10.0;
        let mut line = format!(
            "{} of {} answers in {} are errors",
            sample.errors,
            sample.requests,
            humantime::format_duration(self.window.0)
        );
        if sample.requests > 0 {
            let (found, most) = (percent(sample.ratio()), percent(self.max_error_ratio));
            let _ = write!(line, " ({found}%, at most {most}%)");
        }
        if let Some(limit) = self.max_latency
            && let Some(latency) = sample.quantile(limit.quantile)
        {
            let _ = write!(
                line,
                ", p{} {:.0}ms (at most {}ms)",
                percent(limit.quantile),
                latency.as_secs_f64() * 1e3,
                limit.latency.0.as_millis()
            );
        }
        line
    }
}

/// The share of its limits below which an app that left is well again: one that is barely within them would leave and
/// come back for ever.
const CLEARLY: f64 = 0.5;
