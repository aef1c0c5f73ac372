//! What people are told of the schedule is what the schedule does.

use super::*;
use crate::gate::{Next, Plan};

impl House {
    fn plan(&self, name: &str) -> Plan {
        self.gate.view().plans().get(name).cloned().expect("a plan of this check")
    }
}

#[tokio::test(start_paused = true)]
async fn plan_says_for_whom_a_check_waits_how_long_it_runs_and_that_it_rests() {
    script("db", |_| async {
        sleep(secs(2)).await;
        pass().await
    });
    script("warm", |_| async {
        sleep(secs(30)).await;
        pass().await
    });
    let after = vec!["db".to_owned(), "file".to_owned()];
    let warm = CheckSpec { kind: "warmup", after: after.clone(), ..spec("warm") };
    let slow = |name| CheckSpec { timeout: secs(5), ..spec(name) };
    script("file", |_| pass());
    supervised(vec![warm, slow("db"), spec("file")], async |house| {
        for _ in 0..2 {
            let armed = now();
            sleep(secs(1)).await;
            let plan = house.plan("warm");
            assert_eq!((&*plan.tests, &*plan.after), ("does what the script says", &*after));
            assert_eq!(plan.next, Next::Waits(vec!["db".to_owned()]), "file has passed");
            assert_eq!(house.plan("db").next, Next::Runs { since: armed, at_most: secs(5) });
            sleep(secs(2)).await;
            let Next::Runs { since, at_most } = house.plan("warm").next else { panic!("it runs") };
            assert_eq!((since - armed, at_most), (Duration::from_secs(2), secs(60)));
            sleep(secs(30)).await;
            assert_eq!(house.plan("warm").next, Next::Rests);
            assert_eq!(house.phase(), Phase::Ready);
            house.restart_app();
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn run_that_is_said_to_be_due_begins_then() {
    script("db", |_| pass());
    script("cache", |_| fail());
    supervised(vec![spec("db"), spec("cache")], async |house| {
        for name in ["db", "cache"].repeat(20) {
            sleep(Duration::from_millis(1)).await;
            let (before, Next::Due(due)) = (house.runs_of(name).len(), house.plan(name).next) else {
                panic!("{name} has a next run")
            };
            sleep((due - now()).saturating_sub(Duration::from_millis(3))).await;
            assert_eq!(house.runs_of(name).len(), before, "{name} ran too early");
            sleep(Duration::from_millis(6)).await;
            assert_eq!(house.runs_of(name).len(), before + 1, "{name} did not run when it was due");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn plans_follow_a_reload() {
    for name in ["kept", "gone", "new"] {
        script(name, |_| pass());
    }
    supervised(vec![spec("kept"), spec("gone")], async |house| {
        sleep(secs(1)).await;
        assert!(house.gate.view().plans().contains_key("gone"));
        let new = CheckSpec { after: vec!["kept".to_owned()], ..spec("new") };
        house.configs.send_replace(config(vec![spec("kept"), new]));
        sleep(secs(1)).await;
        let plans = house.gate.view().plans();
        assert!(plans.len() == 2 && !plans.contains_key("gone"), "{plans:?}");
        assert_eq!(*house.plan("new").after, ["kept".to_owned()]);
    })
    .await;
}

/// From the arm, not from the moment when a check's turn came: what a check waited for is in it.
#[tokio::test(start_paused = true)]
async fn time_to_pass_counts_from_the_arm_and_holds_what_a_check_waited_for() {
    script("db", |_| async {
        sleep(secs(4)).await;
        pass().await
    });
    script("warm", |_| async {
        sleep(secs(3)).await;
        pass().await
    });
    let db = CheckSpec { timeout: secs(5), ..spec("db") };
    let warm = CheckSpec { kind: "warmup", after: vec!["db".to_owned()], ..spec("warm") };
    supervised(vec![db, warm], async |house| {
        for arm in 1..=3 {
            assert_eq!(house.check("warm").time_to_pass, None, "arm {arm}: what was before does not count");
            sleep(secs(5)).await;
            assert_eq!(
                (house.check("db").time_to_pass, house.check("warm").time_to_pass),
                (Some(secs(4)), None)
            );
            sleep(secs(20)).await;
            assert_eq!(house.check("warm").time_to_pass, Some(secs(7)), "arm {arm}");
            assert_eq!(house.check("db").time_to_pass, Some(secs(4)), "later passes change nothing");
            house.restart_app();
        }
    })
    .await;
}
