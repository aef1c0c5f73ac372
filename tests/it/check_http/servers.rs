//! Servers that do what those of the measured cases did, byte by byte.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

/// The servers of one case; they end with the runtime.
pub struct Site {
    ports: Rc<Ports>,
    requests: Rc<RefCell<Vec<String>>>,
    /// Sockets that are only kept.
    _kept: Vec<Kept>,
}

struct Ports {
    case: String,
    /// 8000, and the like: plain text.
    plain: SocketAddr,
    /// 8080.
    other: SocketAddr,
    /// 8443 to 8447.
    tls: SocketAddr,
    /// 8005: bound, so that nobody else gets it, but not listening.
    closed: SocketAddr,
    asked: Cell<u32>,
}

#[allow(dead_code)]
enum Kept {
    Socket(Socket),
    Stream(std::net::TcpStream),
}

/// What a server does once it has read a request.
enum Act {
    Send(Vec<u8>),
    Wait(Duration),
    /// No more is sent.
    Fin,
    Reset,
    /// The connection stays open until the client leaves.
    Hold,
}

impl Site {
    pub async fn open(case: &str) -> Self {
        let closed = socket([127, 0, 0, 1]);
        let mut kept = Vec::new();
        let quiet = |backlog: i32| {
            let socket = socket([127, 0, 0, 1]);
            socket.listen(backlog).expect("listen");
            socket
        };
        let plain = match case {
            "never-accepts" | "tcp-backlog-only" => Server::Quiet(quiet(128)),
            "tcp-backlog-1" | "tcp-backlog-1-http" => {
                let socket = quiet(1);
                kept.extend(fill(local(&socket)).into_iter().map(Kept::Stream));
                Server::Quiet(socket)
            }
            _ => Server::Loud(listen().await),
        };
        let (other, tls) = (listen().await, listen().await);
        let ports = Rc::new(Ports {
            case: case.to_owned(),
            plain: match &plain {
                Server::Quiet(socket) => local(socket),
                Server::Loud(listener) => listener.local_addr().expect("address"),
            },
            other: other.local_addr().expect("address"),
            tls: tls.local_addr().expect("address"),
            closed: local(&closed),
            asked: Cell::new(0),
        });
        let requests = Rc::new(RefCell::new(Vec::new()));
        kept.push(Kept::Socket(closed));
        match plain {
            Server::Quiet(socket) => kept.push(Kept::Socket(socket)),
            Server::Loud(listener) => serve(listener, Rc::clone(&ports), Rc::clone(&requests), None),
        }
        serve(other, Rc::clone(&ports), Rc::clone(&requests), None);
        serve(tls, Rc::clone(&ports), Rc::clone(&requests), Some(acceptor(case)));
        Self { ports, requests, _kept: kept }
    }

    /// Where the port of a case is here.
    pub fn address(&self, port: u64) -> SocketAddr {
        match (port, self.ports.case.as_str()) {
            // These listen on 127.0.0.1, and not on the address that is probed.
            (8007, _) => SocketAddr::from(([127, 0, 0, 2], self.ports.plain.port())),
            (8005, _) | (_, "host-127") => self.ports.closed,
            (8443..=8447, _) => self.ports.tls,
            (8080, _) => self.ports.other,
            _ => self.ports.plain,
        }
    }

    /// A measured request as it must look here.
    pub fn localize(&self, request: &str) -> String {
        let mut text = request.replace("kube-probe/1.36", concat!("readygate/", env!("CARGO_PKG_VERSION")));
        while let Some(start) = text.find("PODIP:") {
            let port = text[start + 6..start + 10].parse().expect("four digits");
            text.replace_range(start..start + 10, &self.address(port).to_string());
        }
        text
    }

    /// The different requests that came, in the order of their first coming.
    pub fn requests(&self) -> Vec<String> {
        let mut seen: Vec<String> = Vec::new();
        for request in self.requests.borrow().iter() {
            if !seen.contains(request) {
                seen.push(request.clone());
            }
        }
        seen
    }
}

enum Server {
    /// Never accepts.
    Quiet(Socket),
    Loud(TcpListener),
}

fn socket(ip: [u8; 4]) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.bind(&SocketAddr::from((ip, 0)).into()).expect("bind");
    socket
}

fn local(socket: &Socket) -> SocketAddr {
    socket.local_addr().expect("address").as_socket().expect("an IP address")
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("bind")
}

/// Connects until the accept queue takes no more.
fn fill(address: SocketAddr) -> Vec<std::net::TcpStream> {
    let patience = Duration::from_millis(100);
    std::iter::from_fn(|| std::net::TcpStream::connect_timeout(&address, patience).ok()).take(16).collect()
}

fn acceptor(case: &str) -> TlsAcceptor {
    let name = match case {
        "https-expired" => "expired",
        "https-selfsigned" => "wrong-name",
        _ => "loopback",
    };
    let path = |end: &str| format!("{}/tests/data/tls/{name}.{end}", env!("CARGO_MANIFEST_DIR"));
    let certificate = CertificateDer::from_pem_file(path("crt")).expect("certificate");
    let key = PrivateKeyDer::from_pem_file(path("key")).expect("key");
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.expect("versions");
    let builder = if case == "https-clientcert" {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("root");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        builder.with_client_cert_verifier(verifier.expect("verifier"))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(vec![certificate], key).expect("key fits");
    if case == "https-h2" {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    TlsAcceptor::from(Arc::new(config))
}

fn serve(
    listener: TcpListener,
    ports: Rc<Ports>,
    requests: Rc<RefCell<Vec<String>>>,
    tls: Option<TlsAcceptor>,
) {
    tokio::task::spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            let (ports, requests, tls) = (Rc::clone(&ports), Rc::clone(&requests), tls.clone());
            tokio::task::spawn_local(async move {
                let _ = connection(stream, &ports, &requests, tls).await;
            });
        }
    });
}

async fn connection(
    stream: TcpStream,
    ports: &Ports,
    requests: &RefCell<Vec<String>>,
    tls: Option<TlsAcceptor>,
) -> std::io::Result<()> {
    // Reset needs the socket after the stream was handed to TLS, which no case asks for.
    let reset_on_drop = |stream: &TcpStream| SockRef::from(stream).set_linger(Some(Duration::ZERO));
    match ports.case.as_str() {
        "rst-on-accept" | "tcp-rst-on-accept" => return reset_on_drop(&stream),
        "close-on-accept" | "tcp-open" => return Ok(()),
        "https-tls11" => {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 1024]).await?;
            // A fatal alert: protocol version.
            return stream.write_all(&[0x15, 3, 1, 0, 2, 2, 70]).await;
        }
        "http-to-tls-nethttp" => {
            let mut stream = stream;
            read_request(&mut stream).await?;
            return act(
                &mut stream,
                vec![send("HTTP/1.0 400 Bad Request\r\n\r\nsent HTTP to TLS"), Act::Fin],
            )
            .await
            .map(|_| ());
        }
        _ => {}
    }
    if let Some(tls) = tls {
        let mut stream = tls.accept(stream).await?;
        return converse(&mut stream, ports, requests).await.map(|_| ());
    }
    let mut stream = stream;
    if converse(&mut stream, ports, requests).await? {
        reset_on_drop(&stream)?;
    }
    Ok(())
}

/// Returns whether the connection is to be reset.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    ports: &Ports,
    requests: &RefCell<Vec<String>>,
) -> std::io::Result<bool> {
    match ports.case.as_str() {
        "speaks-first" => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?,
        "ssh-banner" => {
            stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await?;
            return act(stream, vec![Act::Hold]).await;
        }
        _ => {}
    }
    let request = read_request(stream).await?;
    if request.is_empty() {
        return Ok(false);
    }
    if request[0] == 0x16 {
        requests.borrow_mut().push("TLS ClientHello".to_owned());
        return act(stream, vec![send("HTTP/1.0 400 Bad Request\r\n\r\n"), Act::Fin]).await;
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    requests.borrow_mut().push(request.clone());
    if ports.case == "speaks-first" {
        return Ok(false);
    }
    ports.asked.set(ports.asked.get() + 1);
    act(stream, answer(ports, &path, &request)).await
}

/// Up to the empty line, and the body that the length announces; or the first bytes of a TLS handshake.
async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        if request.first() == Some(&0x16) {
            return Ok(request);
        }
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if request.len() >= end + 4 + length.map_or(0, |length| length.parse().expect("a length")) {
                return Ok(request);
            }
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(Vec::new());
        }
    }
}

async fn act<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, acts: Vec<Act>) -> std::io::Result<bool> {
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

fn send(text: &str) -> Act {
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

fn answer(ports: &Ports, path: &str, request: &str) -> Vec<Act> {
    match path.split('?').next().unwrap_or_default() {
        "/ok" => return ok(),
        "/five" => return with_length("500 No", "", "no"),
        "/json" => return with_length("200 OK", "", r#"{"status":"UP","parts":[{"n":3}]}"#),
        "/echo-body" if request.ends_with("\r\n\r\n{}") => return ok(),
        "/echo-body" => return with_length("400 No", "", ""),
        "/s1" => return [vec![wait(800)], redirect("302 Found", "/s2")].concat_acts(),
        "/s2" | "/s3" | "/s4" => return [vec![wait(800)], ok()].concat_acts(),
        _ => {}
    }
    if let Some(left) = path.strip_prefix("/chain/").or_else(|| path.strip_prefix("/chain-")) {
        let left: u32 = left.parse().expect("a number");
        return if left == 0 { ok() } else { redirect("302 Found", &format!("/chain/{}", left - 1)) };
    }
    of_case(ports, &ports.case)
}

trait ConcatActs {
    fn concat_acts(self) -> Vec<Act>;
}

impl<const N: usize> ConcatActs for [Vec<Act>; N] {
    fn concat_acts(self) -> Vec<Act> {
        self.into_iter().flatten().collect()
    }
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
        "slow-headers" => [vec![wait(3000)], ok()].concat_acts(),
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
        "rst-after-response" => [ok(), vec![Act::Reset]].concat_acts(),
        // The last: a server that expects TLS and reads none.
        "close-after-request" | "http-to-tls" => vec![Act::Fin],
        "close-mid-headers" => vec![send("HTTP/1.1 200 OK\r\nContent-Le"), Act::Fin],
        "conn-keepalive" => lines("Connection: keep-alive\r\n"),
        "conn-close" => [lines("Connection: close\r\n"), vec![Act::Fin]].concat_acts(),
        "set-cookie" => lines("Set-Cookie: a=b\r\nRetry-After: 100\r\n"),
        "r503-once-then-200" if ports.asked.get() == 1 => with_length("503 No", "Retry-After: 100\r\n", "no"),
        "delay-08-timeout-1" => [vec![wait(800)], ok()].concat_acts(),
        "delay-12-timeout-1" => [vec![wait(1200)], ok()].concat_acts(),
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
        "redir-302-slow" => [vec![wait(800)], found("/s1")].concat_acts(),
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
