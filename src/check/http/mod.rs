//! `http`: a request is answered as expected, judged as the kubelet judges an `httpGet` probe.
//!
//! ```text
//! url ─▶ request ─▶ connect ─▶ tls? ─▶ wire::head ──redirect, same host──▶ url (at most 9 times)
//!                                          └─▶ wire::body ─▶ verdict      (a broken body: again, 3 times in all)
//! ```
//!
//! Each request has its own connection, with `Connection: close`; no proxy is used. The client is our own
//! because verdicts must equal the kubelet's, byte for byte where a server is odd; the cases measured on a
//! live kubelet hold it (`tests/it/check_http.rs` lists the intended differences too). All tries share one
//! deadline, where the kubelet gives each of them its own: a body that stalls fails after one `timeout`.
//! Redirects are
//! followed on the same host name only, whatever the port; a redirect elsewhere ends there and counts by its
//! own status. At most 10 KiB of the body are read, or 1 MiB where the configuration looks into it.

mod head;
mod judge;
mod keys;
mod request;
mod url;
mod wire;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use regex_lite::Regex;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use self::head::Framing;
use self::judge::{Answer, Judge, LONGEST_LOOK};
use self::keys::{Keys, accept, parse_url};
use self::request::Request;
use self::url::Url;
use self::wire::{Broken, Head, Wire};
use super::connect::connect;
use super::own;
use super::values::Address;
use super::{Check, CheckError, CheckFuture, CheckResult, Kind};
use crate::config::{self, Gates};
use crate::tls::Trust;

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "http",
        passes_when: "the answer is as expected, by the rules of a kubelet probe: same-host redirects followed, no proxy; \
                      TLS is verified unless asked not to",
        gates: |_, _| Gates::Always,
        accept,
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["http", "https"],
        from_url: |url| parse_url(url).map(|_| json!({ "url": url })),
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| Box::new(Http::new(own::parse(&spec.own).expect("configuration accepted the keys"))),
};

struct Http {
    url: Url,
    request: Request,
    trust: Trust,
    judge: Arc<Judge>,
}

impl Http {
    fn new(keys: Keys) -> Self {
        Self {
            url: parse_url(&keys.url).expect("configuration accepted the url"),
            request: Request::new(&keys.method, &keys.headers, keys.body),
            trust: match keys.ca {
                _ if keys.insecure_skip_verify => Trust::Anybody,
                Some(path) => Trust::File(path),
                None => Trust::Public,
            },
            judge: Arc::new(Judge {
                expect: keys.expect,
                body_matches: keys.body_matches.and_then(|pattern| Regex::new(&pattern).ok()),
                json: keys.json,
            }),
        }
    }
}

impl Check for Http {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(async {
            let mut last = None;
            for _ in 0..TRIES {
                match self.attempt().await {
                    Ok(answer) => return self.verdict(answer).await,
                    Err(Failure::Final(error)) => return Err(error),
                    Err(Failure::Body(error)) => last = Some(error),
                }
            }
            Err(last.expect("there was at least one try"))
        })
    }

    fn tests(&self) -> String {
        let Judge { expect, body_matches, json } = &*self.judge;
        let mut words = format!("sends {} {}, and expects {expect}", self.request.method, self.url.shown());
        if let Some(pattern) = body_matches {
            words.push_str(&format!(", with a body that matches {pattern}"));
        }
        if let Some(json) = json {
            let pointers: Vec<&str> = json.keys().map(String::as_str).collect();
            words.push_str(&format!(", with the JSON values that are configured at {}", pointers.join(", ")));
        }
        words
    }
}

enum Failure {
    Final(CheckError),
    /// Worth another try.
    Body(CheckError),
}

impl Http {
    /// From the first request to the body of the last answer.
    async fn attempt(&self) -> Result<Answer, Failure> {
        let mut url = self.url.clone();
        let mut request = self.request.clone();
        let mut redirects = 0;
        loop {
            let mut exchange = self.exchange(&request, &url).await?;
            let stopped = match self.next(&exchange.head, &url) {
                Next::Here => None,
                Next::Stop(reason) => Some(reason),
                Next::Error(reason) => return Err(unexpected(&request, &url, &reason)),
                Next::Follow { to, location } => {
                    exchange.skim().await;
                    let status = exchange.head.status;
                    exchange.close().await;
                    redirects += 1;
                    if redirects > LONGEST_CHAIN {
                        let reason =
                            format!("stopped after {redirects} redirects, expected at most {LONGEST_CHAIN}");
                        return Err(unexpected(&request, &url, &reason));
                    }
                    request.follow(status, &url, &to, &location);
                    url = to;
                    continue;
                }
            };
            let limit = if self.judge.looks_inside() { LONGEST_LOOK } else { LONGEST_PROBE };
            let body = exchange.wire.body(exchange.head.framing, limit).await;
            let body = body.map_err(|broken| broken_answer(&request, &url, broken))?;
            let place = format!("{} {}", request.method, url.shown());
            let status = exchange.head.status;
            exchange.close().await;
            return Ok(Answer { place, status, body, redirects, stopped });
        }
    }

    /// A long body is looked into on another thread, so that it holds up no other check.
    async fn verdict(&self, answer: Answer) -> CheckResult {
        if !self.judge.looks_inside() || answer.body.len() <= LONGEST_PROBE {
            return self.judge.verdict(&answer);
        }
        let judge = Arc::clone(&self.judge);
        let verdict = tokio::task::spawn_blocking(move || judge.verdict(&answer)).await;
        verdict
            .unwrap_or_else(|error| Err(CheckError::Unexpected { message: error.to_string(), figures: None }))
    }

    /// One request on a new connection, up to the head of its answer.
    async fn exchange(&self, request: &Request, url: &Url) -> Result<Exchange, Failure> {
        let target = Address { host: url.host_name().to_owned(), port: url.port().unwrap_or_default() };
        if !matches!(url.scheme.as_str(), "http" | "https") {
            return Err(unexpected(request, url, "unsupported scheme, expected http or https"));
        }
        if target.host.is_empty() || target.port == 0 {
            return Err(unexpected(request, url, "there is no valid host and port in the URL"));
        }
        let stream = connect(&target).await.map_err(Failure::Final)?;
        let stream: Box<dyn Stream> = if url.scheme == "https" {
            let handshake = self.trust.handshake(stream, &target.host).await;
            Box::new(handshake.map_err(|reason| {
                Failure::Final(CheckError::Connect {
                    target: target.to_string(),
                    reason: own::one_line(&reason, 300),
                })
            })?)
        } else {
            Box::new(stream)
        };
        let broken = |broken| broken_answer(request, url, broken);
        send_and_read_head(stream, &request.bytes(url), request.method != "HEAD").await.map_err(broken)
    }

    /// What an answer means for the chain of redirects (Go's `Client.do` with the kubelet's `RedirectChecker`).
    fn next(&self, head: &Head, url: &Url) -> Next {
        if !matches!(head.status, 301 | 302 | 303 | 307 | 308) {
            return Next::Here;
        }
        let Some(text) = head.location.as_deref().filter(|location| !location.is_empty()) else {
            return Next::Stop("without a location");
        };
        match Url::parse(text) {
            Err(reason) => Next::Error(format!("answered {} with a broken location: {reason}", head.status)),
            Ok(location) => {
                let to = url.join(location.clone());
                if to.host_name() == self.url.host_name() {
                    Next::Follow { to, location }
                } else {
                    Next::Stop("to another host")
                }
            }
        }
    }
}

enum Next {
    /// The answer counts.
    Here,
    /// The answer counts though it is a redirect.
    Stop(&'static str),
    Error(String),
    Follow {
        to: Url,
        location: Url,
    },
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

struct Exchange {
    wire: Wire<tokio::io::ReadHalf<Box<dyn Stream>>>,
    writer: tokio::io::WriteHalf<Box<dyn Stream>>,
    head: Head,
}

impl Exchange {
    /// Says goodbye in TLS, where a server may complain about a client that just leaves.
    async fn close(mut self) {
        let _ = tokio::time::timeout(FAREWELL, self.writer.shutdown()).await;
    }

    /// Go reads a little of a redirect's body before it goes on, and so a server that stalls there stalls us.
    async fn skim(&mut self) {
        let short = match self.head.framing {
            Framing::Length(length) => length <= LONGEST_SKIM,
            Framing::Empty => false,
            Framing::Chunked | Framing::UntilClose => true,
        };
        if short {
            // A body that is broken here does not matter: the next answer counts.
            let _ = self.wire.body(self.head.framing, LONGEST_SKIM as usize).await;
        }
    }
}

/// Reads while it writes: a server may answer before it has read everything, or without reading at all.
async fn send_and_read_head(
    stream: Box<dyn Stream>,
    request: &[u8],
    body_expected: bool,
) -> Result<Exchange, Broken> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut wire = Wire::new(reader);
    let head = {
        let mut read = pin!(wire.head(body_expected));
        let mut write = pin!(async {
            writer.write_all(request).await?;
            writer.flush().await
        });
        tokio::select! {
            written = &mut write => match (written, read.await) {
                // What came says more than that nothing could be sent.
                (Err(error), Err(_)) => Err(Broken::Head(format!("cannot send the request: {error}"))),
                (_, head) => head,
            },
            head = &mut read => head,
        }?
    };
    Ok(Exchange { wire, writer, head })
}

fn broken_answer(request: &Request, url: &Url, broken: Broken) -> Failure {
    let error = |reason: &str| failed(request, url, &format!("got no answer: {reason}"));
    match broken {
        Broken::Head(reason) => Failure::Final(error(&reason)),
        Broken::Body(reason) => Failure::Body(error(&reason)),
    }
}

fn unexpected(request: &Request, url: &Url, reason: &str) -> Failure {
    Failure::Final(failed(request, url, reason))
}

fn failed(request: &Request, url: &Url, reason: &str) -> CheckError {
    let message = own::one_line(&format!("{} {} {reason}", request.method, url.shown()), 600);
    CheckError::Unexpected { message, figures: None }
}

/// Requests of one probe while the body of the answer breaks (kubelet: `maxProbeRetries`).
const TRIES: usize = 3;

/// Redirects that are followed.
const LONGEST_CHAIN: usize = 9;

/// What is read of a body (kubelet: `maxRespBodyLength`), in bytes.
const LONGEST_PROBE: usize = 10 * 1024;

/// What is read of a redirect's body (Go: `maxBodySlurpSize`), in bytes.
const LONGEST_SKIM: u64 = 2 << 10;

/// For the end of a connection; it goes at once unless the server's buffers are full.
const FAREWELL: Duration = Duration::from_millis(50);
