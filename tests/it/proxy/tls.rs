//! Clients that speak TLS, well and badly; certificates that change, end, or are not there yet.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::servers::program;
use crate::support::tls::{Dribble, Pki};
use crate::support::{Sidecar, TestApp, config, eventually, machine, merge};

use super::wire::Origin;
use super::{before, house};

const RELOADS: &str = "readygate_tls_reloads_total";
const ERRORS: &str = "readygate_proxy_errors_total";
const EXPIRY: &str = "readygate_tls_certificate_expiry_timestamp_seconds";

/// The key `tls` of a listener.
fn pair(pki: &Pki, folder: &str, name: &str) -> Value {
    let file = |part: &str| pki.path(&format!("{folder}{name}.{part}"));
    json!({ "cert": file("crt"), "key": file("key") })
}

/// A sidecar with TLS in front of an app that runs; `more` goes below `listeners.http`.
async fn secured(pki: &Pki, more: Value) -> (Sidecar, TestApp) {
    let app = TestApp::start(&[]).await;
    let listener = merge(json!({ "tls": pair(pki, "", "leaf") }), more);
    let sidecar = Sidecar::start(&config(&app, json!({ "listeners": { "http": listener } }))).await;
    sidecar.until_ready().await;
    (sidecar, app)
}

fn pki() -> Option<Pki> {
    let pki = Pki::new()?;
    pki.leaf("leaf", "root");
    Some(pki)
}

#[tokio::test]
async fn requests_pass_over_both_versions_and_the_app_hears_of_https() {
    let _turn = machine::shared();
    let Some(pki) = pki() else { return };
    let (sidecar, mut origin) = house(json!({ "tls": pair(&pki, "", "leaf") })).await;
    let serving = tokio::spawn(async move {
        let (mut app, first) = origin.serve().await;
        let second = app.head().await;
        app.say(super::OK).await;
        [first, second].map(|head| head.field("x-forwarded-proto"))
    });
    for version in ["-tls1_2", "-tls1_3"] {
        let root = pki.path("root.crt");
        let address = sidecar.traffic.to_string();
        let asked = tokio::task::spawn_blocking(move || {
            let mut openssl = Command::new("openssl");
            openssl.args(["s_client", "-connect", &address, version, "-quiet", "-verify_return_error"]);
            openssl.args(["-alpn", "http/1.1", "-servername", "localhost", "-CAfile"]).arg(root);
            openssl.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
            let mut child = openssl.stderr(std::process::Stdio::null()).spawn().expect("it starts");
            let request = b"GET /a HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n";
            let mut input = child.stdin.take().expect("piped");
            std::io::Write::write_all(&mut input, request).expect("it reads");
            // It ends when the server closes.
            let said = child.wait_with_output().expect("it ends");
            String::from_utf8_lossy(&said.stdout).into_owned()
        });
        let said = asked.await.expect("no panic");
        assert!(said.starts_with("HTTP/1.1 200 OK") && said.ends_with("ok"), "{version}: {said}");
    }
    let https = Some("https".to_owned());
    assert_eq!(serving.await.expect("no panic"), [https.clone(), https]);
    assert_eq!(sidecar.metric(ERRORS, "tls_handshake").await, 0.0);
}

#[tokio::test]
async fn tunnels_pass_through_tls_and_each_way_ends_by_itself() {
    let _turn = machine::shared();
    let Some(pki) = pki() else { return };
    for upgrade in [false, true] {
        let mut origin = Origin::start().await;
        let scheme = if upgrade { "http" } else { "tcp" };
        let listener =
            json!({ "tls": pair(&pki, "", "leaf"), "upstream": format!("{scheme}://{}", origin.address) });
        let sidecar = before(origin.address, json!({ "listeners": { "http": listener } })).await;
        sidecar.until_ready().await;
        let mut client = pki.client(&["root"], None).connect(sidecar.traffic).await.expect("a handshake").0;
        let asks = "GET /a HTTP/1.1\r\nhost: app.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhello";
        client.write_all(if upgrade { asks } else { "hello" }.as_bytes()).await.expect("taken");
        client.flush().await.expect("taken");
        let mut app = origin.connection().await;
        if upgrade {
            app.head().await;
            app.say("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.expect("a head"));
            }
            assert!(head.starts_with(b"HTTP/1.1 101"), "{head:?}");
        }
        assert_eq!(app.take(5).await, "hello");
        client.shutdown().await.expect("it is open");
        assert_eq!(app.end().await, "");
        let answer = "x".repeat(1 << 20);
        app.say(&answer).await;
        app.finish().await;
        let mut heard = String::new();
        // An end without a word of TLS would be an error.
        client.read_to_string(&mut heard).await.expect("an end in order");
        assert!(heard == answer, "{} bytes", heard.len());
        assert_eq!(sidecar.metric(ERRORS, "").await, 0.0);
    }
}

#[tokio::test]
async fn alpn_decides_and_http_2_is_preferred() {
    let _turn = machine::shared();
    let Some(pki) = pki() else { return };
    let Some(curl) = program("curl") else { return };
    let (sidecar, _app) = secured(&pki, json!({})).await;
    for (wanted, version) in [("--http2", "2"), ("--http1.1", "1.1"), ("--no-alpn", "1.1")] {
        let (curl, root) = (curl.clone(), pki.path("root.crt"));
        let url = format!("https://localhost:{}/?bytes=70000", sidecar.traffic.port());
        let asked = tokio::task::spawn_blocking(move || {
            let mut command = Command::new(curl);
            command.args([
                "-sS",
                "-4",
                wanted,
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} %{http_version} %{size_download}",
            ]);
            let done = command.arg("--cacert").arg(root).arg(url).output().expect("it starts");
            String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
        });
        assert_eq!(asked.await.expect("no panic"), format!("200 {version} 70000"), "{wanted}");
    }
    assert_eq!(sidecar.metric("readygate_requests_total", "2xx").await, 3.0);
}

#[tokio::test]
async fn handshake_in_fragments_of_one_byte_succeeds() {
    let _turn = machine::shared();
    let Some(pki) = pki() else { return };
    let (sidecar, _app) = secured(&pki, json!({})).await;
    let stream = TcpStream::connect(sidecar.traffic).await.expect("the port accepts");
    stream.set_nodelay(true).expect("a socket option");
    let mut client = pki.client(&["root"], None).over(Dribble(stream)).await.expect("a handshake");
    for _ in 0..2 {
        assert!(client.get().await.expect("an answer").starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn what_is_no_tls_is_closed_and_counted_and_hurts_nobody() {
    let _turn = machine::shared();
    let Some(pki) = pki() else { return };
    let (sidecar, _app) = secured(&pki, json!({})).await;
    let mut good = pki.client(&["root"], None).connect(sidecar.traffic).await.expect("a handshake");
    let garbage: [&[u8]; 5] = [
        b"\x00\x01\x02\x03",
        b"\x16garbage that is no record",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x01\xff\xff\x01\xff\xff\xff\xff",
        b"\x80\x2e\x01\x00\x02",
    ];
    for (number, bytes) in garbage.into_iter().enumerate() {
        let mut client = TcpStream::connect(sidecar.traffic).await.expect("the port accepts");
        client.write_all(bytes).await.expect("it takes them");
        client.shutdown().await.expect("it is open");
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut rest)).await;
        let ended = ended.unwrap_or_else(|_| panic!("it still holds on to {bytes:?}"));
        assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
        let counted = number as f64 + 1.0;
        eventually("it is counted", Duration::from_secs(5), async || {
            sidecar.metric(ERRORS, "tls_handshake").await == counted
        })
        .await;
        assert!(good.get().await.is_ok());
    }
    eventually("only the good one is left", Duration::from_secs(5), async || {
        sidecar.metric("readygate_connections", "").await == 1.0
    })
    .await;
}

#[tokio::test]
async fn plain_http_is_told_that_the_port_speaks_tls() {
    let _turn = machine::shared();
    let Some(pki) = pki() else { return };
    let (sidecar, _app) = secured(&pki, json!({})).await;
    let mut client = super::client(&sidecar).await;
    client.say(super::GET).await;
    let (head, text) = client.answer().await;
    assert_eq!((head.status(), text.as_str()), (400, "this port speaks TLS\n"));
    assert_eq!(head.field("x-readygate-error").as_deref(), Some("tls_handshake"));
    assert_eq!(client.end().await, "");
    assert_eq!(sidecar.metric("readygate_requests_total", "").await, 0.0);
}

#[tokio::test]
async fn client_that_leaves_in_the_handshake_leaves_nothing_and_one_that_says_nothing_is_no_failure() {
    let _turn = machine::shared();
    let Some(pki) = pki() else { return };
    let (sidecar, _app) = secured(&pki, json!({})).await;
    for _ in 0..3 {
        drop(TcpStream::connect(sidecar.traffic).await.expect("the port accepts"));
    }
    for reset in [false, true] {
        let mut client = TcpStream::connect(sidecar.traffic).await.expect("the port accepts");
        client.write_all(HALF_HELLO).await.expect("it takes them");
        if reset {
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a socket option");
        }
    }
    eventually("both halves are counted", Duration::from_secs(5), async || {
        sidecar.metric(ERRORS, "tls_handshake").await == 2.0
    })
    .await;
    eventually("nothing is left", Duration::from_secs(5), async || {
        sidecar.metric("readygate_connections", "").await == 0.0
    })
    .await;
    assert_eq!(sidecar.metric(ERRORS, "tls_handshake").await, 2.0);
}

#[tokio::test]
async fn two_hundred_held_handshakes_cost_little_and_end_at_first_byte_while_others_are_served() {
    let _turn = machine::alone();
    let Some(pki) = pki() else { return };
    let (sidecar, _app) = secured(&pki, json!({ "timeouts": { "first_byte": "2s" } })).await;
    let mut good = pki.client(&["root"], None).connect(sidecar.traffic).await.expect("a handshake");
    good.get().await.expect("an answer");
    let before = sidecar.metric("process_resident_memory_bytes", "").await;
    let began = Instant::now();
    let mut held = Vec::new();
    for number in 0..200 {
        let mut client = TcpStream::connect(sidecar.traffic).await.expect("the port accepts");
        if number % 2 == 0 {
            client.write_all(HALF_HELLO).await.expect("it takes them");
        }
        held.push(client);
    }
    eventually("all are held", Duration::from_secs(2), async || {
        sidecar.metric("readygate_connections", "").await == 201.0
    })
    .await;
    let grown = sidecar.metric("process_resident_memory_bytes", "").await - before;
    assert!(grown < 200.0 * 32.0 * 1024.0, "{grown} bytes for 200 handshakes");
    let mut slowest = Duration::ZERO;
    while began.elapsed() < Duration::from_millis(1500) {
        let asked = Instant::now();
        good.get().await.expect("an answer");
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
    for client in &mut held {
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
    }
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1900) && took < Duration::from_millis(3200), "{took:?}");
    assert_eq!(sidecar.metric(ERRORS, "tls_handshake").await, 100.0);
}

/// Of a client's first message: the head of a record of 512 bytes, and a few of those.
const HALF_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

#[tokio::test]
async fn rotation_under_load_fails_no_request_and_reaches_new_connections() {
    let _turn = machine::shared();
    let Some(pki) = pki() else { return };
    pki.leaf("one", "root");
    pki.leaf("two", "root");
    pki.mount("secret", "one");
    let (sidecar, _app) = secured(&pki, json!({ "tls": pair(&pki, "secret/", "tls") })).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = Vec::new();
    for number in 0..8 {
        let (client, stop, address) = (pki.client(&["root"], None), Arc::clone(&stop), sidecar.traffic);
        load.push(tokio::spawn(async move {
            let mut served = 0;
            let mut kept = client.connect(address).await.expect("a handshake");
            while !stop.load(Ordering::Relaxed) {
                if number % 2 == 0 {
                    client.get(address).await.expect("an answer on a new connection");
                } else {
                    kept.get().await.expect("an answer on an old connection");
                }
                served += 1;
            }
            served
        }));
    }
    let fresh = pki.client(&["root"], None);
    let first = fresh.connect(sidecar.traffic).await.expect("a handshake").certificate();
    for (swaps, name) in [(1.0, "two"), (2.0, "one")] {
        pki.mount("secret", name);
        eventually("the swap is applied", Duration::from_secs(10), async || {
            sidecar.metric(RELOADS, "result=\"applied\"").await == swaps
        })
        .await;
        let now = fresh.connect(sidecar.traffic).await.expect("a handshake").certificate();
        assert_eq!(now == first, name == "one");
    }
    stop.store(true, Ordering::Relaxed);
    let mut served = 0;
    for client in load {
        served += client.await.expect("no request failed");
    }
    assert!(served > 100, "{served}");
    assert_eq!(sidecar.metric(ERRORS, "").await, 0.0);
    assert_eq!(sidecar.metric(RELOADS, "refused").await, 0.0);
}

#[tokio::test]
async fn bad_pair_keeps_the_old_one_and_is_counted_once() {
    let _turn = machine::shared();
    let Some(pki) = pki() else { return };
    pki.leaf("other", "root");
    let (sidecar, _app) = secured(&pki, json!({})).await;
    std::fs::copy(pki.path("other.crt"), pki.path("leaf.crt")).expect("a file");
    eventually("it is refused", Duration::from_secs(10), async || {
        sidecar.metric(RELOADS, "refused").await == 1.0
    })
    .await;
    assert!(sidecar.said("expected a pair"), "the log says what is wrong");
    assert!(pki.client(&["root"], None).get(sidecar.traffic).await.is_ok());
    assert!(sidecar.ready().await);
    std::fs::copy(pki.path("other.key"), pki.path("leaf.key")).expect("a file");
    eventually("the rest of it makes it good", Duration::from_secs(10), async || {
        sidecar.metric(RELOADS, "applied").await == 1.0
    })
    .await;
    assert_eq!(sidecar.metric(RELOADS, "refused").await, 1.0);
}

#[tokio::test]
async fn end_of_the_certificate_is_told_also_when_it_is_over() {
    let _turn = machine::shared();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
    let origin = Origin::start().await;
    let tls = json!({ "cert": data.join("expired.crt"), "key": data.join("expired.key") });
    let sidecar = before(origin.address, json!({ "listeners": { "http": { "tls": tls } } })).await;
    // 2020-01-02T00:00:00Z
    assert_eq!(sidecar.metric(EXPIRY, "listener=\"http\"").await, 1_577_923_200.0);
    assert!(sidecar.said("the certificate has expired"));
}

#[tokio::test]
async fn clients_must_show_a_certificate_where_an_authority_for_them_is_named() {
    let _turn = machine::shared();
    let Some(pki) = pki() else { return };
    pki.authority("people");
    pki.authority("strangers");
    pki.leaf("ann", "people");
    pki.leaf("bob", "strangers");
    let (sidecar, _app) = secured(&pki, json!({ "tls": { "client_ca": pki.path("people.crt") } })).await;
    let get = async |shows| pki.client(&["root"], shows).get(sidecar.traffic).await;
    assert!(get(Some("ann")).await.expect("an answer").starts_with("HTTP/1.1 200"));
    assert!(get(None).await.is_err() && get(Some("bob")).await.is_err());
    eventually("both are counted", Duration::from_secs(5), async || {
        sidecar.metric(ERRORS, "tls_handshake").await == 2.0
    })
    .await;
    // Who was let in by a ticket of before is asked again once others decide.
    let ann = pki.client(&["root"], Some("ann"));
    ann.get(sidecar.traffic).await.expect("an answer");
    std::fs::copy(pki.path("strangers.crt"), pki.path("people.crt")).expect("a file");
    eventually("the new authority decides", Duration::from_secs(10), async || {
        sidecar.metric(RELOADS, "applied").await == 1.0
    })
    .await;
    assert!(ann.get(sidecar.traffic).await.is_err());
    assert!(get(Some("bob")).await.is_ok());
}

#[tokio::test]
async fn sidecar_whose_certificate_is_late_starts_says_what_is_missing_and_becomes_ready_with_it() {
    let _turn = machine::shared();
    let Some(pki) = pki() else { return };
    let app = TestApp::start(&[]).await;
    let listener = json!({ "tls": pair(&pki, "secret/", "tls") });
    let mut sidecar = Sidecar::start(&config(&app, json!({ "listeners": { "http": listener } }))).await;
    eventually("only the certificate is missing", Duration::from_secs(10), async || {
        let text = sidecar.ask("/ready").await.text();
        let mut lines = text.lines().skip(1);
        lines
            .next()
            .is_some_and(|line| line.starts_with("listeners.http.tls: cannot read the certificate in "))
            && !text.contains("port:")
    })
    .await;
    assert!(pki.client(&["root"], None).get(sidecar.traffic).await.is_err());
    assert!(sidecar.runs());
    pki.mount("secret", "leaf");
    sidecar.until_ready().await;
    assert!(pki.client(&["root"], None).get(sidecar.traffic).await.is_ok());
    assert!(sidecar.metric(EXPIRY, "").await > 1.0e9);
}

#[tokio::test]
async fn listener_that_wants_certificates_is_warmed_by_an_entrance_that_nobody_else_may_use() {
    let _turn = machine::shared();
    let Some(pki) = pki() else { return };
    let mut origin = Origin::start().await;
    let address = origin.address;
    let asked = tokio::spawn(async move {
        let (app, head) = origin.serve().await;
        (head, app, origin)
    });
    let more = json!({
        "listeners": { "http": { "tls": merge(pair(&pki, "", "leaf"), json!({ "client_ca": pki.path("root.crt") })) } },
        "checks": { "warm": { "warmup": { "requests": ["GET /warm"], "min_requests": 1, "concurrency": 1 } } },
        "log": { "level": "debug" },
    });
    let sidecar = before(address, more).await;
    let (head, _app, mut origin) = asked.await.expect("no panic");
    assert_eq!(
        (head.line.as_str(), head.field("x-forwarded-proto").as_deref()),
        ("GET /warm HTTP/1.1", Some("https"))
    );
    assert_eq!(head.field("x-readygate-warmup"), None);
    sidecar.until_ready().await;

    let inner = sidecar.field("warm-up requests come in", "address").expect("it says where");
    let mut stranger = super::wire::Wire::connect(inner.parse().expect("an address")).await;
    stranger.say(super::GET).await;
    let (head, _) = stranger.answer().await;
    assert_eq!((head.status(), head.field("x-readygate-error").as_deref()), (403, Some("forbidden")));
    assert_eq!(stranger.end().await, "");
    assert!(origin.is_silent());
    assert_eq!(sidecar.metric(ERRORS, "forbidden").await, 1.0);
}
