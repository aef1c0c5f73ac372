//! The client's side: whom to trust, as a configuration for rustls.
//!
//! Unlike the kubelet, which never verifies: verified against a CA file or the public roots, unverified only if
//! asked. The host name that is configured is the one that is asked for (SNI) and verified; an IP address is
//! not sent.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pem::{FileError, Pem, Role};
use super::rotation::Made;

/// Whom a client trusts.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The public certificate authorities.
    Public,
    /// Those of the file at this path, read anew for each handshake: it may be rotated.
    File(PathBuf),
    /// Anybody.
    Anybody,
}

impl Trust {
    /// One handshake, with a configuration of its own; no protocol is negotiated in it.
    ///
    /// # Errors
    ///
    /// The authorities cannot be read, or the server is not whom it should be.
    pub async fn handshake(
        &self,
        stream: TcpStream,
        host_name: &str,
    ) -> Result<TlsStream<TcpStream>, String> {
        self.handshake_for(&[], stream, host_name).await
    }

    /// The same, and offers these protocols (ALPN); a server may pass over the offer.
    ///
    /// # Errors
    ///
    /// As [`Trust::handshake`].
    pub async fn handshake_for(
        &self,
        protocols: &'static [&'static [u8]],
        stream: TcpStream,
        host_name: &str,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(host_name.to_owned()).map_err(|error| error.to_string())?;
        let trust = self.clone();
        // A file system that hangs must not hold the thread.
        let made = tokio::task::spawn_blocking(move || {
            let authorities = trust.read()?;
            trust.client(authorities.as_ref(), protocols)
        });
        let config = made.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        connected.map_err(|error| format!("the TLS handshake failed: {error}"))
    }

    fn read(&self) -> Result<Option<Pem>, FileError> {
        match self {
            Self::File(path) => Pem::read(path, Role::Authorities).map(Some),
            Self::Public | Self::Anybody => Ok(None),
        }
    }

    /// `authorities` are those of [`Trust::File`].
    fn client(&self, authorities: Option<&Pem>, protocols: &[&[u8]]) -> Result<ClientConfig, FileError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of both versions");
        let mut config = match (self, authorities) {
            (Self::Anybody, _) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
                .with_no_client_auth(),
            (_, Some(pem)) => builder.with_root_certificates(pem.authorities()?).with_no_client_auth(),
            (_, None) => {
                let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
                builder.with_root_certificates(roots).with_no_client_auth()
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

/// The client's side where it lives for long: made once, and again when the authorities change.
#[derive(Clone, Debug)]
pub struct Client(pub Arc<ClientConfig>);

/// What a [`Client`] is made of.
#[derive(Clone, Debug)]
pub struct ClientFiles {
    pub trust: Trust,
    /// Offered by ALPN, the favourite first.
    pub protocols: &'static [&'static [u8]],
}

impl Made for Client {
    type Files = ClientFiles;
    type Contents = Option<Pem>;

    fn read(files: &ClientFiles) -> Result<Option<Pem>, FileError> {
        files.trust.read()
    }

    fn make(files: &ClientFiles, authorities: &Option<Pem>) -> Result<Self, FileError> {
        files.trust.client(authorities.as_ref(), files.protocols).map(|config| Self(Arc::new(config)))
    }
}

/// Takes any certificate; the handshake must still be signed with its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
