//! Takes over changes of the configuration file while the process runs.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::check::KINDS;
use crate::config::{self, Config, Kind, Loaded, Problems, Sources, Watch};
use crate::drain::Drain;
use crate::metrics::{Metrics, ReloadResult};
use crate::telemetry::Telemetry;

use super::descriptors::Descriptors;
use super::wiring;

/// Where a configuration comes from, and who hears of a new one.
pub struct Reload {
    pub sources: Sources,
    pub configs: watch::Sender<Arc<Config>>,
    pub metrics: Metrics,
    pub drain: Drain,
    pub telemetry: Telemetry,
    pub descriptors: Descriptors,
    /// What the files said when they were last read.
    pub last: Result<Config, Problems>,
}

impl Reload {
    /// Looks at the files every two seconds, for ever. Polling sees the symlink swap of a ConfigMap, which
    /// inotify on the file does not.
    pub async fn run(mut self, files: Vec<PathBuf>) {
        let mut watch = Watch::new(files);
        // Between the reading of a file and the first look at it, it may have changed.
        let mut unsure = true;
        loop {
            while unsure || watch.changed() {
                unsure = watch.follow(self.read());
            }
            tokio::time::sleep(Watch::INTERVAL).await;
        }
    }

    /// Reads the files as they are now and acts on what is new; says which to watch from now on.
    fn read(&mut self) -> Vec<PathBuf> {
        let kinds: Vec<Kind> = KINDS.iter().map(|kind| kind.config).collect();
        let (files, read) = match config::load(&self.sources, &kinds) {
            Ok(Loaded { config, files, .. }) => (files, Ok(config)),
            // Also those that are missing: one that appears may be what was wrong.
            Err(problems) => (problems.files.clone(), Err(problems)),
        };
        if read != self.last {
            match &read {
                Ok(config) => self.apply(config.clone()),
                Err(problems) => {
                    self.metrics.reload(ReloadResult::Rejected);
                    tracing::error!(%problems, "changed configuration refused, the old one stays");
                }
            }
            self.last = read;
        }
        files
    }

    fn apply(&self, loaded: Config) {
        let old = Arc::clone(&self.configs.borrow());
        let restart = config::restart_needed(&old, &loaded);
        if !restart.is_empty() {
            tracing::warn!(keys = restart.join(", "), "these keys change only with a restart");
        }
        let new = self.descriptors.fit(kept(&old, loaded));
        if new.log.level != old.log.level
            && let Err(error) = self.telemetry.set_level(&new.log.level)
        {
            tracing::error!(%error, "log level unchanged");
        }
        self.drain.configure(wiring::drain_settings(&new));
        wiring::register_checks(&self.metrics, &new.checks);
        self.configs.send_replace(Arc::new(new));
        self.metrics.reload(ReloadResult::Applied);
        tracing::info!("configuration reloaded");
    }
}

/// The new configuration with the old values of what only a restart changes.
fn kept(old: &Config, new: Config) -> Config {
    let listeners = old.listeners.iter().map(|old| {
        let new = new.listeners.iter().find(|new| new.name == old.name).cloned();
        new.map_or_else(
            || old.clone(),
            |new| config::Listener {
                listen: old.listen,
                tls: old.tls.clone(),
                upstream: old.upstream.clone(),
                ..new
            },
        )
    });
    Config {
        listeners: listeners.collect(),
        admin: old.admin.clone(),
        workers: old.workers,
        log: config::Log { format: old.log.format, ..new.log },
        ..new
    }
}
