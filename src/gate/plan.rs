//! What each check tests, and what it does next: for people, never for a verdict.
//!
//! Whoever runs the checks writes it, the admin port reads it. Readers take no lock: a map is published whole at
//! each change, which is twice a run.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

/// The plans of all checks, by their names. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Plans(Arc<ArcSwap<HashMap<Arc<str>, Plan>>>);

/// One check, as its schedule sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In words: `connects to db:5432, and hangs up`. Never a secret.
    pub tests: Arc<str>,
    /// The checks that must have passed first.
    pub after: Arc<[String]>,
    pub next: Next,
}

/// What a check does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing before these have passed.
    Waits(Vec<String>),
    /// A run goes on; it ends by itself at most that long after its begin.
    Runs { since: Instant, at_most: Duration },
    /// The next run begins then.
    Due(Instant),
    /// It has passed, and runs again when the gate is armed.
    Rests,
}

impl Plans {
    /// A check is there, and does this next.
    pub fn set(&self, check: &Arc<str>, plan: &Plan) {
        self.change(|plans| drop(plans.insert(Arc::clone(check), plan.clone())));
    }

    /// The check does something else next.
    pub fn next(&self, check: &str, next: &Next) {
        self.change(|plans| {
            if let Some(plan) = plans.get_mut(check) {
                plan.next = next.clone();
            }
        });
    }

    /// The check is gone.
    pub fn remove(&self, check: &str) {
        self.change(|plans| drop(plans.remove(check)));
    }

    /// What is planned right now.
    pub fn all(&self) -> Arc<HashMap<Arc<str>, Plan>> {
        self.0.load_full()
    }

    fn change(&self, change: impl Fn(&mut HashMap<Arc<str>, Plan>)) {
        self.0.rcu(|plans| {
            let mut plans = HashMap::clone(plans);
            change(&mut plans);
            plans
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_lives_as_long_as_its_check() {
        let plans = Plans::default();
        let read = plans.all();
        plans.next("db", &Next::Rests);
        assert!(plans.all().is_empty(), "nobody said what it tests");
        let due = Next::Due(Instant::now());
        let plan = Plan { tests: "connects".into(), after: Arc::from([]), next: due };
        plans.set(&"db".into(), &plan);
        assert_eq!(plans.all().get("db"), Some(&plan));
        plans.next("db", &Next::Rests);
        assert_eq!(plans.all().get("db"), Some(&Plan { next: Next::Rests, ..plan }));
        plans.remove("db");
        assert!(plans.all().is_empty() && read.is_empty());
    }
}
