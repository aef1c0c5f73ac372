//! The data plane: what clients' requests pass on their way to the app.
//!
//! ```text
//!  client ─► accept ─► connection ─► stack: probe ► observe ► rescue ► strict ► bounds ► gated ► admit ► headers
//!            permit,    TLS, protocol,       │
//!            then       told to go           ▼
//!            accept     by worker         forward ─► upstream: pool, connect, wait for the app
//!                                            │
//!                                            └─► exchange (HTTP/1.1) or multiplex (HTTP/2) ─► app
//! ```
//!
//! Clients of HTTP/1 are served by `http1`, with the grammar of `message`, which `exchange` shares; those of HTTP/2 by
//! hyper, in `http2`.
//!
//! A client that wants another protocol than HTTP leaves that path: `upgrade` when the app grants it, `tcp` from
//! the start. Both end in a `tunnel`.
//!
//! [`Proxy::bind`] binds every listener. Each [`Worker`] then runs on a thread of its own, with its own sockets, its own
//! runtime, its own connections to the app and its own counters: workers share nothing that a request writes, and of
//! what a connection writes only the places of `limits.connections`. A part that belongs to one listener on one worker
//! is a `Lane`.
//!
//! Invariants: no request is served that two parsers could read differently; none is sent twice unless the first
//! copy provably did not reach the app or is idempotent, has no body, and not a byte of the answer came; what is
//! counted in flight is let go when its body ended or was dropped, not at the head of the answer.

mod accept;
mod answer;
#[cfg(any(test, feature = "bench"))]
#[doc(hidden)]
pub mod bench;
mod body;
mod coalesce;
mod connection;
mod dial;
mod error;
mod exchange;
mod fault;
mod forward;
mod forwarded;
mod head;
mod http1;
mod http2;
mod lane;
mod layers;
mod lease;
mod message;
mod metered;
mod multiplex;
mod notable;
mod octets;
mod pool;
mod ramp;
mod registry;
mod resend;
mod rest;
mod scratch;
#[cfg(test)]
mod sizes;
mod socket;
mod stack;
mod tcp;
mod terminate;
mod tunnel;
mod upgrade;
mod upload;
mod upstream;
mod websocket;
mod worker;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;

use crate::config::{Config, Listener, Scheme};
use crate::gate::Gate;
use crate::tls::{Client, H2, HTTP_1_1, Identity, InForce};
use crate::traffic::Traffic;

pub use self::ramp::Ramps;
pub use self::worker::Worker;

use self::lane::Shared;

/// The bound listeners.
pub struct Proxy {
    bound: Vec<Bound>,
}

struct Bound {
    /// One a worker.
    sockets: Vec<std::net::TcpListener>,
    /// Where our own warm-up comes in: without TLS, if clients speak it, or with its token first, if it is bytes.
    inner: Vec<std::net::TcpListener>,
    shared: Arc<Shared>,
}

/// What one worker has of a listener.
struct Part {
    socket: std::net::TcpListener,
    inner: Option<std::net::TcpListener>,
    shared: Arc<Shared>,
}

/// A port that could not be had. Does not pass by itself while the other process lives.
#[derive(Debug, thiserror::Error)]
#[error("listeners.{listener}.listen: cannot bind {address}: {source}")]
pub struct BindError {
    pub listener: String,
    pub address: SocketAddr,
    pub source: io::Error,
}

/// What workers are told to do. Goes forward only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    Serve,
    /// Serve on, and ask each client to leave with its next answer.
    Drain,
    /// Empty the accept queues, close them, let what is in flight end, cut the rest at the deadline.
    Close {
        deadline: tokio::time::Instant,
    },
}

/// What a worker needs besides the sockets.
#[derive(Clone)]
pub struct Setup {
    pub config: watch::Receiver<Arc<Config>>,
    pub orders: watch::Receiver<Order>,
    pub gate: Gate,
    pub traffic: Traffic,
    /// One a listener.
    pub tls: Arc<[Tls]>,
    /// Called with a listener's number when a connection to its app broke while nobody used it: the
    /// app may have gone.
    pub suspect: Arc<dyn Fn(usize) + Send + Sync>,
}

/// The TLS of a listener, as it is in force.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Clients speak TLS with this.
    pub identity: Option<InForce<Identity>>,
    /// The app does.
    pub client: Option<InForce<Client>>,
}

/// The protocols that clients of a listener, and its app, are offered by ALPN.
pub fn protocols(scheme: Scheme) -> &'static [&'static [u8]] {
    if scheme.is_http() { &[H2, HTTP_1_1] } else { &[] }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Setup(…)")
    }
}

impl Proxy {
    /// Binds every listener; `warmup_token` is this process' secret (see [`crate::traffic::WARMUP_HEADER`]).
    ///
    /// # Errors
    ///
    /// The first port that cannot be had; all others are given back.
    pub fn bind(
        listeners: &[Listener],
        workers: NonZeroUsize,
        warmup_token: &Arc<str>,
    ) -> Result<Self, BindError> {
        let bind = |listener: &Listener| {
            let listen = |address| {
                let failed = |source| BindError { listener: listener.name.clone(), address, source };
                listen(address, workers).map_err(failed)
            };
            let has_entrance = listener.tls.is_some() || !listener.upstream.scheme.is_http();
            Ok(Bound {
                sockets: listen(listener.listen)?,
                // Warm-up clients need no certificate then, and its name need not be that of an address.
                inner: if has_entrance { listen(ANY_ON_LOOPBACK)? } else { Vec::new() },
                shared: Arc::new(Shared::new(listener, warmup_token)),
            })
        };
        Ok(Self { bound: listeners.iter().map(bind).collect::<Result<_, _>>()? })
    }

    /// The address of each listener, with the port that the kernel chose where 0 was asked for.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.bound.iter().map(|bound| bound.sockets[0].local_addr()).collect()
    }

    /// The ramps of the listeners, to be told when the gate opens.
    pub fn ramps(&self) -> Ramps {
        Ramps::new(self.bound.iter().map(|bound| Arc::clone(&bound.shared)))
    }

    /// Where each listener takes warm-up requests: its address, or one within the pod that takes no others.
    pub fn warmup_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let sockets = self.bound.iter().map(|bound| bound.inner.first().unwrap_or(&bound.sockets[0]));
        sockets.map(std::net::TcpListener::local_addr).collect()
    }

    /// The part of one worker (0-based, less than at [`Self::bind`]), to be moved to its thread.
    ///
    /// # Errors
    ///
    /// No descriptors left.
    pub fn worker(&self, number: usize, setup: Setup) -> io::Result<Worker> {
        let sockets = self
            .bound
            .iter()
            .map(|bound| {
                let inner = bound.inner.get(number).map(std::net::TcpListener::try_clone).transpose()?;
                let shared = Arc::clone(&bound.shared);
                Ok(Part { socket: bound.sockets[number].try_clone()?, inner, shared })
            })
            .collect::<io::Result<_>>()?;
        Ok(Worker { number, sockets, setup })
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.bound.iter().map(|bound| &bound.shared.name)).finish()
    }
}

/// A listening socket for each worker: the kernel spreads the connections over them by a hash of both addresses. One
/// socket for all wakes every worker for each connection, and the quickest takes nearly all of them.
fn listen(address: SocketAddr, workers: NonZeroUsize) -> io::Result<Vec<std::net::TcpListener>> {
    let first = socket(address)?;
    // Not yet with SO_REUSEPORT: a port that anybody else has is an error, also if they would share it. After this it
    // is others who find it taken, unless they have the same user and address and ask to share.
    first.bind(&address.into())?;
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers.get() {
        sockets[0].set_reuse_port(true)?;
        let next = socket(address)?;
        next.set_reuse_port(true)?;
        next.bind(&bound)?;
        sockets.push(next);
    }
    sockets.iter().try_for_each(|socket| socket.listen(BACKLOG))?;
    Ok(sockets.into_iter().map(std::net::TcpListener::from).collect())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Lets a restarted sidecar bind while old connections wait out TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    // On Linux each accepted connection has it too: one system call less for each.
    socket.set_tcp_nodelay(true)?;
    // Each accepted connection has this too.
    socket.set_tcp_notsent_lowat(UNSENT)?;
    Ok(socket)
}

/// Bytes that the kernel takes for a client beyond those that are on their way to it: enough to keep the way full
/// until we are woken. By default it takes megabytes for a client that does not read, and a pod pays for them.
const UNSENT: u32 = 128 << 10;

const ANY_ON_LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Connections that may wait in the kernel; it takes `net.core.somaxconn` if that is less.
const BACKLOG: i32 = 4096;
