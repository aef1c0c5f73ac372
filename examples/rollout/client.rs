//! The clients: a steady rate of requests, whatever becomes of them.
//!
//! Each client behaves as Go's `http.Transport` does, the most common client in a cluster: idle connections
//! are kept (two a host), the one used last is taken first, and one that the server asked to close or has
//! closed is not used again. A request is repeated in two cases only: nothing of it was written; or it is a
//! GET on a *reused* connection that ended before the first byte of the answer. So a POST is never sent twice,
//! and a request on a fresh connection never gets a second chance.
//!
//! Requests start on schedule, answered or not, and latency counts from the scheduled start: a stall is not
//! hidden by clients that politely wait for it to pass.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::progress::Progress;
use crate::report::Recorder;
use crate::rng::Rng;
use crate::service::{Node, Service};

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No endpoint, or nobody listens there.
    Refused,
    /// An answer with this status, 500 or more.
    Status(u16),
    /// The connection ended before the answer did.
    Cut,
    /// No answer in time.
    Timeout,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Status(status) => write!(f, "answered {status}"),
            Self::Cut => f.write_str("cut off"),
            Self::Timeout => f.write_str("not answered in 5 s"),
        }
    }
}

/// What the clients of one scenario do besides sending GETs.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// One request in ten is a POST.
    pub posts: bool,
    /// Each failure is an event of its own.
    pub complain: bool,
}

/// Starts every client; they go on until their tasks are dropped.
pub fn start_all(
    seed: u64,
    habits: Habits,
    service: &Service,
    recorder: &Rc<Recorder>,
    progress: &Rc<Progress>,
) {
    for number in 0..CLIENTS {
        let client = Rc::new(Client {
            node: Rc::clone(&service.nodes[number % service.nodes.len()]),
            keep_alive: number >= FRESH_CLIENTS,
            habits,
            idle: RefCell::default(),
            rng: RefCell::new(Rng::stream(seed, &format!("client {number}"))),
            recorder: Rc::clone(recorder),
            progress: Rc::clone(progress),
        });
        tokio::task::spawn_local(client.run());
    }
}

struct Client {
    node: Rc<Node>,
    keep_alive: bool,
    habits: Habits,
    idle: RefCell<Vec<Connection>>,
    rng: RefCell<Rng>,
    recorder: Rc<Recorder>,
    progress: Rc<Progress>,
}

struct Connection {
    pod: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    async fn run(self: Rc<Self>) {
        let mut next = Instant::now();
        loop {
            // Half to one and a half times the mean: clients do not march in step.
            next += INTERVAL.mul_f64(0.5 + self.rng.borrow_mut().unit());
            sleep_until(next).await;
            let client = Rc::clone(&self);
            let post = self.habits.posts && self.rng.borrow_mut().below(POST_SHARE) == 0;
            tokio::task::spawn_local(async move {
                let ticket = client.recorder.begin();
                let answer = timeout_at(next + TIMEOUT, client.request(post)).await;
                let result = answer.unwrap_or_else(|_| Err(client.fail("any pod", Failure::Timeout)));
                ticket.end(next.elapsed(), result);
            });
        }
    }

    async fn request(&self, post: bool) -> Result<(), Failure> {
        loop {
            let (mut connection, reused) = match self.take_idle().await {
                Some(connection) => (connection, true),
                None => (self.connect().await?, false),
            };
            match connection.sender.try_send_request(self.message(post)).await {
                Ok(response) => {
                    let status = response.status();
                    let closes =
                        response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
                    let body = response.into_body().collect().await;
                    let failure = match body {
                        Err(_) => Some(Failure::Cut),
                        Ok(_) if status.is_server_error() => Some(Failure::Status(status.as_u16())),
                        Ok(_) => None,
                    };
                    let result = failure.map_or(Ok(()), |failure| Err(self.fail(&connection.pod, failure)));
                    if self.keep_alive && !closes && self.idle.borrow().len() < MOST_IDLE {
                        self.idle.borrow_mut().push(connection);
                    }
                    return result;
                }
                Err(mut error) => {
                    let nothing_written = error.take_message().is_some();
                    if !(reused && (nothing_written || !post)) {
                        return Err(self.fail(&connection.pod, Failure::Cut));
                    }
                }
            }
        }
    }

    async fn take_idle(&self) -> Option<Connection> {
        loop {
            let mut connection = self.idle.borrow_mut().pop()?;
            if connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let endpoint = self.node.pick(&mut self.rng.borrow_mut());
        let (pod, address) = endpoint.ok_or_else(|| self.fail("the Service", Failure::Refused))?;
        let stream = TcpStream::connect(address).await.map_err(|_| self.fail(&pod, Failure::Refused))?;
        let _ = stream.set_nodelay(true);
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|_| self.fail(&pod, Failure::Cut))?;
        tokio::task::spawn_local(connection);
        Ok(Connection { pod, sender })
    }

    fn fail(&self, by: &str, failure: Failure) -> Failure {
        if self.habits.complain {
            self.progress.event(&format!("request {failure} by {by}"));
        }
        failure
    }

    fn message(&self, post: bool) -> Request<Full<Bytes>> {
        let (method, path, body) = if post {
            (Method::POST, "/api/search", r#"{"q":"a"}"#)
        } else {
            (Method::GET, "/api/items?limit=10", "")
        };
        let mut request = Request::new(Full::new(Bytes::from_static(body.as_bytes())));
        *request.method_mut() = method;
        *request.uri_mut() = http::Uri::from_static(path);
        let headers = request.headers_mut();
        headers.insert(header::HOST, header::HeaderValue::from_static("shop"));
        if !self.keep_alive {
            headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        request
    }
}

const CLIENTS: usize = 12;
/// Of them, those that open a connection for every request.
const FRESH_CLIENTS: usize = 2;
/// Of each client: 12 clients make 240 requests a second.
const INTERVAL: Duration = Duration::from_millis(50);
/// One request in so many is a POST.
const POST_SHARE: usize = 10;
const MOST_IDLE: usize = 2;
const TIMEOUT: Duration = Duration::from_secs(5);
