//! The app of a scenario: `tests/testapp`, a process on a port that stays ours while it is down.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::{eventually, get, signal};

/// The app. Killed when dropped.
#[derive(Debug)]
pub struct TestApp {
    pub address: SocketAddr,
    flags: Vec<String>,
    child: Option<Child>,
    /// Bound, never listening: connects are refused while the app is down, and nobody else gets the port.
    _reserved: Socket,
}

impl TestApp {
    /// An app that runs and accepts connections.
    pub async fn start(flags: &[&str]) -> Self {
        let mut app = Self::down(flags);
        app.up().await;
        app
    }

    /// An app that has not been started yet.
    pub fn down(flags: &[&str]) -> Self {
        let reserved = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        reserved.set_reuse_address(true).expect("a socket option");
        reserved.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        let address = reserved.local_addr().expect("bound").as_socket().expect("an IP address");
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Self { address, flags, child: None, _reserved: reserved }
    }

    /// Starts the process, without waiting for it to accept connections.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut command = Command::new(binary());
        command.arg("--listen").arg(self.address.to_string()).args(&self.flags);
        self.child = Some(command.stdin(Stdio::null()).spawn().expect("the app starts"));
    }

    /// Starts the process and waits until it accepts connections.
    pub async fn up(&mut self) {
        self.spawn();
        let address = self.address;
        eventually("the app accepts connections", Duration::from_secs(20), async || {
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
    }

    /// `kill -9`; the port refuses when this returns. Says when it began.
    pub fn kill(&mut self) -> Instant {
        let mut child = self.child.take().expect("it runs");
        let began = Instant::now();
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
        began
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        signal(self.child.as_ref().expect("it runs").id(), name);
    }

    /// Waits for the process to end by itself.
    pub async fn ended(&mut self) {
        let child = self.child.as_mut().expect("it runs");
        eventually("the app ends", Duration::from_secs(20), async || {
            child.try_wait().expect("a child of ours").is_some()
        })
        .await;
        self.child = None;
    }

    /// Sets what all answers look like from now on, e.g. `status=500&delay=100`.
    pub async fn control(&self, query: &str) {
        let answer = get(self.address, &format!("/control?{query}")).await.expect("the app answers");
        assert_eq!(answer.status, 200);
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Cargo builds examples for `cargo test`, beside the binary.
fn binary() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_readygate")).parent().expect("a file has a folder");
    let path = folder.join("examples/testapp");
    assert!(path.exists(), "{} is missing: run `cargo build --example testapp`", path.display());
    path
}

#[tokio::test]
async fn port_of_an_app_that_is_down_refuses_and_stays_its_own() {
    let mut app = TestApp::start(&[]).await;
    let answer = get(app.address, "/?bytes=70000").await.expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (200, 70_000));
    let first = answer.header("x-pid").map(str::to_owned);
    for _ in 0..5 {
        app.kill();
        assert_eq!(get(app.address, "/").await.err(), Some(super::Failure::Refused));
        app.up().await;
    }
    let answer = get(app.address, "/?status=404").await.expect("an answer");
    assert_eq!(answer.status, 404);
    assert_ne!(answer.header("x-pid").map(str::to_owned), first);
    app.signal("TERM");
    app.ended().await;
}
