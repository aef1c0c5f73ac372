//! The port for kubelet, hooks and operators: a small hardened HTTP/1.1 server on a thread of its own.
//!
//! ```text
//!  accept ─► seat (cap) ─► hyper (header: 2 s, 8 KiB) ─► routes::respond ─► answer, hook that waits, events
//! ```
//!
//! Invariants: a probe is answered at once whatever else goes on here, since connections that are quiet
//! give way and those that may be quiet are few (`seats`); request bodies are never read; an answer is
//! never a redirect. `app.rs` runs [`serve`] on the admin thread's `current_thread` runtime and stops it last.

mod events;
mod page;
mod probe;
mod routes;
mod seats;
mod status;
mod token;
mod words;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, broadcast, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::drain::{Answer, Call, Drain};
use crate::gate::GateView;
use crate::metrics::Metrics;
use crate::traffic::Traffic;

use self::events::AdminBody;
use self::routes::Reply;
use self::seats::{Right, Seat, Seats};

pub use self::status::transition;
pub use self::words::span;

/// What the endpoints read and call. Cheap to clone.
#[derive(Clone)]
pub struct State {
    pub view: GateView,
    pub drain: Drain,
    pub metrics: Metrics,
    pub traffic: Traffic,
    /// Set once the listeners are bound: `/startup`.
    pub started: Arc<AtomicBool>,
    /// Lines of JSON for `/events`.
    pub events: broadcast::Sender<Arc<str>>,
    /// File with the bearer token of the hooks, if they want one.
    pub hook_token_file: Option<PathBuf>,
    /// Told by `/quit`, after the drain was called for: the process ends once it is drained.
    pub quit: Arc<Notify>,
    pub build: Build,
    /// Figures of a check for `/status`.
    pub evidence: Evidence,
    /// Called before metrics are rendered, to set those that nobody pushes; must not block.
    pub scrape: Arc<dyn Fn() + Send + Sync>,
}

/// Gives the figures of a check, by its name.
pub type Evidence = Arc<dyn Fn(&str) -> Option<Value> + Send + Sync>;

/// The build, as `/status` and the metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    pub version: &'static str,
    pub revision: &'static str,
}

/// Connections at once.
pub const CONNECTIONS: usize = 256;
/// Hooks that wait at once. Kubernetes sends two a pod, some of them twice.
pub const HOOKS: usize = 64;
/// Event streams at once.
pub const EVENT_STREAMS: usize = 16;
/// To send a header, and between two requests.
const HEADER_TIME: Duration = Duration::from_secs(2);
const HEADER_BYTES: usize = 8 * 1024;
/// For answers that are on their way when the server stops.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Before the next accept when descriptors or memory have run out and nobody can give way.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers until `shutdown` is over; then answers what is on its way, and ends.
pub async fn serve(listener: TcpListener, state: State, shutdown: impl Future<Output = ()>) {
    let server =
        Arc::new(Server { state, seats: Seats::new(CONNECTIONS), closing: watch::Sender::new(false) });
    let mut connections = JoinSet::new();
    let mut sweep = interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            _ = sweep.tick() => server.seats.sweep(now()),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (seat, evicted) = server.seats.take(now());
                    connections.spawn(Arc::clone(&server).connection(stream, Arc::new(seat), evicted));
                }
                Err(error) if exhausted(&error) => {
                    tracing::debug!(%error, "admin port cannot accept");
                    if server.seats.evict_quietest() {
                        // Its end frees the descriptor that the next one needs.
                        connections.join_next().await;
                    } else {
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
                // The client has gone again.
                Err(error) => tracing::debug!(%error, "admin port accept"),
            }
        }
    }
    drop(listener);
    server.closing.send_replace(true);
    // What is not answered by then is dropped with the set.
    let _ = timeout(LAST_ANSWERS, async { while connections.join_next().await.is_some() {} }).await;
}

struct Server {
    state: State,
    seats: Seats,
    closing: watch::Sender<bool>,
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, seat: Arc<Seat>, evicted: oneshot::Receiver<()>) {
        // Only a matter of delay.
        let _ = stream.set_nodelay(true);
        let mut closing = self.closing.subscribe();
        let service = service_fn(|request| Arc::clone(&self).answer(request, Arc::clone(&seat)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .max_header_size(HEADER_BYTES)
            .max_buf_size(2 * HEADER_BYTES)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            _ = evicted => return,
            () = told(&mut closing) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "admin connection");
        }
    }

    /// Answers one request. Its body is not read: hyper closes the connection if there is much of it.
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        seat: Arc<Seat>,
    ) -> Result<Response<AdminBody>, Infallible> {
        seat.touch(now());
        let (parts, _body) = request.into_parts();
        let reply = match routes::respond(&self.state, &parts, now()) {
            Reply::Full(response) => response,
            Reply::WaitForDrained => self.drained(&seat).await,
            Reply::WaitForDrain => self.app_hook(&seat).await,
            Reply::Events => match seat.hold(Right::Events, EVENT_STREAMS) {
                Some(held) => {
                    return Ok(events::stream(self.state.events.subscribe(), self.closing.subscribe(), held));
                }
                None => routes::text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("as many clients as may ({EVENT_STREAMS}) read events; try again later\n"),
                ),
            },
        };
        seat.touch(now());
        Ok(reply.map(|body| Either::Left(Full::new(body))))
    }

    async fn drained(&self, seat: &Seat) -> Response<bytes::Bytes> {
        let Some(_held) = seat.hold(Right::Hook, HOOKS) else { return too_many_hooks() };
        let outcome = self.state.drain.drained().await;
        routes::text(StatusCode::OK, format!("drained after {}\n", span(outcome.took)))
    }

    async fn app_hook(&self, seat: &Seat) -> Response<bytes::Bytes> {
        let Some(_held) = seat.hold(Right::Hook, HOOKS) else {
            // The call stands, even if nobody can wait for its end any more.
            self.state.drain.call(Call::AppHook);
            return too_many_hooks();
        };
        let body = match self.state.drain.app_hook().await {
            Answer::Drained(outcome) => format!("drained after {}\n", span(outcome.took)),
            Answer::Restart => "no drain: the app restarts, the pod stays\n".to_owned(),
        };
        routes::text(StatusCode::OK, body)
    }
}

fn too_many_hooks() -> Response<bytes::Bytes> {
    routes::text(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("the call counts, but as many hooks as may ({HOOKS}) wait for the drain already\n"),
    )
}

/// Waits for the server's end.
async fn told(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// tokio's clock, so that tests can pause it.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// ENOMEM, ENFILE, EMFILE, ENOBUFS on Linux: accepting again at once would spin.
fn exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(12 | 23 | 24 | 105))
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("view", &self.view).field("drain", &self.drain).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
