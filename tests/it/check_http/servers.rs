//! Servers that do what those of the measured cases did; what they answer stands in `acts`.

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

use super::acts::{Act, act, answer, send};

/// The servers of one case; they end with the runtime.
pub struct Site {
    ports: Rc<Ports>,
    requests: Rc<RefCell<Vec<String>>>,
    /// Sockets that are only kept.
    _kept: Vec<Kept>,
}

/// The addresses of one case.
pub struct Ports {
    pub case: String,
    /// 8000, and the like: plain text.
    pub plain: SocketAddr,
    /// 8080.
    pub other: SocketAddr,
    /// 8443 to 8447.
    pub tls: SocketAddr,
    /// 8005: bound, so that nobody else gets it, but not listening.
    pub closed: SocketAddr,
    pub asked: Cell<u32>,
}

#[allow(dead_code)]
enum Kept {
    Socket(Socket),
    Stream(std::net::TcpStream),
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
