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

/// Polls until the answer is 200. Returns the exit code: 0, or 1 when time is up; with a command, returns
/// only if it is not run.
pub async fn run(args: WaitArgs) -> anyhow::Result<u8> {
    if let Err(reason) = until_ready(&args.url, args.timeout).await {
        let waited = humantime::format_duration(args.timeout);
        eprintln!("{} does not say ready after {waited}; it says:\n{reason}", args.url);
        return Ok(1);
    }
    become_command(&args.command)
}

/// The error is the last reason, in words.
async fn until_ready(url: &Uri, longest: Duration) -> Result<(), String> {
    let deadline = Instant::now() + longest;
    let mut reason = "nothing yet".to_owned();
    while let Ok(asked) = timeout_at(deadline, ask(url)).await {
        match asked {
            Ok(()) => return Ok(()),
            Err(why) => reason = why,
        }
        sleep(POLL_INTERVAL.min(deadline - Instant::now())).await;
    }
    Err(reason)
}

/// One try; the error is the reason in words.
async fn ask(url: &Uri) -> Result<(), String> {
    let call = Call { method: Method::GET, url, token: None, deadline: TRY_DEADLINE };
    match client::call(call).await {
        Ok(reply) if reply.status == 200 => Ok(()),
        Ok(reply) if reply.status == 503 => Err(reply.shown()),
        Ok(reply) => Err(format!("{}: {}", reply.status, reply.shown())),
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

#[cfg(test)]
mod tests {
    use super::super::client::tests::{answer, serve};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn waits_through_every_no_and_ends_with_the_first_yes() {
        let no = answer(503, "not ready: starting for 1s\n");
        let (url, asked) = serve(vec![String::new(), no.clone(), no, answer(200, "ready\n")]).await;
        assert_eq!(until_ready(&url, 30 * SECOND).await, Ok(()));
        assert_eq!(asked.await.expect("no panic").len(), 4);
    }

    #[tokio::test]
    async fn time_that_is_up_ends_with_the_last_reason() {
        let (url, _asked) = serve(vec![answer(503, "not ready: starting for 1s\n")]).await;
        // After its one answer the server is gone.
        let reason = until_ready(&url, SECOND / 2).await.expect_err("no yes came");
        assert!(reason.contains("is readygate running there?"), "{reason}");
        let (url, _asked) = serve(vec![answer(503, "warm: 41/50 ok\n"); 1000]).await;
        assert_eq!(until_ready(&url, SECOND / 2).await, Err("warm: 41/50 ok".to_owned()));
    }

    #[tokio::test]
    async fn command_that_cannot_be_run_is_an_error_that_names_it() {
        let (url, _asked) = serve(vec![answer(200, "ready\n")]).await;
        let command = vec!["/nowhere/command".into()];
        let error = run(WaitArgs { url, timeout: 30 * SECOND, command }).await.expect_err("no such file");
        assert!(error.to_string().contains("cannot run /nowhere/command"), "{error:#}");
    }
}
