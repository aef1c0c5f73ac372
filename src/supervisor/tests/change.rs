//! What a new arm and a reload do to checks that are under way.

use super::*;

#[tokio::test(start_paused = true)]
async fn new_arm_drops_the_run_that_goes_on_and_starts_all_again() {
    let sockets = Rc::new(Cell::new((0, 0)));
    let begun = Rc::new(Cell::new(0));
    let (seen, count) = (Rc::clone(&sockets), Rc::clone(&begun));
    script("warm", move |context| {
        let seen = Rc::clone(&seen);
        count.set(count.get() + 1);
        async move {
            let _open = Open::new(&seen);
            sleep(secs(3)).await;
            (context.report)(Report::Progress("half of it".to_owned()));
            sleep(secs(3)).await;
            pass().await
        }
    });
    script("db", |_| pass());
    let warm = CheckSpec { kind: "warmup", gates: Gates::Startup, ..spec("warm") };
    supervised(vec![warm, spec("db")], async |house| {
        sleep(secs(4)).await;
        assert_eq!(house.check("warm").line, "half of it");
        let asked = house.runs_of("db").len();
        house.restart_app();
        sleep(Duration::from_millis(1)).await;
        assert_eq!((begun.get(), sockets.get()), (2, (1, 1)), "one run, and it is a new one");
        assert_eq!(house.runs_of("db").len(), asked + 1, "the others start again, too");
        sleep(secs(4)).await;
        assert_ne!(house.phase(), Phase::Ready, "the run before the restart would have passed by now");
        sleep(secs(3)).await;
        assert_eq!(house.phase(), Phase::Ready);
        sleep(secs(600)).await;
        assert_eq!(begun.get(), 2, "a warm-up that passed rests until the next arm");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn reload_starts_ends_and_restarts_only_what_changed() {
    let begun: Rc<RefCell<HashMap<String, u32>>> = Rc::default();
    let sockets = Rc::new(Cell::new((0, 0)));
    for name in ["kept", "changed", "gone", "new"] {
        let (begun, sockets) = (Rc::clone(&begun), Rc::clone(&sockets));
        script(name, move |_| {
            *begun.borrow_mut().entry(name.to_owned()).or_default() += 1;
            let sockets = Rc::clone(&sockets);
            async move {
                let _open = Open::new(&sockets);
                sleep(secs(20)).await;
                pass().await
            }
        });
    }
    let long = |name| CheckSpec { kind: "warmup", timeout: secs(10), ..spec(name) };
    supervised(vec![long("kept"), long("changed"), long("gone")], async |house| {
        sleep(secs(10)).await;
        let changed = CheckSpec { own: Own(json!("other")), ..long("changed") };
        house.configs.send_replace(config(vec![long("kept"), changed, long("new")]));
        sleep(secs(1)).await;
        let count = |name: &str| begun.borrow().get(name).copied();
        assert_eq!(
            (count("kept"), count("changed"), count("gone"), count("new")),
            (Some(1), Some(2), Some(1), Some(1))
        );
        assert_eq!(sockets.get().0, 3, "the run of the check that is gone was dropped");
        let report = house.gate.view().report();
        let names: Vec<_> = report.checks.iter().map(|check| check.name.to_string()).collect();
        assert_eq!(names, ["kept", "changed", "new"]);
        sleep(secs(10)).await;
        assert!(house.check("kept").passed && !house.check("changed").passed);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn reload_of_a_schedule_keeps_the_evidence() {
    script("db", |_| fail());
    supervised(vec![spec("db")], async |house| {
        sleep(secs(10)).await;
        assert_eq!(house.check("db").standing, Standing::Failing);
        house.configs.send_replace(config(vec![CheckSpec { interval_failing: secs(3), ..spec("db") }]));
        sleep(Duration::from_millis(1)).await;
        assert_eq!(house.check("db").standing, Standing::Failing, "what it saw is still true");
        let before = house.runs_of("db").len();
        sleep(secs(9)).await;
        let runs = house.runs_of("db").len() - before;
        assert!((2..=3).contains(&runs), "{runs} runs");
    })
    .await;
}
