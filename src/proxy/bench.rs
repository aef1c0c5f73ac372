//! A door to single parts of the data plane, for `benches/micro.rs` and tests alone.

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::Service;

use crate::config::{AccessLog, Admin, Config, Drain, DrainReady, Listener, Log, LogFormat};
use crate::gate::{Beats, Gate};
use crate::traffic::Traffic;

use super::body::{Body, RequestBody};
use super::dial::Stream;
use super::error::ProxyError;
use super::exchange::Connection;
use super::head;
use super::lane::{Clock, Lane, Settings, Shared};
use super::layers::headers::Headers;
use super::message::Lines;
use super::message::request::{Bounds, Partial};
use super::notable::Notable;
use super::registry::{ConnectionState, Entrance};
use super::stack::{Entered, Inbound, Layers, layers};
use super::{Order, Setup};

/// A lane with the defaults, its gate open, in front of an app that answers at once.
#[derive(Debug)]
pub struct House {
    lane: Rc<Lane>,
    connection: Rc<ConnectionState>,
    settings: Rc<Settings>,
    all: Layers<Answer>,
    headers: Headers<Answer>,
}

impl Default for House {
    fn default() -> Self {
        let (now, listener) = (Instant::now(), Listener::default());
        let gate = Gate::new(
            Vec::new(),
            [Arc::from("app")],
            Beats::new(1, Duration::from_secs(3600), now),
            Box::new(|_, _, _| {}),
            now,
        );
        gate.app_accepted(0);
        let setup = Setup {
            config: watch::channel(Arc::new(config(&listener))).1,
            orders: watch::channel(Order::Serve).1,
            gate,
            traffic: Traffic::new(["http"], 1, now),
            tls: Arc::from([]),
            suspect: Arc::new(|_| {}),
        };
        let clock = Rc::new(Clock::new(now));
        let shared = Arc::new(Shared::new(&listener, &Arc::from("secret")));
        let lane = Lane::new(0, 0, shared, &setup, &clock, Settings { listener, access: AccessLog::Off });
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        Self {
            connection: ConnectionState::new(peer, Entrance::Clients, &clock),
            settings: lane.settings(),
            lane,
            all: layers(Answer),
            headers: Headers(Answer),
        }
    }
}

impl House {
    /// Takes a request through all layers, and its answer back and to its end.
    pub fn pass(&self, request: Request<()>) -> Option<StatusCode> {
        let answered = self.all.clone().call(self.enter(request)).now_or_never()?;
        answered.ok().map(|answer| answer.status())
    }

    /// The same through the layer that rewrites fields alone.
    pub fn rewrite(&self, request: Request<()>) -> Option<StatusCode> {
        let answered = self.headers.clone().call(self.enter(request)).now_or_never()?;
        answered.ok().map(|answer| answer.status())
    }

    /// The body of a client's request, all of which came with its head.
    #[cfg(test)]
    pub(super) fn upload(&self, client: TcpStream, body: &'static [u8]) -> RequestBody {
        let client =
            super::terminate::Stream::Plain { stream: super::socket::Socket::Watched { stream: client } };
        let body = super::http1::body_of(client, Bytes::from_static(body), &self.connection, &self.lane);
        let upload =
            super::upload::Upload::new(body.into(), &self.settings.listener, &self.lane.clock, false);
        RequestBody::Client(Box::new(upload))
    }

    fn enter(&self, request: Request<()>) -> Inbound {
        let notable = Notable::of(request.headers());
        let fault = head::check(&request, notable).err();
        Box::new(Entered {
            request: request.map(|()| RequestBody::Empty),
            lines: Lines::default(),
            notable,
            lane: Rc::clone(&self.lane),
            connection: Rc::clone(&self.connection),
            settings: Rc::clone(&self.settings),
            upgrade: None,
            warmup: false,
            fault,
        })
    }
}

/// Lends the lane's one connection to an app, and has it back, as often as `run` asks for it.
///
/// # Errors
///
/// There is no runtime or no socket to be had.
pub fn lend(run: impl FnOnce(&dyn Fn())) -> io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let app = TcpListener::bind("127.0.0.1:0").await?;
        let stream = TcpStream::connect(app.local_addr()?).await?;
        let lane = House::default().lane;
        let pool = &lane.upstream.pool;
        pool.put(Rc::new(Connection::new(Stream::Tcp { stream })), &lane);
        // The task that listens to those at rest runs.
        tokio::task::yield_now().await;
        run(&|| {
            if let Some(lease) = pool.take(&lane) {
                pool.put(lease.into_connection(), &lane);
            }
        });
        if pool.take(&lane).is_some() { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
    })
}

/// Whether a parsed head is taken.
pub fn takes(request: &Request<()>) -> bool {
    head::check(request, Notable::of(request.headers())).is_ok()
}

/// Whether these bytes are read as a whole head.
pub fn reads(bytes: &Bytes) -> bool {
    let bounds = Bounds { bytes: 1 << 16, fields: 100 };
    matches!(Partial::default().next(&mut bytes.clone(), bounds), Ok(Some(_)))
}

/// The app.
#[derive(Clone, Copy, Debug)]
struct Answer;

impl Service<Inbound> for Answer {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Ready<Result<Response<Body>, ProxyError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Inbound) -> Self::Future {
        ready(Ok(Response::new(Body::full(Bytes::from_static(b"ok")))))
    }
}

fn config(listener: &Listener) -> Config {
    Config {
        listeners: vec![listener.clone()],
        admin: Admin { listen: listener.listen, stale_after: Duration::from_secs(3), hook_token_file: None },
        drain: Drain {
            min: Duration::ZERO,
            quiet: Duration::ZERO,
            deadline: Duration::ZERO,
            ready: DrainReady::Fail,
            restart_window: Duration::ZERO,
        },
        checks: Vec::new(),
        workers: NonZeroUsize::MIN,
        log: Log { level: String::new(), format: LogFormat::Json, access: AccessLog::Off },
    }
}
