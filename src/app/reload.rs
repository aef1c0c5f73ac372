//! Takes over changes of the configuration file while the process runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::check::KINDS;
use crate::config::{self, Config, Kind, Sources, Watch};
use crate::drain::Drain;
use crate::metrics::{Metrics, ReloadResult};
use crate::telemetry::Telemetry;

use super::wiring;

/// Where a configuration comes from, and who hears of a new one.
pub struct Reload {
    pub sources: Sources,
    pub configs: watch::Sender<Arc<Config>>,
    pub metrics: Metrics,
    pub drain: Drain,
    pub telemetry: Telemetry,
}

impl Reload {
    /// Looks at the files every two seconds, for ever. Polling sees the symlink swap of a ConfigMap, which
    /// inotify on the file does not.
    pub async fn run(mut self, files: Vec<PathBuf>) {
        let mut watch = Watch::new(files);
        loop {
            tokio::time::sleep(INTERVAL).await;
            if watch.changed()
                && let Some(files) = self.reload()
            {
                watch = Watch::new(files);
            }
        }
    }

    /// Applies the files as they are now; says which to watch from now on, unless they were refused.
    fn reload(&mut self) -> Option<Vec<PathBuf>> {
        let kinds: Vec<Kind> = KINDS.iter().map(|kind| kind.config).collect();
        let loaded = match config::load(&self.sources, &kinds) {
            Ok(loaded) => loaded,
            Err(problems) => {
                self.metrics.reload(ReloadResult::Rejected);
                tracing::error!(%problems, "changed configuration refused, the old one stays");
                return None;
            }
        };
        let old = Arc::clone(&self.configs.borrow());
        let restart = config::restart_needed(&old, &loaded.config);
        if !restart.is_empty() {
            tracing::warn!(keys = restart.join(", "), "these keys change only with a restart");
        }
        let new = kept(&old, loaded.config);
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
        Some(loaded.files)
    }
}

/// The new configuration with the old values of what only a restart changes.
fn kept(old: &Config, new: Config) -> Config {
    let listeners = old.listeners.iter().map(|old| {
        let new = new.listeners.iter().find(|new| new.name == old.name).cloned();
        new.map_or_else(
            || old.clone(),
            |new| config::Listener { listen: old.listen, upstream: old.upstream.clone(), ..new },
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

const INTERVAL: Duration = Duration::from_secs(2);
