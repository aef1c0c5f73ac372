//! `readygate drain`: drains the running sidecar, for `exec` hooks and for people.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use http::{Method, StatusCode, Uri};

use super::client::{self, Call, duration, url};

/// Drain the running sidecar, and wait until nothing is left to serve.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  readygate drain
  readygate drain --timeout 25s --token-file /etc/readygate/token
  readygate drain --url 'http://127.0.0.1:8801/drain?wait=0'   # does not wait")]
pub struct DrainArgs {
    /// The hook.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8801/drain", value_parser = url)]
    pub url: Uri,
    /// Wait no longer than this; the drain goes on.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub timeout: Duration,
    /// File with the token of the hooks [default: the file that READYGATE_TOKEN_FILE names, if set].
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Calls the hook. Returns the exit code: 0 when drained, else 1.
pub async fn run(args: DrainArgs) -> anyhow::Result<u8> {
    let file = args.token_file.or_else(|| std::env::var_os("READYGATE_TOKEN_FILE").map(PathBuf::from));
    let token = match file {
        Some(file) => Some(
            std::fs::read_to_string(&file)
                .with_context(|| format!("cannot read the token from {}", file.display()))?,
        ),
        None => None,
    };
    let call = Call {
        method: Method::GET,
        url: &args.url,
        token: token.as_deref().map(str::trim),
        deadline: args.timeout,
    };
    match client::call(call).await {
        Ok(reply) if reply.status.is_success() => {
            // Who called need not listen any more.
            let _ = writeln!(io::stdout(), "{}", reply.shown());
            Ok(0)
        }
        Ok(reply) => {
            eprintln!("not drained: {} from {}: {}", reply.status, args.url, reply.shown());
            if reply.status == StatusCode::UNAUTHORIZED {
                eprintln!("give the token with --token-file or READYGATE_TOKEN_FILE");
            }
            Ok(1)
        }
        Err(error) => {
            eprintln!("not drained: {error:#}");
            Ok(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::tests::{answer, serve};
    use super::*;

    #[tokio::test]
    async fn exit_code_says_whether_the_pod_is_drained() {
        let file = std::env::temp_dir().join(format!("readygate-cli-token-{}", std::process::id()));
        std::fs::write(&file, "secret\n").expect("write");
        for (status, code) in [(200, 0), (202, 0), (401, 1), (503, 1)] {
            let (url, requests) = serve(vec![answer(status, "drained after 5s\n")]).await;
            let token_file = Some(file.clone());
            let args = DrainArgs { url, timeout: Duration::from_secs(30), token_file };
            assert_eq!(run(args).await.expect("an answer"), code, "{status}");
            assert!(requests.await.expect("no panic")[0].contains("authorization: Bearer secret\r\n"));
        }
        std::fs::remove_file(&file).expect("remove");
        let (url, _requests) = serve(Vec::new()).await;
        let args = DrainArgs { url, timeout: Duration::from_secs(30), token_file: Some(file) };
        assert!(run(args).await.is_err(), "a token file that is not there is an error");
    }
}
