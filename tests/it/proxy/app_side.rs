//! Apps that are reached by other ways than plain TCP: behind TLS, and on a unix socket.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use crate::support::tls::Pki;
use crate::support::{Scratch, Sidecar, eventually, get, machine, merge};

use super::wire::Wire;

const ERRORS: &str = "readygate_proxy_errors_total";

/// An app that answers each request with what it knows of the connection. Gone when dropped.
struct App {
    address: SocketAddr,
    /// Handshakes that succeeded.
    connections: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl App {
    /// Behind TLS, speaking one of these.
    async fn secure(pki: &Pki, name: &str, protocols: &[&[u8]]) -> Self {
        let certificate =
            CertificateDer::from_pem_file(pki.path(&format!("{name}.crt"))).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(pki.path(&format!("{name}.key"))).expect("a key");
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a pair");
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, counted) = (acceptor.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await?;
                    counted.fetch_add(1, Ordering::Relaxed);
                    let session = stream.get_ref().1;
                    let name = session.server_name().unwrap_or("nobody").to_owned();
                    let protocol = session.alpn_protocol().map(String::from_utf8_lossy).unwrap_or_default();
                    let said = format!("{protocol} by {name}");
                    if protocol == "h2" {
                        answer_streams(stream, said).await
                    } else {
                        answer(stream, &said).await
                    }
                });
            }
        });
        Self { address, connections, accepting: accepting.abort_handle() }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Answers requests without a body, one after the other, and echoes once it is asked to.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, said: &str) -> io::Result<()> {
    let mut head = Vec::new();
    while stream.read_buf(&mut head).await? > 0 {
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        if String::from_utf8_lossy(&head).contains("upgrade: echo") {
            let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
            stream.write_all(switch.as_bytes()).await?;
            let (mut reading, mut writing) = tokio::io::split(stream);
            tokio::io::copy(&mut reading, &mut writing).await?;
            return writing.shutdown().await;
        }
        head.clear();
        let length = said.len();
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{said}");
        stream.write_all(text.as_bytes()).await?;
        stream.flush().await?;
    }
    Ok(())
}

/// The same over HTTP/2, with the scheme that each request names.
async fn answer_streams(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    said: String,
) -> io::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let text = format!("{said} for {}", request.uri());
        async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text)))) }
    });
    let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    serving.await.map_err(io::Error::other)
}

async fn before(upstream: String, more: Value) -> Sidecar {
    let base = json!({
        "listeners": { "http": { "listen": "127.0.0.1:0", "upstream": upstream } },
        "admin": { "listen": "127.0.0.1:0" },
        "drain": { "min": "200ms", "quiet": "100ms", "deadline": "60s" },
        "workers": 1,
    });
    Sidecar::start(&merge(base, json!({ "listeners": { "http": more } }))).await
}

#[tokio::test]
async fn app_behind_tls_is_verified_by_its_authority_and_its_name() {
    let _turn = machine::shared();
    let Some(pki) = Pki::new() else { return };
    pki.leaf("app", "root");
    let app = App::secure(&pki, "app", &[b"http/1.1"]).await;
    let port = app.address.port();
    let (root, name) = (pki.path("root.crt"), "localhost");
    for (host, tls, expected) in [
        ("127.0.0.1", json!({ "ca": root }), Ok("http/1.1 by nobody")),
        ("127.0.0.1", json!({ "ca": root, "server_name": name }), Ok("http/1.1 by localhost")),
        ("localhost", json!({ "ca": root }), Ok("http/1.1 by localhost")),
        ("127.0.0.1", json!({ "insecure_skip_verify": true }), Ok("http/1.1 by nobody")),
        ("127.0.0.1", json!({ "ca": root, "server_name": "other.test" }), Err("not valid for name")),
        ("127.0.0.1", json!({}), Err("UnknownIssuer")),
    ] {
        let upstream = format!("https://{host}:{port}");
        let more = json!({ "upstream_tls": tls, "hold": { "for": "off" } });
        let sidecar = before(upstream, more).await;
        let log_of_failure = expected.err();
        sidecar.until_ready().await;
        for _ in 0..2 {
            let answer = get(sidecar.traffic, "/").await.expect("an answer");
            match expected {
                Ok(said) => assert_eq!((answer.status, answer.text().as_str()), (200, said), "{tls}"),
                Err(_) => {
                    assert_eq!(answer.status, 502, "{tls}");
                    assert_eq!(answer.header("x-readygate-error"), Some("upstream_tls"));
                }
            }
        }
        let failed = sidecar.metric(ERRORS, "upstream_tls").await;
        assert_eq!(failed, if log_of_failure.is_some() { 2.0 } else { 0.0 }, "{tls}");
        if let Some(why) = log_of_failure {
            assert!(sidecar.said(why), "the log says {why}");
        }
    }
}

#[tokio::test]
async fn app_that_negotiates_http_2_gets_one_connection_for_all_requests() {
    let _turn = machine::shared();
    let Some(pki) = Pki::new() else { return };
    pki.leaf("app", "root");
    let app = App::secure(&pki, "app", &[b"h2", b"http/1.1"]).await;
    let upstream = format!("https://localhost:{}", app.address.port());
    let sidecar = before(upstream, json!({ "upstream_tls": { "ca": pki.path("root.crt") } })).await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..20 {
        asked.spawn(get(sidecar.traffic, "/a"));
    }
    while let Some(answer) = asked.join_next().await {
        let answer = answer.expect("no panic").expect("an answer");
        assert_eq!(answer.text(), "h2 by localhost for https://app.test/a");
    }
    assert_eq!(app.connections.load(Ordering::Relaxed), 1);
    assert_eq!(sidecar.metric(ERRORS, "").await, 0.0);
}

const UPGRADE: &str = "GET /a HTTP/1.1\r\nhost: app.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";

#[tokio::test]
async fn upgrade_to_an_app_that_prefers_http_2_gets_a_connection_of_http_1() {
    let _turn = machine::shared();
    let Some(pki) = Pki::new() else { return };
    pki.leaf("app", "root");
    let app = App::secure(&pki, "app", &[b"h2", b"http/1.1"]).await;
    let upstream = format!("https://localhost:{}", app.address.port());
    let sidecar = before(upstream, json!({ "upstream_tls": { "ca": pki.path("root.crt") } })).await;
    // Before any other request, and beside them.
    for round in 0..3 {
        let mut client = Wire::connect(sidecar.traffic).await;
        client.say(UPGRADE).await;
        assert_eq!(client.head().await.line, "HTTP/1.1 101 Switching Protocols", "{round}");
        client.say("there and back").await;
        assert_eq!(client.take(14).await, "there and back");
        let plain = get(sidecar.traffic, "/a").await.expect("an answer");
        assert_eq!(
            plain.text(),
            "h2 by localhost for https://app.test/a",
            "requests still share one of HTTP/2"
        );
        client.finish().await;
        assert_eq!(client.end().await, "");
    }
    assert_eq!(app.connections.load(Ordering::Relaxed), 4, "one for each upgrade, and one of HTTP/2");
    assert_eq!(sidecar.metric(ERRORS, "").await, 0.0);
}

#[tokio::test]
async fn upgrade_to_an_app_that_speaks_http_2_alone_is_served_as_a_request() {
    let _turn = machine::shared();
    let Some(pki) = Pki::new() else { return };
    pki.leaf("app", "root");
    let app = App::secure(&pki, "app", &[b"h2"]).await;
    let upstream = format!("https://localhost:{}", app.address.port());
    let sidecar = before(upstream, json!({ "upstream_tls": { "ca": pki.path("root.crt") } })).await;
    for _ in 0..2 {
        let mut client = Wire::connect(sidecar.traffic).await;
        client.say(UPGRADE).await;
        let (head, body) = client.answer().await;
        assert_eq!((head.status(), body.as_str()), (200, "h2 by localhost for https://app.test/a"));
    }
    assert_eq!(sidecar.metric(ERRORS, "").await, 0.0);
    assert!(!sidecar.said("no TLS connection to the app"), "nothing is wrong with it");
}

#[tokio::test]
async fn authorities_of_the_app_may_come_late_and_change() {
    let _turn = machine::shared();
    let Some(pki) = Pki::new() else { return };
    pki.authority("other");
    pki.leaf("app", "root");
    let app = App::secure(&pki, "app", &[b"http/1.1"]).await;
    let trusted = pki.path("trusted.crt");
    let sidecar =
        before(format!("https://{}", app.address), json!({ "upstream_tls": { "ca": trusted } })).await;
    eventually("it says what is missing", Duration::from_secs(10), async || {
        sidecar.ask("/ready").await.text().contains("listeners.http.upstream_tls: cannot read")
    })
    .await;
    std::fs::copy(pki.path("other.crt"), &trusted).expect("a file");
    sidecar.until_ready().await;
    assert_eq!(get(sidecar.traffic, "/").await.expect("an answer").status, 502);
    std::fs::copy(pki.path("root.crt"), &trusted).expect("a file");
    eventually("the app is trusted", Duration::from_secs(10), async || {
        get(sidecar.traffic, "/").await.expect("an answer").status == 200
    })
    .await;
    assert_eq!(sidecar.metric("readygate_tls_reloads_total", "applied").await, 2.0);
}

#[tokio::test]
async fn app_that_accepts_and_speaks_no_tls_is_502_and_one_that_says_nothing_504() {
    let _turn = machine::shared();
    let plain = super::wire::Origin::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let more =
        json!({ "upstream_tls": { "insecure_skip_verify": true }, "timeouts": { "connect": "300ms" } });
    let sidecar = before(format!("https://{}", silent.local_addr().expect("bound")), more.clone()).await;
    let answer = get(sidecar.traffic, "/").await.expect("an answer");
    assert_eq!((answer.status, answer.header("x-readygate-error")), (504, Some("connect_timeout")));

    let sidecar = before(format!("https://{}", plain.address), more).await;
    let mut plain = plain;
    let (asked, _) = tokio::join!(get(sidecar.traffic, "/"), async {
        let mut app = plain.connection().await;
        app.say("HTTP/1.1 400 Bad Request\r\n\r\n").await;
        app
    });
    let answer = asked.expect("an answer");
    assert_eq!((answer.status, answer.header("x-readygate-error")), (502, Some("upstream_tls")));
}

#[tokio::test]
async fn requests_wait_for_the_unix_socket_of_an_app_that_is_not_there_yet() {
    let _turn = machine::shared();
    let scratch = Scratch::new();
    let path = scratch.join("app.sock");
    let sidecar = before(format!("unix:{}", path.display()), json!({})).await;
    // Not there, and then there without anybody behind it: an app that was killed leaves its socket.
    let wait = async |requests: f64| {
        eventually("they wait", Duration::from_secs(10), async || {
            sidecar.metric("readygate_held_requests", "").await == requests
        })
        .await;
    };
    let first = tokio::spawn(get(sidecar.traffic, "/"));
    wait(1.0).await;
    assert!(!sidecar.ready().await);
    drop(listen(&path));
    assert!(path.exists());
    let second = tokio::spawn(get(sidecar.traffic, "/"));
    wait(2.0).await;
    assert!(!sidecar.ready().await);
    std::fs::remove_file(&path).expect("a socket");
    let listener = listen(&path);
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move { answer(stream, "by a socket").await });
        }
    });
    for asked in [first, second] {
        let answer = asked.await.expect("no panic").expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "by a socket"));
    }
    sidecar.until_ready().await;
    serving.abort();
    let _ = serving.await;
    sidecar.until_not_ready().await;
    assert!(sidecar.ask("/ready").await.text().contains(&format!("unix:{}", path.display())));
}

fn listen(path: &Path) -> UnixListener {
    UnixListener::bind(path).expect("a socket")
}
