//! What a guarded pod says of itself, to people and to peers.

use super::*;
use crate::gate::GuardStep;
use crate::guard::{Answer, State as CheckState};

/// Open, with a guarded check `shared` that fails.
fn guarded() -> Fixture {
    let rule = CheckRule { guarded: true, failure_threshold: 1, ..rule("shared", Role::Always) };
    let fixture = Fixture::new(vec![rule]);
    fixture.apply(app_up());
    fixture.apply(result("shared", true, "ok"));
    fixture.apply(result("shared", false, "connection refused"));
    fixture
}

fn step(step: GuardStep) -> Event {
    let line = "1 of 3 peers would remain ready, at least 2 wanted".to_owned();
    Event::Guard { check: "shared".into(), arm: 1, step, line }
}

#[test]
fn guarded_pod_is_ready_and_says_that_it_is_guarded() {
    let mut fixture = guarded();
    assert!(
        fixture.get("/ready?verbose").body.contains("[+]shared fails, asks the peers before it counts: ")
    );
    fixture.apply(step(GuardStep::Stay));
    assert_eq!((fixture.get("/ready").body.as_str(), fixture.get("/lb").status), ("ready\n", 200));
    let line = "[+]shared guarded: connection refused; 1 of 3 peers would remain ready, at least 2 wanted (run 2, 1 \
                failed in a row, 0ms ago)";
    assert!(fixture.get("/ready?verbose").body.contains(line), "{}", fixture.get("/ready?verbose").body);
    assert_eq!(fixture.get("/ready/shared").status, 200);

    fixture.state.looks = Arc::new(|name| (name == "shared").then(|| Value::from("seen")));
    let status: Value = serde_json::from_str(&fixture.get("/status").body).expect("JSON");
    assert_eq!(
        (&status["ready"], &status["guarded"], &status["instance"]),
        (&true.into(), &true.into(), &"me".into())
    );
    let guard = &status["checks"][0]["guard"];
    assert_eq!((&guard["state"], &guard["look"]), (&"guarded".into(), &"seen".into()));
    assert_eq!(guard["last"], "1 of 3 peers would remain ready, at least 2 wanted");

    fixture.apply(step(GuardStep::Announce));
    fixture.apply(step(GuardStep::Leave));
    assert_eq!(fixture.get("/ready").status, 503);
    let status: Value = serde_json::from_str(&fixture.get("/status").body).expect("JSON");
    assert_eq!((&status["guarded"], &status["checks"][0]["guard"]["state"]), (&false.into(), &"idle".into()));
}

#[test]
fn peers_hear_who_this_is_whether_it_remains_and_how_the_check_does() {
    let fixture = guarded();
    let told = |fixture: &Fixture| {
        let got = fixture.get("/guard/shared");
        assert!(got.status == 200 && got.body.len() < 300, "{}", got.body);
        Answer::read(got.body.as_bytes()).expect("an answer")
    };
    let answer = told(&fixture);
    assert_eq!(
        (answer.instance.as_str(), answer.ready, answer.leaving, answer.gone),
        ("me", true, false, false)
    );
    let check = answer.check.expect("a check");
    assert_eq!((check.state, check.last_passed), (CheckState::Failing, Some(false)));
    assert_eq!(check.last_began_seconds_ago, Some(0.005));
    fixture.apply(step(GuardStep::Announce));
    assert!(told(&fixture).ready && told(&fixture).leaving);
    fixture.apply(step(GuardStep::Leave));
    assert!(!told(&fixture).ready && !told(&fixture).leaving);
    // A drain that holds `/ready` remains no more than any other.
    fixture.apply(result("shared", true, "ok"));
    fixture.apply(Event::DrainStarted { hold_ready: true });
    let answer = told(&fixture);
    assert_eq!((fixture.get("/ready").status, answer.ready, answer.gone), (200, false, true));
    assert!(
        Answer::read(fixture.get("/guard/other").body.as_bytes())
            .is_some_and(|answer| answer.check.is_none())
    );
}

#[test]
fn silent_data_plane_does_not_remain_for_its_peers() {
    let fixture = guarded();
    let later = fixture.now + Duration::from_secs(9);
    let body = got(fixture.at(later, "GET", "/guard/shared")).body;
    assert!(Answer::read(body.as_bytes()).is_some_and(|answer| !answer.ready), "{body}");
}
