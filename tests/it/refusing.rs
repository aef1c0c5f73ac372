//! The sidecar refuses to start, and says why: exit codes 78 and 69.

use std::io::Read;
use std::net::TcpListener;
use std::process::ExitStatus;
use std::time::Duration;

use crate::support::sidecar::command;
use crate::support::{Scratch, eventually, machine};

/// Runs it to its end; what it wrote to stderr.
async fn run(arguments: &[&str]) -> (ExitStatus, String) {
    let mut child = command().args(arguments).spawn().expect("the sidecar starts");
    let mut status = None;
    eventually("it ends", Duration::from_secs(20), async || {
        status = child.try_wait().expect("a child of ours");
        status.is_some()
    })
    .await;
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    (status.expect("waited for"), said)
}

#[tokio::test]
async fn bad_configuration_exits_78_with_every_error_at_its_place() {
    let _turn = machine::shared();
    let scratch = Scratch::new();
    let path = scratch.join("bad.yaml");
    let text = "\
listeners:
  http:
    upstraem: http://127.0.0.1:8080
drain:
  quiet: 0s
checks:
  db:
    tpc: { address: db:5432 }
  warm:
    after: [nobody]
    tcp: { address: db:5432 }
";
    std::fs::write(&path, text).expect("the directory is writable");
    let path = path.to_str().expect("a path of ours");
    let (status, said) = run(&["run", "--config", path]).await;
    assert_eq!(status.code(), Some(78), "{said}");
    for (place, key, hint) in [
        (":3:", "upstraem", "upstream"),
        (":5:", "drain.quiet", "0s"),
        (":8:", "tpc", "tcp"),
        (":10:", "checks.warm.after", "nobody"),
    ] {
        let found =
            said.lines().any(|line| line.contains(place) && line.contains(key) && line.contains(hint));
        assert!(found, "no line with {place} {key} {hint}:\n{said}");
    }
}

#[tokio::test]
async fn port_in_use_exits_69_and_names_the_port() {
    let _turn = machine::shared();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    for flag in ["--listen", "--admin"] {
        let other = if flag == "--listen" { "--admin" } else { "--listen" };
        let (status, said) = run(&["run", flag, &address, other, "127.0.0.1:0"]).await;
        assert_eq!(status.code(), Some(69), "{flag}: {said}");
        assert!(said.contains(&address), "{flag}: {said}");
    }
}
