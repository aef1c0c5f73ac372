//! S13: whatever a client leaves half said, its connection is closed by the deadline that it is under, and not before.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::tls::Pki;
use crate::support::{eventually, machine};

use super::house;

fn timeouts() -> Value {
    json!({ "first_byte": "1s", "header_read": "1s" })
}

/// Reads to the end; asserts that it came in time.
async fn is_closed_in_time(mut stream: impl tokio::io::AsyncRead + Unpin, what: &str, began: Instant) {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut rest)).await;
    // An end without a word of TLS, or a reset, is an end.
    let _ = ended.unwrap_or_else(|_| panic!("{what:?} is still open"));
    let took = began.elapsed();
    // The worker looks four times a second; a client's clock is its own.
    assert!(took >= Duration::from_millis(700) && took <= Duration::from_secs(2), "{what:?}: {took:?}");
}

#[tokio::test]
async fn half_said_things_are_closed_in_time() {
    let _turn = machine::alone();
    let (sidecar, origin) = house(json!({ "timeouts": timeouts() })).await;
    let parts = [
        "",
        "G",
        "GET",
        "GET / HTTP/1.1\r\nhost: app.test\r\n",
        "GET / HTTP/1.1\r\nhost: app.test\r\nx-long: aaaa",
        "P",
        "PRI * HTTP/2.0\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r",
    ];
    let mut closing = tokio::task::JoinSet::new();
    for part in parts {
        let address = sidecar.traffic;
        closing.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("the port accepts");
            let began = Instant::now();
            stream.write_all(part.as_bytes()).await.expect("taken");
            is_closed_in_time(stream, part, began).await;
        });
    }
    assert_eq!(closing.join_all().await.len(), parts.len());
    // Each client hears of its end a moment before it is counted.
    eventually("none is counted any more", Duration::from_secs(5), async || {
        sidecar.metric("readygate_connections", "").await == 0.0
    })
    .await;
    drop(origin);
}

#[tokio::test]
async fn half_said_things_of_tls_are_closed_in_time() {
    let _turn = machine::alone();
    let Some(pki) = Pki::new() else { return };
    pki.leaf("leaf", "root");
    let tls = json!({ "cert": pki.path("leaf.crt"), "key": pki.path("leaf.key") });
    let (sidecar, origin) = house(json!({ "tls": tls, "timeouts": timeouts() })).await;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let address = sidecar.traffic;
    let plain = async |bytes: &[u8], what| {
        let mut stream = TcpStream::connect(address).await.expect("the port accepts");
        let began = Instant::now();
        stream.write_all(bytes).await.expect("taken");
        is_closed_in_time(stream, what, began).await;
    };
    let secure = async |text: &str, what| {
        let began = Instant::now();
        let mut stream = pki.client(&["root"], None).connect(address).await.expect("a handshake").0;
        stream.write_all(text.as_bytes()).await.expect("taken");
        stream.flush().await.expect("taken");
        is_closed_in_time(stream, what, began).await;
    };
    tokio::join!(
        plain(b"", "nothing"),
        plain(&hello[..1], "a byte of a hello"),
        plain(hello, "half a hello"),
        secure("", "nothing after the handshake"),
        secure("GET / HTTP/1.1\r\n", "half a head after the handshake"),
    );
    drop(origin);
}
