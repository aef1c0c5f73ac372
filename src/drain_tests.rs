use std::sync::Mutex;

use super::*;

const SETTINGS: Settings = Settings {
    min: Duration::from_secs(5),
    quiet: Duration::from_secs(2),
    deadline: Duration::from_secs(25),
    restart_window: Duration::from_secs(2),
};

const NOTHING: Activity = Activity { in_flight: 0, last_request: None };

type Notices = Arc<Mutex<Vec<Notice>>>;

/// A drain whose notices are recorded and that is driven with what `activity` says, on paused time.
fn drain(activity: impl Fn() -> Activity + 'static) -> (Drain, Notices) {
    let notices = Notices::default();
    let heard = Arc::clone(&notices);
    let drain = Drain::new(SETTINGS, Box::new(move |notice| heard.lock().expect("lock").push(notice)));
    let driven = drain.clone();
    tokio::task::spawn_local(async move { driven.drive(activity).await });
    (drain, notices)
}

async fn paused<T>(body: impl Future<Output = T>) -> T {
    tokio::time::pause();
    tokio::task::LocalSet::new().run_until(body).await
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Lets other tasks run, then moves the clock.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

const SECOND: Duration = Duration::from_secs(1);

fn started(notices: &Notices) -> Vec<Call> {
    let notices = notices.lock().expect("lock");
    notices.iter().filter_map(|n| if let Notice::Started { by } = n { Some(*by) } else { None }).collect()
}

fn near(took: Duration, expected: Duration) -> bool {
    took >= expected && took < expected + Duration::from_millis(100)
}

#[tokio::test]
async fn quiet_pod_is_drained_after_min() {
    paused(async {
        let (drain, _) = drain(|| NOTHING);
        drain.call(Call::Sigterm);
        let outcome = drain.drained().await;
        assert!(near(outcome.took, SETTINGS.min), "{outcome:?}");
        assert_eq!((outcome.left, outcome.last_request), (0, Duration::ZERO));
    })
    .await;
}

#[tokio::test]
async fn drain_waits_for_quiet_after_the_last_request() {
    paused(async {
        let last = now() + 4 * SECOND;
        let (drain, _) =
            drain(move || Activity { in_flight: 0, last_request: (now() >= last).then_some(last) });
        drain.call(Call::SidecarHook);
        let outcome = drain.drained().await;
        assert!(near(outcome.took, 6 * SECOND), "{outcome:?}");
        assert_eq!(outcome.last_request, 4 * SECOND);
    })
    .await;
}

#[tokio::test]
async fn drain_waits_for_requests_in_flight_and_no_longer_than_the_deadline() {
    paused(async {
        let (drain, _) = drain(|| Activity { in_flight: 3, last_request: None });
        drain.call(Call::Sigterm);
        let outcome = drain.drained().await;
        assert!(near(outcome.took, SETTINGS.deadline), "{outcome:?}");
        assert_eq!(outcome.left, 3);
    })
    .await;
}

#[tokio::test]
async fn every_order_of_the_three_calls_is_one_drain() {
    use Call::{AppHook, SidecarHook, Sigterm};
    let orders = [
        [AppHook, SidecarHook, Sigterm],
        [SidecarHook, AppHook, Sigterm],
        [Sigterm, AppHook, SidecarHook],
        [Sigterm, SidecarHook, AppHook],
        [AppHook, Sigterm, SidecarHook],
        [SidecarHook, Sigterm, AppHook],
    ];
    for order in orders {
        for gap in [0, 2, 1900] {
            for copies in [1, 2] {
                paused_order(order, Duration::from_millis(gap), copies).await;
            }
        }
    }
}

async fn paused_order(order: [Call; 3], gap: Duration, copies: usize) {
    tokio::task::LocalSet::new()
        .run_until(async {
            if !is_paused() {
                tokio::time::pause();
            }
            let (drain, notices) = drain(|| NOTHING);
            let mut answers = Vec::new();
            for call in order {
                for _ in 0..copies {
                    if call == Call::AppHook {
                        let drain = drain.clone();
                        answers.push(tokio::task::spawn_local(async move { drain.app_hook().await }));
                        tokio::task::yield_now().await;
                    } else {
                        drain.call(call);
                    }
                }
                pass(gap).await;
            }
            let outcome = drain.drained().await;
            let first = order.into_iter().find(|call| *call != Call::AppHook).expect("two others");
            assert_eq!(started(&notices), [first], "{order:?}, {gap:?} apart");
            for answer in answers {
                assert_eq!(answer.await.expect("no panic"), Answer::Drained(outcome));
            }
        })
        .await;
}

/// tokio panics on a second pause of one clock; each call above runs in the same test.
fn is_paused() -> bool {
    thread_local!(static PAUSED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
    PAUSED.with(|paused| paused.replace(true))
}

#[tokio::test]
async fn app_hook_alone_is_answered_as_a_restart_after_the_window() {
    paused(async {
        let (drain, notices) = drain(|| NOTHING);
        let begun = now();
        let (first, second) = tokio::join!(drain.app_hook(), drain.app_hook());
        assert_eq!((first, second), (Answer::Restart, Answer::Restart));
        assert!(near(now() - begun, SETTINGS.restart_window));
        assert_eq!(*notices.lock().expect("lock"), [Notice::AppStopping, Notice::AppRestarting]);
    })
    .await;
}

#[tokio::test]
async fn deletion_during_a_restart_runs_the_hooks_again_and_drains() {
    // kubelet-measured.md, variants 35 and 35b: the app's hook, its restart, then both hooks.
    paused(async {
        let (drain, notices) = drain(|| NOTHING);
        assert_eq!(drain.app_hook().await, Answer::Restart);
        pass(3 * SECOND).await;
        let again = drain.clone();
        let hook = tokio::task::spawn_local(async move { again.app_hook().await });
        tokio::task::yield_now().await;
        drain.call(Call::SidecarHook);
        let outcome = drain.drained().await;
        assert_eq!(hook.await.expect("no panic"), Answer::Drained(outcome));
        assert_eq!(notices.lock().expect("lock").len(), 5);
    })
    .await;
}

#[tokio::test]
async fn late_hooks_are_answered_at_once() {
    paused(async {
        let (drain, _) = drain(|| NOTHING);
        drain.call(Call::Sigterm);
        let outcome = drain.drained().await;
        let begun = now();
        assert_eq!(drain.app_hook().await, Answer::Drained(outcome));
        assert_eq!(drain.drained().await, outcome);
        assert_eq!(now(), begun);
    })
    .await;
}

#[tokio::test]
async fn hook_that_hangs_up_changes_nothing() {
    paused(async {
        let (drain, notices) = drain(|| NOTHING);
        assert!(tokio::time::timeout(SECOND, drain.app_hook()).await.is_err());
        pass(2 * SECOND).await;
        assert_eq!(*notices.lock().expect("lock"), [Notice::AppStopping, Notice::AppRestarting]);
        assert_eq!(drain.state(), State::Idle { restarts: 1 });
    })
    .await;
}
