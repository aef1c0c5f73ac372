//! The app: slow to be ready, and not polite.
//!
//! ```text
//!  exec ──── refuses ────▶ listens, 503 ────▶ cold: slow, some 500 ────▶ warm: about 2 ms
//!       0.35 × start-up          start-up            300 requests served
//! ```
//!
//! `/healthz` answers 200 from the moment the process listens: it shows that a process is alive and nothing
//! else. What warms the app is requests, not time. SIGTERM ends it at once, in the middle of answers.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::rng::Rng;

/// Answers after which the app is warm.
pub const WARM_AFTER: u32 = 300;

/// `__app LISTEN SEED`
pub fn main(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let mut word = || words.next().and_then(|word| word.into_string().ok()).unwrap_or_default();
    let (listen, seed) = (word(), word());
    match run(&listen, &seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("app: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(listen: &str, seed: &str) -> anyhow::Result<()> {
    let listen: SocketAddr = listen.parse().with_context(|| format!("not an address: {listen:?}"))?;
    let seed = seed.parse().with_context(|| format!("not a number: {seed:?}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(serve(listen, App::new(seed))))
}

async fn serve(listen: SocketAddr, app: App) -> anyhow::Result<()> {
    tokio::time::sleep(app.startup.mul_f64(REFUSING_SHARE)).await;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    eprintln!("listens after {:.2?}, will be started after {:.2?}", app.started.elapsed(), app.startup);
    let app = Rc::new(app);
    loop {
        let (stream, _) = listener.accept().await?;
        let app = Rc::clone(&app);
        let service = service_fn(move |request| {
            let app = Rc::clone(&app);
            async move { Ok::<_, Infallible>(app.answer(request).await) }
        });
        // A client that goes away ends its connection with an error: its business.
        tokio::task::spawn_local(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

struct App {
    started: Instant,
    startup: Duration,
    served: Cell<u32>,
    rng: RefCell<Rng>,
}

impl App {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::stream(seed, "app");
        let startup = rng.between(STARTUP.0, STARTUP.1);
        Self { started: Instant::now(), startup, served: Cell::new(0), rng: RefCell::new(rng) }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() == "/healthz" {
            return text(StatusCode::OK, "alive");
        }
        // Read what was sent: an answer over an unread body would cost the connection.
        if request.into_body().collect().await.is_err() {
            return text(StatusCode::BAD_REQUEST, "incomplete body");
        }
        if self.started.elapsed() < self.startup {
            return text(StatusCode::SERVICE_UNAVAILABLE, "still starting");
        }
        let served = self.served.get();
        self.served.set(served + 1);
        let (latency, fails) = {
            let rng = &mut *self.rng.borrow_mut();
            (latency(served) + rng.exponential(SPREAD), rng.unit() < failure_probability(served))
        };
        tokio::time::sleep(latency).await;
        if fails {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "cold: an empty cache and a pool without connections",
            );
        }
        text(StatusCode::OK, r#"{"items":["a","b","c"]}"#)
    }
}

/// Without the random part: from 100 ms when cold down to half a millisecond when warm.
fn latency(served: u32) -> Duration {
    let cold = 1.0 - f64::from(served.min(WARM_AFTER)) / f64::from(WARM_AFTER);
    WARM_LATENCY + COLD_LATENCY.mul_f64(cold * cold)
}

/// From a quarter down to nothing, a little before the answers are as fast as they get.
fn failure_probability(served: u32) -> f64 {
    (0.25 * (1.0 - f64::from(served) / f64::from(LAST_FAILURE))).max(0.0)
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}

const STARTUP: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_millis(2000));
/// Of the start-up, the part before the app listens.
const REFUSING_SHARE: f64 = 0.35;
const COLD_LATENCY: Duration = Duration::from_millis(100);
const WARM_LATENCY: Duration = Duration::from_micros(500);
/// Mean of the random part of every answer's latency; so p99 is the app's, not the machine's.
const SPREAD: Duration = Duration::from_micros(1200);
const LAST_FAILURE: u32 = 240;
