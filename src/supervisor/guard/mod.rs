//! The guard of one check: asks the peers before the check's failure closes the gate.
//!
//! The rules, and why they are safe, stand in [`crate::guard`]. Here is when it looks: a random while after the check
//! failed, so that pods do not decide at the same moment, and then again and again, after random pauses and at most
//! [`PEERS_A_SECOND`] peers a second, until the pod leaves, the check passes, or the pod drains. While the check
//! passes it looks once a minute: `/status` then shows whether peers hear each other before that matters, their
//! addresses are known should the names fail together with the dependency, and a share is one of all pods, even
//! where the name lists only the ready ones.
//!
//! A task of its own on the checks thread: it delays no check, not even its own. Each look is bounded in peers, bytes
//! and time.

mod network;
mod roster;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout_at};

use crate::config::{CheckSpec, Guard};
use crate::gate::{Event, GuardStep, Phase, Standing};
use crate::guard::{Count, Heard, MOST_ASKED, Verdict};
use crate::metrics::GuardDecision;

use self::roster::Roster;
use super::jitter::Jitter;
use super::{News, Shared, now};

#[cfg(test)]
pub(super) use self::network::Local;
pub use self::network::{Network, Peers};

/// The guard of one check.
pub(super) struct Guarding {
    shared: Rc<Shared>,
    spec: CheckSpec,
    name: Arc<str>,
    guard: Guard,
    roster: RefCell<Roster>,
    dice: RefCell<Jitter>,
}

/// What the gate says of the check while it is excused.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Case {
    arm: u64,
    since: Instant,
}

/// What one look showed.
struct Seen {
    count: Count,
    needed: usize,
    pods: usize,
    verdict: Verdict,
}

impl Guarding {
    /// None if the check has no guard.
    pub(super) fn new(shared: Rc<Shared>, spec: &CheckSpec) -> Option<Self> {
        let guard = spec.guard.clone()?;
        let dice = RefCell::new(Jitter::new(shared.seed, &format!("guard of {}", spec.name)));
        let name = spec.name.as_str().into();
        Some(Self { shared, spec: spec.clone(), name, guard, roster: RefCell::default(), dice })
    }

    /// Never ends by itself.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time, with its connections. What it announced stands until the check passes or
    /// its successor takes it back.
    pub(super) async fn run(self) {
        loop {
            let case = tokio::select! {
                biased;
                case = self.excused() => case,
                () = self.idle() => return,
            };
            tokio::select! {
                biased;
                () = self.over(case) => {}
                () = self.decide(case) => {}
            }
        }
    }

    /// Waits until the check needs its guard.
    async fn excused(&self) -> Case {
        self.until(|case| case).await
    }

    /// Waits until there is nothing left to decide.
    async fn over(&self, case: Case) {
        self.until(|found| (found != Some(case)).then_some(())).await;
    }

    /// Waits until `found` finds something in what the gate says of the check.
    async fn until<T>(&self, found: impl Fn(Option<Case>) -> Option<T>) -> T {
        let mut results = self.shared.results.subscribe();
        let mut words = self.shared.gate.view().subscribe();
        loop {
            if let Some(found) = found(self.case()) {
                return found;
            }
            // Results make and end excuses, words tell of drains and arms. The senders live in `shared`.
            let changed = tokio::select! {
                changed = results.changed() => changed.is_ok(),
                changed = words.changed() => changed.is_ok(),
            };
            if !changed {
                std::future::pending::<()>().await;
            }
        }
    }

    fn case(&self) -> Option<Case> {
        let report = self.shared.gate.view().report();
        if matches!(report.phase, Phase::Draining | Phase::Drained) {
            return None;
        }
        let check = report.checks.iter().find(|check| check.name == self.name)?;
        let excuse = check.excuse.as_ref()?;
        Some(Case { arm: report.arm, since: excuse.since })
    }

    /// Whether the check counts as failing, excused or not.
    fn fails(&self) -> bool {
        let report = self.shared.gate.view().report();
        report.checks.iter().any(|check| check.name == self.name && check.standing == Standing::Failing)
    }

    /// Looks soon, and then once a minute, for ever.
    async fn idle(&self) {
        let mut pause = self.dice.borrow_mut().below(FIRST);
        loop {
            sleep(pause).await;
            self.look(None).await;
            pause = self.dice.borrow_mut().around(IDLE);
        }
    }

    /// Decides whether the pod leaves, as often as it takes. Returns once it has left.
    async fn decide(&self, case: Case) {
        let spread = self.dice.borrow_mut().below(self.spec.interval_failing);
        sleep(spread).await;
        loop {
            let seen = self.look(Some(case)).await;
            if seen.verdict != Verdict::Stay {
                self.step(case, GuardStep::Announce, &seen);
                let again = self.look(Some(case)).await;
                if again.verdict != Verdict::Stay {
                    self.step(case, GuardStep::Leave, &again);
                    return;
                }
                self.step(case, GuardStep::Stay, &again);
            } else {
                self.step(case, GuardStep::Stay, &seen);
            }
            let pause = self.spec.interval.max(Duration::from_secs(seen.pods as u64) / PEERS_A_SECOND);
            let pause = pause / 2 + self.dice.borrow_mut().below(pause);
            sleep(pause).await;
        }
    }

    fn step(&self, case: Case, step: GuardStep, seen: &Seen) {
        let (check, line) = (Arc::clone(&self.name), seen.line());
        self.shared.gate.apply(Event::Guard { check, arm: case.arm, step, line }, now());
        let decision = match (step, seen.verdict) {
            (GuardStep::Announce, _) => return,
            (GuardStep::Stay, _) => GuardDecision::Stay,
            (GuardStep::Leave, Verdict::Alone) => GuardDecision::LeaveAlone,
            (GuardStep::Leave, _) => GuardDecision::Leave,
        };
        (self.shared.observer)(&self.name, News::Decided(decision));
    }

    /// One look at the peers; with a case, for a decision.
    async fn look(&self, case: Option<Case>) -> Seen {
        let addresses = self.find().await;
        let (asked, unasked) = self.sample(addresses);
        let heard = self.ask(asked, case).await;
        let anybody = heard.iter().any(Option::is_some);
        let count = Count::of(&self.shared.instance, heard.iter().map(Option::as_ref), unasked);
        let pods = self.roster.borrow_mut().pods(count.pods, self.fails(), now());
        let needed = self.guard.min_ready.of(pods);
        let seen = Seen { count, needed, pods, verdict: Verdict::of(&count, needed) };
        self.shared.looks.set(&self.name, Some(seen.figures()));
        if self.roster.borrow_mut().heard(anybody) {
            match anybody {
                true => tracing::info!(check = %self.name, "peers answer the guard"),
                false => tracing::warn!(
                    check = %self.name,
                    addresses = heard.len(),
                    "nobody answers the guard: is `peers` right, and is the admin port open between pods?"
                ),
            }
        }
        seen
    }

    /// The addresses of all peers: those known before stand in for names that do not resolve.
    async fn find(&self) -> Vec<SocketAddr> {
        let deadline = tokio::time::Instant::now() + FIND;
        let mut found = Vec::new();
        let mut complete = true;
        for peer in &self.guard.peers.0 {
            match timeout_at(deadline, self.shared.network.find(peer)).await {
                Ok(Ok(addresses)) => found.extend(addresses),
                Ok(Err(_)) | Err(_) => complete = false,
            }
        }
        self.roster.borrow_mut().found(found, complete)
    }

    /// As many as may be asked, at random, and how many are left out.
    fn sample(&self, mut addresses: Vec<SocketAddr>) -> (Vec<SocketAddr>, usize) {
        let mut dice = self.dice.borrow_mut();
        let all = addresses.len();
        for index in 0..all.min(MOST_ASKED) {
            addresses.swap(index, index + dice.index(all - index));
        }
        addresses.truncate(MOST_ASKED);
        let unasked = all - addresses.len();
        (addresses, unasked)
    }

    /// Asks them, some at once; none for each that gave no answer in time.
    async fn ask(&self, addresses: Vec<SocketAddr>, case: Option<Case>) -> Vec<Option<Heard>> {
        let mut heard: Vec<Option<Heard>> = vec![None; addresses.len()];
        let patience = self.spec.timeout.min(PATIENCE);
        let deadline = tokio::time::Instant::now() + patience * 3;
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut asks = JoinSet::new();
        for (index, address) in addresses.into_iter().enumerate() {
            let (network, turns) = (Rc::clone(&self.shared.network), Arc::clone(&turns));
            let check = Arc::clone(&self.name);
            asks.spawn_local(async move {
                let _turn = turns.acquire().await.ok()?;
                let failing_for =
                    case.map_or(Duration::ZERO, |case| now().saturating_duration_since(case.since));
                let answer = tokio::time::timeout(patience, network.ask(address, &check)).await.ok()??;
                Some((index, Heard { answer, failing_for }))
            });
        }
        // Dropped at the deadline: who has not answered by then is silent.
        while let Ok(Some(ended)) = timeout_at(deadline, asks.join_next()).await {
            if let Ok(Some((index, answer))) = ended {
                heard[index] = Some(answer);
            }
        }
        heard
    }
}

impl Seen {
    /// For people: what was seen, and what follows.
    fn line(&self) -> String {
        let Self { count, needed, pods, verdict } = self;
        match verdict {
            Verdict::Enough => {
                format!("{} peers remain ready, at least {needed} of {pods} pods wanted", count.ready)
            }
            Verdict::Alone => {
                format!("it fails here alone: all peers answer, and {} ran it since and pass", count.passing)
            }
            Verdict::Stay => format!("{count}; at least {needed} of {pods} pods wanted"),
        }
    }

    fn figures(&self) -> serde_json::Value {
        let Self { count, needed, pods, .. } = self;
        json!({
            // For people to read; no decision uses the wall clock.
            "at": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            "pods": pods,
            "min_ready": needed,
            "ready": count.ready,
            "leaving": count.leaving,
            "not_ready": count.not_ready,
            "silent": count.silent,
            "not_asked": count.unasked,
            "check_fails": count.failing,
            "check_passes": count.passing + count.stale,
        })
    }
}

/// Before the first look while the check passes.
const FIRST: Duration = Duration::from_secs(10);
/// Between looks while the check passes.
const IDLE: Duration = Duration::from_secs(60);
/// Peers that a guard which stays asks in a second, on average.
const PEERS_A_SECOND: u32 = 20;
/// Peers that are asked at once.
const AT_ONCE: usize = 32;
/// For one peer; less if the check's own `timeout` is. A whole look takes three times as long at most.
const PATIENCE: Duration = Duration::from_secs(1);
/// To find the peers' addresses.
const FIND: Duration = Duration::from_secs(2);
