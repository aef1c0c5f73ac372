//! The TLS files of every listener: read at the start, and again whenever they change.
//!
//! A process whose files are missing or bad starts all the same, and is not ready until they are right: they may
//! come from somebody who is slower than the pod (a certificate's issuer, a mounted Secret).

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::config::{Listener, Scheme};
use crate::gate::{Event, Gate};
use crate::metrics::{CertificateResult, Metrics};
use crate::proxy::{self, Tls};
use crate::tls::{Client, ClientFiles, INTERVAL, Identity, IdentityFiles, Look, Made, Rotation, Trust};

/// What is rotated, and who hears of it.
pub struct Certificates {
    identities: Vec<Part<Identity>>,
    clients: Vec<Part<Client>>,
    tls: Arc<[Tls]>,
    gate: Gate,
    metrics: Metrics,
}

/// The files of one listener towards one side.
struct Part<T: Made> {
    listener: String,
    /// The key of the configuration that names the files.
    key: Arc<str>,
    rotation: Rotation<T>,
}

impl Certificates {
    /// Reads all files once.
    pub fn load(listeners: &[Listener], gate: &Gate, metrics: &Metrics) -> Self {
        let mut certificates = Self {
            identities: Vec::new(),
            clients: Vec::new(),
            tls: Arc::default(),
            gate: gate.clone(),
            metrics: metrics.clone(),
        };
        certificates.tls = listeners.iter().map(|listener| certificates.add(listener)).collect();
        for part in &mut certificates.identities {
            metrics.tls_certificate(&part.listener, None);
            let identity = part.first_look(gate);
            loaded(&part.listener, identity.as_deref(), metrics);
        }
        for part in &mut certificates.clients {
            part.first_look(gate);
        }
        certificates
    }

    /// What workers read, one a listener.
    pub fn in_force(&self) -> Arc<[Tls]> {
        Arc::clone(&self.tls)
    }

    /// Looks every two seconds, for as long as there is something to look at.
    pub async fn run(mut self) {
        while !(self.identities.is_empty() && self.clients.is_empty()) {
            tokio::time::sleep(INTERVAL).await;
            // Not on this thread: it answers probes, and a file system may hang.
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            let Ok(looked) = looked.await else { return };
            self = looked;
        }
    }

    fn look(&mut self) {
        for part in &mut self.identities {
            let identity = part.look(&self.gate, &self.metrics);
            loaded(&part.listener, identity.as_deref(), &self.metrics);
        }
        for part in &mut self.clients {
            part.look(&self.gate, &self.metrics);
        }
    }

    fn add(&mut self, listener: &Listener) -> Tls {
        let Listener { name, upstream, .. } = listener;
        let protocols = proxy::protocols(upstream.scheme);
        let key = |key| format!("listeners.{name}.{key}").into();
        let identity = listener.tls.as_ref().map(|tls| {
            let files = IdentityFiles {
                certificate: tls.cert.clone(),
                key: tls.key.clone(),
                client_ca: tls.client_ca.clone(),
                protocols,
            };
            let rotation = Rotation::new(files);
            let in_force = rotation.in_force();
            self.identities.push(Part { listener: name.clone(), key: key("tls"), rotation });
            in_force
        });
        let client = (upstream.scheme == Scheme::Https).then(|| {
            let trust = match &upstream.tls.ca {
                _ if upstream.tls.insecure_skip_verify => Trust::Anybody,
                Some(path) => Trust::File(path.clone()),
                None => Trust::Public,
            };
            let rotation = Rotation::new(ClientFiles { trust, protocols });
            let in_force = rotation.in_force();
            self.clients.push(Part { listener: name.clone(), key: key("upstream_tls"), rotation });
            in_force
        });
        if identity.is_some() || client.is_some() {
            self.metrics.tls_files(name);
        }
        Tls { identity, client }
    }
}

impl<T: Made> Part<T> {
    fn first_look(&mut self, gate: &Gate) -> Option<Arc<T>> {
        match self.rotation.look() {
            Look::Applied(made) => Some(made),
            Look::Doubtful(reason) | Look::Refused(reason) => {
                tracing::warn!(key = %self.key, reason, "files of TLS are not there yet, no connection succeeds");
                self.lacks(Some(reason), gate);
                None
            }
            Look::Same => None,
        }
    }

    fn look(&mut self, gate: &Gate, metrics: &Metrics) -> Option<Arc<T>> {
        match self.rotation.look() {
            Look::Same => None,
            Look::Applied(made) => {
                tracing::info!(key = %self.key, "files of TLS are in force");
                metrics.tls_reload(&self.listener, CertificateResult::Applied);
                self.lacks(None, gate);
                Some(made)
            }
            Look::Doubtful(reason) => {
                tracing::debug!(key = %self.key, reason, "files of TLS have changed, and not to a good end yet");
                self.lacks_anything(reason, gate);
                None
            }
            Look::Refused(reason) => {
                tracing::error!(key = %self.key, reason, "changed files of TLS refused, nothing changes");
                metrics.tls_reload(&self.listener, CertificateResult::Refused);
                None
            }
        }
    }

    /// With the old files in force nothing is lacking.
    fn lacks_anything(&self, reason: String, gate: &Gate) {
        if self.rotation.in_force().load().is_none() {
            self.lacks(Some(reason), gate);
        }
    }

    fn lacks(&self, reason: Option<String>, gate: &Gate) {
        gate.apply(Event::Lacks { part: Arc::clone(&self.key), reason }, Instant::now());
    }
}

/// Tells when a certificate ends that is now served.
fn loaded(listener: &str, identity: Option<&Identity>, metrics: &Metrics) {
    let Some(Identity { not_after: Some(end), .. }) = identity else { return };
    metrics.tls_certificate(listener, Some(*end));
    match end.duration_since(SystemTime::now()) {
        Ok(left) => tracing::info!(listener, days_left = left.as_secs() / 86_400, "certificate"),
        Err(_) => tracing::warn!(listener, "the certificate has expired, clients will refuse it"),
    }
}
