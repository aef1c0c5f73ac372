//! The sidecar of a scenario: the real binary with a configuration file, on ports from the kernel.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Answer, Scratch, TestApp, eventually, get, signal};

/// A configuration with one listener `http` in front of the app, ports from the kernel, no checks but the
/// watch over the app's port, and a drain that does not take long; `more` overrides it, key by key.
pub fn config(app: &TestApp, more: Value) -> Value {
    let base = json!({
        "listeners": { "http": { "listen": "127.0.0.1:0", "upstream": format!("http://{}", app.address) } },
        "admin": { "listen": "127.0.0.1:0" },
        "drain": { "min": "200ms", "quiet": "100ms", "deadline": "10s" },
        "checks": { "port": { "tcp": { "address": app.address.to_string() } } },
        "workers": 2,
    });
    merge(base, more)
}

/// Objects are merged, anything else is replaced.
pub fn merge(base: Value, more: Value) -> Value {
    match (base, more) {
        (Value::Object(mut base), Value::Object(more)) => {
            for (key, value) in more {
                let merged = merge(base.remove(&key).unwrap_or(Value::Null), value);
                base.insert(key, merged);
            }
            Value::Object(base)
        }
        (_, more) => more,
    }
}

/// The sidecar. Killed when dropped; a failed test shows its log.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    log: Log,
    pub traffic: SocketAddr,
    pub admin: SocketAddr,
    scratch: Scratch,
}

#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Sidecar {
    /// Starts it and waits until its ports are bound.
    pub async fn start(config: &Value) -> Self {
        Self::launch(command(), config).await
    }

    /// The same, in a process that may not open more than that many files.
    pub async fn start_with_files(config: &Value, files: u32) -> Self {
        let binary = env!("CARGO_BIN_EXE_readygate");
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {files} && exec \"$@\""), "sh", binary]);
        Self::launch(piped(shell), config).await
    }

    async fn launch(mut command: Command, config: &Value) -> Self {
        let scratch = Scratch::new();
        mount(&scratch, config);
        let path = scratch.join("readygate.json");
        std::os::unix::fs::symlink("..data/readygate.json", &path).expect("the directory is writable");
        let mut child = command.args(["run", "--config"]).arg(&path).spawn().expect("the sidecar starts");
        let log = Log::default();
        log.follow(child.stderr.take().expect("piped"));
        let unbound = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut sidecar = Self { child, log, traffic: unbound, admin: unbound, scratch };
        let (mut traffic, mut admin) = (None, None);
        eventually("the sidecar says where it listens", Duration::from_secs(30), async || {
            if let Some(status) = sidecar.child.try_wait().expect("a child of ours") {
                panic!("the sidecar ended with {status}");
            }
            traffic = sidecar.log.listening("http");
            admin = sidecar.log.listening("admin");
            traffic.is_some() && admin.is_some()
        })
        .await;
        sidecar.traffic = traffic.expect("waited for");
        sidecar.admin = admin.expect("waited for");
        sidecar
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Replaces its configuration file.
    pub fn reconfigure(&self, config: &Value) {
        let (new, path) = (self.scratch.join("new"), self.scratch.join("readygate.json"));
        std::fs::write(&new, config.to_string()).expect("the directory is writable");
        std::fs::rename(new, path).expect("the directory is writable");
    }

    /// Replaces its configuration as the kubelet replaces a ConfigMap's: by a swap of `..data`.
    pub fn remount(&self, config: &Value) {
        mount(&self.scratch, config);
    }

    /// Sends a signal by its name. Says when.
    pub fn signal(&self, name: &str) -> Instant {
        signal(self.pid(), name);
        Instant::now()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// Waits for its end.
    pub async fn ended(&mut self, longest: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status;
            }
            assert!(began.elapsed() < longest, "the sidecar still runs after {longest:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// An answer of the admin port.
    pub async fn ask(&self, path: &str) -> Answer {
        get(self.admin, path).await.unwrap_or_else(|failure| panic!("{path} on the admin port: {failure:?}"))
    }

    /// The answer of `/ready`.
    pub async fn ready(&self) -> bool {
        let answer = self.ask("/ready").await;
        assert!(matches!(answer.status, 200 | 503), "/ready answered {}", answer.status);
        answer.status == 200
    }

    /// Waits until `/ready` says yes. Says how long it took.
    pub async fn until_ready(&self) -> Duration {
        self.until(true).await
    }

    /// Waits until `/ready` says no. Says how long it took.
    pub async fn until_not_ready(&self) -> Duration {
        self.until(false).await
    }

    async fn until(&self, ready: bool) -> Duration {
        let mut said = String::new();
        let began = Instant::now();
        loop {
            let answer = self.ask("/ready").await;
            if (answer.status == 200) == ready {
                return began.elapsed();
            }
            answer.text().clone_into(&mut said);
            assert!(began.elapsed() < Duration::from_secs(30), "/ready for 30 s, not {ready}: {said}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The sum of a metric's series whose labels contain `labels` (`""` for all); 0 if there are none.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.ask("/metrics").await.text();
        let series = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| {
            (rest.starts_with('{') || rest.starts_with(' ')) && (labels.is_empty() || rest.contains(labels))
        });
        series.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// A field of the first line of its log with this message.
    pub fn field(&self, message: &str, name: &str) -> Option<String> {
        self.log.lines().iter().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let fields = line.get("fields").unwrap_or(&line);
            let said = fields.get("message").and_then(Value::as_str) == Some(message);
            said.then(|| fields.get(name)?.as_str().map(str::to_owned))?
        })
    }

    /// Whether a line of its log contains this.
    pub fn said(&self, what: &str) -> bool {
        self.times_said(what) > 0
    }

    /// How many lines of its log contain this.
    pub fn times_said(&self, what: &str) -> usize {
        self.log.lines().iter().filter(|line| line.contains(what)).count()
    }
}

/// Lays a configuration out as a ConfigMap's volume: a folder of its own, and `..data` that leads to it.
fn mount(scratch: &Scratch, config: &Value) {
    static VERSION: AtomicU64 = AtomicU64::new(0);
    let version = format!("..{}", VERSION.fetch_add(1, Ordering::Relaxed));
    let (folder, new, data) = (scratch.join(&version), scratch.join("..data_tmp"), scratch.join("..data"));
    std::fs::create_dir(&folder).expect("the directory is writable");
    std::fs::write(folder.join("readygate.json"), config.to_string()).expect("the directory is writable");
    std::os::unix::fs::symlink(version, &new).expect("the directory is writable");
    std::fs::rename(new, data).expect("the directory is writable");
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the sidecar said:\n{}\n---", self.log.lines().join("\n"));
        }
    }
}

impl Log {
    fn follow(&self, stream: impl std::io::Read + Send + 'static) {
        let lines = Arc::clone(&self.0);
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                lines.lock().expect("no panic under it").push(line);
            }
        });
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panic under it").clone()
    }

    /// The address that a listener (or `admin`) said it listens on.
    fn listening(&self, name: &str) -> Option<SocketAddr> {
        self.lines().iter().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let fields = line.get("fields").unwrap_or(&line);
            let named = fields.get("listener").and_then(Value::as_str).unwrap_or("admin") == name;
            let said = fields.get("message").and_then(Value::as_str) == Some("listening");
            (named && said).then(|| fields.get("address")?.as_str()?.parse().ok())?
        })
    }
}

/// The binary, without what the environment of the tests would tell it, its output captured.
pub fn command() -> Command {
    piped(Command::new(env!("CARGO_BIN_EXE_readygate")))
}

/// Without what the environment of the tests may configure, its log to be read.
fn piped(mut command: Command) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("READYGATE")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}
