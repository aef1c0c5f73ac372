//! What `ramp` is for: the first 30 s of a fresh pod behind a balancer that knows no slow start, without and with it.
//!
//! ```text
//!  clients: 100 requests a second from the moment the pod is ready ──▶ readygate ──▶ a cold app
//! ```
//!
//! The app answers four requests at once and is the faster the more it has answered: `5 + 300·e^(−n/150)` ms each. Cold
//! it manages 13 requests a second, warm 800. Without a ramp all that come stand in its line; with one those that
//! exceed what it is given wait a second at most and get 503 with `retry-after`, for another pod to answer.
//!
//! The sidecar is this program again, which calls readygate as a library with the words of the command line.

mod app;
mod load;

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use crate::app::App;
use crate::load::{Answer, RUN};

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == SIDECAR) {
        return readygate::cli::main(std::iter::once(OsString::from("readygate")).chain(words));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let compared = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(compare()));
    match compared {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ramp: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn compare() -> anyhow::Result<()> {
    println!("the first {} s of a cold app at {} requests a second", RUN.as_secs(), load::RATE);
    println!("{:<24}{:>8}{:>9}{:>12}{:>12}{:>12}", "", "served", "refused", "p50 ms", "p99 ms", "most ms");
    for (name, ramp) in [("without ramp", "off"), ("ramp from 10% over 30s", "{ from: 10%, over: 30s }")] {
        let answers = first_seconds(ramp).await.with_context(|| name.to_owned())?;
        println!("{}", row(name, &answers));
        for from in (0..RUN.as_secs()).step_by(10) {
            let within = |answer: &&Answer| (from..from + 10).contains(&answer.began.as_secs());
            let some: Vec<_> = answers.iter().filter(within).copied().collect();
            println!("{}", row(&format!("  begun in {from}-{} s", from + 10), &some));
        }
    }
    Ok(())
}

/// A fresh app and a fresh sidecar, from the moment that it says it is ready.
async fn first_seconds(ramp: &str) -> anyhow::Result<Vec<Answer>> {
    let app = App::start().await?;
    let (traffic, admin) = (free_address()?, free_address()?);
    let directory = std::env::temp_dir().join(format!("readygate-ramp-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let file = directory.join("readygate.yaml");
    std::fs::write(
        &file,
        format!(
            "listeners: {{ http: {{ listen: \"{traffic}\", upstream: \"http://{}\", ramp: {ramp} }} }}\n\
             admin: {{ listen: \"{admin}\" }}\nlog: {{ level: error }}\n",
            app.address
        ),
    )?;
    let sidecar = Sidecar(
        Command::new(std::env::current_exe()?)
            .args([SIDECAR, "run", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .context("the sidecar does not start")?,
    );
    let began = Instant::now();
    while load::get(admin, "/ready").await.ok() != Some(200) {
        if began.elapsed() > Duration::from_secs(20) {
            bail!("not ready within 20 s");
        }
        sleep(Duration::from_millis(10)).await;
    }
    let answers = load::run(traffic).await;
    drop(sidecar);
    let _ = std::fs::remove_dir_all(directory);
    Ok(answers)
}

fn row(name: &str, answers: &[Answer]) -> String {
    let mut served: Vec<_> =
        answers.iter().filter(|answer| answer.served).map(|answer| answer.took).collect();
    served.sort_unstable();
    let at = |share: f64| {
        let rank = (share * served.len() as f64).ceil() as usize;
        served.get(rank.saturating_sub(1)).map_or_else(|| "-".to_owned(), |took| took.as_millis().to_string())
    };
    let refused = answers.len() - served.len();
    format!("{name:<24}{:>8}{refused:>9}{:>12}{:>12}{:>12}", served.len(), at(0.5), at(0.99), at(1.0))
}

/// Free a moment ago, which is enough here.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Killed when dropped.
struct Sidecar(Child);

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const SIDECAR: &str = "__sidecar";
