//! `http`: a request is answered as expected, judged as the kubelet judges an `httpGet` probe.
//!
//! ```text
//! url ─▶ request ─▶ connect ─▶ tls? ─▶ wire::head ──redirect, same host──▶ url (at most 9 times)
//!                                          └─▶ wire::body ─▶ verdict      (a broken body: again, 3 times in all)
//! ```
//!
//! Each request has its own connection, with `Connection: close`; no proxy is used. The client is our own
//! because verdicts must equal the kubelet's, byte for byte where a server is odd; the cases measured on a
//! live kubelet hold it (`tests/it/check_http.rs`, which also lists the intended differences). Redirects are
//! followed on the same host name only, whatever the port; a redirect elsewhere ends there and counts by its
//! own status. At most 10 KiB of the body are read, or 1 MiB where the configuration looks into it.

mod request;
mod tls;
mod url;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;

use regex_lite::Regex;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use self::request::Request;
use self::tls::Trust;
use self::url::Url;
use self::wire::{Broken, Framing, Head, Wire};
use super::connect::connect;
use super::own::{self, Address, Expect, Headers};
use super::{Check, CheckError, CheckFuture, CheckResult, Evidence, Kind};
use crate::config::{self, Gates, KeyError, Listener, Own};

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
    },
    build: |spec, _| Box::new(Http::new(own::parse(&spec.own).expect("configuration accepted the keys"))),
};

/// The keys of `http`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// What to ask for: http:// or https://, without credentials.
    url: String,
    /// GET if not given.
    #[serde(default = "get")]
    method: String,
    /// Header fields to send, each a value or a list of values. An empty user-agent or accept is not sent.
    #[serde(default)]
    headers: Headers,
    /// The request's body.
    body: Option<String>,
    /// Status codes that pass, of the last answer: a code, a range like "200-299", or a list of them; 200-399 if
    /// not given.
    #[serde(default)]
    expect: Expect,
    /// A regular expression that must match somewhere in the body.
    body_matches: Option<String>,
    /// JSON pointers (RFC 6901) into the body, and the value that must be there.
    json: Option<BTreeMap<String, Value>>,
    /// PEM file with the certificate authorities to trust, instead of the public ones.
    ca: Option<PathBuf>,
    /// Take any certificate, as the kubelet does.
    #[serde(default)]
    insecure_skip_verify: bool,
}

fn get() -> String {
    "GET".to_owned()
}

struct Http {
    url: Url,
    request: Request,
    trust: Trust,
    expect: Expect,
    body_matches: Option<Regex>,
    json: Option<BTreeMap<String, Value>>,
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
            expect: keys.expect,
            body_matches: keys.body_matches.and_then(|pattern| Regex::new(&pattern).ok()),
            json: keys.json,
        }
    }
}

impl Check for Http {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(async {
            let mut last = None;
            for _ in 0..TRIES {
                match self.attempt().await {
                    Ok(answer) => return self.judge(&answer),
                    Err(Failure::Final(error)) => return Err(error),
                    Err(Failure::Body(error)) => last = Some(error),
                }
            }
            Err(last.expect("there was at least one try"))
        })
    }
}

/// The answer that counts.
struct Answer {
    url: Url,
    head: Head,
    body: Vec<u8>,
    redirects: usize,
    /// It is a redirect that was not followed, for this reason.
    stopped: Option<&'static str>,
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
                    redirects += 1;
                    if redirects > LONGEST_CHAIN {
                        let reason =
                            format!("stopped after {redirects} redirects, expected at most {LONGEST_CHAIN}");
                        return Err(unexpected(&request, &url, &reason));
                    }
                    request.follow(exchange.head.status, &url, &to, &location);
                    url = to;
                    continue;
                }
            };
            let looks_inside = self.body_matches.is_some() || self.json.is_some();
            let limit = if looks_inside { LONGEST_LOOK } else { LONGEST_PROBE };
            let body = exchange.wire.body(exchange.head.framing, limit).await;
            let body = body.map_err(|broken| broken_answer(&request, &url, broken))?;
            return Ok(Answer { url, head: exchange.head, body, redirects, stopped });
        }
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

    fn judge(&self, answer: &Answer) -> CheckResult {
        let status = answer.head.status;
        let figures = json!({ "status": status, "redirects": answer.redirects });
        let fail = |what: String| {
            let place = format!("{} {}", self.request.method, answer.url.shown());
            let message = own::one_line(&format!("{place} {what}"), 600);
            Err(CheckError::Unexpected { message, figures: Some(figures.clone()) })
        };
        // An unfollowed redirect passes by its own status, as it does for the kubelet.
        if !self.expect.accepts(status) {
            let body = own::one_line(&String::from_utf8_lossy(&answer.body), 120);
            let said = if body.is_empty() { String::new() } else { format!(": {body}") };
            return fail(format!("answered {status:03}, expected {}{said}", self.expect));
        }
        let text = String::from_utf8_lossy(&answer.body);
        if let Some(pattern) = &self.body_matches
            && !pattern.is_match(&text)
        {
            return fail(format!("answered {status} with a body that does not match {pattern}"));
        }
        if let Some(wanted) = &self.json {
            match serde_json::from_slice::<Value>(&answer.body) {
                Err(error) => {
                    return fail(format!("answered {status} with a body that is not JSON: {error}"));
                }
                Ok(found) => {
                    for (pointer, wanted) in wanted {
                        match found.pointer(pointer) {
                            Some(value) if value == wanted => {}
                            Some(value) => {
                                return fail(format!("has {value} at {pointer}, expected {wanted}"));
                            }
                            None => return fail(format!("has nothing at {pointer}, expected {wanted}")),
                        }
                    }
                }
            }
        }
        let summary = match (answer.stopped, answer.redirects) {
            (Some(reason), _) => format!("{status}, a redirect {reason}, not followed"),
            (None, 0) => status.to_string(),
            (None, 1) => format!("{status} after 1 redirect"),
            (None, many) => format!("{status} after {many} redirects"),
        };
        Ok(Evidence { summary, figures: Some(figures) })
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
    /// Kept until the answer is read: to drop it early would tell the server that nobody waits.
    _writer: tokio::io::WriteHalf<Box<dyn Stream>>,
    head: Head,
}

impl Exchange {
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
    Ok(Exchange { wire, _writer: writer, head })
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

/// Splits off scheme and authority and reads the rest as the kubelet reads the path of a probe.
///
/// Unlike there, a path that begins with two slashes stays one: in a whole URL it cannot be a host.
fn parse_url(text: &str) -> Result<Url, String> {
    let expected = "expected e.g. http://127.0.0.1:8080/healthz";
    let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("not a URL, {expected}"))?;
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err(format!("the scheme is not http or https, {expected}"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("credentials in a URL are not allowed, expected them in headers.authorization".to_owned());
    }
    let with_port = match authority.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => authority.to_owned(),
        _ => format!("{authority}:{}", if scheme == "https" { 443 } else { 80 }),
    };
    Address::parse(&with_port)?;
    let url = Url::of_parts(&scheme, authority, path);
    // Go refuses only control characters in a query, but a blank would end the request's target early.
    match url.target().bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        true => Err("a blank or control character in the query, expected %20 and the like".to_owned()),
        false => Ok(url),
    }
}

fn accept(own: &Own, _: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = keys.headers.problems("headers");
    if let Err(error) = parse_url(&keys.url) {
        problems.push(own::problem("url", error));
    }
    let method = http::Method::from_bytes(keys.method.as_bytes());
    if method.is_err() || keys.method == "CONNECT" {
        problems.push(own::problem("method", "not a request method, expected e.g. GET, HEAD or POST"));
    }
    let host = keys.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
    if let Some((name, host)) = host
        && host.contains([' ', '/', '\t', ','])
    {
        let mut error =
            own::problem("headers", "not a host, expected a name or address with or without a port");
        error.path.push(name.to_owned());
        problems.push(error);
    }
    if let Some(Err(error)) = keys.body_matches.as_deref().map(Regex::new) {
        problems.push(own::problem("body_matches", format!("not a regular expression: {error}")));
    }
    for pointer in keys.json.iter().flat_map(BTreeMap::keys) {
        if !pointer.is_empty() && !pointer.starts_with('/') {
            let mut error = own::problem("json", "not a JSON pointer, expected e.g. /status");
            error.path.push(pointer.clone());
            problems.push(error);
        }
    }
    if keys.ca.is_some() && keys.insecure_skip_verify {
        problems.push(own::problem(
            "insecure_skip_verify",
            "true is not allowed together with ca, expected one of them",
        ));
    }
    own::all(problems)
}

/// Requests of one probe while the body of the answer breaks (kubelet: `maxProbeRetries`).
const TRIES: usize = 3;

/// Redirects that are followed.
const LONGEST_CHAIN: usize = 9;

/// What is read of a body (kubelet: `maxRespBodyLength`), in bytes.
const LONGEST_PROBE: usize = 10 * 1024;

/// What is read of a body that is looked into, in bytes.
const LONGEST_LOOK: usize = 1 << 20;

/// What is read of a redirect's body (Go: `maxBodySlurpSize`), in bytes.
const LONGEST_SKIM: u64 = 2 << 10;
