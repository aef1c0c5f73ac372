//! Real servers of dependencies, each a process with a directory and a port of its own; and strangers, which speak
//! something else.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::checks::run;
use super::front::tls_front;
use super::{Scratch, eventually, machine};

/// A server. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    pub child: Child,
    pub port: u16,
    log: PathBuf,
    /// Its directory, removed with it unless taken.
    pub scratch: Option<Scratch>,
}

impl Server {
    /// Starts `command`, which listens on `port`; what it prints goes to `log`.
    pub fn start(mut command: Command, port: u16, log: PathBuf, scratch: Scratch) -> Self {
        let file = File::options().create(true).append(true).open(&log).expect("a log");
        let errors = file.try_clone().expect("a log");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn().expect("it starts");
        Self { child, port, log, scratch: Some(scratch) }
    }

    /// Keys of a check of this server.
    pub fn keys(&self) -> Value {
        json!({ "address": format!("127.0.0.1:{}", self.port) })
    }

    /// A port that speaks TLS in front of it, as keys of a check that trusts its certificate.
    pub fn keys_over_tls(&self) -> Value {
        with(&json!({ "address": format!("127.0.0.1:{}", tls_front(self.port)) }), trusted())
    }

    /// Waits until a check of it passes.
    pub async fn ready(self, kind: &str, own: Value) -> Self {
        eventually(kind, Duration::from_secs(30), async || ask(kind, own.clone()).await.is_ok()).await;
        self
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).expect("a log")).into_owned()
    }

    /// Asks 300 times, and gives what the server logged meanwhile.
    pub async fn log_of_300_runs(&self, kind: &str, own: Value) -> String {
        let before = self.log().len();
        for _ in 0..300 {
            ask(kind, own.clone()).await.expect("it passes each time");
        }
        self.log()[before..].to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The summary of a passing run, or why it did not pass.
pub async fn ask(kind: &str, own: Value) -> Result<String, String> {
    let result = run(kind, own, Duration::from_secs(5)).await;
    result.map(|evidence| evidence.summary).map_err(|error| error.to_string())
}

/// Asserts that the check fails for this reason.
pub async fn refuses(kind: &str, own: Value, why: &str) {
    let error = ask(kind, own).await.expect_err(why);
    assert!(error.contains(why), "{error}");
}

/// Asserts that TLS fails where the server speaks plain; some just wait for more.
pub async fn refuses_tls(kind: &str, own: &Value) {
    let secure = with(own, json!({ "tls": true }));
    run(kind, secure, Duration::from_millis(300)).await.expect_err("the server does not speak TLS");
}

/// `own` with `more`.
pub fn with(own: &Value, more: Value) -> Value {
    let mut own = own.clone();
    own.as_object_mut().expect("a map").extend(more.as_object().cloned().expect("a map"));
    own
}

/// The key `tls` for servers that have [`certificate`].
pub fn trusted() -> Value {
    json!({ "tls": { "ca": certificate("crt") } })
}

/// `crt` or `key` of the tests' certificate for the loopback address.
pub fn certificate(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls/loopback").with_extension(part)
}

/// The program, if this machine has it; otherwise the test is skipped, loudly.
pub fn program(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&folders).collect();
    folders.extend(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        machine::skip(&format!("{name} is not installed: no check of a real one"));
    }
    found
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("bound").port()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A port whose server sends these bytes to everybody, ends, and reads on until the client has left.
pub fn stranger(bytes: Vec<u8>) -> Value {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(&bytes).and_then(|()| stream.shutdown(Shutdown::Write));
            let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    json!({ "address": address.to_string() })
}

/// A connection that sent `bytes` and has been answered with something that ends in `end`.
pub fn hold(port: u16, bytes: &[u8], end: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
    stream.write_all(bytes).expect("sends");
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(end) {
        let length = stream.read(&mut piece).expect("an answer");
        assert!(length > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..length]);
    }
    stream
}
