//! TLS for checks: verified against a CA file or the public roots, unverified only if asked.
//!
//! Unlike the kubelet, which never verifies, and which speaks HTTP/2 where the server offers it: a protocol is
//! negotiated for `grpc` only, so `http` is answered by HTTP/1.1. The host name that is configured is the one that is
//! asked for (SNI) and verified; an IP address is not sent. [`Tls`] is the key `tls` of the kinds that speak a
//! server's own protocol.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::own::problem;
use crate::config::KeyError;

/// Whom a check trusts.
#[derive(Clone, Debug)]
pub(super) enum Trust {
    /// The public certificate authorities.
    Public,
    /// Those of the file at this path, read anew for each handshake: it may be rotated.
    File(PathBuf),
    /// Anybody.
    Anybody,
}

impl Trust {
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        host_name: &str,
    ) -> Result<TlsStream<TcpStream>, String> {
        self.handshake_for(&[], stream, host_name).await
    }

    /// The same, and offers these protocols (ALPN); a server may pass over the offer.
    pub(super) async fn handshake_for(
        &self,
        protocols: &[&[u8]],
        stream: TcpStream,
        host_name: &str,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(host_name.to_owned()).map_err(|error| error.to_string())?;
        let mut config = self.config().await?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        connected.map_err(|error| format!("the TLS handshake failed: {error}"))
    }

    async fn config(&self) -> Result<ClientConfig, String> {
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
        Ok(config)
    }
}

/// The key `tls`: false, true, or a map of settings (which means true).
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Tls {
    #[default]
    Off,
    On(Settings),
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(super) struct Settings {
    /// PEM file with the certificate authorities to trust, instead of the public ones.
    ca: Option<PathBuf>,
    /// The name that the certificate must have, if it is not the host of the address.
    server_name: Option<String>,
    /// Take any certificate.
    #[serde(default)]
    insecure_skip_verify: bool,
}

impl Tls {
    /// Whom to trust, and by which name, when the host is `host`; None without TLS.
    pub(super) fn trust(&self, host: &str) -> Option<(Trust, String)> {
        let Self::On(settings) = self else { return None };
        let trust = match &settings.ca {
            _ if settings.insecure_skip_verify => Trust::Anybody,
            Some(path) => Trust::File(path.clone()),
            None => Trust::Public,
        };
        Some((trust, settings.server_name.clone().unwrap_or_else(|| host.to_owned())))
    }

    pub(super) fn problems(&self) -> Vec<KeyError> {
        let Self::On(settings) = self else { return Vec::new() };
        let mut problems = Vec::new();
        if settings.ca.is_some() && settings.insecure_skip_verify {
            let message = "true is not allowed together with ca, expected one of them";
            problems.push(problem("tls.insecure_skip_verify", message));
        }
        if let Some(name) = &settings.server_name
            && ServerName::try_from(name.as_str()).is_err()
        {
            problems.push(problem("tls.server_name", "not a host name, expected e.g. db.example.com"));
        }
        problems
    }
}

impl<'de> Deserialize<'de> for Tls {
    /// By a visitor, not as an untagged enum: that would lose the path of a key inside.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Tls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a map of ca, server_name and insecure_skip_verify")
            }

            fn visit_bool<E>(self, on: bool) -> Result<Tls, E> {
                Ok(if on { Tls::On(Settings::default()) } else { Tls::Off })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tls, A::Error> {
                Settings::deserialize(MapAccessDeserializer::new(map)).map(Tls::On)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Tls {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Tls".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<Settings>();
        json_schema!({ "anyOf": [{ "type": "boolean" }, settings] })
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
