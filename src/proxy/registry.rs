//! The open client connections: their stages, their deadlines, and how they are told to go.
//!
//! Each connection notes its [`Stage`] on the worker's coarse clock, and the worker's tick closes those that are late:
//! no timer is armed on the path of a request.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::HeaderValue;

use crate::config::Timeouts;

use super::lane::Clock;
use super::scratch;
use super::upgrade::Handover;

/// Which socket a connection came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// The listener's own.
    Clients,
    /// The one for the warm-up of a listener that speaks TLS or carries bytes.
    Warmup,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Accepted; nothing has come yet.
    Silent,
    /// The client's TLS handshake has begun.
    Handshake,
    /// A request's head is coming.
    Head,
    /// A request is being served.
    Busy,
    /// Between two requests.
    Idle,
    /// Carrying bytes: upgraded, or of a TCP listener.
    Tunnel,
}

/// What a connection speaks, as far as it matters for how it is told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// What the worker tells a connection. Goes forward only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
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
    pub entrance: Entrance,
    protocol: Cell<Protocol>,
    stage: Cell<Stage>,
    /// Requests that are being served.
    requests: Cell<usize>,
    /// When the stage began, on the coarse clock.
    since: Cell<u64>,
    /// Since when the client has not taken what is there for it, on the coarse clock.
    blocked: Cell<Option<u64>>,
    /// Bytes that the client took since it last kept us waiting for long.
    taken: Cell<usize>,
    order: Cell<Order>,
    /// It was told, since its last request, that it may rest.
    may_rest: Cell<bool>,
    /// A request of it was being served when the worker looked.
    takes_long: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Filled for a moment only: what it holds keeps this state alive.
    pub handover: Handover,
}

impl ConnectionState {
    pub fn new(peer: SocketAddr, entrance: Entrance, clock: &Clock) -> Rc<Self> {
        Rc::new(Self {
            peer,
            peer_value: written(peer.ip().to_canonical()),
            entrance,
            protocol: Cell::new(Protocol::Http1),
            stage: Cell::new(Stage::Silent),
            requests: Cell::new(0),
            since: Cell::new(clock.millis()),
            blocked: Cell::new(None),
            taken: Cell::new(0),
            order: Cell::new(Order::Serve),
            may_rest: Cell::new(false),
            takes_long: Cell::new(false),
            waker: RefCell::new(None),
            handover: Handover::default(),
        })
    }

    /// Notes a stage that begins now.
    pub fn enter(&self, stage: Stage, clock: &Clock) {
        self.stage.set(stage);
        self.since.set(clock.millis());
    }

    /// Notes that a byte passed.
    pub fn touch(&self, clock: &Clock) {
        self.since.set(clock.millis());
    }

    /// Notes whether the TLS handshake is under way. The time goes on: it counts towards the first byte.
    pub fn shakes_hands(&self, begun: bool) {
        self.stage.set(if begun { Stage::Handshake } else { Stage::Silent });
    }

    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    pub fn speaks(&self, protocol: Protocol) {
        self.protocol.set(protocol);
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol.get()
    }

    /// Notes that one more request is being served.
    pub fn request_began(&self, clock: &Clock) {
        self.requests.set(self.requests.get() + 1);
        self.enter(Stage::Busy, clock);
    }

    /// Notes that a request ended.
    pub fn request_ended(&self, clock: &Clock) {
        self.requests.set(self.requests.get() - 1);
        self.may_rest.set(false);
        if self.requests.get() == 0 {
            self.enter(Stage::Idle, clock);
        }
    }

    /// Closes the connection after what is being served.
    pub fn finish(&self) {
        self.tell(Order::Finish);
    }

    /// Runs `work` unless the worker cuts the connection first: then None.
    pub async fn until_cut<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| match self.order(cx) {
            Order::Cut => Poll::Ready(None),
            Order::Serve | Order::Finish => work.as_mut().poll(cx).map(Some),
        })
        .await
    }

    /// Whether no request may follow the one that is being served.
    pub fn is_finishing(&self) -> bool {
        self.order.get() != Order::Serve
    }

    /// Whether the worker closes it now.
    pub fn is_cut(&self) -> bool {
        self.order.get() == Order::Cut
    }

    /// What the worker wants; the task that asks is woken when that changes.
    pub fn order(&self, cx: &mut Context<'_>) -> Order {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.order.get()
    }

    /// Whether nothing has happened for a while, and nothing is under way: what serves requests may be let go until the
    /// next one comes.
    pub fn may_rest(&self) -> bool {
        self.may_rest.get() && self.is_quiet()
    }

    /// Whether a request was being served for a while: a client that goes away meanwhile is to be heard of.
    pub fn takes_long(&self) -> bool {
        self.takes_long.get()
    }

    fn is_quiet(&self) -> bool {
        self.stage.get() == Stage::Idle && self.blocked.get().is_none() && self.order.get() == Order::Serve
    }

    /// Tells a connection whose requests ended a while ago that it may rest, and one whose request takes a while that it
    /// does: once, whatever comes of it.
    fn hint(&self, clock: &Clock) {
        if self.stage.get() == Stage::Busy && !self.takes_long.get() {
            self.takes_long.set(true);
            self.wake();
        }
        let is_due = self.is_quiet() && self.protocol.get() == Protocol::Http1 && !self.may_rest.get();
        if is_due && clock.passed(self.since.get(), PAUSE) {
            self.may_rest.set(true);
            self.wake();
        }
    }

    fn tell(&self, order: Order) {
        if order > self.order.get() {
            self.order.set(order);
            self.wake();
        }
    }

    /// Wakes the connection's task.
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Notes that the client takes nothing of what is there for it.
    pub fn blocked(&self, clock: &Clock) {
        if self.blocked.get().is_none() {
            self.blocked.set(Some(clock.millis()));
        }
    }

    /// Notes that it took so many bytes.
    pub fn took(&self, bytes: usize, clock: &Clock) {
        // To wait a moment for a client is how bytes flow; to wait long says that it is slow.
        if self.blocked.take().is_some_and(|since| clock.passed(since, LONG)) {
            self.taken.set(0);
        }
        self.taken.set(self.taken.get().saturating_add(bytes));
    }

    /// How many bytes of an answer to read at once: few while nobody knows whether the client takes them. A socket takes
    /// much for a client that reads nothing, so this shows only after more than that.
    pub fn appetite(&self) -> usize {
        if self.taken.get() >= SWALLOWED { scratch::SIZE } else { PIECE }
    }

    fn is_late(&self, timeouts: &Timeouts, clock: &Clock) -> bool {
        let is_blocked = |since| clock.passed(since, timeouts.body_progress);
        // What a tunnel carries is no body: who takes nothing there is late when nothing moves at all.
        if self.stage.get() != Stage::Tunnel && self.blocked.get().is_some_and(is_blocked) {
            return true;
        }
        let limit = match self.stage.get() {
            Stage::Silent | Stage::Handshake => timeouts.first_byte,
            Stage::Head => timeouts.header_read,
            Stage::Idle => timeouts.idle,
            Stage::Tunnel => timeouts.tunnel_idle,
            Stage::Busy => return false,
        };
        clock.passed(self.since.get(), limit)
    }
}

/// An address as `X-Forwarded-For` wants it.
fn written(address: IpAddr) -> HeaderValue {
    let address = match address {
        // By hand: the standard library's way takes ten times as long.
        IpAddr::V4(address) => {
            let mut text = Text::default();
            for (at, octet) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    text.push(b'.');
                }
                if octet >= 100 {
                    text.push(b'0' + octet / 100);
                }
                if octet >= 10 {
                    text.push(b'0' + octet / 10 % 10);
                }
                text.push(b'0' + octet % 10);
            }
            HeaderValue::from_bytes(&text.bytes[..text.length])
        }
        IpAddr::V6(address) => HeaderValue::from_str(&address.to_string()),
    };
    address.expect("an address is visible ASCII")
}

/// Room for the longest address of IPv4.
#[derive(Default)]
struct Text {
    bytes: [u8; 15],
    length: usize,
}

impl Text {
    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }
}

/// The most that sockets, ours and the client's, hold for a client that reads nothing: [`super::UNSENT`], and the first
/// window of most systems.
const SWALLOWED: usize = 512 << 10;

/// A client that takes nothing for that long does not keep up. Two ticks of the coarse clock.
const LONG: Duration = Duration::from_millis(500);

/// Bytes of an answer that are read at once for a client that has not shown that it takes them.
pub const PIECE: usize = 4 << 10;

/// Longer than clients pause that are at work: for the next request of a connection that rests, what serves it is made
/// anew.
const PAUSE: Duration = Duration::from_secs(1);

/// The connections of one lane, for the worker's tick and for the drain.
#[derive(Debug, Default)]
pub struct Connections(RefCell<Vec<Weak<ConnectionState>>>);

impl Connections {
    /// Forgets those that ended; closes those that are late.
    pub fn sweep(&self, timeouts: &Timeouts, clock: &Clock) {
        self.each(|connection| {
            if !connection.is_late(timeouts, clock) {
                return connection.hint(clock);
            }
            let may_finish = connection.protocol.get() == Protocol::Http2
                && connection.stage.get() == Stage::Idle
                && connection.order.get() == Order::Serve;
            if may_finish {
                // The client hears of it (GOAWAY), so that no request is on its way to a closed connection.
                connection.enter(Stage::Idle, clock);
                connection.tell(Order::Finish);
            } else {
                connection.tell(Order::Cut);
            }
        });
    }

    /// Tells all to close: now where nothing is under way, else after what is being served. A connection
    /// that has not sent a byte is left alone unless `also_silent`.
    pub fn finish(&self, also_silent: bool) {
        self.each(|connection| match connection.stage.get() {
            // One that was just opened may have a request on its way.
            Stage::Silent if also_silent => connection.tell(Order::Cut),
            Stage::Silent | Stage::Handshake => {}
            Stage::Head | Stage::Busy | Stage::Idle | Stage::Tunnel => connection.tell(Order::Finish),
        });
    }

    /// Tells clients of HTTP/2 to open their next streams elsewhere. Those of HTTP/1 are told by an answer.
    pub fn go_away(&self) {
        self.each(|connection| {
            if connection.protocol.get() == Protocol::Http2 {
                connection.tell(Order::Finish);
            }
        });
    }

    /// Closes all that is left; says how many requests were being served.
    pub fn cut(&self) -> u64 {
        let mut busy = 0;
        self.each(|connection| {
            busy += connection.requests.get() as u64;
            connection.tell(Order::Cut);
        });
        busy
    }

    pub fn add(&self, state: &Rc<ConnectionState>) {
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn addresses_are_written_as_everywhere() {
        for octet in 0..=255u8 {
            for address in [[octet, 0, 10, 255], [1, octet, 99, octet]] {
                let address = IpAddr::from(address);
                assert_eq!(written(address), address.to_string());
            }
        }
        let address: IpAddr = "2001:db8::1".parse().expect("an address");
        assert_eq!(written(address), "2001:db8::1");
    }

    #[test]
    fn handshake_counts_towards_the_first_byte_and_is_not_cut_off_by_a_drain() {
        let timeouts = crate::config::Listener::default().timeouts;
        let accepted = Clock::new(Instant::now());
        let state = ConnectionState::new(([127, 0, 0, 1], 1).into(), Entrance::Clients, &accepted);
        let connections = Connections::default();
        connections.add(&state);
        state.shakes_hands(true);
        connections.finish(true);
        assert_eq!(state.order.get(), Order::Serve);

        let later = |time| Clock::new(Instant::now() - time);
        connections.sweep(&timeouts, &later(timeouts.first_byte - Duration::from_secs(1)));
        assert_eq!(state.order.get(), Order::Serve);
        connections.sweep(&timeouts, &later(timeouts.first_byte));
        assert_eq!(state.order.get(), Order::Cut, "the time of the handshake counts");
    }

    #[test]
    fn client_that_shook_hands_and_says_nothing_is_as_silent_as_any() {
        let clock = Clock::new(Instant::now());
        let state = ConnectionState::new(([127, 0, 0, 1], 1).into(), Entrance::Clients, &clock);
        let connections = Connections::default();
        connections.add(&state);
        state.shakes_hands(true);
        state.shakes_hands(false);
        connections.finish(false);
        assert_eq!(state.order.get(), Order::Serve);
        connections.finish(true);
        assert_eq!(state.order.get(), Order::Cut);
    }
}
