//! One client connection: its stages, its deadlines, and how it is told to go.
//!
//! hyper has one timer for the head of a request and for the rest between two requests, and none before
//! the first byte. Here each connection notes its [`Stage`] on the worker's coarse clock instead, and the
//! worker's tick closes those that are late: no timer is armed on the path of a request.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use http::HeaderValue;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::net::TcpStream;

use crate::config::Timeouts;

use super::lane::{Clock, Lane};
use super::metered::{Metered, Tally};
use super::stack::Stack;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Accepted; nothing has come yet.
    Silent,
    /// A request's head is coming.
    Head,
    /// A request is being served.
    Busy,
    /// Between two requests.
    Idle,
}

/// What the worker tells a connection. Goes forward only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Serve,
    /// Close after what is being served.
    Finish,
    /// Close now.
    Cut,
}

/// The part of a connection that others see.
#[derive(Debug)]
pub struct ConnectionState {
    pub peer: SocketAddr,
    /// The peer's address as `X-Forwarded-For` wants it.
    pub peer_value: HeaderValue,
    stage: Cell<Stage>,
    /// When the stage began, on the coarse clock.
    since: Cell<u64>,
    order: Cell<Order>,
    waker: RefCell<Option<Waker>>,
}

impl ConnectionState {
    fn new(peer: SocketAddr, clock: &Clock) -> Rc<Self> {
        let address = peer.ip().to_canonical().to_string();
        Rc::new(Self {
            peer,
            peer_value: HeaderValue::from_str(&address).expect("an address is visible ASCII"),
            stage: Cell::new(Stage::Silent),
            since: Cell::new(clock.millis()),
            order: Cell::new(Order::Serve),
            waker: RefCell::new(None),
        })
    }

    /// Notes a stage that begins now.
    pub fn enter(&self, stage: Stage, clock: &Clock) {
        self.stage.set(stage);
        self.since.set(clock.millis());
    }

    fn tell(&self, order: Order) {
        if order > self.order.get() {
            self.order.set(order);
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    fn is_late(&self, timeouts: &Timeouts, clock: &Clock) -> bool {
        let limit = match self.stage.get() {
            Stage::Silent => timeouts.first_byte,
            Stage::Head => timeouts.header_read,
            Stage::Idle => timeouts.idle,
            Stage::Busy => return false,
        };
        clock.passed(self.since.get(), limit)
    }
}

/// The connections of one lane, for the worker's tick and for the drain.
#[derive(Debug, Default)]
pub struct Connections(RefCell<Vec<Weak<ConnectionState>>>);

impl Connections {
    /// Forgets those that ended; closes those that are late.
    pub fn sweep(&self, timeouts: &Timeouts, clock: &Clock) {
        self.each(|connection| {
            if connection.is_late(timeouts, clock) {
                connection.tell(Order::Cut);
            }
        });
    }

    /// Tells all to close: now where nothing is under way, else after what is being served. A connection
    /// that has not sent a byte is left alone unless `also_silent`.
    pub fn finish(&self, also_silent: bool) {
        self.each(|connection| match connection.stage.get() {
            // hyper's graceful shutdown waits for the first request of a connection that never sent one.
            Stage::Silent if also_silent => connection.tell(Order::Cut),
            Stage::Silent => {}
            Stage::Head | Stage::Busy | Stage::Idle => connection.tell(Order::Finish),
        });
    }

    /// Closes all that is left; says how many were being served.
    pub fn cut(&self) -> u64 {
        let mut busy = 0;
        self.each(|connection| {
            busy += u64::from(connection.stage.get() == Stage::Busy);
            connection.tell(Order::Cut);
        });
        busy
    }

    fn add(&self, state: &Rc<ConnectionState>) {
        self.0.borrow_mut().push(Rc::downgrade(state));
    }

    fn each(&self, mut visit: impl FnMut(&ConnectionState)) {
        self.0.borrow_mut().retain(|connection| match connection.upgrade() {
            Some(connection) => {
                visit(&connection);
                true
            }
            None => false,
        });
    }
}

/// Serves one connection until it ends.
pub async fn serve(stream: TcpStream, peer: SocketAddr, lane: Rc<Lane>) {
    let state = ConnectionState::new(peer, &lane.clock);
    lane.connections.add(&state);
    lane.counters.connection_opened();
    let _open = Open(Rc::clone(&lane));
    let limits = lane.settings().listener.limits.clone();
    let io = Metered::new(stream, ClientSide { state: Rc::clone(&state), lane: Rc::clone(&lane) });
    let connection = http1::Builder::new()
        // The app's client may have sent FIN after its request (`nc`, HTTP/1.0 clients) and still listen.
        .half_close(true)
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_buf_size(limits.header_bytes)
        .serve_connection(TokioIo::new(io), Stack::new(Rc::clone(&lane), Rc::clone(&state)));
    match (Driver { connection, state, finishing: false }).await {
        Ok(()) => {}
        Err(error) if error.is_parse() => {
            lane.counters.error(crate::traffic::ErrorKind::BadRequest);
            tracing::debug!(%peer, %error, "request refused");
        }
        Err(error) => tracing::debug!(%peer, %error, "connection ended"),
    }
}

/// Counts the connection as closed, however it ended.
struct Open(Rc<Lane>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.connection_closed();
    }
}

pin_project! {
    /// hyper's connection, and an ear for the worker's orders.
    struct Driver {
        #[pin]
        connection: http1::Connection<TokioIo<Metered<ClientSide>>, Stack>,
        state: Rc<ConnectionState>,
        finishing: bool,
    }
}

impl Future for Driver {
    type Output = hyper::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.state.order.get() == Order::Cut {
            return Poll::Ready(Ok(()));
        }
        let mut waker = this.state.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        let polled = this.connection.as_mut().poll(cx);
        // Only after a look at what has come: hyper closes a connection at rest at once, and where the head
        // of the next request is coming, for hyper that is at rest. Such a request is answered first.
        let finish = this.state.order.get() == Order::Finish && this.state.stage.get() != Stage::Head;
        if polled.is_pending() && finish && !*this.finishing {
            *this.finishing = true;
            this.connection.as_mut().graceful_shutdown();
            return this.connection.poll(cx);
        }
        polled
    }
}

/// Counts bytes, and notes when a request's head begins.
struct ClientSide {
    state: Rc<ConnectionState>,
    lane: Rc<Lane>,
}

impl Tally for ClientSide {
    fn received(&self, bytes: usize) {
        self.lane.counters.received(bytes as u64);
        if matches!(self.state.stage.get(), Stage::Silent | Stage::Idle) {
            self.state.enter(Stage::Head, &self.lane.clock);
        }
    }

    fn sent(&self, bytes: usize) {
        self.lane.counters.sent(bytes as u64);
        if self.state.stage.get() == Stage::Idle {
            // The end of an answer goes out to a slow reader: that is no idle connection.
            self.state.enter(Stage::Idle, &self.lane.clock);
        }
    }
}
