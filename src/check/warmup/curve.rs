//! How latency falls as an app warms: a curve fitted to all that was measured, not only to the last window. Pure.
//!
//! A sliding window looks back: when half of it is slow and half of it fast, its quantile is that of the slow half.
//! So the trend is estimated too. The model is `floor + height·e^(−n/pace)`, n requests after the first, which is
//! how caches fill and code is compiled; noise is taken to be a factor, so all is compared as logarithms. Where the
//! model does not fit, what is seen of the last window decides (see [`super::route`]).

use std::time::Duration;

/// All latencies of a route, in bins that grow wider as they become many: bounded, however long a run is.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// Results a bin.
    width: usize,
    bins: Vec<Bin>,
    results: usize,
}

/// Good answers that followed each other.
#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    count: f64,
    /// Sum of the logarithms of the latencies in seconds.
    logs: f64,
    /// Sum of the numbers of the results.
    numbers: f64,
}

/// Latency in seconds after n results.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Curve {
    floor: f64,
    height: f64,
    /// Results after which the height is an e-th of what it was.
    pace: f64,
}

/// The curve that fits best, and others that cannot be told from it.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    pub best: Curve,
    pub rivals: Vec<Curve>,
}

impl History {
    pub(super) fn new() -> Self {
        Self { width: 1, bins: Vec::new(), results: 0 }
    }

    /// Takes the next result; None for one that was not good.
    pub(super) fn add(&mut self, latency: Option<Duration>) {
        let number = self.results;
        self.results += 1;
        if number / self.width == self.bins.len() {
            if self.bins.len() == MOST_BINS {
                self.bins =
                    self.bins.chunks(2).map(|pair| pair.iter().fold(Bin::default(), Bin::with)).collect();
                self.width *= 2;
            }
            if number / self.width == self.bins.len() {
                self.bins.push(Bin::default());
            }
        }
        if let (Some(latency), Some(bin)) = (latency, self.bins.last_mut()) {
            // A latency of nothing has no logarithm, and no clock measures less than this.
            let log = latency.as_secs_f64().max(1e-9).ln();
            *bin = bin.with(&Bin { count: 1.0, logs: log, numbers: number as f64 });
        }
    }

    /// None while there are too few results to tell a curve from noise.
    pub(super) fn fit(&self) -> Option<Fit> {
        let points: Vec<Point> = self.bins.iter().filter(|bin| bin.count > 0.0).map(Bin::point).collect();
        let spare = points.len().checked_sub(PARAMETERS).filter(|spare| *spare >= PARAMETERS)?;
        let mut all = vec![scored(flat(&points), &points)];
        // Paces from a fiftieth of all results to several times as many, each a fifth more than the last.
        let paces = (0..PACES).map(|step| self.results as f64 * SHORTEST_PACE * 1.2_f64.powi(step));
        all.extend(paces.filter_map(|pace| falling(&points, pace)).map(|curve| scored(curve, &points)));
        let (least, best) = all.iter().copied().min_by(|a, b| a.0.total_cmp(&b.0))?;
        // As the profile of a likelihood: one standard deviation either way.
        let bound = least * (1.0 + 1.0 / spare as f64);
        let rivals = all.into_iter().filter(|(misfit, _)| *misfit <= bound).map(|(_, curve)| curve).collect();
        Some(Fit { best, rivals })
    }
}

impl Bin {
    fn with(mut self, other: &Self) -> Self {
        self.count += other.count;
        self.logs += other.logs;
        self.numbers += other.numbers;
        self
    }

    fn point(&self) -> Point {
        let Self { count, logs, numbers } = *self;
        Point { number: numbers / count, latency: (logs / count).exp(), count }
    }
}

/// Mean number, geometric mean of the latencies, and how many there were.
#[derive(Clone, Copy, Debug)]
struct Point {
    number: f64,
    latency: f64,
    count: f64,
}

impl Curve {
    pub(super) fn at(&self, number: f64) -> f64 {
        self.floor + self.height * (-number / self.pace).exp()
    }

    /// Mean over `count` results from the one with that number on.
    pub(super) fn mean(&self, from: f64, count: f64) -> f64 {
        // A geometric series.
        let (step, whole) = (-(-1.0 / self.pace).exp_m1(), -(-count / self.pace).exp_m1());
        let share = if step > 0.0 { whole / (step * count) } else { 1.0 };
        self.floor + self.height * (-from / self.pace).exp() * share
    }
}

/// How badly a curve fits: the sum of squared logarithms of what is between it and the points.
fn scored(curve: Curve, points: &[Point]) -> (f64, Curve) {
    let misfit = |point: &Point| point.count * (point.latency / curve.at(point.number)).ln().powi(2);
    (points.iter().map(misfit).sum(), curve)
}

fn flat(points: &[Point]) -> Curve {
    let count: f64 = points.iter().map(|point| point.count).sum();
    let logs: f64 = points.iter().map(|point| point.count * point.latency.ln()).sum();
    Curve { floor: (logs / count).exp(), height: 0.0, pace: 1.0 }
}

/// The curve of that pace by weighted least squares; None if latency does not fall by it.
fn falling(points: &[Point], pace: f64) -> Option<Curve> {
    let mut curve: Option<Curve> = None;
    for _ in 0..ROUNDS {
        let (mut w, mut we, mut wee, mut wl, mut wle) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for point in points {
            let e = (-point.number / pace).exp();
            // Noise is a factor: what is larger varies more. The curve before says how large it is, not the
            // point: that would give those weight that are small by chance.
            let size = curve.map_or(point.latency, |curve| curve.at(point.number)).max(1e-9);
            let weight = point.count / (size * size);
            w += weight;
            we += weight * e;
            wee += weight * e * e;
            wl += weight * point.latency;
            wle += weight * point.latency * e;
        }
        let determinant = w * wee - we * we;
        if determinant <= 1e-12 * w * wee {
            return None;
        }
        let floor = (wee * wl - we * wle) / determinant;
        let (floor, height) =
            if floor < 0.0 { (0.0, wle / wee) } else { (floor, (w * wle - we * wl) / determinant) };
        if height <= 0.0 || !height.is_finite() {
            return None;
        }
        curve = Some(Curve { floor, height, pace });
    }
    curve
}

/// Floor, height and pace.
const PARAMETERS: usize = 3;

const MOST_BINS: usize = 64;

const PACES: i32 = 30;
const SHORTEST_PACE: f64 = 0.02;

/// Of weights and curves that depend on each other; more change nothing that matters.
const ROUNDS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn history(latencies: impl IntoIterator<Item = f64>) -> History {
        let mut history = History::new();
        latencies.into_iter().for_each(|latency| history.add(Some(Duration::from_secs_f64(latency))));
        history
    }

    fn close(found: f64, expected: f64, share: f64) {
        assert!((found / expected - 1.0).abs() <= share, "{found}, expected {expected}");
    }

    #[test]
    fn curve_without_noise_is_found_again_however_many_results_there_are() {
        for count in [60, 300, 5000] {
            let true_curve = Curve { floor: 0.02, height: 0.4, pace: f64::from(count) / 5.0 };
            let best = history((0..count).map(|n| true_curve.at(f64::from(n)))).fit().expect("enough").best;
            let last = f64::from(count - 1);
            close(best.at(last), true_curve.at(last), 0.05);
            close(best.at(last / 2.0), true_curve.at(last / 2.0), 0.05);
        }
    }

    #[test]
    fn mean_of_a_stretch_is_that_of_its_results() {
        let curve = Curve { floor: 0.1, height: 0.4, pace: 70.0 };
        let plain = (30..80).map(|n| curve.at(f64::from(n))).sum::<f64>() / 50.0;
        close(curve.mean(30.0, 50.0), plain, 1e-9);
        close(flat(&[Point { number: 1.0, latency: 0.2, count: 1.0 }]).mean(3.0, 5.0), 0.2, 1e-9);
    }

    #[test]
    fn latency_that_rises_or_stays_has_no_falling_curve() {
        for rise in [0.0, 0.001] {
            let fit = history((0..100).map(|n| 0.1 + rise * f64::from(n))).fit().expect("enough");
            let fall = fit.best.at(0.0) / fit.best.at(99.0) - 1.0;
            assert!(fall.abs() < 1e-9, "{fit:?}");
        }
    }

    #[test]
    fn few_results_make_no_curve_and_failures_are_none() {
        assert!(history([0.1; 5]).fit().is_none());
        let mut history = history([0.1; 6]);
        assert!(history.fit().is_some());
        (0..10_000).for_each(|_| history.add(None));
        assert!(history.bins.len() <= MOST_BINS && history.results == 10_006);
        assert!(history.fit().is_none(), "six in one bin");
    }
}
