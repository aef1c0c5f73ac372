//! PEM files as they were at one look: certificates, keys, authorities.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::{Error as RustlsError, RootCertStore};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What a file is for, as errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Certificate,
    Key,
    Authorities,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Certificate => "the certificate",
            Self::Key => "the private key",
            Self::Authorities => "the certificate authorities",
        }
    }
}

/// A file and what stood in it. `Debug` shows no content: it may be a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    path: PathBuf,
    role: Role,
    bytes: Vec<u8>,
}

/// What is wrong with a file, or with two of them together. None passes by itself; each may once the file changes.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {} in {path}: {source}", role.name())]
    Unreadable { role: Role, path: PathBuf, source: io::Error },
    #[error("{path} is not PEM: {source}")]
    NotPem { path: PathBuf, source: pem::Error },
    #[error("no certificate in {path}, expected at least one in PEM")]
    NoCertificate { path: PathBuf },
    #[error("no private key in {path}, expected one in PEM, not encrypted: PKCS#8, PKCS#1 or SEC1")]
    NoKey { path: PathBuf },
    #[error("a certificate in {path} is broken: {source}")]
    BrokenCertificate { path: PathBuf, source: RustlsError },
    #[error(
        "the private key in {path} cannot be used: {source}, expected RSA, ECDSA P-256 or P-384, or Ed25519"
    )]
    UnusableKey { path: PathBuf, source: RustlsError },
    #[error(
        "the private key in {key} is not that of the first certificate in {certificate}, expected a pair"
    )]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("the authorities in {path} cannot verify clients: {reason}")]
    Verifier { path: PathBuf, reason: String },
}

impl Pem {
    /// # Errors
    ///
    /// The file is not there, is no ordinary file, is too large, or may not be read.
    pub fn read(path: &Path, role: Role) -> Result<Self, FileError> {
        let bytes = read(path).map_err(|source| FileError::Unreadable { role, path: path.into(), source })?;
        Ok(Self { path: path.into(), role, bytes })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All certificates, in their order; never none.
    ///
    /// # Errors
    ///
    /// The text between two marks is no PEM, or there are no marks.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, FileError> {
        let found = CertificateDer::pem_slice_iter(&self.bytes).collect::<Result<Vec<_>, _>>();
        let found = found.map_err(|source| FileError::NotPem { path: self.path.clone(), source })?;
        if found.is_empty() {
            return Err(FileError::NoCertificate { path: self.path.clone() });
        }
        Ok(found)
    }

    /// The first private key.
    ///
    /// # Errors
    ///
    /// There is none, or its text is no PEM.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, FileError> {
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|source| match source {
            pem::Error::NoItemsFound => FileError::NoKey { path: self.path.clone() },
            source => FileError::NotPem { path: self.path.clone(), source },
        })
    }

    /// The certificates, as those to trust.
    ///
    /// # Errors
    ///
    /// As [`Pem::certificates`], or one is broken.
    pub fn authorities(&self) -> Result<RootCertStore, FileError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            let broken = |source| FileError::BrokenCertificate { path: self.path.clone(), source };
            roots.add(certificate).map_err(broken)?;
        }
        Ok(roots)
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe would block whoever opens it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not an ordinary file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(bytes)
}

/// All public authorities of a distribution are 0.2 MB.
const LARGEST: u64 = 1 << 20;

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({})", self.path.display())
    }
}
