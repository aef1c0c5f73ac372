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

impl Reply {
    /// The body as a terminal may show it: it comes from a server that was merely named on the command line.
    pub fn shown(&self) -> String {
        printable(self.body.trim_end())
    }
}

/// Text without control characters but line breaks.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
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

#[cfg(test)]
pub mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    /// An answer, as it goes over the wire.
    pub fn answer(status: u16, body: &str) -> String {
        format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    /// Gives one answer to each connection and is gone after the last. The task ends with the requests.
    pub async fn serve(answers: Vec<String>) -> (Uri, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let requests = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("accept");
                let mut request = vec![0; 4096];
                let count = stream.read(&mut request).await.expect("read");
                requests.push(String::from_utf8_lossy(&request[..count]).into_owned());
                stream.write_all(answer.as_bytes()).await.expect("write");
            }
            requests
        });
        (url(&format!("http://127.0.0.1:{port}/path?query")).expect("a URL"), requests)
    }

    fn get(url: &Uri) -> Call<'_> {
        Call { method: Method::GET, url, token: Some("secret"), deadline: Duration::from_secs(30) }
    }

    #[tokio::test]
    async fn call_carries_path_host_and_token_and_brings_the_answer() {
        let (url, requests) = serve(vec![answer(503, "not ready\n")]).await;
        let reply = call(get(&url)).await.expect("an answer");
        assert_eq!((reply.status.as_u16(), &*reply.body), (503, "not ready\n"));
        let requests = requests.await.expect("no panic");
        assert!(requests[0].starts_with("GET /path?query HTTP/1.1\r\n"), "{requests:?}");
        for header in ["authorization: Bearer secret\r\n", "host: 127.0.0.1:", "user-agent: readygate/"] {
            assert!(requests[0].contains(header), "{requests:?}");
        }
    }

    #[tokio::test]
    async fn whatever_goes_wrong_is_an_error_that_names_the_address() {
        for answer in ["", "HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\nshort", "garbage\r\n\r\n"] {
            let (url, _requests) = serve(vec![answer.to_owned()]).await;
            let error = call(get(&url)).await.expect_err("no whole answer");
            assert!(format!("{error:#}").contains("no answer from 127.0.0.1:"), "{error:#}");
        }
        let (url, requests) = serve(Vec::new()).await;
        requests.await.expect("no panic");
        let error = call(get(&url)).await.expect_err("nobody listens");
        assert!(format!("{error:#}").contains("is readygate running there?"), "{error:#}");
    }

    #[tokio::test]
    async fn server_that_never_answers_costs_no_more_than_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = url(&format!("http://{}/", listener.local_addr().expect("bound"))).expect("a URL");
        let error =
            call(Call { deadline: Duration::from_millis(50), ..get(&url) }).await.expect_err("no answer");
        assert!(error.to_string().ends_with("within 50ms"), "{error}");
    }

    #[test]
    fn answers_cannot_drive_a_terminal() {
        assert_eq!(printable("a\u{1b}[2J\r\nb\u{9b}"), "a [2J \nb ");
    }

    #[test]
    fn urls_and_durations_say_what_is_allowed() {
        for wrong in ["", "127.0.0.1:8801", "https://a/", "/ready", "http://", "ftp://a"] {
            let error = url(wrong).expect_err(wrong);
            assert!(error.contains("expected e.g. http://127.0.0.1:8801/ready"), "{error}");
        }
        assert!(url("http://[::1]:8801").is_ok());
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(duration("0s").is_err() && duration("5").is_err());
    }
}
