//! WebSockets of a library that people use, on both sides: the same as without a sidecar between them (S25), and
//! told to go when the pod leaves (S4).

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::python::{PythonServer, python, script};
use crate::support::tls::Pki;
use crate::support::{Sidecar, eventually, machine};

use super::before;

/// The peers: a server, and a sidecar in front of it; None where there is no Python for them.
async fn house(more: Value) -> Option<(Sidecar, PythonServer)> {
    let server = PythonServer::start("websocket.py", &["serve"])?;
    let sidecar = before(SocketAddr::from(([127, 0, 0, 1], server.port)), more).await;
    sidecar.until_ready().await;
    Some((sidecar, server))
}

/// A client that runs, and says what it saw at its end.
struct Peer(Child);

impl Peer {
    fn start(what: &str, port: u16, arguments: &[&str]) -> Self {
        let mut command = Command::new(python().expect("the server has it"));
        command.arg(script("websocket.py")).arg(what).arg(port.to_string()).args(arguments);
        Self(command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("it starts"))
    }

    /// The lines that it prints up to and including this, or to its end.
    async fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut lines = BufReader::new(self.0.stdout.as_mut().expect("piped")).lines();
        let mut said = Vec::new();
        while let Some(line) = timeout(PATIENCE, lines.next_line()).await.expect("a line").expect("text") {
            let found = line == wanted;
            said.push(line);
            if found {
                break;
            }
        }
        said
    }

    async fn report(mut self) -> Value {
        let said = self.until("").await;
        let status = timeout(PATIENCE, self.0.wait()).await.expect("it ends").expect("a child of ours");
        assert!(status.success(), "{said:?}");
        serde_json::from_str(said.last().expect("a report")).expect("JSON")
    }
}

#[tokio::test]
async fn messages_pings_and_closes_pass_as_they_are() {
    let _turn = machine::shared();
    let Some((sidecar, server)) = house(json!({})).await else { return };
    let report = Peer::start("talk", sidecar.traffic.port(), &[]).report().await;
    assert_eq!(report["own"], json!([4000, "enough"]));
    assert_eq!(report["theirs"], json!([4321, "no more of this"]));
    assert!(server.log().contains("closed 4000 enough"), "{}", server.log());
    eventually("the tunnels end", Duration::from_secs(10), async || {
        sidecar.metric("readygate_requests_in_flight", "").await == 0.0
    })
    .await;
    assert_eq!(sidecar.metric("readygate_requests_total", "code=\"1xx\"").await, 3.0);
    assert_eq!(sidecar.metric("readygate_proxy_errors_total", "").await, 0.0);
}

/// What each case of `websocket_cases.py` heard, directly or through the sidecar.
async fn cases(port: u16) -> Value {
    let mut command = Command::new(python().expect("the server has it"));
    command.arg(script("websocket_cases.py")).arg(port.to_string());
    Peer(command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("it starts")).report().await
}

#[tokio::test]
async fn whatever_a_client_sends_it_hears_the_same_as_without_the_sidecar() {
    let _turn = machine::shared();
    let Some((sidecar, server)) = house(json!({})).await else { return };
    let (direct, through) = (cases(server.port).await, cases(sidecar.traffic.port()).await);
    let (direct, through) = (direct.as_object().expect("a map"), through.as_object().expect("a map"));
    let different: Vec<String> = direct
        .iter()
        .filter(|(name, heard)| through.get(*name) != Some(heard))
        .map(|(name, heard)| format!("{name}: {heard} directly, {:?} through the sidecar", through.get(name)))
        .collect();
    println!("{} cases", direct.len());
    assert!(direct.len() >= 270, "{} cases", direct.len());
    assert!(different.is_empty(), "{} cases differ:\n{}", different.len(), different.join("\n"));
    // The cases are what they say: a good one is echoed, and each kind of fault has its code.
    let heard =
        |name: &str| direct[name].as_array().expect("a list").first().and_then(Value::as_str).unwrap_or("");
    assert_eq!(heard("two fragments"), "81 8 6f6e657468726565");
    for (name, close) in [
        ("reserved bits 1 on text", "03ea"),
        ("not UTF-8: a byte that is none", "03ef"),
        ("close with 1006, which is none", "03ea"),
        ("text without a mask", "03ea"),
    ] {
        assert!(heard(name).starts_with("88") && heard(name).contains(close), "{name}: {}", heard(name));
    }
}

#[tokio::test]
async fn app_behind_tls_that_would_rather_speak_http_2_gets_websockets() {
    let _turn = machine::shared();
    let Some(pki) = Pki::new() else { return };
    pki.leaf("app", "root");
    let pair = ["app.crt", "app.key"].map(|file| pki.path(file).to_str().expect("text").to_owned());
    let Some(server) = PythonServer::start("websocket.py", &["serve", &pair[0], &pair[1]]) else { return };
    let listener = json!({
        "upstream": format!("https://localhost:{}", server.port),
        "upstream_tls": { "ca": pki.path("root.crt") },
    });
    let app = SocketAddr::from(([127, 0, 0, 1], server.port));
    let sidecar = before(app, json!({ "listeners": { "http": listener } })).await;
    sidecar.until_ready().await;
    let report = Peer::start("talk", sidecar.traffic.port(), &[]).report().await;
    assert_eq!(
        (&report["own"], &report["theirs"]),
        (&json!([4000, "enough"]), &json!([4321, "no more of this"]))
    );
    assert_eq!(sidecar.metric("readygate_requests_total", "code=\"1xx\"").await, 3.0);
    assert_eq!(sidecar.metric("readygate_proxy_errors_total", "").await, 0.0);
}

#[tokio::test]
async fn message_of_64_mib_passes_in_flat_memory() {
    let _turn = machine::shared();
    let Some((sidecar, _server)) = house(json!({})).await else { return };
    let mut peak = [0; 2];
    for (mib, peak) in ["1", "64"].into_iter().zip(&mut peak) {
        let report = Peer::start("big", sidecar.traffic.port(), &[mib]).report().await;
        assert_eq!(report["same"], true);
        *peak = machine::peak_memory(sidecar.pid());
    }
    println!("memory grew by {} KiB", peak[1].saturating_sub(peak[0]) >> 10);
    assert!(peak[1].saturating_sub(peak[0]) < 8 << 20, "{peak:?}");
}

/// 100 connections for 4 s; `READYGATE_TEST_CROWD=1000,20` for the figures of the scorecard.
#[tokio::test]
async fn crowd_talks_until_the_deadline_and_is_told_to_go() {
    let _turn = machine::alone();
    let crowd = std::env::var("READYGATE_TEST_CROWD").unwrap_or_else(|_| "100,4".to_owned());
    let (count, seconds) = crowd.split_once(',').expect("connections,seconds");
    let (number, seconds): (u64, u64) =
        (count.parse().expect("a number"), seconds.parse().expect("a number"));
    let drain = json!({ "min": "200ms", "quiet": "100ms", "deadline": "3s" });
    let Some((mut sidecar, server)) = house(json!({ "drain": drain })).await else { return };
    let mut clients = Peer::start("crowd", sidecar.traffic.port(), &[count, "0.5"]);
    clients.until("ready").await;
    assert_eq!(sidecar.metric("readygate_requests_in_flight", "").await, number as f64);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let began = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    sidecar.signal("TERM");
    let report = clients.report().await;
    println!("{report}");
    let at = |name: &str| report[name].as_f64().expect("a number");
    assert_eq!(report["codes"], json!({ "1001": number }), "each is told: going away");
    assert_eq!(at("wrong"), 0.0);
    // One message a period, and the drain is part of it.
    assert!(at("fewest") >= (seconds + 3 - 1) as f64, "{report}");
    assert!(at("pending") < 1.0, "a message that nobody answered: {report}");
    let ended = (at("first_end") - began, at("last_end") - began);
    assert!(ended.0 >= 3.0 && ended.1 < 3.5 + number as f64 / 1e3, "{ended:?} s after SIGTERM");
    assert_eq!(sidecar.ended(Duration::from_secs(10)).await.code(), Some(0));
    assert!(sidecar.said(&format!("\"cut\":{number}")), "each is counted");
    // An app with a thousand connections to close takes a moment to say so.
    eventually("the app is told as well", Duration::from_secs(20), async || {
        let told = server.log().lines().filter(|line| line.starts_with("closed 1001")).count();
        told as u64 == number
    })
    .await;
}

const PATIENCE: Duration = Duration::from_secs(120);
