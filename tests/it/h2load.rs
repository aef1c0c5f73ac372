//! The load generator and the client of nghttp2, which share no code with what the sidecar is made of, against
//! listeners that take HTTP/2 by preface.
//!
//! 20 000 requests to each app, `READYGATE_TEST_REQUESTS=200000` for the figure of the scorecard.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::support::servers::{free_port, program};
use crate::support::{Scratch, Sidecar, TestApp, config, eventually, machine};

/// nghttp2's own server. Killed when dropped.
struct Nghttpd {
    child: Child,
    address: SocketAddr,
    _folder: Scratch,
}

impl Nghttpd {
    async fn start() -> Option<Self> {
        let (folder, port) = (Scratch::new(), free_port());
        std::fs::write(folder.join("file"), vec![b'.'; 1000]).expect("the directory is writable");
        let mut command = Command::new(program("nghttpd")?);
        command.args(["--no-tls", "-a", "127.0.0.1", "-d"]).arg(folder.join("")).arg(port.to_string());
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("it starts");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("nghttpd accepts connections", Duration::from_secs(20), async || {
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
        Some(Self { child, address, _folder: folder })
    }
}

impl Drop for Nghttpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it to its end; gives what it printed.
async fn output(mut command: Command) -> String {
    let done = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    let done = done.await.expect("no panic").expect("it starts");
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(done.status.success(), "{said}");
    said
}

/// Whether not one request of the load failed.
async fn load(sidecar: &Sidecar, path: &str) {
    let Some(h2load) = program("h2load") else { return };
    let requests = std::env::var("READYGATE_TEST_REQUESTS").unwrap_or_else(|_| "20000".to_owned());
    let mut command = Command::new(h2load);
    command.args(["-n", &requests, "-c", "8", "-m", "32"]).arg(format!("http://{}{path}", sidecar.traffic));
    let said = output(command).await;
    let line = |start: &str| said.lines().find(|line| line.starts_with(start)).unwrap_or(&said);
    println!("{path}: {}; {}", line("finished in"), line("requests:"));
    let all = format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(line("requests:").ends_with(&all), "{said}");
    assert!(line("status codes:").starts_with(&format!("status codes: {requests} 2xx")), "{said}");
}

#[tokio::test]
async fn load_of_http2_fails_no_request_whatever_the_app_speaks() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let sidecar = Sidecar::start(&config(&app, json!({}))).await;
    sidecar.until_ready().await;
    load(&sidecar, "/?bytes=1000").await;
    let Some(nghttpd) = Nghttpd::start().await else { return };
    let listener = json!({ "upstream": format!("h2c://{}", nghttpd.address) });
    let sidecar = Sidecar::start(&config(&app, json!({ "listeners": { "http": listener } }))).await;
    sidecar.until_ready().await;
    load(&sidecar, "/file").await;
    assert_eq!(sidecar.metric("readygate_proxy_errors_total", "").await, 0.0);
}

#[tokio::test]
async fn nghttp_is_served_whatever_the_app_speaks() {
    let _turn = machine::shared();
    let Some(nghttp) = program("nghttp") else { return };
    let body = Scratch::new();
    std::fs::write(body.join("body"), vec![b'x'; 300_000]).expect("the directory is writable");
    for (protocol, scheme) in [("http1", "http"), ("http2", "h2c")] {
        let app = TestApp::start(&["--protocol", protocol]).await;
        let listener = json!({ "upstream": format!("{scheme}://{}", app.address) });
        let sidecar = Sidecar::start(&config(&app, json!({ "listeners": { "http": listener } }))).await;
        sidecar.until_ready().await;
        let url = format!("http://{}/?bytes=200000", sidecar.traffic);
        let mut get = Command::new(&nghttp);
        get.arg(&url);
        assert_eq!(output(get).await.len(), 200_000, "{scheme}");
        let mut post = Command::new(&nghttp);
        post.arg("-d").arg(body.join("body")).arg(&url);
        assert_eq!(output(post).await.len(), 200_000, "{scheme}");
    }
}
