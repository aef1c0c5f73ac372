//! `exec`: a command exits with 0.
//!
//! No shell: the command is a list of words. It gets PATH and the variables that are configured, nothing else of
//! the sidecar's environment, and no input. Its output is read until it ends, whatever its length, and the last
//! [`KEPT`] bytes go into the reason. It runs in a process group of its own, which is killed when the command
//! ends, and when the run is dropped at its deadline: what it left behind ends too. Only a process that moved to
//! another group or session escapes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpgid};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use super::own;
use super::{Check, CheckError, CheckFuture, CheckResult, Evidence, Kind};
use crate::config::{self, Gates, KeyError, Listener, Own};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "exec",
        passes_when: "the command exits with 0 before `timeout`, at which it is killed with its process group",
        gates: |_, _| Gates::Startup,
        accept,
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &[],
        from_url: |_| Err("exec cannot be written as a URL".to_owned()),
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| {
        let keys = own::parse(&spec.own).expect("configuration accepted the keys");
        Box::new(Exec {
            keys: Arc::new(keys),
            starting: Arc::new(Semaphore::new(1)),
            earlier: RefCell::default(),
        })
    },
};

/// The keys of `exec`. Not `Debug`: `env` may hold secrets.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// The program and its arguments, without a shell. A name without a slash is looked up in PATH. What it prints is
    /// shown when it fails.
    command: Vec<String>,
    /// Variables of its environment, besides PATH.
    #[serde(default)]
    env: BTreeMap<String, String>,
}

struct Exec {
    keys: Arc<Keys>,
    /// One permit, held while a command is being started, which may hang on a dead file system.
    starting: Arc<Semaphore>,
    /// Groups of earlier runs that may hold processes still to be reaped.
    earlier: RefCell<Vec<Pid>>,
}

impl Check for Exec {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.attempt())
    }

    fn tests(&self) -> String {
        let program = self.keys.command.first().map_or("", String::as_str);
        let arguments = match self.keys.command.len().saturating_sub(1) {
            0 => String::new(),
            1 => " with 1 argument".to_owned(),
            many => format!(" with {many} arguments"),
        };
        format!("runs {program}{arguments}, and expects it to exit with 0")
    }
}

impl Exec {
    async fn attempt(&self) -> CheckResult {
        self.reap();
        let Ok(permit) = Arc::clone(&self.starting).try_acquire_owned() else {
            return Err(self.unexpected("the start of an earlier run still hangs"));
        };
        let keys = Arc::clone(&self.keys);
        let start = tokio::task::spawn_blocking(move || {
            let _until_it_runs = permit;
            Running::start(&keys)
        });
        let running = match start.await {
            Ok(started) => started.map_err(|error| self.unexpected(&format!("cannot start: {error}")))?,
            Err(error) => return Err(self.unexpected(&error.to_string())),
        };
        self.earlier.borrow_mut().push(running.group.0);
        let (status, output) = running
            .finish()
            .await
            .map_err(|error| self.unexpected(&format!("cannot be waited for: {error}")))?;
        self.verdict(status, &output)
    }

    fn verdict(&self, status: ExitStatus, output: &Tail) -> CheckResult {
        let output = output.to_line();
        if status.success() {
            return Ok(Evidence { summary: output, ..Evidence::default() });
        }
        let end = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => status.to_string(),
        };
        let said = if output.is_empty() { String::new() } else { format!(": {output}") };
        Err(self.unexpected(&format!("{end}, expected 0{said}")))
    }

    fn unexpected(&self, what: &str) -> CheckError {
        let program = self.keys.command.first().map_or("", String::as_str);
        let message = format!("{} {}", own::one_line(program, 200), own::one_line(what, 100 + KEPT));
        CheckError::Unexpected { message, figures: None }
    }

    /// Where the sidecar is the container's first process, what a command left behind becomes a child of it, and
    /// would stay a zombie. Elsewhere there are no such children.
    fn reap(&self) {
        self.earlier.borrow_mut().retain(|&group| {
            loop {
                match waitpgid(group, WaitOptions::NOHANG) {
                    Ok(Some(_)) => {}
                    Ok(None) => return true,
                    Err(_) => return false,
                }
            }
        });
    }
}

/// A command that runs. The order matters: the group is killed while its leader has not been reaped, and so
/// while its number cannot be somebody else's.
struct Running {
    group: Group,
    child: Child,
    output: Receiver,
}

impl Running {
    /// Blocks until the program is loaded.
    fn start(keys: &Keys) -> io::Result<Self> {
        let (output, input) = io::pipe()?;
        let (program, arguments) = keys.command.split_first().expect("configuration accepted the command");
        let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", path).envs(&keys.env);
        // One pipe for both, which keeps the order of what was said.
        command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let group = Group(pid.ok_or_else(|| io::Error::other("it has no process id"))?);
        let output = Receiver::from_owned_fd(output.into())?;
        Ok(Self { group, child, output })
    }

    async fn finish(mut self) -> io::Result<(ExitStatus, Tail)> {
        let mut tail = Tail::default();
        let mut piece = [0; 4096];
        let mut open = true;
        // Its end counts, not that of its output: something in the background may keep that open.
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status?,
                read = self.output.read(&mut piece), if open => match read {
                    Ok(length) if length > 0 => tail.push(&piece[..length]),
                    _ => open = false,
                },
            }
        };
        drop(self.group);
        // What is still in the pipe, at most a full one.
        for _ in 0..LONGEST_PIPE / piece.len() {
            match rustix::io::read(&self.output, &mut piece) {
                Ok(length) if length > 0 => tail.push(&piece[..length]),
                _ => break,
            }
        }
        Ok((status, tail))
    }
}

/// A process group, killed when dropped.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // None left is the usual case.
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// The end of what was said.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        if self.bytes.len() > KEPT {
            self.bytes.drain(..self.bytes.len() - KEPT);
            self.cut = true;
        }
    }

    /// On one line and without control characters.
    fn to_line(&self) -> String {
        // A character cut in two would show as garbage.
        let is_inside = |byte: &&u8| self.cut && **byte & 0xc0 == 0x80;
        let begin = self.bytes.iter().take(3).take_while(is_inside).count();
        let line = own::one_line(&String::from_utf8_lossy(&self.bytes[begin..]), KEPT);
        if self.cut { format!("…{line}") } else { line }
    }
}

fn accept(own: &Own, _: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = Vec::new();
    if keys.command.first().is_none_or(String::is_empty) {
        let expected = "no program, expected a list such as [/usr/bin/pg_isready, -h, db]";
        problems.push(own::problem("command", expected));
    }
    for (index, _) in keys.command.iter().enumerate().filter(|(_, word)| word.contains('\0')) {
        problems.push(own::problem(&format!("command.{index}"), "a zero byte, expected text without"));
    }
    for (name, value) in &keys.env {
        let message = if name.is_empty() || name.contains(['=', '\0']) {
            "not a name of a variable, expected e.g. PGUSER"
        } else if value.contains('\0') {
            "a zero byte, expected text without"
        } else {
            continue;
        };
        let mut error = own::problem("env", message);
        error.path.push(name.clone());
        problems.push(error);
    }
    own::all(problems)
}

/// Bytes of the output that are kept.
const KEPT: usize = 1024;

/// Bytes that a pipe holds unless somebody made it larger (pipe(7)).
const LONGEST_PIPE: usize = 64 << 10;

/// Where a program is looked for if the sidecar has no PATH itself.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_end_of_the_output_is_kept_and_cut_between_characters() {
        let mut tail = Tail::default();
        tail.push("ä".repeat(KEPT).as_bytes());
        tail.push(b"\nlast words\x1b[0m\n");
        let line = tail.to_line();
        assert!(line.starts_with("…ä") && line.ends_with("ä last words [0m"), "{line}");
    }

    proptest! {
        #[test]
        fn whatever_is_said_becomes_one_short_line(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..900), 0..6),
        ) {
            let mut tail = Tail::default();
            pieces.iter().for_each(|piece| tail.push(piece));
            let line = tail.to_line();
            prop_assert!(line.chars().count() <= KEPT + 1 && !line.contains(char::is_control));
            prop_assert!(tail.bytes.len() <= KEPT);
        }
    }
}
