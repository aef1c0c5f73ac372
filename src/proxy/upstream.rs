//! The only way to reach the app: a connection at rest, or a new one, or one for which the request waited.
//!
//! While the app's port refuses, requests wait in a bounded line; one task a lane knocks, and wakes all.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::{Listener, NotReady, Scheme};
use crate::tls::H2;
use crate::traffic::ErrorKind;

use super::dial::{Offer, Stream, dial, speaks_otherwise, unreachable};
use super::error::ProxyError;
use super::lane::{Lane, Waiting};
use super::lease::Lease;
use super::multiplex::{self, Multiplex};
use super::pool::{self, Pool};
use super::registry::Protocol;

/// The app, as one lane reaches it.
pub struct Upstream {
    pub pool: Pool,
    pub multiplex: Multiplex,
    /// What ALPN agreed on with an app behind `https` when it was last connected to.
    agreed: Cell<Option<Protocol>>,
    /// Whether the log says that TLS to the app fails, since it last worked.
    complained: Cell<bool>,
    suspect: Box<dyn Fn()>,
    knocking: Cell<bool>,
    /// Requests that wait for the app.
    waiting: Cell<usize>,
    back: Notify,
}

/// What a request puts up with: how long it waits for an app that refuses, how many connections it tries, and
/// what may be spoken on them.
#[derive(Debug)]
pub struct Patience {
    /// Connections that may still be made for it.
    connections: u32,
    offer: Offer,
    longest: Duration,
    policy: NotReady,
    until: Option<Instant>,
}

impl Patience {
    /// Warm-up requests wait for nothing: that the app refuses is what they are there to see.
    pub fn new(listener: &Listener, warmup: bool) -> Self {
        let longest = if warmup { Duration::ZERO } else { listener.hold.longest };
        Self { connections: CONNECTIONS, offer: Offer::All, longest, policy: listener.not_ready, until: None }
    }

    /// The same for a request that asks for an upgrade.
    pub fn for_an_upgrade(mut self) -> Self {
        self.offer = Offer::Http1;
        self
    }
}

impl Upstream {
    /// `suspect` is called when a connection broke in the pool: the app may have gone.
    pub fn new(suspect: Box<dyn Fn()>) -> Self {
        Self {
            pool: Pool::default(),
            multiplex: Multiplex::default(),
            agreed: Cell::new(None),
            complained: Cell::new(false),
            suspect,
            knocking: Cell::new(false),
            waiting: Cell::new(0),
            back: Notify::new(),
        }
    }

    /// A connection broke that no request used, or that carried bytes: the app may have gone.
    pub fn suspect(&self) {
        (self.suspect)();
    }

    /// A connection that takes a request now: from the pool, or a new one, or one for which the request waited.
    ///
    /// # Errors
    ///
    /// The app refused for as long as `patience` says, too many wait already, it cannot be reached, or it hung up on as
    /// many connections as `patience` has.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time; a connection in the making is closed.
    pub async fn lease(
        &self,
        lane: &Rc<Lane>,
        listener: &Listener,
        patience: &mut Patience,
    ) -> Result<Lease, ProxyError> {
        match self.take(lane, listener, patience.offer) {
            Some(lease) => Ok(lease),
            // Boxed: most requests find a connection, and all would have room for the making of one.
            None => Box::pin(self.procure(lane, listener, patience)).await,
        }
    }

    /// What [`Self::lease`] does where no connection is at rest.
    async fn procure(
        &self,
        lane: &Rc<Lane>,
        listener: &Listener,
        patience: &mut Patience,
    ) -> Result<Lease, ProxyError> {
        let mut waiting = None;
        loop {
            if let Some(lease) = self.take(lane, listener, patience.offer) {
                return Ok(lease);
            }
            let Some(left) = patience.connections.checked_sub(1) else {
                return Err(ProxyError::new(ErrorKind::UpstreamClosed));
            };
            if !lane.view.word().app_refuses(lane.number) {
                match self.connect(lane, listener, patience.offer).await {
                    Ok(Some(lease)) => {
                        patience.connections = left;
                        return Ok(lease);
                    }
                    Ok(None) => {}
                    // An app that speaks HTTP/2 alone gets the request without the offer.
                    Err(error) if patience.offer == Offer::Http1 && error.io_cause(speaks_otherwise) => {
                        patience.offer = Offer::All;
                        continue;
                    }
                    // It hung up before a request was sent: it may refuse the next one, and that is waited out.
                    Err(error) if error.kind == ErrorKind::UpstreamClosed => {
                        patience.connections = left;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            self.stand_by(lane, listener, patience, &mut waiting).await?;
        }
    }

    /// A connection for bytes: a new one, or one for which the client waited. Errors and cancel safety as of
    /// [`Self::lease`].
    pub async fn stream(
        &self,
        lane: &Rc<Lane>,
        listener: &Listener,
        patience: &mut Patience,
    ) -> Result<Stream, ProxyError> {
        let mut waiting = None;
        loop {
            if !lane.view.word().app_refuses(lane.number)
                && let Some(stream) = attempt(lane, listener, Offer::All).await?
            {
                return Ok(stream);
            }
            self.stand_by(lane, listener, patience, &mut waiting).await?;
        }
    }

    /// Waits for an app that refuses.
    async fn stand_by(
        &self,
        lane: &Rc<Lane>,
        listener: &Listener,
        patience: &mut Patience,
        waiting: &mut Option<Waiting>,
    ) -> Result<(), ProxyError> {
        let until = *patience.until.get_or_insert_with(|| Instant::now() + patience.longest);
        let expired = || ProxyError::new(ErrorKind::ConnectRefused);
        if patience.longest.is_zero() {
            return Err(expired());
        }
        if waiting.is_none() {
            *waiting = Some(lane.wait_in_line()?);
        }
        self.knock(lane, listener);
        let back = tokio::time::timeout_at(until, self.comes_back(lane, patience.policy)).await;
        back.map_err(|_| expired())
    }

    /// A new connection, or one that another request made meanwhile where one serves all; None if the app refuses.
    async fn connect(
        &self,
        lane: &Rc<Lane>,
        listener: &Listener,
        offer: Offer,
    ) -> Result<Option<Lease>, ProxyError> {
        let failures = self.multiplex.failures.get();
        let exclusive = || offer == Offer::Http1 || self.agreed.get() == Some(Protocol::Http1);
        let mut _making = match listener.upstream.scheme {
            Scheme::Https if exclusive() => None,
            Scheme::H2c | Scheme::Https => Some(self.multiplex.making.lock().await),
            Scheme::Http | Scheme::Unix | Scheme::Tcp => None,
        };
        if listener.upstream.scheme == Scheme::Https && exclusive() {
            // Learned while this one waited: each needs a connection of its own, and none need wait for another.
            _making = None;
        }
        if let Some(lease) = self.take(lane, listener, offer) {
            return Ok(Some(lease));
        }
        if lane.view.word().app_refuses(lane.number) {
            return Ok(None);
        }
        if self.multiplex.failures.get() != failures {
            // What the one before waited for in vain is not waited for again, one after the other.
            return Err(ProxyError::new(ErrorKind::ConnectFailed));
        }
        match attempt(lane, listener, offer).await {
            Ok(Some(stream)) => open(stream, lane, listener, offer).await.map(Some),
            Ok(None) => Ok(None),
            Err(error) => {
                if offer == Offer::All {
                    self.multiplex.failures.set(failures + 1);
                }
                Err(error)
            }
        }
    }

    fn take(&self, lane: &Rc<Lane>, listener: &Listener, offer: Offer) -> Option<Lease> {
        match listener.upstream.scheme {
            Scheme::H2c => self.multiplex.take().map(Lease::Shared),
            Scheme::Https if offer == Offer::All && self.agreed.get() == Some(Protocol::Http2) => {
                self.multiplex.take().map(Lease::Shared)
            }
            Scheme::Http | Scheme::Https | Scheme::Unix | Scheme::Tcp => {
                self.pool.take(lane).map(Lease::Exclusive)
            }
        }
    }

    /// Waits until the app accepts again, and where requests are held for readiness, until the gate admits.
    async fn comes_back(&self, lane: &Rc<Lane>, policy: NotReady) {
        self.waiting.set(self.waiting.get() + 1);
        let _waits = Waits(&self.waiting);
        loop {
            let mut back = std::pin::pin!(self.back.notified());
            back.as_mut().enable();
            if !lane.view.word().app_refuses(lane.number) {
                break;
            }
            back.await;
        }
        if policy == NotReady::Hold {
            // Ends only with the process.
            let _ = lane.view.subscribe().wait_for(|word| word.admits()).await;
        }
    }

    /// Starts the task that tries the app's port until it accepts, if there is none.
    fn knock(&self, lane: &Rc<Lane>, listener: &Listener) {
        if self.knocking.replace(true) {
            return;
        }
        let (lane, listener) = (Rc::clone(lane), listener.clone());
        tokio::task::spawn_local(async move {
            loop {
                if lane.view.word().app_refuses(lane.number)
                    && let Ok(stream) =
                        dial(&listener.upstream, &lane.tls, Offer::All, listener.timeouts.connect).await
                {
                    lane.gate.app_accepted(lane.number);
                    if listener.upstream.scheme.is_http()
                        && let Ok(lease) = open(stream, &lane, &listener, Offer::All).await
                    {
                        lease.give_back();
                    }
                }
                if !lane.view.word().app_refuses(lane.number) || lane.upstream.waiting.get() == 0 {
                    break;
                }
                tokio::time::sleep(KNOCK).await;
            }
            lane.upstream.knocking.set(false);
            lane.upstream.back.notify_waiters();
        });
    }
}

/// A new connection; None if the app refuses.
async fn attempt(lane: &Lane, listener: &Listener, offer: Offer) -> Result<Option<Stream>, ProxyError> {
    match dial(&listener.upstream, &lane.tls, offer, listener.timeouts.connect).await {
        Ok(stream) => {
            lane.gate.app_accepted(lane.number);
            lane.upstream.complained.set(false);
            Ok(Some(stream))
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            lane.gate.app_refused(lane.number);
            Ok(None)
        }
        Err(error) => {
            let otherwise = offer == Offer::Http1 && speaks_otherwise(&error);
            let error = unreachable(error);
            // Does not pass by itself, most often, and no client can heal it: somebody must look.
            if error.kind == ErrorKind::UpstreamTls && !otherwise && !lane.upstream.complained.replace(true) {
                tracing::warn!(listener = %lane.shared.name, %error, "no TLS connection to the app");
            }
            Err(error)
        }
    }
}

/// Speaks to the app as its scheme says, or as ALPN agreed.
async fn open(
    stream: Stream,
    lane: &Rc<Lane>,
    listener: &Listener,
    offer: Offer,
) -> Result<Lease, ProxyError> {
    let protocol = match listener.upstream.scheme {
        Scheme::H2c => Protocol::Http2,
        Scheme::Https if stream.protocol() == Some(H2) => Protocol::Http2,
        Scheme::Http | Scheme::Https | Scheme::Unix | Scheme::Tcp => Protocol::Http1,
    };
    if offer == Offer::All {
        lane.upstream.agreed.set(Some(protocol));
    }
    match protocol {
        Protocol::Http2 => {
            let silence = listener.timeouts.connect;
            multiplex::Lease::open(stream, lane, silence).await.map(Lease::Shared)
        }
        Protocol::Http1 => Ok(Lease::Exclusive(pool::Lease::open(stream, lane))),
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// New connections for one request: those of the pool may all have died unnoticed, but an app that accepts and
/// hangs up at once must not be tried for ever.
const CONNECTIONS: u32 = 3;

/// Counts a request that waits, until dropped.
struct Waits<'a>(&'a Cell<usize>);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// While the app refuses, its port is tried this often: loopback, one lane, so it costs next to nothing.
const KNOCK: Duration = Duration::from_millis(20);
