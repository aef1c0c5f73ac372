//! The judge on simulated traffic: does it leave when it must, and only then?

use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::traffic::AppTotals;

/// Traffic of an app with a share of errors, from a seed.
struct Simulation {
    state: u64,
    totals: AppTotals,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let totals = AppTotals { statuses: vec![0; 500], durations: [0; 15], failed: 0 };
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, totals }
    }

    fn random(&mut self) -> f64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) as f64 / (1u64 << 53) as f64
    }

    fn serve(&mut self, requests: u32, errors: f64, slow: f64) {
        for _ in 0..requests {
            let status = if self.random() < errors { 500 } else { 200 };
            self.totals.statuses[status - 100] += 1;
            let bucket = if self.random() < slow { 9 } else { 3 };
            self.totals.durations[bucket] += 1;
        }
    }
}

fn keys(more: serde_json::Value) -> Keys {
    serde_json::from_value(more).expect("keys")
}

/// One look a second, as the supervisor makes them. Says in which second the verdict was first no pass.
fn first_ejection(keys: &Keys, seconds: u64, mut traffic: impl FnMut(u64) -> AppTotals) -> Option<u64> {
    let start = Instant::now();
    let mut state = State::new(keys, start);
    (0..seconds).find(|second| {
        let now = start + Duration::from_secs(*second);
        let sample = state.window.add(traffic(*second), now, &keys.count);
        state.ejection.step(keys.health(&sample), now) != Verdict::Pass
    })
}

#[test]
fn pod_with_30_percent_errors_leaves_within_five_seconds() {
    let keys = keys(json!({}));
    for seed in 1..=100 {
        let mut simulation = Simulation::new(seed);
        let ill_from = 60;
        let left = first_ejection(&keys, 120, |second| {
            let errors = if second <= ill_from { 0.01 } else { 0.3 };
            simulation.serve(50, errors, 0.0);
            simulation.totals.clone()
        });
        let left = left.unwrap_or_else(|| panic!("seed {seed}: it stayed")) - ill_from;
        // The look comes up to a second after the errors.
        assert!((1..5).contains(&left), "seed {seed}: after {left} s");
    }
}

#[test]
fn one_percent_of_noise_makes_no_pod_leave_in_an_hour() {
    let keys = keys(json!({}));
    let mut false_ejections = 0;
    for seed in 1..=100 {
        for rate in [2, 50] {
            let mut simulation = Simulation::new(seed);
            let left = first_ejection(&keys, 3600, |_| {
                simulation.serve(rate, 0.01, 0.01);
                simulation.totals.clone()
            });
            false_ejections += u32::from(left.is_some());
        }
    }
    // None in 200 hours: fewer than 1.5 in 100 hours, with 95 % confidence.
    assert_eq!(false_ejections, 0, "of 200 hours");
}

/// An app that is barely within its limit neither leaves nor is well again.
#[test]
fn case_is_closed_by_half_of_what_opened_it() {
    let keys = keys(json!({ "max_latency": { "quantile": 0.95, "latency": "100ms" } }));
    let health = |errors, slow| {
        let (mut simulation, start) = (Simulation::new(3), Instant::now());
        let mut window = Window::new(keys.window.0);
        window.add(simulation.totals.clone(), start, &keys.count);
        simulation.serve(1000, errors, slow);
        keys.health(&window.add(simulation.totals.clone(), start + Duration::from_secs(1), &keys.count))
    };
    assert_eq!(health(0.01, 0.0), Health::Healthy);
    assert_eq!(health(0.09, 0.0), Health::Unclear);
    assert_eq!(health(0.2, 0.0), Health::Unhealthy);
    assert_eq!(health(0.0, 0.2), Health::Unhealthy, "slow");
}

#[test]
fn few_requests_are_no_evidence() {
    let keys = keys(json!({}));
    let mut simulation = Simulation::new(1);
    let left = first_ejection(&keys, 600, |_| {
        simulation.serve(3, 1.0, 0.0);
        simulation.totals.clone()
    });
    assert_eq!(left, None, "15 requests in a window, and 20 are asked for");
}

#[test]
fn slowness_counts_if_asked_for() {
    let lazy = keys(json!({}));
    let strict = keys(json!({ "max_latency": { "quantile": 0.95, "latency": "100ms" } }));
    let slow = |keys: &Keys| {
        let mut simulation = Simulation::new(7);
        first_ejection(keys, 60, |_| {
            simulation.serve(50, 0.0, 0.2);
            simulation.totals.clone()
        })
    };
    assert_eq!(slow(&lazy), None);
    assert!(slow(&strict).is_some_and(|second| second < 5));
}

#[test]
fn client_errors_never_count_unless_asked_for() {
    let (default, asked) = (keys(json!({})), keys(json!({ "count": [429, "500-599"] })));
    let flood = |keys: &Keys| {
        let mut totals = Simulation::new(1).totals;
        first_ejection(keys, 60, |_| {
            totals.statuses[429 - 100] += 50;
            totals.clone()
        })
    };
    assert_eq!(flood(&default), None);
    assert!(flood(&asked).is_some());
}
