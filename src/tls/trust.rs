//! The client's side: whom to trust, as a configuration for rustls.
//!
//! Unlike the kubelet, which never verifies: verified against a CA file or the public roots, unverified only if
//! asked. The host name that is configured is the one that is asked for (SNI) and verified; an IP address is
//! not sent.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

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
    pub async fn handshake(
        &self,
        stream: TcpStream,
        host_name: &str,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(host_name.to_owned()).map_err(|error| error.to_string())?;
        let config = self.config().await?;
        let connected = TlsConnector::from(config).connect(name, stream).await;
        connected.map_err(|error| format!("the TLS handshake failed: {error}"))
    }

    async fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let config = match self {
            Self::Public => {
                let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            Self::File(path) => {
                let roots = read_roots(path).await?;
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            Self::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
                .with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }
}

async fn read_roots(path: &Path) -> Result<RootCertStore, String> {
    let shown = path.display();
    let read = |error: io::Error| format!("cannot read the certificate authorities in {shown}: {error}");
    let pem = tokio::fs::read(path).await.map_err(read)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("{shown} is not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("a certificate in {shown} is broken: {error}"))?;
    }
    if roots.is_empty() {
        return Err(format!("no certificate in {shown}, expected at least one in PEM"));
    }
    Ok(roots)
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
