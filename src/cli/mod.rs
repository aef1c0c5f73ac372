//! The command line: one subcommand a file.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 fine, 1 not ready, a check failed or a wait
//! timed out, 2 usage, 69 cannot bind, 70 internal, 78 configuration.

pub mod check;
mod client;
mod drain;
mod explain;
mod run;
pub mod schema;
mod status;
pub mod validate;
mod wait;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::check::KINDS;
use crate::config::{self, Environment, Flags, Kind, Loaded, Sources};

use self::check::Output;

/// Makes a pod's readiness probe true: proxies the app's traffic and says ready only on evidence.
#[derive(Debug, Parser)]
#[command(name = "readygate", version, arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar.
    #[command(after_help = run::EXAMPLES)]
    Run(ConfigArguments),
    /// Run each check once and print what it saw; exit 1 if one failed.
    #[command(after_help = "\
Examples:
  readygate check --config readygate.yaml
  readygate check --check tcp://db:5432 --check file:///etc/app.yaml --output json")]
    Check {
        #[command(flatten)]
        config: ConfigArguments,
        /// How results are printed.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Wait until a sidecar is ready, then run a command.
    Wait(wait::WaitArgs),
    /// Drain the running sidecar and wait until it is drained; for `exec` hooks.
    Drain(drain::DrainArgs),
    /// Show what the running sidecar knows.
    Status(status::StatusArgs),
    /// Say in words why the pod is ready or not, and what becomes of each check.
    Explain(explain::ExplainArgs),
    /// Print every error of a configuration file, or the effective configuration.
    #[command(after_help = "\
Example:
  readygate validate readygate.yaml && echo good    # exit 78 if it is not

Variables count as they do for `run`: READYGATE__DRAIN__MIN=10s overrides drain.min.")]
    Validate {
        /// YAML, TOML or JSON.
        file: PathBuf,
    },
    /// Print the JSON Schema of the configuration.
    #[command(after_help = "\
Example:
  readygate schema > schema.json    # an editor then completes keys and underlines errors")]
    Schema,
}

/// Where the configuration comes from: file, then environment, then these flags; later wins.
#[derive(Args, Clone, Debug, Default)]
struct ConfigArguments {
    /// YAML, TOML or JSON; default: $READYGATE_CONFIG, else no file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address for clients, of the only listener [default: 0.0.0.0:8800]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The app, behind the only listener [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Address for kubelet, hooks and operators [default: 0.0.0.0:8801]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// A check by URL, e.g. tcp://db:5432; may be given more than once.
    #[arg(long, value_name = "URL")]
    check: Vec<String>,
}

impl ConfigArguments {
    fn sources(self) -> Sources {
        let environment = environment();
        let file = self.config.or_else(|| {
            environment.get("READYGATE_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from)
        });
        let flags = Flags {
            listen: self.listen,
            upstream: self.upstream,
            admin: self.admin,
            checks: self.check,
            ..Flags::default()
        };
        Sources { file, environment, flags, cpus: config::available_cpus() }
    }
}

/// Runs one command; `arguments` begins with the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Fails only where nobody reads.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    match execute(arguments.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("readygate: {error:#}");
            ExitCode::from(EXIT_INTERNAL)
        }
    }
}

fn execute(command: Command) -> anyhow::Result<u8> {
    let out = &mut io::stdout();
    match command {
        Command::Run(arguments) => Ok(run::run(arguments.sources())),
        Command::Check { config, output } => match load(&config.sources()) {
            Ok(loaded) => block_on(check::check(&loaded.config, output, out)),
            Err(code) => Ok(code),
        },
        Command::Wait(arguments) => block_on(wait::run(arguments)),
        Command::Drain(arguments) => block_on(drain::run(arguments)),
        Command::Status(arguments) => block_on(status::run(arguments)),
        Command::Explain(arguments) => block_on(explain::run(arguments)),
        Command::Validate { file } => {
            Ok(validate::validate(&file, environment(), &kinds(), out, &mut io::stderr())?)
        }
        Command::Schema => {
            schema::schema(&kinds(), out)?;
            Ok(0)
        }
    }
}

/// Loads the configuration, or prints what is wrong with it and says the exit code.
fn load(sources: &Sources) -> Result<Loaded, u8> {
    config::load(sources, &kinds()).map_err(|problems| {
        eprintln!("{problems}");
        EXIT_CONFIGURATION
    })
}

fn block_on<T>(body: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start: the system gives no event queue")?;
    tokio::task::LocalSet::new().block_on(&runtime, body)
}

/// The rows of the table of kinds, as configuration wants them.
fn kinds() -> Vec<Kind> {
    KINDS.iter().map(|kind| kind.config).collect()
}

/// Variables whose name or value is not UTF-8 cannot be ours.
fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

const EXIT_USAGE: u8 = 2;
const EXIT_BIND: u8 = 69;
const EXIT_INTERNAL: u8 = 70;
const EXIT_CONFIGURATION: u8 = 78;
