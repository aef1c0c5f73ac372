//! Peers in Python: the libraries that users have, as servers and clients.
//!
//! `tests/tools` makes `target/python` with what `tests/python/requirements.txt` pins; the scripts lie beside that
//! file.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::{Scratch, machine};

/// The interpreter that has the pinned packages; otherwise the test is skipped, loudly.
pub fn python() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python");
    let pinned = fs::read(script("requirements.txt")).expect("the file of the repository");
    // Its copy is written when everything is installed.
    let installed = fs::read(venv.join("requirements.txt")).unwrap_or_default();
    if pinned != installed {
        machine::skip(&format!("{} is not there or out of date, tests/run makes it", venv.display()));
        return None;
    }
    Some(venv.join("bin/python"))
}

/// A program that one of the pinned packages brings; otherwise the test is skipped, loudly.
pub fn program_of_package(path: &str) -> Option<PathBuf> {
    let venv = python()?.parent()?.with_file_name("lib");
    let versions = fs::read_dir(venv).into_iter().flatten().flatten();
    let mut found = versions.map(|version| version.path().join("site-packages").join(path));
    let found = found.find(|program| program.is_file());
    if found.is_none() {
        machine::skip(&format!("{path} is not among the packages for this machine"));
    }
    found
}

/// Path of a script of `tests/python`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name)
}

/// A script of `tests/python` that serves: the first line that it prints is its port. Killed when dropped.
#[derive(Debug)]
pub struct PythonServer {
    pub child: Child,
    pub port: u16,
    /// Kept open, so that a script may print more.
    _said: BufReader<ChildStdout>,
    log: PathBuf,
    _scratch: Scratch,
}

impl PythonServer {
    /// Starts the script, and waits until it serves; None where there is no Python for it.
    pub fn start(name: &str, arguments: &[&str]) -> Option<Self> {
        let mut command = Command::new(python()?);
        command.arg(script(name)).args(arguments);
        Some(Self::launch(command))
    }

    fn launch(mut command: Command) -> Self {
        let scratch = Scratch::new();
        let log = scratch.join("log");
        let errors = File::create(&log).expect("a log");
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().expect("it starts");
        let mut said = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("text");
        let port = line.trim().parse();
        let port = port.unwrap_or_else(|_| panic!("no port but {line:?}: {}", read(&log)));
        Self { child, port, _said: said, log, _scratch: scratch }
    }

    /// host:port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it wrote to its standard error.
    pub fn log(&self) -> String {
        read(&self.log)
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).expect("a log")).into_owned()
}

#[test]
fn a_python_server_says_its_port_and_is_gone_when_dropped() {
    let Some(server) = PythonServer::start("health.py", &[]) else { return };
    let address = server.address();
    std::net::TcpStream::connect(&address).expect("it serves");
    drop(server);
    std::net::TcpStream::connect(&address).expect_err("nobody serves");
}
