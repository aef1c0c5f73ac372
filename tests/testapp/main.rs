//! The app of the integration tests: a process of its own, so that it can be killed, stopped and started
//! again like a container. What it does with a request is asked for by flags, by `/control`, which sets
//! defaults for all requests, and by the request's own query:
//!
//! `delay` (ms before the answer), `status`, `bytes` (of the answer's body), `drip` (ms between chunks of an
//! answer that never ends), `hang` (never answers), `fail` (percent of the requests, evenly spread, answered with
//! 500), `close` (the connection, without an answer), `stream` (bytes of an answer that is made as it is read),
//! `early` (answers before it reads the request's body).
//!
//! What it streams is [`pattern`], and so must the body of a request be that goes to `/same`: the answer says in
//! `x-same` how many bytes of it came, all as they should be, or is 400.
//!
//! A request with `x-id` is a delivery: its id goes into the journal before anything else happens. Answers
//! carry `x-pid`, so that a test can tell one life of the app from the next.

mod pattern;

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Interval, interval, sleep};

use self::pattern::Pattern;

#[derive(Debug)]
struct Flags {
    listen: SocketAddr,
    /// Refuses connections for this long.
    bind_after: Duration,
    /// Then answers 503 for this long.
    unready: Duration,
    /// Then answers this many requests slowly …
    cold: u64,
    /// … each after this long.
    cold_delay: Duration,
    /// Answers after `floor + height·e^(−n/pace)` at the n-th request.
    curve: Option<Curve>,
    journal: Option<PathBuf>,
    status: u16,
    term: Term,
    /// Speaks HTTP/2, and nothing else.
    http2: bool,
}

/// `--curve HEIGHT,PACE,FLOOR,SIGMA`: milliseconds, requests, milliseconds, and the standard deviation of the noise, which
/// is a factor (lognormal).
#[derive(Clone, Copy, Debug)]
struct Curve {
    height: f64,
    pace: f64,
    floor: f64,
    sigma: f64,
}

impl Curve {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let numbers = text.split(',').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        let [height, pace, floor, sigma] = numbers[..] else {
            bail!("--curve {text}: expected HEIGHT,PACE,FLOOR,SIGMA")
        };
        Ok(Self { height, pace, floor, sigma })
    }

    /// The noise of a request is that of its number: the same in each life.
    fn delay(self, number: u64) -> Duration {
        let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut uniform = || {
            state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            state ^= state >> 27;
            ((state >> 11) + 1) as f64 / (1_u64 << 53) as f64
        };
        let normal = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        let millis = self.floor + self.height * (-(number as f64) / self.pace).exp();
        Duration::from_secs_f64(millis * (self.sigma * normal).exp() / 1000.0)
    }
}

/// What SIGTERM does.
#[derive(Clone, Copy, Debug)]
enum Term {
    /// Accepts no more, ends what is in flight, exits.
    Graceful,
    /// Exits.
    Abrupt,
    Ignore,
}

impl Flags {
    fn parse(arguments: impl IntoIterator<Item = String>) -> anyhow::Result<Self> {
        let mut flags = Self {
            listen: ([127, 0, 0, 1], 8080).into(),
            bind_after: Duration::ZERO,
            unready: Duration::ZERO,
            cold: 0,
            cold_delay: Duration::ZERO,
            curve: None,
            journal: None,
            status: 200,
            term: Term::Graceful,
            http2: false,
        };
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} wants a value"))?;
            let millis = || value.parse().map(Duration::from_millis);
            match name.as_str() {
                "--listen" => flags.listen = value.parse()?,
                "--bind-after" => flags.bind_after = millis()?,
                "--unready" => flags.unready = millis()?,
                "--cold" => flags.cold = value.parse()?,
                "--cold-delay" => flags.cold_delay = millis()?,
                "--curve" => flags.curve = Some(Curve::parse(&value)?),
                "--journal" => flags.journal = Some(value.into()),
                "--status" => flags.status = value.parse()?,
                "--term" => {
                    flags.term = match value.as_str() {
                        "graceful" => Term::Graceful,
                        "abrupt" => Term::Abrupt,
                        "ignore" => Term::Ignore,
                        other => bail!("--term {other}: expected graceful, abrupt or ignore"),
                    }
                }
                "--protocol" => {
                    flags.http2 = match value.as_str() {
                        "http1" => false,
                        "http2" => true,
                        other => bail!("--protocol {other}: expected http1 or http2"),
                    }
                }
                other => bail!("unknown flag {other}"),
            }
        }
        Ok(flags)
    }
}

struct App {
    flags: Flags,
    bound_at: Instant,
    journal: Option<File>,
    served: AtomicU64,
    /// The query of the last `/control`.
    defaults: Mutex<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse(std::env::args().skip(1))?;
    let mut terminate = signal(SignalKind::terminate())?;
    sleep(flags.bind_after).await;
    let listener = listen(flags.listen).with_context(|| format!("bind {}", flags.listen))?;
    let journal = flags.journal.as_ref().map(|path| OpenOptions::new().append(true).create(true).open(path));
    let app = Arc::new(App {
        bound_at: Instant::now(),
        journal: journal.transpose().context("journal")?,
        served: AtomicU64::new(0),
        defaults: Mutex::default(),
        flags,
    });
    let (stop, stopped) = watch::channel(());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                stream.set_nodelay(true)?;
                let (app, mut stopped) = (Arc::clone(&app), stopped.clone());
                tokio::spawn(async move {
                    let http2 = app.flags.http2;
                    let service = service_fn(move |request| answer(Arc::clone(&app), request));
                    if http2 {
                        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .max_concurrent_streams(10_000)
                            .initial_stream_window_size(WINDOW)
                            .initial_connection_window_size(2 * WINDOW)
                            .serve_connection(TokioIo::new(stream), service);
                        tokio::pin!(connection);
                        tokio::select! {
                            _ = &mut connection => {}
                            _ = stopped.changed() => {
                                connection.as_mut().graceful_shutdown();
                                let _ = connection.await;
                            }
                        }
                        return;
                    }
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    tokio::pin!(connection);
                    tokio::select! {
                        _ = &mut connection => {}
                        _ = stopped.changed() => {
                            connection.as_mut().graceful_shutdown();
                            let _ = connection.await;
                        }
                    }
                });
            }
            _ = terminate.recv() => match app.flags.term {
                Term::Graceful => break,
                Term::Abrupt => return Ok(()),
                Term::Ignore => {}
            },
        }
    }
    drop((listener, stopped));
    stop.send_replace(());
    stop.closed().await;
    Ok(())
}

/// With a queue that holds whatever a test sends at once: the kernel drops what does not fit, for a second.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

async fn answer(app: Arc<App>, request: Request<Incoming>) -> std::io::Result<Response<Answer>> {
    if let (Some(id), Some(mut journal)) = (request.headers().get("x-id"), app.journal.as_ref()) {
        // One write of one line with O_APPEND: whole, even if a signal ends the process right after it.
        let line = [id.as_bytes(), b"\n"].concat();
        journal.write_all(&line).expect("the journal can be written");
    }
    if request.uri().path() == "/control" {
        request.uri().query().unwrap_or("").clone_into(&mut app.defaults.lock().expect("no panic under it"));
        return Ok(respond(200, Answer::bytes(3)));
    }
    let defaults = app.defaults.lock().expect("no panic under it").clone();
    let query = request.uri().query().unwrap_or("").to_owned();
    let asked = |name: &str| number(&query, name).or_else(|| number(&defaults, name));
    if request.uri().path() == "/same" {
        let same = compare(request.into_body()).await;
        let mut response = respond(if same.is_some() { 200 } else { 400 }, Answer::bytes(3));
        response.headers_mut().insert("x-same", same.unwrap_or(0).into());
        return Ok(response);
    }
    if asked("early").is_none() && request.into_body().collect().await.is_err() {
        return Ok(respond(400, Answer::bytes(0)));
    }
    if app.bound_at.elapsed() < app.flags.unready {
        return Ok(respond(503, Answer::bytes(8)));
    }
    let number = app.served.fetch_add(1, Ordering::Relaxed);
    if number < app.flags.cold {
        sleep(app.flags.cold_delay).await;
    }
    if let Some(curve) = app.flags.curve {
        sleep(curve.delay(number)).await;
    }
    if asked("close").is_some() {
        return Err(std::io::ErrorKind::ConnectionAborted.into());
    }
    if asked("hang").is_some() {
        std::future::pending::<()>().await;
    }
    sleep(Duration::from_millis(asked("delay").unwrap_or(0))).await;
    let fails = asked("fail").is_some_and(|percent| number * percent % 100 < percent);
    let status = if fails { 500 } else { asked("status").map_or(app.flags.status, |status| status as u16) };
    Ok(respond(
        status,
        match asked("drip") {
            Some(millis) => Answer::Drip(interval(Duration::from_millis(millis.max(1)))),
            None => match asked("stream") {
                Some(left) => Answer::Stream { left, pattern: Pattern::default() },
                None => Answer::bytes(asked("bytes").unwrap_or(3)),
            },
        },
    ))
}

/// How long a body is that is the pattern from beginning to end.
async fn compare(mut body: Incoming) -> Option<u64> {
    let mut pattern = Pattern::default();
    while let Some(frame) = body.frame().await {
        let is_same = frame.ok()?.data_ref().is_none_or(|data| pattern.goes_on_with(data));
        is_same.then_some(())?;
    }
    Some(pattern.position())
}

fn number(query: &str, name: &str) -> Option<u64> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1.parse().ok()
}

fn respond(status: u16, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("x-pid", std::process::id().into());
    response
}

/// The body of an answer.
enum Answer {
    Whole(Option<Bytes>),
    /// Never ends.
    Drip(Interval),
    Stream {
        left: u64,
        pattern: Pattern,
    },
}

impl Answer {
    fn bytes(count: u64) -> Self {
        Self::Whole(Some(vec![b'.'; count as usize].into()))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(match self.get_mut() {
            Self::Whole(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Self::Drip(interval) => {
                ready!(interval.poll_tick(cx));
                Some(Ok(Frame::data(Bytes::from_static(b"drip\n"))))
            }
            Self::Stream { left: 0, .. } => None,
            Self::Stream { left, pattern } => {
                let piece = pattern.next(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= piece.len() as u64;
                Some(Ok(Frame::data(Bytes::from_static(piece))))
            }
        })
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(bytes) => {
                hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            Self::Stream { left, .. } => hyper::body::SizeHint::with_exact(*left),
            Self::Drip(_) => hyper::body::SizeHint::default(),
        }
    }
}

/// Of a stream of HTTP/2: never what a test waits for.
const WINDOW: u32 = 8 << 20;
