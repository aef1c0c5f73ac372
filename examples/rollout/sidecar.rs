//! The sidecar of (c): readygate itself, called as a library, with a configuration file like a user's.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::ports::Ports;

/// `__sidecar run --config FILE`: what the binary `readygate` does with the same words.
pub fn main(words: impl Iterator<Item = OsString>) -> ExitCode {
    readygate::cli::main(std::iter::once(OsString::from("readygate")).chain(words))
}

/// Writes the configuration of one pod's sidecar.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_config(directory: &Path, pod: &str, ports: &Ports) -> std::io::Result<PathBuf> {
    let path = directory.join(format!("{pod}.yaml"));
    std::fs::write(&path, config(ports))?;
    Ok(path)
}

fn config(Ports { app, traffic, admin }: &Ports) -> String {
    format!(
        r#"listeners:
  http:
    listen: {traffic}
    upstream: http://{app}
    # After a crash the app first refuses, then answers 503, then is cold: let its requests wait for the gate.
    not_ready: hold
    hold: {{ for: 10s }}

admin:
  listen: {admin}

drain:
  # The slowest node hears of the deletion 2 s after it, and may open connections to this pod until then: half
  # a second more than that. `quiet` then shows that nobody came late.
  min: 2500ms
  quiet: 1s
  deadline: 15s

checks:
  port:
    tcp: {{ address: {app} }}
    interval_failing: 200ms
  warm:
    after: [port]
    interval_failing: 200ms
    warmup:
      listener: http
      requests:
        - GET /api/items?limit=10
        - {{ method: POST, path: /api/search, headers: {{ content-type: application/json }}, body: '{{"q":"a"}}' }}
      concurrency: 12
      min_requests: 100
      success_ratio: 0.99
      target: {{ quantile: 0.95, latency: 15ms }}
      budget: 30s
"#
    )
}
