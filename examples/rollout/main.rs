//! The founding claim, on real processes and sockets: the same rolling deploy of the same slow app, three
//! times, under the same traffic.
//!
//! ```text
//!  clients (keep-alive and fresh)         a stand-in for Kubernetes
//!     │ pick an endpoint per connection       deployment  one more pod, wait until it is Ready, delete an old one
//!     ▼                                       kubelet     probes, hooks, signals, restarts (pod.rs, container.rs)
//!  node's view of the Service  ◀── 0.2-2 s ── endpoints   follow readiness and deletion (service.rs)
//!     │
//!     ▼
//!  pod: (a) and (b) the app alone, (c) readygate in front of the app; each container is a process
//! ```
//!
//! - (a) no probe: a pod is ready as soon as its process was started;
//! - (b) a liveness-style probe: a pod is ready once `/healthz` answers;
//! - (c) readygate as a native sidecar.
//!
//! It ends in a table, and with exit code 1 if (c) failed a single request. No child outlives this process:
//! each is killed when its owner is dropped, and ends by itself when its standard input closes.

mod app;
mod client;
mod container;
mod deployment;
mod pod;
mod ports;
mod probe;
mod progress;
mod report;
mod rng;
mod scenario;
mod service;
mod sidecar;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use crate::report::Outcome;
use crate::scenario::{Scenario, Setting};

/// Rolls three replicas of a slow app under traffic: without a probe, with a lying one, with readygate.
#[derive(Parser, Debug)]
#[command(
    name = "rollout",
    after_help = "Takes about 75 s. Build with --release: cargo run --release --example rollout"
)]
struct Args {
    /// Makes delays and choices repeatable; without it a new one is taken, and printed.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Also kills one app with SIGKILL in the middle of (c).
    #[arg(long)]
    crash: bool,
    /// Runs one of the three only.
    #[arg(long, value_name = "SCENARIO", ignore_case = true)]
    only: Option<Scenario>,
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    match words.next().as_deref().and_then(|word| word.to_str()) {
        Some("__app") => {
            end_with_parent();
            app::main(words)
        }
        Some("__sidecar") => {
            end_with_parent();
            sidecar::main(words)
        }
        _ => parent(&Args::parse()),
    }
}

fn parent(args: &Args) -> ExitCode {
    // A panic in a task would otherwise be kept in its handle and leave the run hanging.
    let report_panic = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report_panic(info);
        std::process::exit(70);
    }));
    match run(args) {
        Ok(None) => ExitCode::from(INTERRUPTED),
        Ok(Some(outcomes)) => {
            print!("{}", report::table(&outcomes));
            let kept =
                outcomes.iter().all(|outcome| outcome.scenario != Scenario::C || outcome.failed() == 0);
            if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("rollout: {error:#}");
            ExitCode::from(70)
        }
    }
}

/// Plays the scenarios one after the other; `None` if Ctrl-C came first.
fn run(args: &Args) -> anyhow::Result<Option<Vec<Outcome>>> {
    let seed = args.seed.unwrap_or_else(rng::fresh_seed);
    eprintln!("seed {seed} (repeat this run with --seed {seed})");
    let directory = Directory::create()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut outcomes = Vec::new();
    for scenario in Scenario::ALL {
        if args.only.is_some_and(|only| only != scenario) {
            continue;
        }
        let crash = args.crash && scenario == Scenario::C;
        let setting = Setting { scenario, seed, crash, directory: directory.0.join(scenario.letter()) };
        std::fs::create_dir_all(&setting.directory)?;
        let tasks = tokio::task::LocalSet::new();
        // Whatever ends the wait, dropping `tasks` drops the containers, and with them their processes.
        let outcome = tasks.block_on(&runtime, async {
            tokio::select! {
                outcome = scenario::run(setting) => Some(outcome),
                _ = tokio::signal::ctrl_c() => None,
            }
        });
        drop(tasks);
        match outcome {
            None => return Ok(None),
            Some(Ok(outcome)) => outcomes.push(outcome),
            Some(Err(error)) => {
                let logs = directory.keep();
                return Err(error.context(format!(
                    "({}) did not finish; logs: {}",
                    scenario.letter(),
                    logs.display()
                )));
            }
        }
    }
    if outcomes.iter().any(|outcome| outcome.scenario == Scenario::C && outcome.failed() > 0) {
        eprintln!("logs: {}", directory.keep().display());
    }
    Ok(Some(outcomes))
}

/// Ends this process when the parent is gone, however the parent went: it holds the other end of our
/// standard input.
fn end_with_parent() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1)) {}
        std::process::exit(0);
    });
}

/// Configuration files and logs of one run; removed at the end unless kept.
struct Directory(PathBuf);

impl Directory {
    fn create() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("readygate-rollout-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.0 != Path::new("") {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// What a shell makes of SIGINT.
const INTERRUPTED: u8 = 130;
