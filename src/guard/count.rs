//! What one look at the peers amounts to, and whether this pod may leave. Pure.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::answer::Answer;

/// An answer, as it was heard.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    pub answer: Answer,
    /// How long this pod's check had counted as failing when it asked.
    pub failing_for: Duration,
}

/// The peers of one look, without this pod itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All pods that are there to stay, this one among them.
    pub pods: usize,
    /// Peers that are ready and do not leave: those that would remain.
    pub ready: usize,
    /// Peers that are ready and say that they leave.
    pub leaving: usize,
    /// Peers that answered and are not ready.
    pub not_ready: usize,
    /// Addresses that gave no answer.
    pub silent: usize,
    /// Addresses that were not asked, since there are too many.
    pub unasked: usize,
    /// Peers for which the check fails, too, ready or not.
    pub failing: usize,
    /// Peers for which it passes, and which ran it since it fails here.
    pub passing: usize,
    /// Peers for which it passed when it last ran, before it failed here.
    pub stale: usize,
}

impl Count {
    /// Counts what was heard at each address that was asked, each pod once and the pod `instance` (this one) not.
    pub fn of<'a>(
        instance: &str,
        heard: impl IntoIterator<Item = Option<&'a Heard>>,
        unasked: usize,
    ) -> Self {
        let mut count = Count { unasked, ..Count::default() };
        let mut peers: HashMap<&str, &Heard> = HashMap::new();
        for heard in heard {
            match heard {
                None => count.silent += 1,
                Some(heard) if heard.answer.instance == instance => {}
                // Asked twice, under two addresses: the worse answer counts, if they differ.
                Some(heard) => {
                    let kept = peers.entry(&heard.answer.instance).or_insert(heard);
                    if remains(&kept.answer) && !remains(&heard.answer) {
                        *kept = heard;
                    }
                }
            }
        }
        for Heard { answer, failing_for } in peers.into_values() {
            match (answer.ready, answer.leaving) {
                (true, false) => count.ready += 1,
                (true, true) => count.leaving += 1,
                (false, _) => count.not_ready += 1,
            }
            count.pods += usize::from(!answer.gone);
            let Some(check) = answer.check else { continue };
            if check.fails() {
                count.failing += 1;
            } else if check.passes_since(*failing_for) {
                count.passing += 1;
            } else if check.last_passed == Some(true) {
                count.stale += 1;
            }
        }
        count.pods += 1 + count.silent + unasked;
        count
    }

    /// Peers that were asked.
    fn asked(&self) -> usize {
        self.ready + self.leaving + self.not_ready + self.silent
    }

    /// How many of those asked must be ready, if `needed` of all peers must be.
    fn needed_of_asked(&self, needed: usize) -> usize {
        let (asked, all) = (self.asked(), self.asked() + self.unasked);
        if self.unasked == 0 || needed >= all {
            return needed;
        }
        // A random sample: so many that chance alone gives them in less than one of 700 looks.
        let (share, asked) = (needed as f64 / all as f64, asked as f64);
        (asked * share + 3.0 * (asked * share * (1.0 - share)).sqrt()).ceil() as usize
    }
}

fn remains(answer: &Answer) -> bool {
    answer.ready && !answer.leaving
}

/// Whether this pod may leave for its failing check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Enough remain ready without it.
    Enough,
    /// Too few remain, but the fault is its own.
    Alone,
    /// Too few would remain.
    Stay,
}

impl Verdict {
    /// Judges by how many pods must remain ready.
    pub fn of(count: &Count, needed: usize) -> Self {
        let alone = count.silent == 0 && count.failing == 0 && count.stale == 0 && count.passing > 0;
        if count.ready >= count.needed_of_asked(needed) {
            Self::Enough
        } else if alone {
            Self::Alone
        } else {
            Self::Stay
        }
    }
}

/// `24 of 49 peers would remain ready; 20 are not ready, 3 leave, 2 do not answer; the check fails for 22 of them`.
impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} peers would remain ready", self.ready, self.asked() + self.unasked)?;
        let others = [
            (self.not_ready, "not ready"),
            (self.leaving, "leaving"),
            (self.silent, "silent"),
            (self.unasked, "not asked"),
        ];
        for (index, (number, what)) in others.iter().filter(|(number, _)| *number > 0).enumerate() {
            write!(f, "{} {number} {what}", if index == 0 { ";" } else { "," })?;
        }
        match (self.failing, self.stale) {
            (0, 0) => Ok(()),
            (0, _) => f.write_str("; not all of them have run the check again yet"),
            (failing, _) => write!(f, "; the check fails for {failing} of them"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::{CheckAnswer, State};
    use super::*;

    fn heard(instance: &str, ready: bool, leaving: bool, state: State) -> Heard {
        let check = CheckAnswer {
            state,
            last_passed: Some(state == State::Passing),
            last_began_seconds_ago: Some(1.0),
        };
        let (instance, phase) = (instance.to_owned(), "ready".to_owned());
        let answer = Answer { instance, phase, ready, leaving, gone: false, check: Some(check) };
        Heard { answer, failing_for: Duration::from_secs(2) }
    }

    fn count(all: &[Option<Heard>]) -> Count {
        Count::of("me", all.iter().map(Option::as_ref), 0)
    }

    #[test]
    fn each_pod_counts_once_and_this_one_not() {
        let both = heard("a", true, false, State::Passing);
        let all = [Some(heard("me", true, true, State::Failing)), Some(both.clone()), Some(both), None];
        let found = count(&all);
        assert_eq!((found.pods, found.ready, found.leaving, found.silent), (3, 1, 0, 1));
    }

    #[test]
    fn worse_of_two_answers_of_one_pod_counts() {
        let (before, after) =
            (heard("a", true, false, State::Failing), heard("a", true, true, State::Failing));
        for all in [[Some(before.clone()), Some(after.clone())], [Some(after), Some(before)]] {
            assert_eq!((count(&all).ready, count(&all).leaving), (0, 1));
        }
    }

    #[test]
    fn draining_pods_are_not_among_those_that_stay() {
        let mut leaver = heard("a", false, false, State::Passing);
        leaver.answer.gone = true;
        let found = count(&[Some(leaver), Some(heard("b", true, false, State::Passing))]);
        assert_eq!((found.pods, found.ready, found.not_ready), (2, 1, 1));
    }

    #[test]
    fn pod_leaves_while_enough_remain_and_those_that_leave_or_are_silent_do_not() {
        let ready = |name: &str| Some(heard(name, true, false, State::Failing));
        let all = [ready("a"), ready("b"), Some(heard("c", true, true, State::Failing)), None];
        assert_eq!(Verdict::of(&count(&all), 2), Verdict::Enough);
        assert_eq!(Verdict::of(&count(&all), 3), Verdict::Stay);
        assert_eq!(
            count(&all).to_string(),
            "2 of 4 peers would remain ready; 1 leaving, 1 silent; the check fails for 3 of them"
        );
    }

    #[test]
    fn fault_is_ones_own_only_if_every_peer_answers_and_passes_since() {
        let fine = || {
            vec![
                Some(heard("a", true, false, State::Passing)),
                Some(heard("b", false, false, State::Passing)),
            ]
        };
        assert_eq!(Verdict::of(&count(&fine()), 2), Verdict::Alone);
        let mut stale = fine();
        stale[0].as_mut().expect("heard").failing_for = Duration::from_millis(500);
        let with = |one: Option<Heard>| [fine(), vec![one]].concat();
        let mut wavering = heard("c", true, false, State::Passing);
        wavering.answer.check.as_mut().expect("a check").last_passed = Some(false);
        for (why, all) in [
            ("not run since", stale),
            ("silent", with(None)),
            ("fails", with(Some(heard("c", false, false, State::Failing)))),
            ("begins to fail", with(Some(wavering))),
            ("nobody", Vec::new()),
        ] {
            assert_eq!(Verdict::of(&count(&all), 9), Verdict::Stay, "{why}");
        }
        // Whoever has not run it, or has no such check, says nothing.
        let mut other = heard("c", true, false, State::Unknown);
        other.answer.check = None;
        assert_eq!(Verdict::of(&count(&with(Some(other))), 9), Verdict::Alone);
    }

    #[test]
    fn sample_must_show_more_than_the_share() {
        let ready = |number: usize| Count {
            ready: number,
            not_ready: 200 - number,
            unasked: 800,
            ..Count::default()
        };
        assert_eq!(Verdict::of(&ready(121), 500), Verdict::Stay);
        assert_eq!(Verdict::of(&ready(122), 500), Verdict::Enough);
        assert_eq!(
            Verdict::of(&ready(200), 1000),
            Verdict::Stay,
            "all of them, and this pod is one of those wanted"
        );
        let all = Count { ready: 100, not_ready: 100, ..Count::default() };
        assert_eq!(Verdict::of(&all, 100), Verdict::Enough);
    }
}
