//! Results of one check, counted in a row.

/// What the results of a check amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Too few results since the last arm to say.
    #[default]
    Unknown,
    Passing,
    Failing,
}

impl Standing {
    /// The name used in `/status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Passing => "passing",
            Self::Failing => "failing",
        }
    }
}

/// Counts results in a row: one result of the other sort starts again from nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    standing: Standing,
    passed: bool,
    /// The sort of the current row, and its length.
    row: (bool, u32),
}

impl Tally {
    /// Takes one result; thresholds are at least 1.
    pub fn count(&mut self, passed: bool, success_threshold: u32, failure_threshold: u32) {
        let length = if self.row.0 == passed { self.row.1.saturating_add(1) } else { 1 };
        self.row = (passed, length);
        if passed && length >= success_threshold {
            self.standing = Standing::Passing;
            self.passed = true;
        } else if !passed && length >= failure_threshold {
            self.standing = Standing::Failing;
        }
    }

    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether the check counted as passing at some time since the last arm.
    pub fn passed(&self) -> bool {
        self.passed
    }

    /// Results of the same sort in a row: (whether they passed, how many).
    pub fn row(&self) -> (bool, u32) {
        self.row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_only_in_a_row() {
        let mut tally = Tally::default();
        for passed in [true, false, false, true, false, false] {
            tally.count(passed, 1, 3);
        }
        assert_eq!(tally.standing(), Standing::Passing);
        tally.count(false, 1, 3);
        assert_eq!(tally.standing(), Standing::Failing);
    }

    #[test]
    fn passes_count_only_in_a_row() {
        let mut tally = Tally::default();
        for passed in [false, true, false, true] {
            tally.count(passed, 2, 1);
        }
        assert_eq!(tally.standing(), Standing::Failing);
        tally.count(true, 2, 1);
        assert_eq!(tally.standing(), Standing::Passing);
        assert!(tally.passed());
    }

    #[test]
    fn a_check_without_results_is_unknown() {
        assert_eq!(Tally::default().standing(), Standing::Unknown);
        assert!(!Tally::default().passed());
    }
}
