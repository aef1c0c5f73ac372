//! Certificates of authorities of our own, made by `openssl`, and a TLS client that can be slow on purpose.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Scratch, machine};

/// Authorities, and what they signed: files `NAME.crt` and `NAME.key`.
#[derive(Debug)]
pub struct Pki(Scratch);

impl Pki {
    /// With an authority `root`. None where there is no openssl.
    pub fn new() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            machine::skip("openssl is not installed: no listener with TLS");
            return None;
        }
        let pki = Self(Scratch::new());
        pki.authority("root");
        Some(pki)
    }

    pub fn authority(&self, name: &str) {
        let extensions = "basicConstraints=critical,CA:TRUE\n";
        self.make(name, None, extensions);
    }

    /// For `localhost` and 127.0.0.1.
    pub fn leaf(&self, name: &str, authority: &str) {
        let extensions = "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n";
        self.make(name, Some(authority), extensions);
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Lays a pair out as a Secret's volume in `folder`, `tls.crt` and `tls.key` behind `..data`; a swap where one is there.
    pub fn mount(&self, folder: &str, name: &str) {
        let folder = self.path(folder);
        let version = folder.join(format!("..{name}"));
        std::fs::create_dir_all(&version).expect("the directory is writable");
        for part in ["crt", "key"] {
            let (from, to) = (self.path(&format!("{name}.{part}")), version.join(format!("tls.{part}")));
            std::fs::copy(from, to).expect("a file");
            let link = folder.join(format!("tls.{part}"));
            if !link.is_symlink() {
                std::os::unix::fs::symlink(format!("..data/tls.{part}"), link).expect("a link");
            }
        }
        let new = folder.join("..data_tmp");
        std::os::unix::fs::symlink(format!("..{name}"), &new).expect("a link");
        std::fs::rename(new, folder.join("..data")).expect("a swap");
    }

    /// A client that trusts these authorities, and shows a certificate if it has one.
    pub fn client(&self, authorities: &[&str], shows: Option<&str>) -> Client {
        let mut roots = RootCertStore::empty();
        for name in authorities {
            let certificate = CertificateDer::from_pem_file(self.path(&format!("{name}.crt")));
            roots.add(certificate.expect("a certificate")).expect("an authority");
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match shows {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let certificate = CertificateDer::from_pem_file(self.path(&format!("{name}.crt")));
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).expect("a key");
                builder.with_client_auth_cert(vec![certificate.expect("a certificate")], key).expect("a pair")
            }
        };
        Client(Arc::new(config))
    }

    fn make(&self, name: &str, signer: Option<&str>, extensions: &str) {
        std::fs::write(self.path(&format!("{name}.ext")), extensions).expect("a file");
        let openssl = |arguments: &str| {
            let done =
                Command::new("openssl").current_dir(self.path(".")).args(arguments.split(' ')).output();
            let done = done.expect("it starts");
            assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
        };
        openssl(&format!("ecparam -name prime256v1 -genkey -noout -out {name}.key"));
        openssl(&format!("req -new -key {name}.key -subj /CN={name} -out {name}.csr"));
        let signer = match signer {
            Some(signer) => format!("-CA {signer}.crt -CAkey {signer}.key -CAcreateserial"),
            None => format!("-signkey {name}.key"),
        };
        openssl(&format!("x509 -req -in {name}.csr {signer} -days 10 -extfile {name}.ext -out {name}.crt"));
    }
}

/// Opens connections.
#[derive(Clone, Debug)]
pub struct Client(Arc<ClientConfig>);

/// One of them.
#[derive(Debug)]
pub struct Secure<S>(pub TlsStream<S>);

impl Client {
    /// The same, and it offers these protocols by ALPN.
    pub fn offering(mut self, protocols: &[&[u8]]) -> Self {
        let config = Arc::make_mut(&mut self.0);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        self
    }

    pub async fn connect(&self, address: SocketAddr) -> io::Result<Secure<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        self.over(stream).await
    }

    pub async fn over<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<Secure<S>> {
        let name = ServerName::try_from("localhost").expect("a name");
        let connecting = TlsConnector::from(Arc::clone(&self.0)).connect(name, stream);
        tokio::time::timeout(PATIENCE, connecting).await?.map(Secure)
    }

    /// One request on a connection of its own: the text of the answer.
    pub async fn get(&self, address: SocketAddr) -> io::Result<String> {
        self.connect(address).await?.get().await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Secure<S> {
    /// Sends a request, and reads an answer that has a length.
    pub async fn get(&mut self) -> io::Result<String> {
        let exchange = async {
            self.0.write_all(b"GET /a HTTP/1.1\r\nhost: app.test\r\n\r\n").await?;
            self.0.flush().await?;
            let mut text = Vec::new();
            loop {
                if self.0.read_buf(&mut text).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let shown = String::from_utf8_lossy(&text).into_owned();
                let Some((head, body)) = shown.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
                    return Ok(shown);
                }
            }
        };
        tokio::time::timeout(PATIENCE, exchange).await?
    }

    /// What the server showed, first of the chain.
    pub fn certificate(&self) -> Vec<u8> {
        self.0.get_ref().1.peer_certificates().expect("a chain")[0].to_vec()
    }
}

/// Sends byte by byte, each in a segment of its own.
#[derive(Debug)]
pub struct Dribble(pub TcpStream);

impl AsyncRead for Dribble {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let first = buf.len().min(1);
        Pin::new(&mut self.0).poll_write(cx, &buf[..first])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
