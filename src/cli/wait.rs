//! `readygate wait`: waits until the pod is ready, then becomes another program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use http::{Method, Uri};
use tokio::time::{Instant, sleep, timeout_at};

use super::client::{self, Call, duration, url};

/// Wait until the pod is ready, then run a command.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  readygate wait
  readygate wait --timeout 5m -- ./run-the-job --once
  readygate wait --url http://127.0.0.1:8801/ready/db   # one check")]
pub struct WaitArgs {
    /// What has to answer 200.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8801/ready", value_parser = url)]
    pub url: Uri,
    /// Give up after this long.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub timeout: Duration,
    /// Becomes this command once ready.
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Polls until the answer is 200. Returns the exit code: 0, or 1 when time is up; with a command, only if it cannot be run.
pub async fn run(args: WaitArgs) -> anyhow::Result<u8> {
    let deadline = Instant::now() + args.timeout;
    let mut reason = "it did not answer".to_owned();
    while let Ok(asked) = timeout_at(deadline, ask(&args.url)).await {
        match asked {
            Ok(()) => return become_command(&args.command),
            Err(why) => reason = why,
        }
        sleep(POLL_INTERVAL.min(deadline - Instant::now())).await;
    }
    eprintln!(
        "not ready after {}: {}\n{}",
        humantime::format_duration(args.timeout),
        args.url,
        reason.trim_end()
    );
    Ok(1)
}

/// One try; the error is the reason in words.
async fn ask(url: &Uri) -> Result<(), String> {
    let call = Call { method: Method::GET, url, token: None, deadline: TRY_DEADLINE };
    match client::call(call).await {
        Ok(reply) if reply.status == 200 => Ok(()),
        Ok(reply) if reply.status == 503 => Err(reply.body),
        Ok(reply) => Err(format!("{}: {}", reply.status, reply.body)),
        Err(error) => Err(format!("{error:#}")),
    }
}

fn become_command(command: &[OsString]) -> anyhow::Result<u8> {
    let Some((program, arguments)) = command.split_first() else { return Ok(0) };
    // Returns only if it failed.
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

const POLL_INTERVAL: Duration = Duration::from_millis(200);
const TRY_DEADLINE: Duration = Duration::from_secs(2);
