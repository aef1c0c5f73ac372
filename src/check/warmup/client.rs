//! One warm-up client: a keep-alive connection to the listener, one request at a time.
//!
//! The connection is driven by the client's own future, so dropping that closes it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::stats::Outcome;
use crate::check::own::one_line;
use crate::check::values::Expect;

/// One of the requests that warm the app, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub method: http::Method,
    pub target: http::Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub expect: Expect,
}

/// Where and how to send.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub address: SocketAddr,
    /// Of one request, connecting included.
    pub timeout: Duration,
    pub recipes: Vec<Recipe>,
    /// Name and value of the field that lets a request pass the gate.
    pub token: (HeaderName, HeaderValue),
}

/// How one request ended, and why, if not well.
#[derive(Debug)]
pub(super) struct Answered {
    pub outcome: Outcome,
    /// One line: `GET /api answered 500, expected 200-399`.
    pub why: Option<String>,
}

/// The listener itself cannot be reached: no request can.
#[derive(Debug)]
pub(super) struct Unreachable(pub std::io::Error);

/// A client with at most one open connection.
#[derive(Debug)]
pub(super) struct Client {
    plan: Arc<Plan>,
    open: Option<Open>,
}

impl Client {
    pub(super) fn new(plan: Arc<Plan>) -> Self {
        Self { plan, open: None }
    }

    /// Sends the request and reads the whole answer.
    ///
    /// # Errors
    ///
    /// Only if the listener cannot be connected to; what the app does is an [`Answered`].
    pub(super) async fn send(&mut self, recipe: usize) -> Result<Answered, Unreachable> {
        let plan = Arc::clone(&self.plan);
        let recipe = &plan.recipes[recipe % plan.recipes.len()];
        let began = Instant::now();
        // A connection that broke or ran out of time is not used again.
        let open = self.open.take();
        let ended = tokio::time::timeout(plan.timeout, exchange(&plan, recipe, open)).await;
        let latency = began.elapsed();
        let why = match ended {
            Ok(Ok((open, verdict))) => {
                self.open = open;
                verdict.err()
            }
            Ok(Err(Trouble::Unreachable(error))) => return Err(Unreachable(error)),
            Ok(Err(Trouble::Broken(error))) => Some(format!("broke off: {error}")),
            Err(_) => Some(format!("got no answer within {}", humantime::format_duration(plan.timeout))),
        };
        let place = |why: String| one_line(&format!("{} {} {why}", recipe.method, recipe.target.path()), 200);
        Ok(Answered { outcome: Outcome { ok: why.is_none(), latency }, why: why.map(place) })
    }
}

enum Trouble {
    Unreachable(std::io::Error),
    Broken(hyper::Error),
}

/// The connection to go on with, and whether the answer is good, else why not.
type Exchanged = (Option<Open>, Result<(), String>);

async fn exchange(plan: &Plan, recipe: &Recipe, open: Option<Open>) -> Result<Exchanged, Trouble> {
    let mut open = match open {
        Some(open) => open,
        None => Open::new(plan.address).await?,
    };
    // hyper gives a request back that it could not write: the connection had ended in between.
    let answer = match open.send(recipe.request(plan)).await {
        Err(error) if error.is_canceled() || error.is_closed() => {
            open = Open::new(plan.address).await?;
            open.send(recipe.request(plan)).await.map_err(Trouble::Broken)?
        }
        answer => answer.map_err(Trouble::Broken)?,
    };
    let status = answer.status().as_u16();
    let own_error = answer.headers().get("x-readygate-error").cloned();
    open.drain(answer.into_body()).await.map_err(Trouble::Broken)?;
    let verdict = match own_error {
        Some(kind) => Err(format!("got {status} from the sidecar: {}", in_words(&kind))),
        None if recipe.expect.accepts(status) => Ok(()),
        None => Err(format!("answered {status}, expected {}", recipe.expect)),
    };
    Ok(((!open.ended).then_some(open), verdict))
}

/// What an error of the data plane means, by its name.
fn in_words(kind: &HeaderValue) -> String {
    match kind.to_str().unwrap_or_default() {
        "connect_refused" => "the app refuses connections".to_owned(),
        "connect_timeout" | "connect_failed" => "the app cannot be connected to".to_owned(),
        "upstream_tls" => "no TLS connection to the app".to_owned(),
        "upstream_closed" | "upstream_broken" => "the app closed the connection".to_owned(),
        "upstream_protocol" => "the app's answer is not HTTP".to_owned(),
        "response_timeout" => "the app did not answer in time".to_owned(),
        "queue_full" => "too many requests wait (limits.queue, limits.in_flight)".to_owned(),
        other => other.replace('_', " "),
    }
}

impl Recipe {
    fn request(&self, plan: &Plan) -> http::Request<Full<Bytes>> {
        let mut request = http::Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        let headers = request.headers_mut();
        let host = HeaderValue::try_from(plan.address.to_string()).expect("an address is a header value");
        headers.insert(HOST, host);
        headers
            .insert(USER_AGENT, HeaderValue::from_static(concat!("readygate/", env!("CARGO_PKG_VERSION"))));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        for name in self.headers.keys() {
            headers.remove(name);
        }
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        headers.insert(plan.token.0.clone(), plan.token.1.clone());
        request
    }
}

/// An open connection.
struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: Pin<Box<Connection<TokioIo<TcpStream>, Full<Bytes>>>>,
    /// The connection is over; what it read can still be taken.
    ended: bool,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Open {
    async fn new(address: SocketAddr) -> Result<Self, Trouble> {
        let stream = TcpStream::connect(address).await.map_err(Trouble::Unreachable)?;
        // Small requests on an idle connection: waiting for more to send would only show as latency.
        stream.set_nodelay(true).map_err(Trouble::Unreachable)?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(Trouble::Broken)?;
        Ok(Self { sender, driver: Box::pin(driver), ended: false })
    }

    async fn send(&mut self, request: http::Request<Full<Bytes>>) -> hyper::Result<http::Response<Incoming>> {
        let (driver, ended) = (&mut self.driver, &mut self.ended);
        let sender = &mut self.sender;
        alongside(driver, ended, async {
            sender.ready().await?;
            sender.send_request(request).await
        })
        .await
    }

    /// Reads the body and forgets it.
    async fn drain(&mut self, mut body: Incoming) -> hyper::Result<()> {
        alongside(&mut self.driver, &mut self.ended, async {
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                frame?;
            }
            Ok(())
        })
        .await
    }
}

/// Runs `work` while the connection is driven. The connection's own error is not lost: `work` meets it.
async fn alongside<T>(
    driver: &mut Pin<Box<Connection<TokioIo<TcpStream>, Full<Bytes>>>>,
    ended: &mut bool,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    let drive = async {
        if !*ended {
            let _ = driver.as_mut().await;
            *ended = true;
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        done = &mut work => done,
        never = drive => match never {},
    }
}
