//! File descriptors: how many the process may open, and who gets them.
//!
//! Probes and hooks must be answered while clients take all that they can get. So the data plane gets no
//! more connections than leave a reserve for the admin port, the checks and the log (scorecard rule: own
//! reserve of descriptors).

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::config::Config;

/// The descriptors of this process.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    /// How many may be open at once.
    limit: usize,
}

impl Descriptors {
    /// Raises the soft limit to the hard one, which needs no privilege; where that fails the old one stays.
    pub fn claim() -> Self {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
        let current = getrlimit(Resource::Nofile).current;
        Self { limit: current.and_then(|limit| limit.try_into().ok()).unwrap_or(usize::MAX) }
    }

    /// The configuration with `limits.connections` lowered to what the descriptors allow.
    pub fn fit(self, mut config: Config) -> Config {
        let places = self.places() / config.listeners.len().max(1);
        for listener in &mut config.listeners {
            let limit = &mut listener.limits.connections;
            if *limit > places {
                tracing::info!(
                    listener = %listener.name,
                    configured = *limit,
                    in_force = places,
                    open_files = self.limit,
                    "fewer connections than configured: the process may not open enough files"
                );
                *limit = places.max(1);
            }
        }
        config
    }

    /// Client connections: each may need one to the app, and the reserve stays free.
    fn places(self) -> usize {
        // Of a small limit the larger part: some 25 are open before the first client comes.
        let reserve = RESERVE.min(self.limit / 8 * 5);
        (self.limit - reserve) / 2
    }
}

/// The admin port's connections, checks, files, and what the runtimes need.
const RESERVE: usize = 384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_the_last_descriptors() {
        assert_eq!(Descriptors { limit: 64 }.places(), 12);
        assert_eq!(Descriptors { limit: 1024 }.places(), 320);
        assert_eq!(Descriptors { limit: 1_048_576 }.places(), 524_096);
        assert!(Descriptors { limit: usize::MAX }.places() > 1 << 60);
    }
}
