//! One lane's connections to the app: those at rest, and those lent to a request each.
//!
//! The pool is a stack: the connection used last is the likeliest to live, and those not needed age at the
//! bottom until the worker's tick closes them. A connection comes back only when hyper says that it wants
//! the next request, which is when both messages ended exactly.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryFutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use super::body::RequestBody;
use super::dial::Stream;
use super::error::ProxyError;
use super::lane::{Clock, Lane};
use super::lease::{Failure, Fate};
use super::metered::{Metered, Tally};

/// The connections at rest.
#[derive(Default)]
pub struct Pool {
    /// The one used last is on top.
    idle: RefCell<Vec<Idle>>,
}

struct Idle {
    connection: Connection,
    since: u64,
}

impl Pool {
    /// A connection that takes a request now, if there is one.
    pub fn take(&self, lane: &Rc<Lane>) -> Option<Lease> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { connection, .. }) = idle.pop() {
            connection.link.idle.set(false);
            if connection.sender.is_ready() {
                return Some(Lease { connection, lane: Rc::clone(lane) });
            }
        }
        None
    }

    /// Closes connections that nobody used for that long.
    pub fn sweep(&self, clock: &Clock, longest: Duration) {
        let mut idle = self.idle.borrow_mut();
        let old = idle.iter().take_while(|entry| clock.passed(entry.since, longest)).count();
        idle.drain(..old);
    }

    fn put(&self, connection: Connection, clock: &Clock) {
        connection.link.idle.set(true);
        connection.link.may_switch.set(false);
        connection.link.much.set(false);
        self.idle.borrow_mut().push(Idle { connection, since: clock.millis() });
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle.borrow().len()).finish_non_exhaustive()
    }
}

/// A connection to the app. Dropping it closes it at once, whatever is under way: hyper alone would let a
/// request's body go on after the answer, for as long as the client sends.
struct Connection {
    sender: SendRequest<RequestBody>,
    link: Rc<Link>,
    task: JoinHandle<Option<Upgraded>>,
}

/// What hyper leaves of a connection after a 101.
type Upgraded = http1::Parts<TokioIo<Metered<Stream, Rc<Link>>>>;

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is known of a connection while its task has it.
#[derive(Debug, Default)]
struct Link {
    received: Cell<u64>,
    /// In the pool right now.
    idle: Cell<bool>,
    /// The request under way asks for an upgrade.
    may_switch: Cell<bool>,
    /// The client of the request under way keeps up with large pieces.
    much: Cell<bool>,
}

impl Tally for Rc<Link> {
    fn received(&self, bytes: &[u8]) {
        self.received.set(self.received.get() + bytes.len() as u64);
    }

    fn most(&self) -> Option<usize> {
        (!self.much.get()).then_some(PIECE)
    }

    fn sent(&self, _: usize) {}
}

/// One connection to the app, lent to one request. Dropping it closes the connection.
pub struct Lease {
    connection: Connection,
    lane: Rc<Lane>,
}

impl Lease {
    /// Makes a new connection fit for requests.
    ///
    /// # Errors
    ///
    /// None that hyper documents for HTTP/1.
    pub async fn open(stream: Stream, lane: &Rc<Lane>) -> Result<Self, ProxyError> {
        let link = Rc::new(Link::default());
        let io = TokioIo::new(Metered::new(stream, Bytes::new(), Rc::clone(&link)));
        let (sender, mut connection) = http1::Builder::new()
            .max_buf_size(LARGEST_PIECE)
            .handshake(io)
            .await
            .map_err(ProxyError::exchange)?;
        let (on, used) = (Rc::clone(lane), Rc::clone(&link));
        let task = tokio::task::spawn_local(async move {
            let ended = poll_fn(|cx| match used.may_switch.get() {
                true => connection.poll_without_shutdown(cx),
                false => Pin::new(&mut connection).poll(cx),
            });
            let ended = ended.await;
            if let Err(error) = &ended {
                tracing::debug!(listener = %on.shared.name, %error, "connection to the app ended");
            }
            if used.idle.get() {
                on.upstream.suspect();
            }
            (ended.is_ok() && used.may_switch.get()).then(|| connection.into_parts())
        });
        let connection = Connection { sender, link, task };
        Ok(Self { connection, lane: Rc::clone(lane) })
    }

    /// Says that the request to come asks for an upgrade.
    pub fn may_switch(&self) {
        self.connection.link.may_switch.set(true);
    }

    /// As of [`super::lease::Lease::read_much`].
    pub fn read_much(&self, much: bool) {
        self.connection.link.much.set(much);
    }

    /// As of [`super::lease::Lease::switch`].
    pub async fn switch(mut self) -> Option<(Stream, Bytes)> {
        let upgraded = (&mut self.connection.task).await.ok().flatten()?;
        let (stream, _) = upgraded.io.into_inner().into_parts();
        Some((stream, upgraded.read_buf))
    }

    /// Sends the request; waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// What hyper says, and how far the request came.
    pub fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, Failure>> {
        let Connection { sender, link, .. } = &mut self.connection;
        let received = link.received.get();
        let sending = sender.try_send_request(request);
        sending.map_err(move |mut error| {
            let fate = match error.take_message() {
                // The connection had died in the pool.
                Some(request) => Fate::Unsent(Box::new(request)),
                None if link.received.get() == received => Fate::Unanswered,
                None => Fate::Answered,
            };
            Failure { error: ProxyError::exchange(error.into_error()), fate }
        })
    }

    /// Puts the connection back into the pool, as soon as it wants another request; closes it if that takes
    /// too long.
    pub fn give_back(mut self) {
        if self.connection.sender.is_closed() {
            return;
        }
        if self.connection.sender.is_ready() {
            return self.put();
        }
        // An answer that came before the request's body was through, or hyper has not noticed yet.
        tokio::task::spawn_local(async move {
            if let Ok(Ok(())) = tokio::time::timeout(SETTLE, self.connection.sender.ready()).await {
                self.put();
            }
        });
    }

    fn put(self) {
        self.lane.upstream.pool.put(self.connection, &self.lane.clock);
    }
}

/// Bytes of an answer that are read at once for a client that has not shown that it takes them; so few that hyper does
/// not try twice as many next.
const PIECE: usize = 4 << 10;

/// The same for any client, and the most that an answer's head may have.
const LARGEST_PIECE: usize = 32 << 10;

/// How long a connection may take to come to rest after an answer: an app may well answer early and take
/// the rest of the request's body all the same.
const SETTLE: Duration = Duration::from_secs(1);

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("link", &self.connection.link).finish_non_exhaustive()
    }
}
