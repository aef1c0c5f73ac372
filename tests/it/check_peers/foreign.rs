//! Servers that say nothing, that are others than expected, or that speak TLS where plain was expected, and the reverse.

use std::io::Read;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use readygate::check::{CheckError, KINDS};

use super::rows;
use crate::support::checks::run;
use crate::support::front::tls_front;
use crate::support::servers::stranger;

#[test]
fn every_kind_that_talks_to_a_server_is_in_the_table() {
    let rows = rows();
    for kind in KINDS.iter().map(|kind| kind.config.name) {
        let talks = !["dns", "exec", "file", "tcp", "traffic", "warmup"].contains(&kind);
        assert_eq!(rows.iter().any(|row| row.kind == kind), talks, "{kind}");
    }
}

#[tokio::test]
async fn silence_ends_at_the_timeout_and_no_socket_stays() {
    for row in rows() {
        for tls in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
            let own = row.keys(&listener.local_addr().expect("bound").to_string(), tls);
            let began = Instant::now();
            let error = run(row.kind, own, BRIEF).await.expect_err("nobody answers");
            assert!(matches!(error, CheckError::Timeout { after: BRIEF }), "{}: {error}", row.name());
            assert!(began.elapsed() < LATEST, "{} took {:?}", row.name(), began.elapsed());
            // The kernel had taken the connection; now it has ended.
            let (mut accepted, _) = listener.accept().expect("it had connected");
            accepted.set_read_timeout(Some(LATEST)).expect("an option");
            let ended = accepted.read_to_end(&mut Vec::new());
            let waits = ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            assert!(!waits, "{} keeps its socket: {ended:?}", row.name());
        }
    }
}

#[tokio::test]
async fn another_protocol_fails_with_what_came_and_what_was_expected() {
    let random: Vec<u8> = (0..64_u32).map(|n| (n.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect();
    for row in rows() {
        for (what, said) in [
            ("HTTP", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec()),
            ("SSH", b"SSH-2.0-OpenSSH_9.6p1 Debian-4\r\n".to_vec()),
            ("SMTP", b"220 mail.test ESMTP\r\n".to_vec()),
            ("random", random.clone()),
            ("nothing", Vec::new()),
            ("endless", vec![b'a'; 1 << 20]),
        ] {
            for tls in [false, true] {
                let there = stranger(said.clone());
                let own = row.keys(there["address"].as_str().expect("text"), tls);
                let error = run(row.kind, own, LATEST).await.expect_err(what);
                let why = error.to_string();
                let shown = format!("{} asks {what}, tls {tls}: {why}", row.name());
                assert!(!matches!(error, CheckError::Timeout { .. } | CheckError::Refused { .. }), "{shown}");
                assert!(
                    ["expected", "TLS", "got no answer"].iter().any(|word| why.contains(word)),
                    "{shown}"
                );
                assert!(!why.contains("hunter2"), "{shown}");
            }
        }
    }
}

#[tokio::test]
async fn tls_where_plain_was_expected_and_the_reverse_are_told() {
    let front = format!("127.0.0.1:{}", tls_front(1));
    for row in rows().iter().filter(|row| row.kind != "tls") {
        let error = run(row.kind, row.keys(&front, false), BRIEF).await.expect_err("it wants TLS");
        let shown = format!("{}: {error}", row.name());
        if row.server_first {
            // It waits for the server's greeting, and the server for the handshake.
            assert!(matches!(error, CheckError::Timeout { .. }), "{shown}");
        } else {
            assert!(shown.contains("in TLS (is "), "{shown}");
        }
        let alert = stranger(vec![0x15, 3, 3, 0, 2, 2, 40]);
        let own = row.keys(alert["address"].as_str().expect("text"), false);
        let error = run(row.kind, own, LATEST).await.expect_err("an alert");
        assert!(error.to_string().contains("in TLS (is "), "{}: {error}", row.name());
        // Plain text, of the right protocol, from a server that knows no TLS.
        let plain = stranger(row.script.concat());
        let own = row.keys(plain["address"].as_str().expect("text"), true);
        let error = run(row.kind, own, LATEST).await.expect_err("it speaks plain");
        assert!(!matches!(error, CheckError::Timeout { .. }), "{}: {error}", row.name());
    }
}

const BRIEF: Duration = Duration::from_millis(100);

/// For what should take no time at all.
const LATEST: Duration = Duration::from_secs(5);
