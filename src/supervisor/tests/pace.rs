//! When checks run, and what the gate makes of it.

use super::*;

#[tokio::test(start_paused = true)]
async fn passing_check_runs_every_interval_within_jitter() {
    script("db", |_| pass());
    supervised(vec![spec("db")], async |house| {
        sleep(secs(300)).await;
        let runs = house.runs_of("db");
        assert!((54..=67).contains(&runs.len()), "{} runs", runs.len());
        assert_eq!(runs[0].0, Duration::ZERO, "the first run waits for nothing");
        for gap in gaps(&runs) {
            assert!((4500..=5502).contains(&gap.as_millis()), "{gap:?}");
        }
        assert_eq!(house.phase(), Phase::Ready);
        assert_eq!(house.figures.of("db"), Some(json!({ "answers": 1 })));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn check_that_does_not_pass_runs_every_failing_interval() {
    script("db", |_| fail());
    supervised(vec![spec("db")], async |house| {
        sleep(secs(60)).await;
        let runs = house.runs_of("db");
        assert!(runs.len() > 50, "{} runs", runs.len());
        for gap in gaps(&runs) {
            assert!((900..=1102).contains(&gap.as_millis()), "{gap:?}");
        }
        let check = house.check("db");
        assert_eq!((check.standing, check.line.as_str()), (Standing::Failing, "not today"));
        assert_eq!(house.gate.view().report().reasons, ["db: not today"]);
        assert_eq!(house.figures.of("db"), None);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn always_check_that_breaks_closes_the_gate_within_interval_times_threshold() {
    let broken = Rc::new(Cell::new(false));
    let seen = Rc::clone(&broken);
    script("health", move |_| {
        let broken = seen.get();
        async move { if broken { fail().await } else { pass().await } }
    });
    supervised(vec![spec("health")], async |house| {
        sleep(secs(12)).await;
        assert_eq!(house.phase(), Phase::Ready);
        broken.set(true);
        let mut words = house.gate.view().subscribe();
        let before = now();
        words.wait_for(|word| !word.is_ready()).await.expect("the gate lives");
        let took = now() - before;
        assert!(took <= Duration::from_millis(16_500), "{took:?}");
        assert_eq!(house.check("health").row, (false, 3));
        broken.set(false);
        let before = now();
        words.wait_for(|word| word.is_ready()).await.expect("the gate lives");
        assert!(now() - before <= Duration::from_millis(1_102));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn check_waits_until_those_it_comes_after_have_passed() {
    let runs = Rc::new(Cell::new(0));
    let seen = Rc::clone(&runs);
    script("db", move |_| {
        seen.set(seen.get() + 1);
        let passes = seen.get() > 5;
        async move { if passes { pass().await } else { fail().await } }
    });
    script("file", |_| async {
        sleep(Duration::from_millis(700)).await;
        pass().await
    });
    script("warm", |_| pass());
    let warm = CheckSpec { after: vec!["db".to_owned(), "file".to_owned()], kind: "warmup", ..spec("warm") };
    supervised(vec![warm, spec("db"), spec("file")], async |house| {
        sleep(secs(2)).await;
        assert_eq!(house.runs_of("warm"), []);
        sleep(secs(10)).await;
        let passed = house.runs_of("db").iter().find(|run| run.1 == RunResult::Passed).copied();
        let warmed = house.runs_of("warm")[0];
        assert_eq!(Some(warmed.0), passed.map(|run| run.0), "at once, not at the next tick");
        assert_eq!(house.phase(), Phase::Ready);
        house.restart_app();
        sleep(Duration::from_millis(600)).await;
        assert_eq!(house.runs_of("warm").len(), 1, "a pass of the arm before does not count");
        sleep(Duration::from_millis(200)).await;
        assert_eq!(house.runs_of("warm").len(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn check_after_one_that_never_passes_never_runs() {
    script("db", |_| fail());
    script("warm", |_| pass());
    let warm = CheckSpec { after: vec!["db".to_owned()], ..spec("warm") };
    // Configuration refuses cycles; were one to come through, nothing runs, and nothing spins.
    script("loop", |_| pass());
    let cycle = CheckSpec { after: vec!["loop".to_owned()], ..spec("loop") };
    supervised(vec![spec("db"), warm, cycle], async |house| {
        sleep(secs(60)).await;
        assert_eq!((house.runs_of("warm"), house.runs_of("loop")), (Vec::new(), Vec::new()));
        assert!(house.gate.view().report().reasons.contains(&"warm: waits for db".to_owned()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn app_that_stops_answering_is_out_within_timeout_and_interval() {
    let hangs = Rc::new(Cell::new(false));
    let seen = Rc::clone(&hangs);
    script("health", move |_| {
        let hangs = seen.get();
        async move { if hangs { std::future::pending().await } else { pass().await } }
    });
    let health = CheckSpec { failure_threshold: 1, interval: secs(2), ..spec("health") };
    supervised(vec![health], async |house| {
        sleep(secs(7)).await;
        hangs.set(true);
        let before = now();
        let mut words = house.gate.view().subscribe();
        words.wait_for(|word| !word.is_ready()).await.expect("the gate lives");
        assert!(now() - before <= Duration::from_millis(3_202), "{:?}", now() - before);
    })
    .await;
}

/// A dependency that flaps faster than the threshold's window moves the gate at most once a window.
#[tokio::test(start_paused = true)]
async fn flapping_dependency_moves_the_gate_at_most_once_a_threshold_window() {
    let mut left = 0;
    for seed in 0..100 {
        let start = now();
        script("db", move |_| async move {
            // 5 Hz: a tenth of a second up, a tenth down.
            let up = ((now() - start).as_millis() / 100).is_multiple_of(2);
            if up { pass().await } else { fail().await }
        });
        let db = CheckSpec { interval: secs(1), interval_failing: Duration::from_millis(500), ..spec("db") };
        supervised_with(seed, vec![db], async |house| {
            sleep(secs(30)).await;
            let results = house.runs_of("db");
            assert!(results.iter().any(|run| run.1 == RunResult::Passed));
            assert!(results.iter().any(|run| run.1 == RunResult::Failed));
            let report = house.gate.view().report();
            let closings: Vec<_> = report
                .transitions
                .iter()
                .filter(|(_, t)| t.to == Phase::Failing)
                .map(|(_, t)| t.at)
                .collect();
            left += closings.len();
            for pair in closings.windows(2) {
                // Three failures in a row while passing: two pauses between them, and the pass before.
                assert!(pair[1] - pair[0] >= Duration::from_millis(2_700), "{:?}", pair[1] - pair[0]);
            }
        })
        .await;
    }
    assert!(left > 0, "no seed ever closed the gate: the test shows nothing");
}

#[tokio::test(start_paused = true)]
async fn checks_that_only_report_and_passed_startup_checks_go_on_running() {
    script("start", |_| pass());
    script("look", |_| fail());
    let specs = vec![
        CheckSpec { gates: Gates::Startup, ..spec("start") },
        CheckSpec { gates: Gates::Never, ..spec("look") },
    ];
    supervised(specs, async |house| {
        sleep(secs(60)).await;
        assert_eq!(house.phase(), Phase::Ready);
        assert!(house.runs_of("start").len() > 9);
        assert!(house.runs_of("look").len() > 50);
    })
    .await;
}
