//! What a person sees while it runs: events, and on a terminal one line that is redrawn.
//!
//! All of it goes to standard error; the table alone goes to standard output.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::deployment::Deployment;
use crate::report::Recorder;

#[derive(Debug)]
pub struct Progress {
    started: Instant,
    terminal: bool,
    step: RefCell<String>,
}

impl Progress {
    pub fn start(title: &str) -> Rc<Self> {
        eprintln!("\n{title}");
        let terminal = std::io::stderr().is_terminal();
        Rc::new(Self { started: Instant::now(), terminal, step: RefCell::default() })
    }

    /// What is going on from now on.
    pub fn step(&self, step: &str) {
        step.clone_into(&mut self.step.borrow_mut());
        if !self.terminal {
            self.event(step);
        }
    }

    /// Something that happened, on a line that stays.
    pub fn event(&self, what: &str) {
        let clear = if self.terminal { CLEAR } else { "" };
        let _ =
            writeln!(std::io::stderr(), "{clear}  {:5.1} s  {what}", self.started.elapsed().as_secs_f64());
    }

    /// Shows live figures until dropped: redrawn on a terminal, else a line every few seconds.
    pub async fn watch(&self, deployment: &Deployment, recorder: &Recorder) {
        let pause = if self.terminal { REDRAW } else { LINE };
        loop {
            tokio::time::sleep(pause).await;
            let (rate, p99) = recorder.recent(RECENT);
            let pods: Vec<_> = deployment
                .pods
                .borrow()
                .iter()
                .map(|pod| format!("{} {}", pod.name, if pod.ready() { '●' } else { '○' }))
                .collect();
            let figures = format!(
                "{:3.0} req/s  p99 {:>6.1} ms  failed {:<5} {}",
                rate,
                p99.as_secs_f64() * 1e3,
                recorder.failed(),
                pods.join("  ")
            );
            if self.terminal {
                let seconds = self.started.elapsed().as_secs_f64();
                let step = self.step.borrow();
                let _ = write!(std::io::stderr(), "{CLEAR}  {seconds:5.1} s  {step:<20} {figures}");
            } else {
                self.event(&figures);
            }
        }
    }
}

impl Drop for Progress {
    /// Removes the redrawn line.
    fn drop(&mut self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "{CLEAR}");
        }
    }
}

/// To the start of the line, and clear it.
const CLEAR: &str = "\r\x1b[K";
const REDRAW: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(3);
const RECENT: Duration = Duration::from_secs(2);
