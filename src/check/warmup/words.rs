//! What a warm-up tests, in words.

use std::fmt::Write as _;

use super::Listed;
use super::keys::{Keys, OnBudgetExhausted, p95};
use super::route::percent;

impl Keys {
    /// `sends GET /a and 2 other requests through listener http, 4 at a time, until …`.
    pub(super) fn words(&self) -> String {
        let first = self.requests.first().map_or_else(String::new, Listed::shown);
        let others = match self.requests.len() {
            0 | 1 => String::new(),
            2 => " and 1 other request".to_owned(),
            many => format!(" and {} other requests", many - 1),
        };
        let listener =
            self.listener.as_ref().map_or("the listener".to_owned(), |name| format!("listener {name}"));
        let mut words =
            format!("sends {first}{others} through {listener}, {} at a time, until ", self.concurrency);
        let share = percent(self.success_ratio);
        let _ = write!(words, "{share}% of the last {} answers are good", self.min_requests);
        let quantile = percent(self.target.map_or(p95(), |target| target.quantile));
        if let Some(target) = self.target {
            let latency = humantime::format_duration(target.latency.0);
            let _ = write!(words, ", p{quantile} is at most {latency}");
        }
        if let Some(share) = self.plateau {
            let _ = write!(words, ", p{quantile} has settled to within {share}");
        }
        let budget = humantime::format_duration(self.budget.0);
        let then = match self.on_budget_exhausted {
            OnBudgetExhausted::Fail => "it fails and begins again",
            OnBudgetExhausted::Pass => "it passes all the same",
        };
        let _ = write!(words, "; after {budget} {then}");
        words
    }
}
