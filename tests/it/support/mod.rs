//! The test house: the app, the sidecar and the clients of a scenario, each a process or a raw socket.

pub mod app;
pub mod checks;
pub mod front;
pub mod http;
pub mod machine;
#[path = "../../testapp/pattern.rs"]
pub mod pattern;
pub mod python;
pub mod servers;
pub mod sidecar;
pub mod tls;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub use self::app::TestApp;
pub use self::http::{Answer, Client, Failure, get};
pub use self::sidecar::{Sidecar, config, merge};

/// Waits until `holds` says so, and says how long it took. Panics after `longest`, with `what`.
pub async fn eventually(what: &str, longest: Duration, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < longest, "not within {longest:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    began.elapsed()
}

/// Sends a signal by its name (`TERM`, `STOP`, `CONT`).
pub fn signal(pid: u32, name: &str) {
    let pid = Pid::from_raw(pid as i32).expect("a process has a number");
    let signal = match name {
        "TERM" => Signal::TERM,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        other => panic!("no test sends {other}"),
    };
    kill_process(pid, signal).expect("a process of ours");
}

/// A directory of its own below the build's, removed at the end.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the build's directory is writable");
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
