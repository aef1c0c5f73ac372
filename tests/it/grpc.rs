//! gRPC from a real client to a real server (grpcio), with the sidecar between them, and without.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::python::{PythonServer, python, script};
use crate::support::{Scratch, Sidecar, eventually, machine, merge, signal};

/// What `calls.py` says after these arguments.
async fn calls(address: &str, arguments: &[&str]) -> Value {
    let mut command = Command::new(python().expect("it serves already"));
    command.arg(script("calls.py")).arg(address).args(arguments).kill_on_drop(true);
    let output = command.stderr(Stdio::inherit()).output().await.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&said)
        .unwrap_or_else(|_| panic!("{arguments:?} ended with {}: {said}", output.status))
}

/// A sidecar in front of that server.
async fn before(server: &PythonServer, more: Value) -> Sidecar {
    let base = json!({
        "listeners": {
            "http": { "listen": "127.0.0.1:0", "upstream": format!("h2c://{}", server.address()) },
        },
        "admin": { "listen": "127.0.0.1:0" },
        "drain": { "min": "200ms", "quiet": "100ms", "deadline": "10s" },
        "workers": 2,
    });
    let sidecar = Sidecar::start(&merge(base, more)).await;
    sidecar.until_ready().await;
    sidecar
}

/// A number of calls for the ordinary run, and the where it is asked for.
fn calls_or(ordinary: u32, all: u32) -> String {
    let number = if std::env::var_os("READYGATE_TEST_CALLS").is_some() { all } else { ordinary };
    number.to_string()
}

#[tokio::test]
async fn every_kind_of_call_ends_as_without_the_sidecar() {
    let _turn = machine::shared();
    let Some(server) = PythonServer::start("calls_server.py", &[]) else { return };
    let sidecar = before(&server, json!({})).await;
    let direct = calls(&server.address(), &["cases"]).await;
    let through = calls(&sidecar.traffic.to_string(), &["cases"]).await;
    assert_eq!(through, direct);
    let cases = direct.as_object().expect("a map");
    assert!(cases.len() >= 11, "{cases:?}");
    assert_eq!(cases["client stream"], "100000");
    assert_eq!(cases["Fail"][0], "FAILED_PRECONDITION");
    assert_eq!(cases["Hang"][0], "DEADLINE_EXCEEDED");
    assert_eq!(cases["metadata"], json!(["0", "early", "0001ff"]));
}

#[tokio::test]
async fn cancelled_call_is_cancelled_at_the_app_at_once() {
    let _turn = machine::alone();
    let scratch = Scratch::new();
    let journal = scratch.join("journal");
    let arguments = ["--journal", journal.to_str().expect("text")];
    let Some(server) = PythonServer::start("calls_server.py", &arguments) else { return };
    let sidecar = before(&server, json!({})).await;
    let mut delays = Vec::new();
    for _ in 0..3 {
        let before = lines(&journal).len();
        let told = calls(&sidecar.traffic.to_string(), &["cancel"]).await.as_f64().expect("a time");
        eventually("the app hears of it", Duration::from_secs(5), async || lines(&journal).len() > before)
            .await;
        delays.push(lines(&journal)[before] - told);
    }
    // The best of three: the client's and the app's threads share the machine with others.
    let best = delays.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(best < 0.1, "{delays:?}");
}

fn lines(journal: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(journal).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[tokio::test]
async fn many_calls_one_after_the_other_and_at_once_all_succeed() {
    let _turn = machine::shared();
    let Some(server) = PythonServer::start("calls_server.py", &[]) else { return };
    let sidecar = before(&server, json!({})).await;
    for (count, at_once) in
        [(calls_or(1000, 10_000), "1".to_owned()), (calls_or(1000, 10_000), calls_or(200, 1000))]
    {
        let said = calls(&sidecar.traffic.to_string(), &["many", &count, &at_once]).await;
        println!("{count} calls, {at_once} at once: {said}");
        assert_eq!((said["calls"].to_string(), &said["failed"]), (count, &json!(0)), "{said}");
    }
}

/// How a server ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// By SIGTERM, as grpcio does it: what runs goes on, what comes is sent away.
    Orderly,
    /// By SIGKILL.
    Sudden,
}

/// Lives of the server after the first.
const RESTARTS: u32 = 3;

/// Threads that call, one call each at a time.
const CALLERS: u32 = 8;

/// What calls saw that went on through restarts of their server: nobody paused for them.
async fn through_restarts(sidecar: bool, ending: Ending) -> Option<Value> {
    let scratch = Scratch::new();
    let mut server = PythonServer::start("calls_server.py", &[])?;
    let port = server.port.to_string();
    let hold = json!({ "listeners": { "http": { "not_ready": "hold" } } });
    let sidecar = if sidecar { Some(before(&server, hold).await) } else { None };
    let address = sidecar.as_ref().map_or_else(|| server.address(), |sidecar| sidecar.traffic.to_string());
    let (stop, count) = (scratch.join("stop"), scratch.join("count"));
    let files = [&stop, &count].map(|file| file.to_str().expect("text").to_owned());
    let calling = tokio::spawn(async move { calls(&address, &["until", &files[0], &files[1]]).await });
    for _ in 0..RESTARTS {
        until_so_many_more(&count).await;
        match ending {
            Ending::Orderly => signal(server.child.id(), "TERM"),
            Ending::Sudden => server.child.kill().expect("a child of ours"),
        }
        server.child.wait().expect("a child of ours");
        server = PythonServer::start("calls_server.py", &["--port", &port]).expect("as before");
    }
    until_so_many_more(&count).await;
    if let Some(sidecar) = &sidecar {
        let restarts = sidecar.metric("readygate_app_restarts_total", "").await;
        assert_eq!(restarts, f64::from(RESTARTS), "each was seen");
    }
    std::fs::write(&stop, "").expect("the directory is writable");
    Some(calling.await.expect("no panic"))
}

/// Waits until 400 more calls were made; with the figure 10 000 over all lives.
async fn until_so_many_more(count: &Path) {
    let length = || std::fs::metadata(count).map_or(0, |file| file.len());
    let enough = length() + calls_or(400, 2500).parse::<u64>().expect("a number");
    eventually("calls are made", Duration::from_secs(60), async || length() > enough).await;
}

/// Failures of calls by their code.
fn codes(said: &Value) -> Vec<(String, u64)> {
    let codes = said["codes"].as_object().expect("a map");
    codes.iter().map(|(code, count)| (code.clone(), count.as_u64().expect("a number"))).collect()
}

#[tokio::test]
async fn restart_of_the_app_under_calls_costs_only_those_that_the_app_itself_sends_away() {
    let _turn = machine::shared();
    let Some(through) = through_restarts(true, Ending::Orderly).await else { return };
    println!("through the sidecar {through}");
    // A server of grpcio cancels calls that it has taken and not begun when it stops. Whoever is in between must
    // pass that on, as nobody can tell that they were not begun. All else waits for the next life.
    for (code, count) in codes(&through) {
        assert_eq!(code, "CANCELLED", "{through}");
        assert!(count <= u64::from(CALLERS * RESTARTS), "{through}");
    }
    // It does so without the sidecar, too, if not each time; and there calls also find nobody.
    for run in 0..10 {
        let direct = through_restarts(false, Ending::Orderly).await.expect("there is Python");
        println!("directly {direct}");
        let has = |wanted| codes(&direct).iter().any(|(code, _)| code == wanted);
        assert!(has("UNAVAILABLE"), "{direct}");
        if has("CANCELLED") {
            return;
        }
        assert!(run < 9, "no call was cancelled without the sidecar");
    }
}

#[tokio::test]
async fn sudden_end_of_the_app_costs_only_the_calls_that_it_had() {
    let _turn = machine::shared();
    let Some(through) = through_restarts(true, Ending::Sudden).await else { return };
    println!("{through}");
    for (code, count) in codes(&through) {
        assert_eq!(code, "UNAVAILABLE", "{through}");
        assert!(count <= u64::from(CALLERS * RESTARTS), "{through}");
    }
}

#[tokio::test]
async fn errors_of_our_own_have_the_codes_that_clients_know() {
    let _turn = machine::shared();
    let Some(mut server) = PythonServer::start("calls_server.py", &[]) else { return };
    let listener = json!({
        "timeouts": { "response": "300ms" }, "hold": { "for": "300ms" },
        "limits": { "in_flight": 1, "queue": 1 },
    });
    let sidecar = before(&server, json!({ "listeners": { "http": listener } })).await;
    let address = sidecar.traffic.to_string();
    let late = calls(&address, &["one", "Hang"]).await;
    assert_eq!(late, json!(["DEADLINE_EXCEEDED", "the app did not answer in time"]));
    let crowd = calls(&address, &["many", "100", "20"]).await;
    let failures = crowd["failures"].to_string();
    assert!(failures.contains("RESOURCE_EXHAUSTED: too many requests wait"), "{crowd}");
    server.child.kill().expect("a child of ours");
    server.child.wait().expect("a child of ours");
    let gone = calls(&address, &["one", "Unary"]).await;
    assert_eq!(gone, json!(["UNAVAILABLE", "the app refuses connections"]));
}

#[tokio::test]
async fn drain_lets_calls_finish_and_cuts_what_is_left_at_the_deadline() {
    let _turn = machine::alone();
    let Some(server) = PythonServer::start("calls_server.py", &[]) else { return };
    let mut sidecar = before(&server, json!({ "drain": { "deadline": "3s" } })).await;
    let address = sidecar.traffic.to_string();
    let hanging = tokio::spawn(async move { calls(&address, &["one", "Hang"]).await });
    eventually("the call is in flight", Duration::from_secs(10), async || {
        sidecar.metric("readygate_requests_in_flight", "").await > 0.0
    })
    .await;
    let told = sidecar.signal("TERM");
    let status = sidecar.ended(Duration::from_secs(10)).await;
    let took = told.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!((Duration::from_millis(2500)..Duration::from_millis(3500)).contains(&took), "{took:?}");
    assert_eq!(hanging.await.expect("no panic")[0], "UNAVAILABLE");
}

#[tokio::test]
async fn stream_goes_on_through_the_drain_and_new_calls_are_served_on_new_connections() {
    let _turn = machine::shared();
    let Some(server) = PythonServer::start("calls_server.py", &[]) else { return };
    let scratch = Scratch::new();
    let mut sidecar = before(&server, json!({ "drain": { "deadline": "30s" } })).await;
    let (stop, count) = (scratch.join("stop"), scratch.join("count"));
    let (address, files) =
        (sidecar.traffic.to_string(), [&stop, &count].map(|file| file.display().to_string()));
    let streaming = tokio::spawn(async move { calls(&address, &["stream", &files[0], &files[1]]).await });
    let length = || std::fs::metadata(&count).map_or(0, |file| file.len());
    eventually("it streams", Duration::from_secs(20), async || length() > 20).await;
    assert_eq!(sidecar.metric("readygate_connections_total", "").await, 1.0, "stream and calls share one");
    sidecar.signal("TERM");
    sidecar.until_not_ready().await;
    let before = length();
    eventually("it goes on", Duration::from_secs(20), async || length() > before + 50).await;
    let connections = sidecar.metric("readygate_connections_total", "").await;
    assert!(connections > 1.0, "GOAWAY: a call of the drain finds another connection");
    std::fs::write(&stop, "").expect("the directory is writable");
    let said = streaming.await.expect("no panic");
    println!("{said}, {connections} connections");
    assert_eq!((&said["wrong"], &said["left"], &said["failed"]), (&json!(0), &json!(0), &json!(0)), "{said}");
    assert_eq!(said["code"], "OK", "{said}");
    assert!(
        said["states"].as_array().expect("a list").contains(&json!("IDLE")),
        "the client was told to go: {said}"
    );
    assert_eq!(sidecar.ended(Duration::from_secs(10)).await.code(), Some(0));
    assert!(sidecar.said("\"cut\":0"), "nothing was cut");
}
