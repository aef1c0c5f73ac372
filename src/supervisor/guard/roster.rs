//! What a guard remembers of its peers from one look to the next.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The memory of one guard.
#[derive(Debug, Default)]
pub(super) struct Roster {
    addresses: Vec<SocketAddr>,
    /// The most pods seen lately, and when.
    most: Option<(usize, Instant)>,
    /// The last look was heard by nobody.
    deaf: bool,
}

impl Roster {
    /// Takes what was found; gives it without repetitions, together with what was known if some names did not resolve.
    pub(super) fn found(&mut self, mut found: Vec<SocketAddr>, complete: bool) -> Vec<SocketAddr> {
        if !complete {
            found.append(&mut self.addresses);
        }
        found.sort_unstable();
        found.dedup();
        self.addresses.clone_from(&found);
        found
    }

    /// How many pods there are. Where the name lists only ready pods, those that left are no longer seen: so the most
    /// of the last [`MEMORY`] count, and nothing is forgotten while a decision is pending.
    pub(super) fn pods(&mut self, seen: usize, pending: bool, now: Instant) -> usize {
        let kept = self
            .most
            .filter(|(most, at)| *most > seen && (pending || now.saturating_duration_since(*at) < MEMORY));
        let (most, at) = kept.unwrap_or((seen, now));
        self.most = Some((most, at));
        most
    }

    /// Notes whether anybody answered; says whether that is news.
    pub(super) fn heard(&mut self, anybody: bool) -> bool {
        let was = std::mem::replace(&mut self.deaf, !anybody);
        was == anybody
    }
}

const MEMORY: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn names_that_do_not_resolve_take_nobody_away() {
        let mut roster = Roster::default();
        let both = [address(1), address(2)];
        assert_eq!(roster.found(vec![address(2), address(1), address(2)], true), both);
        assert_eq!(roster.found(Vec::new(), false), both);
        assert_eq!(roster.found(vec![address(1)], true), [address(1)]);
    }

    #[test]
    fn pods_that_left_the_list_still_count_while_it_matters() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut roster = Roster::default();
        assert_eq!(roster.pods(50, false, at(0)), 50);
        assert_eq!(roster.pods(30, true, at(500)), 50);
        assert_eq!(roster.pods(25, true, at(5000)), 50, "an outage may be long");
        assert_eq!(roster.pods(25, false, at(5001)), 25, "nobody came back");
        assert_eq!(roster.pods(60, false, at(5002)), 60);
    }

    #[test]
    fn that_nobody_answers_is_news_once() {
        let mut roster = Roster::default();
        assert_eq!(
            [true, false, false, true].map(|anybody| roster.heard(anybody)),
            [false, true, false, true]
        );
    }
}
