//! One run: its deadline, its end, what it says.

use super::*;

#[tokio::test(start_paused = true)]
async fn hung_check_times_out_and_delays_no_other() {
    let sockets = Rc::new(Cell::new((0, 0)));
    let seen = Rc::clone(&sockets);
    script("hung", move |_| {
        let seen = Rc::clone(&seen);
        async move {
            let _open = Open::new(&seen);
            std::future::pending().await
        }
    });
    script("other", |_| pass());
    let hung = CheckSpec { failure_threshold: 1, ..spec("hung") };
    supervised(vec![hung, spec("other")], async |house| {
        sleep(secs(61)).await;
        let runs = house.runs_of("hung");
        assert!(runs.iter().all(|run| run.1 == RunResult::TimedOut));
        for gap in gaps(&runs) {
            assert!((1900..=2103).contains(&gap.as_millis()), "timeout and interval_failing, not {gap:?}");
        }
        assert_eq!(house.check("hung").line, "no answer within 1s");
        for gap in gaps(&house.runs_of("other")) {
            assert!((4500..=5502).contains(&gap.as_millis()), "{gap:?}");
        }
        assert_eq!(sockets.get().1, 1, "never more than one probe at once");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn panic_in_a_check_is_a_failed_run_and_nothing_more() {
    script("bad", |_| async { panic!("index\nout of bounds") });
    script("good", |_| pass());
    supervised(vec![spec("bad"), spec("good")], async |house| {
        sleep(secs(30)).await;
        assert!(house.runs_of("bad").len() > 20);
        assert!(house.runs_of("bad").iter().all(|run| run.1 == RunResult::Panicked));
        let check = house.check("bad");
        assert_eq!(
            (check.standing, check.line.as_str()),
            (Standing::Failing, "the check panicked: index out of bounds")
        );
        assert!(house.runs_of("good").len() > 4);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn line_of_a_result_is_one_short_line() {
    script("loud", |_| async {
        let message = format!("\x1b[31mred\r\n{}\u{85}end", "é".repeat(2000));
        Err(CheckError::Unexpected { message, figures: None })
    });
    supervised(vec![spec("loud")], async |house| {
        sleep(Duration::from_millis(1)).await;
        let line = house.check("loud").line;
        assert!(line.starts_with("[31mred  éé") && line.ends_with("é…"), "{line}");
        assert!(line.len() <= 1024 && !line.chars().any(char::is_control));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn skipped_run_counts_neither_way() {
    script("warm", |_| async { Err(CheckError::Skipped { reason: "no listener".to_owned() }) });
    supervised(vec![spec("warm")], async |house| {
        sleep(secs(10)).await;
        let check = house.check("warm");
        assert_eq!((check.standing, check.runs), (Standing::Unknown, 0));
        assert_eq!(check.line, "not run: no listener");
        assert_eq!(house.runs_of("warm")[0].1, RunResult::Skipped);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn stop_drops_every_run() {
    let sockets = Rc::new(Cell::new((0, 0)));
    let seen = Rc::clone(&sockets);
    script("hung", move |_| {
        let seen = Rc::clone(&seen);
        async move {
            let _open = Open::new(&seen);
            std::future::pending().await
        }
    });
    supervised(vec![spec("hung")], async |_| {
        sleep(Duration::from_millis(500)).await;
        assert_eq!(sockets.get().0, 1);
    })
    .await;
    assert_eq!(sockets.get().0, 0);
}
