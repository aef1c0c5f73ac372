//! The server's side: a certificate and its key, as a configuration for rustls.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{Error as RustlsError, InconsistentKeys, ServerConfig};

use super::pem::{FileError, Pem, Role};
use super::rotation::Made;
use super::validity::not_after;

/// Who a listener is, ready to serve.
#[derive(Clone, Debug)]
pub struct Identity {
    /// TLS 1.2 and 1.3.
    pub config: Arc<ServerConfig>,
    /// The end of the certificate's validity: of the leaf's, the one that is renewed.
    pub not_after: Option<SystemTime>,
}

/// The files of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The chain in PEM, the listener's own certificate first.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Those whose certificates clients must show; none: clients show none.
    pub client_ca: Option<PathBuf>,
    /// Offered by ALPN, the favourite first.
    pub protocols: &'static [&'static [u8]],
}

/// What stood in the files at one look.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents {
    certificate: Pem,
    key: Pem,
    client_ca: Option<Pem>,
}

impl Made for Identity {
    type Files = IdentityFiles;
    type Contents = Contents;

    fn read(files: &IdentityFiles) -> Result<Contents, FileError> {
        let client_ca = files.client_ca.as_deref().map(|path| Pem::read(path, Role::Authorities));
        Ok(Contents {
            certificate: Pem::read(&files.certificate, Role::Certificate)?,
            key: Pem::read(&files.key, Role::Key)?,
            client_ca: client_ca.transpose()?,
        })
    }

    fn make(files: &IdentityFiles, contents: &Contents) -> Result<Self, FileError> {
        let Contents { certificate, key, client_ca } = contents;
        let chain = certificate.certificates()?;
        let private_key = key.private_key()?;
        let not_after = not_after(&chain[0]);
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of both versions");
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let roots = Arc::new(pem.authorities()?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                let refused = |error: rustls::server::VerifierBuilderError| FileError::Verifier {
                    path: pem.path().into(),
                    reason: error.to_string(),
                };
                builder.with_client_cert_verifier(verifier.map_err(refused)?)
            }
        };
        let mut config = builder.with_single_cert(chain, private_key).map_err(|error| match error {
            RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                FileError::Mismatch { certificate: certificate.path().into(), key: key.path().into() }
            }
            source @ RustlsError::InvalidCertificate(_) => {
                FileError::BrokenCertificate { path: certificate.path().into(), source }
            }
            source => FileError::UnusableKey { path: key.path().into(), source },
        })?;
        config.alpn_protocols = files.protocols.iter().map(|name| name.to_vec()).collect();
        // Sessions are resumed by tickets, which cost no memory here. Their key is made with the identity and goes
        // with it, so that nobody resumes what authorities that are gone had let in.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if let Ok(ticketer) = ring::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok(Self { config: Arc::new(config), not_after })
    }
}

/// Names of protocols in ALPN (RFC 7301; RFC 9113, 3.2).
pub const H2: &[u8] = b"h2";
pub const HTTP_1_1: &[u8] = b"http/1.1";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn data(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
    }

    fn load(certificate: &str, key: &str, client_ca: Option<&str>) -> Result<Identity, String> {
        let files = IdentityFiles {
            certificate: data(certificate),
            key: data(key),
            client_ca: client_ca.map(data),
            protocols: &[H2, HTTP_1_1],
        };
        let made = Identity::read(&files).and_then(|contents| Identity::make(&files, &contents));
        made.map_err(|error| error.to_string().replace(&*data("").to_string_lossy(), ""))
    }

    #[test]
    fn a_pair_says_when_it_ends() {
        let identity = load("expired.crt", "expired.key", None).expect("a pair");
        let end = identity.not_after.expect("a date");
        assert_eq!(humantime::format_rfc3339(end).to_string(), "2020-01-02T00:00:00Z");
        assert_eq!(identity.config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert!(load("loopback.crt", "loopback.key", Some("loopback.crt")).is_ok());
    }

    #[test]
    fn errors_name_the_file_and_what_is_allowed() {
        for (certificate, key, client_ca, why) in [
            (
                "loopback.crt",
                "expired.key",
                None,
                "the private key in expired.key is not that of the first certificate in loopback.crt, expected a pair",
            ),
            (
                "none.crt",
                "loopback.key",
                None,
                "cannot read the certificate in none.crt: No such file or directory (os error 2)",
            ),
            ("loopback.crt", "", None, "cannot read the private key in : not an ordinary file"),
            ("README.md", "loopback.key", None, "no certificate in README.md, expected at least one in PEM"),
            (
                "loopback.crt",
                "loopback.crt",
                None,
                "no private key in loopback.crt, expected one in PEM, not encrypted: PKCS#8, PKCS#1 or SEC1",
            ),
            (
                "loopback.crt",
                "loopback.key",
                Some("loopback.key"),
                "no certificate in loopback.key, expected at least one in PEM",
            ),
        ] {
            assert_eq!(load(certificate, key, client_ca).expect_err(why), why);
        }
    }
}
