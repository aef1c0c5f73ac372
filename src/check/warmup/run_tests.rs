//! Runs against simulated apps, in time that is paused.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::keys::Target;
use super::super::stats::Outcome;
use super::*;
use crate::config::units::Period;

fn wanted(name: &str, weight: usize, window: usize) -> Wanted {
    Wanted { name: name.to_owned(), weight, window, success_ratio: 1.0, target: None, plateau: None }
}

fn within(millis: u64, wanted: Wanted) -> Wanted {
    let latency = Period(Duration::from_millis(millis));
    Wanted { target: Some(Target { quantile: 0.95, latency }), ..wanted }
}

/// What an app does with its n-th request (from 0) to a route, while so many are under way, this one included.
type App = fn(route: usize, n: usize, at_once: usize) -> (bool, Duration);

/// What a run did: how it ended, how many requests each route got, how many were under way at most before each.
struct Seen {
    end: End,
    line: String,
    figures: Value,
    sent: Vec<usize>,
    peaks: Vec<usize>,
    took: Duration,
}

async fn run(wanted: Vec<Wanted>, concurrency: usize, budget: Duration, app: App) -> Seen {
    let sent: Arc<[AtomicUsize]> = wanted.iter().map(|_| AtomicUsize::new(0)).collect();
    let under_way = Arc::new(AtomicUsize::new(0));
    let peaks = RefCell::new(Vec::new());
    let report = |_| ();
    let mut run = Run::new(wanted, concurrency, &report);
    let exchange = |(), route: usize| {
        let at_once = under_way.fetch_add(1, Ordering::Relaxed) + 1;
        peaks.borrow_mut().push(at_once);
        let n = sent[route].fetch_add(1, Ordering::Relaxed);
        let under_way = Arc::clone(&under_way);
        async move {
            let (ok, latency) = app(route, n, at_once);
            tokio::time::sleep(latency).await;
            under_way.fetch_sub(1, Ordering::Relaxed);
            let why = (!ok).then(|| "answered 500".to_owned());
            ((), Ok(Answered { outcome: Outcome { ok, latency }, why }))
        }
    };
    let began = Instant::now();
    let end = run.drive(budget, &mut Crew::new(), || (), exchange).await;
    let sent = sent.iter().map(|sent| sent.load(Ordering::Relaxed)).collect();
    let (line, figures, took) = (run.summary(), run.figures(false), began.elapsed());
    drop(run);
    Seen { end, line, figures, sent, peaks: peaks.into_inner(), took }
}

const MINUTE: Duration = Duration::from_secs(60);
const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn cold_app_gets_one_request_at_first_and_all_at_once_when_it_answers() {
    let seen = run(vec![wanted("a", 1, 100)], 8, MINUTE, |_, _, _| (true, ms(10))).await;
    assert!(matches!(seen.end, End::Enough));
    // 1, 2, 4 and 8 at once within the first four times 10 ms; then 8 each.
    assert_eq!(seen.peaks[..15], [1, 1, 2, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(seen.peaks.iter().max(), Some(&8));
    assert!(seen.took < ms(170), "{:?}", seen.took);
}

#[tokio::test(start_paused = true)]
async fn app_that_can_take_only_three_at_once_is_not_pressed_for_long() {
    let three: App = |_, _, at_once| (at_once <= 3, ms(10));
    let seen = run(vec![Wanted { success_ratio: 0.9, ..wanted("a", 1, 100) }], 64, MINUTE, three).await;
    assert!(matches!(seen.end, End::Enough), "{}", seen.line);
    assert!(seen.took < Duration::from_secs(2), "{:?}", seen.took);
    let pressed = seen.peaks.iter().filter(|at_once| **at_once > 3).count();
    assert!(pressed * 8 <= seen.peaks.len(), "{pressed} of {}", seen.peaks.len());
    assert!(seen.peaks.iter().all(|at_once| *at_once <= 6));
}

#[tokio::test(start_paused = true)]
async fn app_that_fails_now_and_then_whatever_it_is_given_is_not_slowed_to_a_crawl() {
    let fourth: App = |_, n, _| (n >= 400 || n % 4 > 0, ms(20));
    let seen = run(vec![wanted("a", 1, 50)], 12, MINUTE, fourth).await;
    assert!(matches!(seen.end, End::Enough), "{}", seen.line);
    // One at a time would take 9 s and 2 s of pauses.
    assert!(seen.took < Duration::from_secs(7), "{:?}", seen.took);
}

#[tokio::test(start_paused = true)]
async fn broken_app_gets_single_requests_with_pauses_until_the_budget_is_over() {
    let seen = run(vec![wanted("a", 1, 20)], 16, Duration::from_secs(10), |_, _, _| (false, ms(1))).await;
    assert!(matches!(seen.end, End::Exhausted));
    assert!(seen.peaks.iter().all(|at_once| *at_once == 1));
    // 20, 40, 80, 160 ms after the first ones, then four a second.
    assert!((40..=46).contains(&seen.sent[0]), "{:?}", seen.sent);
    assert_eq!(seen.took, Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn same_answers_at_the_same_times_give_the_same_run() {
    let app: App = |_, n, at_once| (at_once <= 5 || n % 7 > 0, ms(5 + (n % 3) as u64));
    let again = || run(vec![Wanted { success_ratio: 0.5, ..wanted("a", 1, 50) }], 16, MINUTE, app);
    let (first, second) = (again().await, again().await);
    assert_eq!((first.peaks, first.sent, first.took), (second.peaks, second.sent, second.took));
}

#[tokio::test(start_paused = true)]
async fn fast_route_does_not_hide_a_slow_one() {
    let app: App = |route, n, _| (true, if route == 1 && n < 60 { ms(90) } else { ms(5) });
    let routes = || vec![within(20, wanted("fast", 9, 90)), within(20, wanted("slow", 1, 20))];
    let seen = run(routes(), 4, MINUTE, app).await;
    assert!(matches!(seen.end, End::Enough), "{}", seen.line);
    assert!((60..=90).contains(&seen.sent[1]), "{:?}", seen.sent);
    assert_eq!(seen.line, "fast: 90/90 ok, p95 5ms; slow: 20/20 ok, p95 5ms");
    let routes = seen.figures["routes"].as_array().expect("a list");
    assert_eq!((&routes[0]["route"], &routes[1]["weight"]), (&json!("fast"), &json!(1)));
    assert!(routes.iter().all(|route| route["passes"] == json!(true)), "{}", seen.figures);
    assert_eq!(routes[1]["first_window"]["p95_ms"], json!(90.0));

    let never: App = |route, _, _| (route == 0, ms(5));
    let seen = run(routes_of(&["a", "b"]), 4, Duration::from_secs(2), never).await;
    assert!(matches!(seen.end, End::Exhausted));
    assert_eq!(seen.line, "1 of 2 routes pass; b: 0/20 ok");
}

#[tokio::test(start_paused = true)]
async fn many_routes_make_no_endless_line() {
    let names: Vec<_> = (0..9).map(|number| format!("r{number}")).collect();
    let wanted: Vec<_> = names.iter().map(|name| wanted(name, 1, 1)).collect();
    let line = run(wanted, 4, MINUTE, |_, _, _| (true, ms(5))).await.line;
    assert!(line.starts_with("r0: 1/1 ok, p95 5ms; r1: ") && line.ends_with("; and 4 more"), "{line}");
}

fn routes_of(names: &[&str]) -> Vec<Wanted> {
    names.iter().map(|name| wanted(name, 1, 20)).collect()
}

#[test]
fn turns_come_in_proportion_to_weights_and_evenly() {
    let mut turn = Turn::new([5, 1, 1].into_iter());
    let order: Vec<_> = (0..14).map(|_| turn.next()).collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
    let mut counts = BTreeMap::new();
    let mut turn = Turn::new([1000, 3, 17].into_iter());
    (0..1020).for_each(|_| *counts.entry(turn.next()).or_insert(0) += 1);
    assert_eq!(counts, BTreeMap::from([(0, 1000), (1, 3), (2, 17)]));
}
