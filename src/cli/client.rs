//! One request to the admin port of a running sidecar, for the subcommands that talk to it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub body: String,
}

/// What to ask for.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    pub method: Method,
    pub url: &'a Uri,
    /// Bearer token of the hooks.
    pub token: Option<&'a str>,
    /// For the whole exchange.
    pub deadline: Duration,
}

/// Makes one call on a connection of its own.
///
/// # Errors
///
/// One line that says where it failed: the address, and what came instead of an answer.
pub async fn call(call: Call<'_>) -> anyhow::Result<Reply> {
    let (url, deadline) = (call.url, call.deadline);
    timeout(deadline, exchange(call)).await.unwrap_or_else(|_| {
        bail!("no answer from {url} within {}", humantime::format_duration(deadline));
    })
}

/// Parses a URL of the admin port.
///
/// # Errors
///
/// For anything but `http://host:port/path`: says what is allowed.
pub fn url(text: &str) -> Result<Uri, String> {
    let expected = || format!("{text:?} is not a URL of the admin port, expected e.g. {EXAMPLE}");
    let uri: Uri = text.parse().map_err(|_| expected())?;
    if uri.scheme_str() == Some("http") && uri.host().is_some() { Ok(uri) } else { Err(expected()) }
}

/// Parses a duration of the command line.
///
/// # Errors
///
/// Says what is allowed.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) | Err(_) => Err("expected more than nothing, e.g. 500ms, 30s or 2m".to_owned()),
        Ok(duration) => Ok(duration),
    }
}

const EXAMPLE: &str = "http://127.0.0.1:8801/ready";
/// The largest answer is `/status`.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

async fn exchange(call: Call<'_>) -> anyhow::Result<Reply> {
    let authority = call.url.authority().context("the URL has no host")?;
    let (host, port) = (authority.host(), authority.port_u16().unwrap_or(80));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port))
        .await
        .with_context(|| format!("cannot connect to {authority}: is readygate running there?"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::builder()
        .method(call.method)
        .uri(call.url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str))
        .header(HOST, authority.as_str())
        .header(USER_AGENT, concat!("readygate/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close");
    if let Some(token) = call.token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).context("the token holds what no header may hold")?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes();
        Ok(Reply { status, body: String::from_utf8_lossy(&body).into_owned() })
    };
    // The connection is driven here, not by a task: dropping this drops it, too.
    let mut connection = std::pin::pin!(connection);
    let mut answered = std::pin::pin!(answered);
    let mut connected = true;
    loop {
        tokio::select! {
            reply = &mut answered => {
                return reply.map_err(|e: anyhow::Error| e.context(format!("no answer from {authority}")));
            }
            _ = connection.as_mut(), if connected => connected = false,
        }
    }
}
