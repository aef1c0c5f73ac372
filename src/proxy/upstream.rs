//! The only way to reach the app: this worker's pool of connections, and the wait for an app that refuses.
//!
//! The pool is a stack: the connection used last is the likeliest to live, and those not needed age at the
//! bottom until the worker's tick closes them. A connection comes back only when hyper says that it wants
//! the next request, which is when both messages ended exactly.
//!
//! While the app's port refuses, requests wait in a bounded line; one task a lane knocks, and wakes all.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::{self, Listener, NotReady};
use crate::traffic::ErrorKind;

use super::body::RequestBody;
use super::error::ProxyError;
use super::lane::Lane;

/// The app, as one lane reaches it.
pub struct Upstream {
    /// Idle connections; the one used last is on top.
    idle: RefCell<Vec<Idle>>,
    knocking: Cell<bool>,
    /// Requests that wait for the app.
    waiting: Cell<usize>,
    back: Notify,
    suspect: Box<dyn Fn()>,
}

struct Idle {
    sender: SendRequest<RequestBody>,
    link: Rc<Link>,
    since: u64,
}

/// What is known of one connection to the app.
#[derive(Debug, Default)]
struct Link {
    received: Cell<u64>,
    /// In the pool right now.
    idle: Cell<bool>,
}

/// How long a request may wait for an app that refuses.
#[derive(Debug)]
pub struct Patience {
    longest: Duration,
    policy: NotReady,
    until: Option<Instant>,
}

impl Patience {
    /// Warm-up requests wait for nothing: that the app refuses is what they are there to see.
    pub fn new(listener: &Listener, warmup: bool) -> Self {
        let longest = if warmup { Duration::ZERO } else { listener.hold.longest };
        Self { longest, policy: listener.not_ready, until: None }
    }
}

impl Upstream {
    /// `suspect` is called when a connection broke in the pool: the app may have gone.
    pub fn new(suspect: Box<dyn Fn()>) -> Self {
        Self {
            idle: RefCell::default(),
            knocking: Cell::new(false),
            waiting: Cell::new(0),
            back: Notify::new(),
            suspect,
        }
    }

    /// A connection that takes a request now: from the pool, or a new one, or one for which the request waited.
    ///
    /// # Errors
    ///
    /// The app refused for as long as `patience` says, too many wait already, or it cannot be reached.
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
        if let Some(lease) = self.pooled(lane) {
            return Ok(lease);
        }
        let mut waiting = None;
        loop {
            if !lane.view.word().app_refuses(lane.number) {
                match connect(&listener.upstream, listener.timeouts.connect).await {
                    Ok(stream) => {
                        lane.gate.app_accepted(lane.number);
                        return Lease::open(stream, lane).await;
                    }
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        lane.gate.app_refused(lane.number);
                    }
                    Err(error) => return Err(unreachable(error)),
                }
            }
            let until = *patience.until.get_or_insert_with(|| Instant::now() + patience.longest);
            let expired = || ProxyError::new(ErrorKind::ConnectRefused);
            if patience.longest.is_zero() {
                return Err(expired());
            }
            if waiting.is_none() {
                waiting = Some(lane.wait_in_line()?);
            }
            self.knock(lane, listener);
            if tokio::time::timeout_at(until, self.comes_back(lane, patience.policy)).await.is_err() {
                return Err(expired());
            }
            if let Some(lease) = self.pooled(lane) {
                return Ok(lease);
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
        let lane = Rc::clone(lane);
        let (app, timeout) = (listener.upstream.clone(), listener.timeouts.connect);
        tokio::task::spawn_local(async move {
            loop {
                if lane.view.word().app_refuses(lane.number)
                    && let Ok(stream) = connect(&app, timeout).await
                {
                    lane.gate.app_accepted(lane.number);
                    if let Ok(lease) = Lease::open(stream, &lane).await {
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

    fn pooled(&self, lane: &Rc<Lane>) -> Option<Lease> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { sender, link, .. }) = idle.pop() {
            link.idle.set(false);
            if sender.is_ready() {
                return Some(Lease { sender, link, lane: Rc::clone(lane) });
            }
        }
        None
    }

    /// Closes connections that nobody used for longer than `upstream_idle`.
    pub fn sweep(&self, lane: &Lane, longest: Duration) {
        let mut idle = self.idle.borrow_mut();
        let old = idle.iter().take_while(|entry| lane.clock.passed(entry.since, longest)).count();
        for entry in idle.drain(..old) {
            // Closed by us: no sign that the app went away.
            entry.link.idle.set(false);
        }
    }
}

/// Counts a request that waits, until dropped.
struct Waits<'a>(&'a Cell<usize>);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// While the app refuses, its port is tried this often: loopback, one lane, so it costs next to nothing.
const KNOCK: Duration = Duration::from_millis(20);

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("idle", &self.idle.borrow().len()).finish_non_exhaustive()
    }
}

/// One connection to the app, lent to one request. Dropping it closes the connection.
pub struct Lease {
    sender: SendRequest<RequestBody>,
    link: Rc<Link>,
    lane: Rc<Lane>,
}

impl Lease {
    async fn open(stream: TcpStream, lane: &Rc<Lane>) -> Result<Self, ProxyError> {
        let _ = stream.set_nodelay(true);
        let link = Rc::new(Link::default());
        let io = TokioIo::new(Counted { stream, link: Rc::clone(&link) });
        let (sender, connection) = http1::Builder::new().handshake(io).await.map_err(ProxyError::exchange)?;
        let (on, used) = (Rc::clone(lane), Rc::clone(&link));
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(listener = %on.shared.name, %error, "connection to the app ended");
            }
            if used.idle.get() {
                (on.upstream.suspect)();
            }
        });
        Ok(Self { sender, link, lane: Rc::clone(lane) })
    }

    /// Bytes of answers so far.
    pub fn received(&self) -> u64 {
        self.link.received.get()
    }

    /// Sends the request; waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// What hyper says, and the request itself if not a byte of it was written.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, (hyper::Error, Option<Request<RequestBody>>)> {
        self.sender.try_send_request(request).await.map_err(|mut error| {
            let unsent = error.take_message();
            (error.into_error(), unsent)
        })
    }

    /// Puts the connection back into the pool, as soon as it wants another request.
    pub fn give_back(mut self) {
        if self.sender.is_closed() {
            return;
        }
        if self.sender.is_ready() {
            return self.put();
        }
        // An answer that came before the request's body was through, or hyper has not noticed yet.
        tokio::task::spawn_local(async move {
            if let Ok(Ok(())) = tokio::time::timeout(SETTLE, self.sender.ready()).await {
                self.put();
            }
        });
    }

    fn put(self) {
        let Self { sender, link, lane } = self;
        link.idle.set(true);
        let since = lane.clock.millis();
        lane.upstream.idle.borrow_mut().push(Idle { sender, link, since });
    }
}

/// How long a connection may take to come to rest after an answer.
const SETTLE: Duration = Duration::from_secs(1);

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("link", &self.link).finish_non_exhaustive()
    }
}

async fn connect(app: &config::Upstream, timeout: Duration) -> io::Result<TcpStream> {
    let attempt = async {
        match app.host.parse::<IpAddr>() {
            Ok(ip) => TcpStream::connect(SocketAddr::new(ip, app.port)).await,
            Err(_) => TcpStream::connect((app.host.as_str(), app.port)).await,
        }
    };
    match tokio::time::timeout(timeout, attempt).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn unreachable(error: io::Error) -> ProxyError {
    let kind = if error.kind() == io::ErrorKind::TimedOut {
        ErrorKind::ConnectTimeout
    } else {
        ErrorKind::ConnectFailed
    };
    ProxyError::io(kind, error)
}

pin_project! {
    /// The app's socket: counts the bytes of answers.
    struct Counted {
        #[pin]
        stream: TcpStream,
        link: Rc<Link>,
    }
}

impl AsyncRead for Counted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        let polled = this.stream.poll_read(cx, buf);
        let read = (buf.filled().len() - before) as u64;
        this.link.received.set(this.link.received.get() + read);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }
}
