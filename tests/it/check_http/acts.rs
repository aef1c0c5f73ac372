//! What the servers of the measured cases answer, byte by byte.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::servers::Ports;

/// What a server does once it has read a request.
#[derive(Clone)]
pub enum Act {
    Send(Vec<u8>),
    Wait(Duration),
    /// No more is sent.
    Fin,
    Reset,
    /// The connection stays open until the client leaves.
    Hold,
}

/// Returns whether the connection is to be reset.
pub async fn act<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, acts: Vec<Act>) -> std::io::Result<bool> {
    for act in acts {
        match act {
            Act::Send(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
            }
            Act::Wait(time) => tokio::time::sleep(time).await,
            Act::Fin => stream.shutdown().await?,
            Act::Reset => return Ok(true),
            Act::Hold => {}
        }
    }
    // Until the client leaves: an early close with unread bytes would be a reset.
    let mut ignored = [0; 1024];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(false)
}

pub fn send(text: &str) -> Act {
    Act::Send(text.as_bytes().to_vec())
}

fn wait(millis: u64) -> Act {
    Act::Wait(Duration::from_millis(millis))
}

fn with_length(status: &str, headers: &str, body: &str) -> Vec<Act> {
    vec![send(&format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))]
}

fn ok() -> Vec<Act> {
    with_length("200 OK", "", "ok")
}

fn redirect(status: &str, location: &str) -> Vec<Act> {
    with_length(status, &format!("Location: {location}\r\n"), "ok")
}

/// A head and what follows it.
fn raw(head: &str, rest: Vec<Act>) -> Vec<Act> {
    let mut acts = vec![send(head)];
    acts.extend(rest);
    acts
}

/// What the case answers to a request for that path.
pub fn answer(ports: &Ports, path: &str, request: &str) -> Vec<Act> {
    match path.split('?').next().unwrap_or_default() {
        "/ok" => return ok(),
        "/five" => return with_length("500 No", "", "no"),
        "/json" => return with_length("200 OK", "", r#"{"status":"UP","parts":[{"n":3}]}"#),
        "/echo-body" if request.ends_with("\r\n\r\n{}") => return ok(),
        "/echo-body" => return with_length("400 No", "", ""),
        "/s1" => return [vec![wait(800)], redirect("302 Found", "/s2")].concat(),
        "/s2" | "/s3" | "/s4" => return [vec![wait(800)], ok()].concat(),
        _ => {}
    }
    if let Some(left) = path.strip_prefix("/chain/").or_else(|| path.strip_prefix("/chain-")) {
        let left: u32 = left.parse().expect("a number");
        return if left == 0 { ok() } else { redirect("302 Found", &format!("/chain/{}", left - 1)) };
    }
    of_case(ports, &ports.case)
}

fn of_case(ports: &Ports, case: &str) -> Vec<Act> {
    if let Some(status) = case.strip_prefix("status-") {
        return match status {
            "204" | "304" => vec![send(&format!("HTTP/1.1 {status} X\r\n\r\n"))],
            "two-digit" => with_length("20 OK", "", "ok"),
            "four-digit" => with_length("2000 OK", "", "ok"),
            _ => with_length(&format!("{status} X"), "", "ok"),
        };
    }
    if case.starts_with("redir") {
        return redirects(ports, case);
    }
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let lines = |lines: &str| vec![send(&format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nok"))];
    let long = |bytes: usize| "x".repeat(bytes);
    match case {
        "cont-then-200" => raw("HTTP/1.1 100 Continue\r\n\r\n", ok()),
        "cont6-then-200" => raw(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(6), ok()),
        "hints103-then-200" => raw("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", ok()),
        "raw199-only-close" => raw("HTTP/1.1 199 X\r\n\r\n", vec![Act::Fin]),
        "raw199-then-200" => raw("HTTP/1.1 199 X\r\n\r\n", ok()),
        "raw101" | "raw101-hold" | "ok6-then-101-hold" => raw(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            vec![Act::Hold],
        ),
        "raw101-close" => raw(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            vec![Act::Fin],
        ),
        "raw101-12k-hold" => raw(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            vec![send(&long(12_000)), Act::Hold],
        ),
        "raw101-no-upgrade-header" => raw("HTTP/1.1 101 Switching Protocols\r\n\r\n", vec![Act::Hold]),
        "slow-headers" => [vec![wait(3000)], ok()].concat(),
        "slow-body" => raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok", vec![Act::Hold]),
        "slow-body-500" => raw("HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nok", vec![Act::Hold]),
        "stall-after-11k" => {
            raw("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", vec![send(&long(11_264)), Act::Hold])
        }
        "stall-after-10240" => {
            raw("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", vec![send(&long(10_240)), Act::Hold])
        }
        "body-1m" => with_length("200 OK", "", &long(1 << 20)),
        "body-11k" => with_length("200 OK", "", &long(11 << 10)),
        "body-11k-500" => with_length("500 No", "", &long(11 << 10)),
        "body-binary-500" => raw(
            "HTTP/1.1 500 No\r\nContent-Length: 8\r\n\r\n",
            vec![Act::Send(b"a\xff\x00\x01\n\tbc".to_vec())],
        ),
        "chunked" => raw(chunked, vec![send("2\r\nok\r\n0\r\n\r\n")]),
        "chunked-unterminated-close" => raw(chunked, vec![send("2\r\nok\r\n"), Act::Fin]),
        "chunked-unterminated-open" => raw(chunked, vec![send("2\r\nok\r\n"), Act::Hold]),
        "chunked-bad" => raw(chunked, vec![send("zz\r\nok\r\n0\r\n\r\n")]),
        "chunked-and-length" => vec![send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 50\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        )],
        "te-gzip" => vec![send("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok"), Act::Fin],
        "http10" => vec![send("HTTP/1.0 200 OK\r\n\r\nok"), Act::Fin],
        "http10-500" => vec![send("HTTP/1.0 500 No\r\n\r\nok"), Act::Fin],
        "close-delimited" => vec![send("HTTP/1.1 200 OK\r\n\r\nok"), Act::Fin],
        "no-length-never-closed" => vec![send("HTTP/1.1 200 OK\r\n\r\nok"), Act::Hold],
        "no-length-204-never-closed" => vec![send("HTTP/1.1 204 No\r\n\r\n"), Act::Hold],
        "no-length-205-never-closed" => vec![send("HTTP/1.1 205 Reset\r\n\r\n"), Act::Hold],
        "short-body-close" => vec![send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok"), Act::Fin],
        "extra-after-body" => vec![send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokextra bytes")],
        "garbage-status" => vec![send("BLAH 200 OK\r\nContent-Length: 2\r\n\r\nok")],
        "http09-body" => vec![send("<html>ok</html>"), Act::Fin],
        "no-reason" => vec![send("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok")],
        "lowercase-http" => vec![send("http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")],
        "http20-line" => vec![send("HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok")],
        "http2-line" => vec![send("HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok")],
        "http19-line" => vec![send("HTTP/1.9 200 OK\r\nContent-Length: 2\r\n\r\nok")],
        "leading-crlf" => raw("\r\n", ok()),
        "lf-only" => vec![send("HTTP/1.1 200 OK\nContent-Length: 2\n\nok")],
        "header-no-colon" => lines("NoColonHere\r\n"),
        "header-space-before-colon" => lines("X-A : b\r\n"),
        "header-folded" => lines("X-A: b\r\n  c\r\n"),
        "header-leading-space" => lines(" X-A: b\r\n"),
        "header-ctl-value" => lines("X-A: b\0c\r\n"),
        "dup-length-differ" => lines("Content-Length: 3\r\n"),
        "dup-length-same" => lines("Content-Length: 2\r\n"),
        "bad-length" => vec![send("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok")],
        "length-plus" => vec![send("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok")],
        "headers-1m" => lines(&format!("X-A: {}\r\n", long(1000)).repeat(1100)),
        "headers-11m" => lines(&format!("X-A: {}\r\n", long(1000)).repeat(11 * 1100)),
        "gzip-unasked" | "gzip" => raw(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 22\r\n\r\n",
            vec![Act::Send(b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xcb\xcf\x06\0\x47\xdd\xdc\x79\x02\0\0\0".to_vec())],
        ),
        "gzip-corrupt" => lines("Content-Encoding: gzip\r\n"),
        "rst-after-request" => vec![Act::Reset],
        "rst-after-response" => [ok(), vec![Act::Reset]].concat(),
        // The last: a server that expects TLS and reads none.
        "close-after-request" | "http-to-tls" => vec![Act::Fin],
        "close-mid-headers" => vec![send("HTTP/1.1 200 OK\r\nContent-Le"), Act::Fin],
        "conn-keepalive" => lines("Connection: keep-alive\r\n"),
        "conn-close" => [lines("Connection: close\r\n"), vec![Act::Fin]].concat(),
        "set-cookie" => lines("Set-Cookie: a=b\r\nRetry-After: 100\r\n"),
        "r503-once-then-200" if ports.asked.get() == 1 => with_length("503 No", "Retry-After: 100\r\n", "no"),
        "delay-08-timeout-1" => [vec![wait(800)], ok()].concat(),
        "delay-12-timeout-1" => [vec![wait(1200)], ok()].concat(),
        "never-answers" => vec![Act::Hold],
        "drip-headers" => "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 2\r\n\r\n"
            .chars()
            .flat_map(|byte| [send(&byte.to_string()), wait(150)])
            .chain([send("ok")])
            .collect(),
        "body-drip-1s5" => raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na",
            vec![wait(533), send("b"), wait(533), send("c"), wait(533), send("d")],
        ),
        "cont-forever" => (0..60).flat_map(|_| [send("HTTP/1.1 100 Continue\r\n\r\n"), wait(100)]).collect(),
        _ => ok(),
    }
}

fn redirects(ports: &Ports, case: &str) -> Vec<Act> {
    let Ports { plain, other, tls, closed, .. } = ports;
    let found = |location: &str| redirect("302 Found", location);
    match case {
        "redir-302-relative" | "redir-302-relative-with-hosthdr" => found("/ok"),
        "redir-302-otherhost" => found("http://10.244.0.1:8000/ok"),
        "redir-302-othername" => found("http://other.example.com/ok"),
        "redir-302-localhost" => found("http://localhost:8000/ok"),
        "redir-302-hosthdr" => found("http://my.example.com:8000/ok"),
        "redir-302-sameport" => found(&format!("http://{other}/ok")),
        "redir-302-closedport" => found(&format!("http://{closed}/ok")),
        "redir-302-https" => found(&format!("https://{tls}/ok")),
        "redir-302-http" => found(&format!("http://{plain}/ok")),
        "redir-302-to500" => found("/five"),
        "redir-302-slow" => [vec![wait(800)], found("/s1")].concat(),
        "redir-302-badurl" => found("http://[::1"),
        "redir-302-ftp" => found(&format!("ftp://{}/ok", plain.ip())),
        "redirloop" => found("/redirloop"),
        _ => {
            let status = case.split('-').nth(1).expect("a status");
            if case.ends_with("-noloc") {
                with_length(&format!("{status} X"), "", "ok")
            } else {
                redirect(&format!("{status} X"), &format!("http://{plain}/ok"))
            }
        }
    }
}
