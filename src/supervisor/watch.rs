//! The watch over the app's ports: does anything accept connections there?
//!
//! One task for each distinct address. It connects, closes at once, and tells the gate: accepted, refused,
//! or nothing for any other outcome (a full backlog or a firewall proves neither). No connection stays
//! open: an app with one synchronous worker would be blocked by it. It looks twice a second while the app
//! accepts, ten times a second while it refuses or has never been seen, and at once when the data plane
//! pokes it because a pooled connection was closed or a connect was refused. While traffic proves that the
//! app answers, it does not look at all.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::config::{Address, Listener};
use crate::gate::{Gate, GateView};

use super::LastAnswer;

/// Makes the watch look at once. Cheap to clone; callable from any thread.
#[derive(Clone, Debug)]
pub struct Pokes(Arc<[Arc<Notify>]>);

impl Pokes {
    /// One a listener; listeners in front of the same address share one.
    pub fn new(listeners: &[Listener]) -> Self {
        let mut known: HashMap<&Address, Arc<Notify>> = HashMap::new();
        let poke = |listener| Arc::clone(known.entry(address(listener)).or_default());
        Self(listeners.iter().map(poke).collect())
    }

    /// Asks for a look at the app behind the listener with this number.
    pub fn poke(&self, app: usize) {
        if let Some(notify) = self.0.get(app) {
            notify.notify_one();
        }
    }
}

/// Where the app's ports were last found, to recognise them in what checks say.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses(Rc<RefCell<HashMap<Vec<usize>, Vec<SocketAddr>>>>);

impl Addresses {
    /// The apps (numbers of their listeners) that listen at this address.
    pub(super) fn apps_at(&self, address: SocketAddr) -> Vec<usize> {
        let known = self.0.borrow();
        known.iter().filter(|(_, at)| at.contains(&address)).flat_map(|(apps, _)| apps).copied().collect()
    }

    /// The apps whose port this may be: that of another loopback address, as when `localhost` is `::1` to the
    /// check and 127.0.0.1 to the app. The watch knows better than to believe it.
    pub(super) fn apps_near(&self, address: SocketAddr) -> Vec<usize> {
        let is_near = |at: &SocketAddr| {
            at.port() == address.port() && at.ip().is_loopback() && address.ip().is_loopback()
        };
        let known = self.0.borrow();
        let near = known.iter().filter(|(_, at)| !at.contains(&address) && at.iter().any(is_near));
        near.flat_map(|(apps, _)| apps).copied().collect()
    }

    fn learn(&self, apps: &[usize], addresses: &[SocketAddr]) {
        if self.0.borrow().get(apps).is_none_or(|known| known != addresses) {
            self.0.borrow_mut().insert(apps.to_vec(), addresses.to_vec());
        }
    }
}

fn address(listener: &Listener) -> &Address {
    &listener.upstream.address
}

/// One future for each distinct address; none of them ends.
pub(super) fn watches(
    gate: &Gate,
    listeners: &[Listener],
    pokes: &Pokes,
    last_answer: Option<LastAnswer>,
    addresses: &Addresses,
) -> Vec<impl Future<Output = ()> + 'static> {
    let last_answer: Option<Rc<LastAnswer>> = last_answer.map(Rc::new);
    let mut watches: Vec<Watch> = Vec::new();
    for (app, listener) in listeners.iter().enumerate() {
        if let Some(watch) = watches.iter_mut().find(|watch| watch.address == *address(listener)) {
            watch.apps.push(app);
        } else {
            watches.push(Watch {
                address: address(listener).clone(),
                apps: vec![app],
                gate: gate.clone(),
                view: gate.view(),
                pokes: pokes.clone(),
                last_answer: last_answer.clone(),
                addresses: addresses.clone(),
            });
        }
    }
    watches.into_iter().map(Watch::run).collect()
}

struct Watch {
    address: Address,
    /// Numbers of the listeners in front of it; never empty.
    apps: Vec<usize>,
    gate: Gate,
    view: GateView,
    pokes: Pokes,
    last_answer: Option<Rc<LastAnswer>>,
    addresses: Addresses,
}

/// What one look saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Accepts,
    Refuses,
    /// Something else went wrong: proves nothing.
    Unclear,
}

impl Watch {
    async fn run(self) {
        let mut words = self.view.subscribe();
        let poked = self.pokes.0.get(self.apps[0]).map(Arc::clone).unwrap_or_default();
        let mut asked = true;
        loop {
            if asked || !self.answered_lately() {
                match timeout(LOOK, self.look()).await.unwrap_or(Seen::Unclear) {
                    Seen::Accepts => self.apps.iter().for_each(|app| self.gate.app_accepted(*app)),
                    Seen::Refuses => self.apps.iter().for_each(|app| self.gate.app_refused(*app)),
                    Seen::Unclear => {}
                }
            }
            // Pokes come with every failed request; looks need not.
            sleep(GAP).await;
            let down = self.down();
            let pause = if down { WHILE_DOWN } else { WHILE_UP };
            asked = tokio::select! {
                () = sleep(pause.saturating_sub(GAP)) => false,
                () = poked.notified() => true,
                // The data plane or a check saw a change before the watch did.
                _ = words.wait_for(|_| self.down() != down) => true,
            };
        }
    }

    async fn look(&self) -> Seen {
        let (host, port) = match &self.address {
            Address::Tcp { host, port } => (host.as_str(), *port),
            Address::Unix(path) => return seen(UnixStream::connect(path).await.map(drop)),
        };
        // An address is parsed, not looked up; a name takes a blocking thread each time, since it may move.
        let Ok(found) = lookup_host((host, port)).await else {
            return Seen::Unclear;
        };
        let found: Vec<SocketAddr> = found.collect();
        self.addresses.learn(&self.apps, &found);
        let mut worst = Seen::Unclear;
        for address in found {
            match seen(TcpStream::connect(address).await.map(drop)) {
                Seen::Accepts => return Seen::Accepts,
                Seen::Refuses => worst = Seen::Refuses,
                Seen::Unclear => {}
            }
        }
        worst
    }

    /// Whether the app refuses, or has never been seen.
    fn down(&self) -> bool {
        let (word, report) = (self.view.word(), self.view.report());
        self.apps.iter().any(|app| word.app_refuses(*app) || !report.app_seen(*app))
    }

    /// Whether traffic proves that the app was there a moment ago.
    fn answered_lately(&self) -> bool {
        let Some(last_answer) = &self.last_answer else { return false };
        let last = self.apps.iter().filter_map(|app| last_answer(*app)).max();
        !self.down() && last.is_some_and(|at| Instant::now().saturating_duration_since(at) < PROOF)
    }
}

/// What an attempt to connect says.
fn seen(connected: io::Result<()>) -> Seen {
    match connected.map_err(|error| error.kind()) {
        Ok(()) => Seen::Accepts,
        // A unix socket that is not there: nobody listens either.
        Err(ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Seen::Refuses,
        Err(_) => Seen::Unclear,
    }
}

/// Between looks while the app accepts.
const WHILE_UP: Duration = Duration::from_millis(500);
/// How long an answer proves that the app is there. Together with a pause, less than the second that the
/// contract gives.
const PROOF: Duration = Duration::from_millis(300);
/// … while it refuses or has not been seen yet.
const WHILE_DOWN: Duration = Duration::from_millis(100);
/// The least time between two looks.
const GAP: Duration = Duration::from_millis(10);
/// One look.
const LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
