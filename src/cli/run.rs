//! `readygate run`: the sidecar.

use crate::app;
use crate::config::{LogFormat, Sources};
use crate::telemetry::{self, Format};

use super::{EXIT_BIND, EXIT_CONFIGURATION, EXIT_INTERNAL};

pub const EXAMPLES: &str = "\
Examples:
  readygate run                                  the app on 127.0.0.1:8080, one tcp check on it
  readygate run --config /etc/readygate/readygate.yaml
  readygate run --upstream http://127.0.0.1:3000 --check http://127.0.0.1:3000/healthz --check tcp://db:5432";

/// Runs the sidecar until it has drained; says the exit code. What is wrong is on stderr then, where
/// `terminationMessagePolicy: FallbackToLogsOnError` finds it.
pub fn run(sources: Sources) -> u8 {
    let loaded = match super::load(&sources) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let format = match loaded.config.log.format {
        LogFormat::Auto => Format::Auto,
        LogFormat::Json => Format::Json,
        LogFormat::Text => Format::Text,
    };
    let telemetry = match telemetry::start(&loaded.config.log.level, format) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("{error}");
            return EXIT_CONFIGURATION;
        }
    };
    match app::run(sources, loaded, telemetry) {
        Ok(()) => 0,
        Err(error) => {
            // The logs are written out by now.
            eprintln!("readygate: {error}");
            match error {
                app::Error::Bind(_) | app::Error::BindAdmin { .. } => EXIT_BIND,
                app::Error::Start(_) | app::Error::Thread { .. } => EXIT_INTERNAL,
            }
        }
    }
}
