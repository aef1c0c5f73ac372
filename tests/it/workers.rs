//! What workers share: the port, fairly, and the places of `limits.connections`.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

use crate::support::sidecar::command;
use crate::support::{Scratch, Sidecar, TestApp, config, eventually, get, machine};

/// The kernel gives each connection to a worker by chance, so that of 400 for four none has 50 or less once in millions
/// of runs; the quickest worker alone would leave others with a handful.
#[tokio::test]
async fn every_worker_has_at_least_half_of_its_share_of_connections() {
    const WORKERS: usize = 4;
    const CONNECTIONS: usize = 400;
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let sidecar = Sidecar::start(&config(&app, json!({ "workers": WORKERS }))).await;
    sidecar.until_ready().await;
    let before = watched(sidecar.pid());
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(TcpStream::connect(sidecar.traffic).await.expect("the port accepts"));
    }
    let mut shares = Vec::new();
    eventually("all are accepted", Duration::from_secs(30), async || {
        let more = |(poll, count): (u32, usize)| count.saturating_sub(*before.get(&poll).unwrap_or(&0));
        shares = watched(sidecar.pid()).into_iter().map(more).collect();
        shares.sort_unstable_by(|one, other| other.cmp(one));
        shares.iter().take(WORKERS).sum::<usize>() >= CONNECTIONS
    })
    .await;
    assert!(shares[WORKERS - 1] >= CONNECTIONS / WORKERS / 2, "{shares:?}");
}

/// How many descriptors each epoll of a process looks at; the sockets of a worker are those of its epoll.
fn watched(pid: u32) -> HashMap<u32, usize> {
    let polls = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process of ours").filter_map(|entry| {
        let path = entry.ok()?.path();
        let is_poll = fs::read_link(&path).ok()?.as_os_str() == "anon_inode:[eventpoll]";
        let number: u32 = path.file_name()?.to_str()?.parse().ok()?;
        is_poll.then_some(number)
    });
    // A copy of such a descriptor shows the same.
    let mut seen = BTreeSet::new();
    let mut counts = HashMap::new();
    for poll in polls {
        let Ok(info) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{poll}")) else { continue };
        let looks_at = |line: &str| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse::<u32>().ok();
        let found: BTreeSet<u32> = info.lines().filter_map(looks_at).collect();
        let count = found.len();
        if seen.insert(found) {
            counts.insert(poll, count);
        }
    }
    counts
}

/// A worker must not keep a place in hand for a connection that another one has.
#[tokio::test]
async fn one_place_serves_the_clients_of_all_workers() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let more = json!({ "workers": 4, "listeners": { "http": { "limits": { "connections": 1 } } } });
    let sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    // By chance all of these come to one worker once in 4²³ runs.
    for _ in 0..24 {
        let answer = tokio::time::timeout(Duration::from_secs(20), get(sidecar.traffic, "/")).await;
        let answer = answer.expect("it is served in the end").expect("an answer");
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn port_of_another_process_that_would_share_it_is_an_error() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let other = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    other.set_reuse_port(true).expect("a socket option");
    other.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    other.listen(1).expect("it listens");
    let taken = other.local_addr().expect("bound").as_socket().expect("an IP address").to_string();
    let scratch = Scratch::new();
    let path = scratch.join("readygate.json");
    let own = config(&app, json!({ "workers": 2, "listeners": { "http": { "listen": taken } } }));
    fs::write(&path, own.to_string()).expect("the directory is writable");
    let output = command().args(["run", "--config"]).arg(&path).output().expect("the sidecar starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("cannot bind"), "{said}");
}
