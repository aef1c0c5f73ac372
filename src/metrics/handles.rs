//! Handles of the recorder's series, made once and kept.

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::families::{
    CHECK_DURATION, CHECK_GUARDED, CHECK_PASSING, CHECK_RUNS, CHECK_TIME_TO_PASS, Family, GUARD_DECISIONS,
    WARMUP_LATENCY, WARMUP_REQUESTS,
};
use super::{CheckSeries, GuardDecision, RunResult};

/// The series of one check.
pub(super) struct Check {
    pub(super) kind: String,
    pub(super) passing: Gauge,
    pub(super) runs: [Counter; RunResult::ALL.len()],
    pub(super) duration: Histogram,
    pub(super) time_to_pass: Gauge,
    pub(super) warmup: Option<Warmup>,
    pub(super) guard: Option<Guard>,
}

/// What a check with a guard has besides.
pub(super) struct Guard {
    pub(super) guarded: Gauge,
    pub(super) decisions: [Counter; GuardDecision::ALL.len()],
}

/// What a warm-up has besides.
pub(super) struct Warmup {
    pub(super) ok: Counter,
    pub(super) failed: Counter,
    pub(super) latencies: Vec<(f64, Gauge)>,
}

impl Check {
    pub(super) fn quantiles(&self) -> impl Iterator<Item = f64> {
        self.warmup.iter().flat_map(|warmup| warmup.latencies.iter().map(|(quantile, _)| *quantile))
    }
}

/// Makes handles; the same labels give the same handle.
pub(super) struct Maker<'a>(pub(super) &'a PrometheusRecorder);

impl Maker<'_> {
    pub(super) fn counter(&self, family: Family, labels: &[&str]) -> Counter {
        self.0.register_counter(&key(family, labels), &METADATA)
    }

    pub(super) fn gauge(&self, family: Family, labels: &[&str]) -> Gauge {
        self.0.register_gauge(&key(family, labels), &METADATA)
    }

    pub(super) fn check(&self, series: &CheckSeries<'_>) -> Check {
        let CheckSeries { name, kind, warmup_quantiles, guarded } = *series;
        let unknown = |family, labels: &[&str]| {
            let gauge = self.gauge(family, labels);
            gauge.set(f64::NAN);
            gauge
        };
        let passing = self.gauge(CHECK_PASSING, &[name, kind]);
        passing.set(0.0);
        Check {
            kind: kind.to_owned(),
            passing,
            runs: RunResult::ALL.map(|result| self.counter(CHECK_RUNS, &[name, result.name()])),
            duration: self.0.register_histogram(&key(CHECK_DURATION, &[name]), &METADATA),
            time_to_pass: unknown(CHECK_TIME_TO_PASS, &[name]),
            warmup: (!warmup_quantiles.is_empty()).then(|| Warmup {
                ok: self.counter(WARMUP_REQUESTS, &[name, "ok"]),
                failed: self.counter(WARMUP_REQUESTS, &[name, "failed"]),
                latencies: warmup_quantiles
                    .iter()
                    .map(|quantile| (*quantile, unknown(WARMUP_LATENCY, &[name, &quantile.to_string()])))
                    .collect(),
            }),
            guard: guarded.then(|| Guard {
                guarded: self.gauge(CHECK_GUARDED, &[name]),
                decisions: GuardDecision::ALL
                    .map(|result| self.counter(GUARD_DECISIONS, &[name, result.name()])),
            }),
        }
    }
}

fn key(family: Family, values: &[&str]) -> Key {
    let labels = family.labels.iter().zip(values);
    Key::from_parts(
        family.name,
        labels.map(|(name, value)| Label::new(*name, (*value).to_owned())).collect::<Vec<_>>(),
    )
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);
