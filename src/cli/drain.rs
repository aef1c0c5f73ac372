//! `readygate drain`: drains the running sidecar, for `exec` hooks and for people.

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
            print!("{}", reply.body);
            Ok(0)
        }
        Ok(reply) => {
            eprint!("not drained: {} from {}: {}", reply.status, args.url, reply.body);
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
