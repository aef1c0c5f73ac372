//! What a guard remembers of its peers from one look to the next.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The memory of one guard.
#[derive(Debug, Default)]
pub(super) struct Roster {
    addresses: Vec<SocketAddr>,
    /// The most pods seen lately, and when.
    most: Option<(usize, Instant)>,
    /// Looks in a row that nobody answered.
    deaf: u32,
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
    /// of the last [`MEMORY`] count, and nothing is forgotten while the check fails.
    pub(super) fn pods(&mut self, seen: usize, failing: bool, now: Instant) -> usize {
        let kept = self
            .most
            .filter(|(most, at)| *most > seen && (failing || now.saturating_duration_since(*at) < MEMORY));
        let (most, at) = kept.unwrap_or((seen, now));
        self.most = Some((most, if failing { now } else { at }));
        most
    }

    /// Notes whether anybody answered; says whether that is news. Silence is at the second look: names and ports
    /// of pods that have just started may not be there yet.
    pub(super) fn heard(&mut self, anybody: bool) -> bool {
        let before = self.deaf;
        self.deaf = if anybody { 0 } else { before.saturating_add(1) };
        if anybody { before >= 2 } else { self.deaf == 2 }
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
        assert_eq!(roster.pods(25, false, at(5500)), 50, "nor is it over at once for those that come back");
        assert_eq!(roster.pods(25, false, at(5600)), 25, "nobody came back");
        assert_eq!(roster.pods(60, false, at(5601)), 60);
    }

    #[test]
    fn that_nobody_answers_is_news_once() {
        let mut roster = Roster::default();
        let looks = [true, false, true, false, false, false, true, true];
        let news = [false, false, false, false, true, false, true, false];
        assert_eq!(looks.map(|anybody| roster.heard(anybody)), news);
    }
}
