//! The decision on simulated apps: does the gate open when it should?
//!
//! The app's latency at its n-th request is `(floor + height·e^(−n/pace)) · noise`, the noise lognormal with standard
//! deviation `sigma` (of the logarithm): 0.1 is a quiet machine, 0.2 one whose p95 is 1.4 times its median.

use super::*;
use crate::config::units::Period;

/// An app that warms, and its noise from a seed.
#[derive(Clone, Copy, Debug)]
struct App {
    floor: f64,
    height: f64,
    pace: f64,
    sigma: f64,
}

struct Noise(u64);

impl Noise {
    fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Above 0, at most 1.
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Of a standard normal distribution (Box and Muller).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

impl App {
    fn median(&self, n: f64) -> f64 {
        self.floor + self.height * (-n / self.pace).exp()
    }

    fn answer(&self, n: u64, noise: &mut Noise) -> Outcome {
        let latency = self.median(n as f64) * (self.sigma * noise.normal()).exp();
        Outcome { ok: true, latency: Duration::from_secs_f64(latency) }
    }

    /// The first request whose true 95 % quantile is within the target.
    fn ideal(&self, target: f64) -> f64 {
        self.pace * (self.height / (target / (1.645 * self.sigma).exp() - self.floor)).ln()
    }

    /// The first request at which the noiseless mean of the last window is within the share of the one before.
    fn ideal_plateau(&self, window: u64, share: f64) -> f64 {
        let mean = |end: u64| (end - window..end).map(|n| self.median(n as f64)).sum::<f64>();
        let settled = |end: &u64| 1.0 - mean(*end) / mean(*end - window) <= share;
        (2 * window..).find(settled).expect("it settles") as f64
    }
}

fn wanted(window: usize) -> Wanted {
    Wanted { name: "GET /".to_owned(), weight: 1, window, success_ratio: 0.99, target: None, plateau: None }
}

fn within(window: usize, seconds: f64) -> Wanted {
    let latency = Period(Duration::from_secs_f64(seconds));
    Wanted { target: Some(Target { quantile: 0.95, latency }), ..wanted(window) }
}

/// How many requests it takes; None if it does not pass within so many.
fn opens_after(wanted: &Wanted, most: u64, mut answer: impl FnMut(u64) -> Outcome) -> Option<u64> {
    let mut route = Route::new(wanted.clone());
    (0..most).find_map(|n| {
        route.add(answer(n), None);
        route.passes().then_some(n + 1)
    })
}

/// How far from the ideal it opens, as a share of it: the least and the most of 20 seeds.
fn misses(wanted: &Wanted, app: &App, ideal: f64) -> (f64, f64) {
    let miss = |seed| {
        let mut noise = Noise::of(seed);
        let opened = opens_after(wanted, 10_000, |n| app.answer(n, &mut noise));
        opened.map_or(f64::INFINITY, |opened| opened as f64 / ideal - 1.0)
    };
    let misses = (1..=20).map(miss);
    misses.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), miss| (least.min(miss), most.max(miss)))
}

/// Windows of 50, as by default; a quiet machine and one that is not.
#[test]
fn gate_opens_within_15_percent_of_the_request_at_which_latency_reaches_its_target() {
    for (floor, height, pace, target) in [
        (0.0, 0.4, 100.0, 0.04),
        (0.005, 0.4, 300.0, 0.04),
        (0.02, 0.8, 100.0, 0.06),
        (0.03, 0.4, 100.0, 0.08),
    ] {
        for sigma in [0.1, 0.2] {
            let app = App { floor, height, pace, sigma };
            let ideal = app.ideal(target);
            let (least, most) = misses(&within(50, target), &app, ideal);
            assert!(least >= -0.15 && most <= 0.15, "{app:?}, ideal {ideal:.0}: {least:.3} to {most:.3}");
        }
    }
}

/// Fewer than four windows until it is warm: a window of results is a large share of all.
#[test]
fn gate_opens_within_25_percent_where_an_app_warms_within_a_few_windows() {
    for (floor, height, pace, target, window) in
        [(0.002, 0.4, 50.0, 0.04, 50), (0.0, 0.4, 50.0, 0.08, 50), (0.0, 0.4, 30.0, 0.04, 20)]
    {
        for sigma in [0.1, 0.2] {
            let app = App { floor, height, pace, sigma };
            let ideal = app.ideal(target);
            let (least, most) = misses(&within(window, target), &app, ideal);
            assert!(least >= -0.15 && most <= 0.25, "{app:?}, ideal {ideal:.0}: {least:.3} to {most:.3}");
        }
    }
}

#[test]
fn gate_opens_within_15_percent_of_the_request_at_which_latency_settles_high() {
    for (floor, height, pace, share, window) in [
        (0.1, 0.4, 100.0, 0.1, 50),
        (0.1, 0.4, 300.0, 0.1, 100),
        (0.1, 0.4, 50.0, 0.1, 50),
        (0.2, 0.4, 100.0, 0.05, 50),
        (0.2, 0.8, 200.0, 0.1, 100),
    ] {
        let app = App { floor, height, pace, sigma: 0.1 };
        let ideal = app.ideal_plateau(window as u64, share);
        let (least, most) = misses(&Wanted { plateau: Some(share), ..wanted(window) }, &app, ideal);
        assert!(least >= -0.15 && most <= 0.15, "{app:?}, ideal {ideal:.0}: {least:.3} to {most:.3}");
    }
}

/// Twice the noise: what a window changes by is half as sure.
#[test]
fn gate_opens_within_25_percent_of_settling_where_there_is_much_noise() {
    for (floor, height, pace, share, window) in
        [(0.1, 0.4, 100.0, 0.1, 50), (0.1, 0.4, 300.0, 0.1, 100), (0.2, 0.8, 200.0, 0.1, 100)]
    {
        let app = App { floor, height, pace, sigma: 0.2 };
        let ideal = app.ideal_plateau(window as u64, share);
        let (least, most) = misses(&Wanted { plateau: Some(share), ..wanted(window) }, &app, ideal);
        assert!(least >= -0.25 && most <= 0.25, "{app:?}, ideal {ideal:.0}: {least:.3} to {most:.3}");
    }
}

#[test]
fn app_that_stays_slower_than_its_target_never_passes() {
    let app = App { floor: 0.1, height: 0.4, pace: 100.0, sigma: 0.1 };
    for seed in 1..=20 {
        let mut noise = Noise::of(seed);
        assert_eq!(opens_after(&within(50, 0.1), 1000, |n| app.answer(n, &mut noise)), None, "seed {seed}");
    }
}

#[test]
fn warm_app_passes_with_its_first_window_and_settles_with_its_second() {
    let app = App { floor: 0.02, height: 0.0, pace: 1.0, sigma: 0.1 };
    for seed in 1..=20 {
        let mut noise = Noise::of(seed);
        assert_eq!(opens_after(&within(50, 0.04), 1000, |n| app.answer(n, &mut noise)), Some(50));
        let settled = Wanted { plateau: Some(0.1), ..wanted(50) };
        let opened = opens_after(&settled, 1000, |n| app.answer(n, &mut noise)).expect("settles");
        assert!((100..=150).contains(&opened), "seed {seed}: {opened}");
    }
}

#[test]
fn latency_that_drops_at_once_or_rises_again_is_no_curve_and_is_judged_by_what_is_seen() {
    let answer = |millis| Outcome { ok: true, latency: Duration::from_millis(millis) };
    // The last quarter of a window must be fast.
    let opened = opens_after(&within(20, 0.02), 200, |n| answer(if n < 25 { 30 } else { 1 })).expect("fast");
    assert!((30..=45).contains(&opened), "{opened}");
    let opened = opens_after(&Wanted { plateau: Some(0.2), ..wanted(20) }, 500, |n| {
        answer(if n < 20 { 60 } else { 5 })
    });
    assert!(opened.is_some_and(|opened| (60..=120).contains(&opened)), "{opened:?}");
    let falls_and_rises = |n: u64| answer(if n < 100 { 200 - 2 * n } else { 50 + 2 * (n - 100) }.max(1));
    assert_eq!(opens_after(&within(50, 0.025), 150, falls_and_rises), None);
    let alternating = |n: u64| answer(if (n / 10).is_multiple_of(2) { 100 } else { 1 });
    assert_eq!(opens_after(&within(50, 0.02), 1000, alternating), None);
}
