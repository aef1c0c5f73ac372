//! What a pod tells a peer that asks: small, cheap to make, and the same between versions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The answer of `GET /guard/CHECK` on the admin port, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Names this process: a pod may be found under several addresses, its own among them.
    pub instance: String,
    /// For people.
    pub phase: String,
    /// In the Service, and not draining.
    pub ready: bool,
    /// It says that it leaves for a check that fails; it may still take that back.
    pub leaving: bool,
    /// It drains: whoever counts pods counts its successor.
    pub gone: bool,
    /// The check that was asked for; none if it has no check of this name.
    pub check: Option<CheckAnswer>,
}

/// How a check does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckAnswer {
    /// Thresholds applied.
    pub state: State,
    /// Whether its last run passed; none if there was none since the last arm.
    pub last_passed: Option<bool>,
    /// Since that run began.
    pub last_began_seconds_ago: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Unknown,
    Passing,
    Failing,
}

impl Answer {
    /// Reads the JSON of a peer; none if it is anything else. Fields that a later version adds are no matter.
    pub fn read(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

impl CheckAnswer {
    /// Whether it speaks of the same fault: it fails, or has begun to.
    pub(super) fn fails(&self) -> bool {
        self.state == State::Failing || self.last_passed == Some(false)
    }

    /// Whether it passes, and was last run after the asker's own check had failed for `failing_for`.
    pub(super) fn passes_since(&self, failing_for: Duration) -> bool {
        let began = self.last_began_seconds_ago.and_then(|ago| Duration::try_from_secs_f64(ago).ok());
        self.state == State::Passing
            && self.last_passed == Some(true)
            && began.is_some_and(|ago| ago < failing_for)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_was_told_and_anything_else_is_none() {
        let check = CheckAnswer {
            state: State::Failing,
            last_passed: Some(false),
            last_began_seconds_ago: Some(0.25),
        };
        let told = Answer {
            instance: "a1".to_owned(),
            phase: "ready".to_owned(),
            ready: true,
            leaving: false,
            gone: false,
            check: Some(check),
        };
        let json = serde_json::to_vec(&told).expect("an answer is JSON");
        assert!(json.len() < 300, "{} bytes", json.len());
        assert_eq!(Answer::read(&json), Some(told));
        let more =
            br#"{"instance":"a","phase":"x","ready":true,"leaving":false,"gone":false,"check":null,"new":1}"#;
        assert!(Answer::read(more).is_some_and(|answer| answer.check.is_none()));
        for bad in ["", "{}", "not found", r#"{"instance":"a","ready":"yes"}"#, "[1e999]"] {
            assert_eq!(Answer::read(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn only_a_run_after_the_failure_speaks_for_the_dependency() {
        let passing =
            |ago| CheckAnswer { state: State::Passing, last_passed: Some(true), last_began_seconds_ago: ago };
        let failing_for = Duration::from_secs(2);
        assert!(passing(Some(1.9)).passes_since(failing_for));
        for ago in [Some(2.0), Some(9.0), Some(-1.0), Some(f64::NAN), None] {
            assert!(!passing(ago).passes_since(failing_for), "{ago:?}");
        }
        let wavering = CheckAnswer { last_passed: Some(false), ..passing(Some(0.1)) };
        assert!(wavering.fails() && !wavering.passes_since(failing_for));
    }
}
