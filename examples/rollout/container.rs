//! One container: a process that is started, told to stop, killed, and started again when it crashes.
//!
//! Times are those measured on a kubelet: it notices an exit some tenths of a second late and starts the
//! container anew at once (the first time; back-off is not played).

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::rng::Rng;

/// What to run, and where its output goes.
#[derive(Clone, Debug)]
pub struct Program {
    /// Words for this very executable.
    pub words: Vec<OsString>,
    pub log: PathBuf,
}

/// What the kubelet knows of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Waiting,
    /// The process of this start, counted from 1.
    Running(u32),
    /// For good: it was told to stop.
    Stopped,
}

/// The handle of a container. Its task owns the process and kills it when dropped.
#[derive(Debug)]
pub struct Container {
    orders: mpsc::UnboundedSender<Order>,
    life: watch::Receiver<Life>,
}

impl Container {
    pub fn start(program: Program, rng: Rng) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (life, watched) = watch::channel(Life::Waiting);
        tokio::task::spawn_local(async move {
            if let Err(error) = keep_running(program, rng, inbox, &life).await {
                eprintln!("\ncontainer: {error:#}");
            }
            life.send_replace(Life::Stopped);
        });
        Self { orders, life: watched }
    }

    pub fn life(&self) -> watch::Receiver<Life> {
        self.life.clone()
    }

    /// Sends SIGTERM, and SIGKILL at `kill_at`, though not before the two seconds that every process is
    /// granted; waits until the process is gone.
    pub async fn stop(&self, kill_at: Instant) {
        let kill_at = kill_at.max(Instant::now() + LEAST_GRACE);
        let mut life = self.life();
        let mut stopped = std::pin::pin!(life.wait_for(|life| *life == Life::Stopped));
        let _ = self.orders.send(Order::Terminate);
        if timeout_at(kill_at, &mut stopped).await.is_err() {
            let _ = self.orders.send(Order::Kill);
            let _ = stopped.await;
        }
    }

    /// Kills the process without a word; it is started again.
    pub fn crash(&self) {
        let _ = self.orders.send(Order::Crash);
    }
}

#[derive(Debug)]
enum Order {
    Terminate,
    Kill,
    Crash,
}

async fn keep_running(
    program: Program,
    mut rng: Rng,
    mut orders: mpsc::UnboundedReceiver<Order>,
    life: &watch::Sender<Life>,
) -> anyhow::Result<()> {
    for start in 1.. {
        let mut child = spawn(&program)?;
        // Waiting for a child would close its standard input, which tells it that we are gone.
        let _held_open = child.stdin.take();
        life.send_replace(Life::Running(start));
        let mut stopping = false;
        loop {
            tokio::select! {
                _ = child.wait() => break,
                order = orders.recv() => match order {
                    Some(Order::Terminate) => {
                        stopping = true;
                        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id as i32)) {
                            let _ = kill_process(pid, Signal::TERM);
                        }
                    }
                    Some(Order::Crash) => child.start_kill()?,
                    Some(Order::Kill) | None => {
                        stopping = true;
                        child.start_kill()?;
                    }
                },
            }
        }
        if stopping {
            return Ok(());
        }
        sleep(rng.between(NOTICED.0, NOTICED.1)).await;
        life.send_replace(Life::Waiting);
        sleep(RESTART).await;
        // Told to stop meanwhile: there is nothing to stop any more.
        if let Ok(Order::Terminate | Order::Kill) = orders.try_recv() {
            return Ok(());
        }
    }
    Ok(())
}

fn spawn(program: &Program) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(&program.log);
    let log = log.with_context(|| format!("cannot write {}", program.log.display()))?;
    Command::new(std::env::current_exe()?)
        .args(&program.words)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C in a terminal is for us; we end the children.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start a container")
}

const LEAST_GRACE: Duration = Duration::from_secs(2);
const NOTICED: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(500));
const RESTART: Duration = Duration::from_millis(100);
