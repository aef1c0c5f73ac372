//! One lane's connections of HTTP/1.1 to the app: those at rest, and those lent to a request each.
//!
//! The pool is a stack: the connection used last is the likeliest to live, and those not needed age at the
//! bottom until the worker's tick closes them. A connection comes back only when both messages ended exactly.
//! One task a lane hears when the app hangs up on any of those at rest.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};

use crate::traffic::ErrorKind;

use super::body::RequestBody;
use super::dial::Stream;
use super::error::ProxyError;
use super::exchange::{Broken, Connection, Trouble, Uploader};
use super::lane::{Clock, Lane};
use super::lease::{Failure, Fate};
use super::message::Lines;

/// The connections at rest.
#[derive(Default)]
pub struct Pool {
    /// The one used last is on top.
    idle: RefCell<Vec<Idle>>,
    /// Whether the task that listens to them was started, and what wakes it once it runs.
    listens: Cell<bool>,
    listener: RefCell<Option<Waker>>,
}

struct Idle {
    connection: Rc<Connection>,
    since: u64,
}

impl Pool {
    /// A connection that takes a request now, if there is one.
    pub fn take(&self, lane: &Rc<Lane>) -> Option<Lease> {
        loop {
            let Idle { connection, .. } = self.idle.borrow_mut().pop()?;
            if connection.is_silent() {
                return Some(Lease::new(connection, lane));
            }
            lane.upstream.suspect();
        }
    }

    /// Closes connections that nobody used for that long.
    pub fn sweep(&self, clock: &Clock, longest: Duration) {
        let mut idle = self.idle.borrow_mut();
        let old = idle.iter().take_while(|entry| clock.passed(entry.since, longest)).count();
        idle.drain(..old);
    }

    /// Takes a connection whose exchange ended.
    pub fn put(&self, connection: Rc<Connection>, lane: &Rc<Lane>) {
        connection.rest();
        if !self.listens.replace(true) {
            listen(lane);
        }
        let silent = match &*self.listener.borrow() {
            Some(waker) => connection.stays_silent(&mut Context::from_waker(waker)),
            // It looks at all when it first runs.
            None => connection.is_silent(),
        };
        if silent {
            self.idle.borrow_mut().push(Idle { connection, since: lane.clock.millis() });
        } else {
            lane.upstream.suspect();
        }
    }

    /// Closes those on which something came, or that the app closed; says whether there were any.
    fn drop_broken(&self, cx: &mut Context<'_>) -> bool {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain(|entry| entry.connection.stays_silent(cx));
        idle.len() < before
    }
}

/// Starts the task that hears when a connection at rest breaks: the app may have gone.
fn listen(lane: &Rc<Lane>) {
    let lane = Rc::clone(lane);
    tokio::task::spawn_local(poll_fn(move |cx| {
        let pool = &lane.upstream.pool;
        *pool.listener.borrow_mut() = Some(cx.waker().clone());
        if pool.drop_broken(cx) {
            lane.upstream.suspect();
        }
        Poll::<()>::Pending
    }));
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle.borrow().len()).finish_non_exhaustive()
    }
}

/// One connection to the app, lent to one request. Dropping it closes the connection, whatever is under way.
pub struct Lease {
    connection: Rc<Connection>,
    lane: Rc<Lane>,
    /// Sends what is left of the request's body.
    uploader: Option<Uploader>,
}

impl Lease {
    /// Makes a new connection fit for requests.
    pub fn open(stream: Stream, lane: &Rc<Lane>) -> Self {
        Self::new(Rc::new(Connection::new(stream)), lane)
    }

    fn new(connection: Rc<Connection>, lane: &Rc<Lane>) -> Self {
        Self { connection, lane: Rc::clone(lane), uploader: None }
    }

    #[cfg(any(test, feature = "bench"))]
    pub fn into_connection(self) -> Rc<Connection> {
        self.connection
    }

    /// As of [`Connection::expect_continue`].
    pub fn expect_continue(&self) {
        self.connection.expect_continue();
    }

    /// As of [`super::lease::Lease::switch`].
    pub fn switch(self) -> Option<(Stream, Bytes)> {
        Rc::into_inner(self.connection).map(Connection::into_parts)
    }

    /// As of [`super::lease::Lease::send`].
    pub async fn send(
        &mut self,
        request: &mut Request<RequestBody>,
        lines: &Lines,
    ) -> Result<Response<()>, Failure> {
        match self.connection.send(request, lines).await {
            Ok((response, uploader)) => {
                self.uploader = uploader;
                Ok(response)
            }
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// As of [`Connection::take_lines`].
    pub fn take_lines(&self) -> Lines {
        self.connection.take_lines()
    }

    /// As of [`Connection::poll_frame`].
    pub fn poll_frame(
        &self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.connection.poll_frame(cx, most)
    }

    pub fn is_end_stream(&self) -> bool {
        self.connection.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.connection.size_hint()
    }

    /// Puts the connection back into the pool, as soon as all of the request was sent; closes it if that takes too long.
    pub fn give_back(self) {
        let Self { connection, lane, uploader } = self;
        if !connection.may_go_on() {
            return;
        }
        match uploader.filter(|_| connection.is_uploading()) {
            None => lane.upstream.pool.put(connection, &lane),
            Some(uploader) => {
                tokio::task::spawn_local(async move {
                    let settled = tokio::time::timeout(SETTLE, uploader.ended()).await.is_ok();
                    if settled && connection.may_go_on() {
                        lane.upstream.pool.put(connection, &lane);
                    }
                });
            }
        }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        let (broken, fate) = match trouble {
            Trouble::Unsent(broken) => (broken, Fate::Unsent),
            Trouble::Unanswered(broken) => (broken, Fate::Unanswered),
            Trouble::Answered(broken) => (broken, Fate::Answered),
            Trouble::Upload => {
                return Self { error: ProxyError::new(ErrorKind::ClientClosed), fate: Fate::Answered };
            }
        };
        Self { error: ProxyError::broken(broken), fate }
    }
}

/// How long a connection may take to come to rest after an answer: an app may well answer early and take
/// the rest of the request's body all the same.
const SETTLE: Duration = Duration::from_secs(1);

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("connection", &self.connection).finish_non_exhaustive()
    }
}
