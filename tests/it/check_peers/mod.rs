//! What every kind that talks to a server owes, whoever answers: it judges what comes, waits no longer than its timeout,
//! and leaves nothing behind. One table for all of them; a kind that is missing in it fails a test.

mod foreign;
mod mutated;
mod secrets;

use serde_json::{Value, json};

use crate::support::servers::with;

/// A kind with keys that make it say something of its own.
struct Row {
    kind: &'static str,
    more: Value,
    /// What a server says that makes it pass; the next part once the client has said something more. Empty where that
    /// cannot be written down (it depends on what the client says, or is encrypted).
    script: Vec<Vec<u8>>,
    /// Whether the server says its first part unasked.
    server_first: bool,
}

impl Row {
    fn keys(&self, address: &str, tls: bool) -> Value {
        let own = match (self.kind, tls) {
            ("http", false) => json!({ "url": format!("http://{address}/") }),
            ("http", true) => json!({ "url": format!("https://{address}/") }),
            ("tls", _) | (_, false) => json!({ "address": address }),
            (_, true) => json!({ "address": address, "tls": true }),
        };
        with(&own, self.more.clone())
    }

    fn name(&self) -> String {
        format!("{} {}", self.kind, self.more)
    }
}

fn rows() -> Vec<Row> {
    let row = |kind, more, script: &[&[u8]]| {
        let script = script.iter().map(|part| part.to_vec()).collect();
        Row { kind, more, script, server_first: matches!(kind, "mysql" | "nats") }
    };
    let amqp = amqp();
    let amqp: Vec<&[u8]> = amqp.iter().map(Vec::as_slice).collect();
    let (versions, brokers) = kafka();
    vec![
        row("amqp", json!({}), &amqp[..1]),
        row("amqp", json!({ "user": "u", "password": "hunter2" }), &amqp),
        row(
            "grpc",
            json!({}),
            &[
                b"\0\0\0\x04\0\0\0\0\0",
                b"\0\0\0\x04\x01\0\0\0\0\0\0\x13\x01\x04\0\0\0\x01\x88\x5f\x10application/grpc\
                  \0\0\x07\0\0\0\0\0\x01\0\0\0\0\x02\x08\x01\0\0\x0f\x01\x05\0\0\0\x01\x40\x0bgrpc-status\x010",
            ],
        ),
        row("http", json!({}), &[b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]),
        row("kafka", json!({}), &[&versions]),
        row("kafka", json!({ "min_brokers": 1 }), &[&versions, &brokers]),
        row("memcached", json!({}), &[b"VERSION 1.6.18\r\n"]),
        row(
            "mongodb",
            json!({}),
            &[b"\x3a\0\0\0abcdrgck\xdd\x07\0\0\0\0\0\0\0\
                \x25\0\0\0\x08isWritablePrimary\0\x01\x01ok\0\0\0\0\0\0\0\xf0\x3f\0"],
        ),
        row("mqtt", json!({}), &[b"\x20\x02\0\0"]),
        row(
            "mysql",
            json!({}),
            &[
                b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0abcdefgh\0\xff\xff\xff\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0abcdefghijkl\0\
                  mysql_native_password\0",
                b"\x07\0\0\x02\0\0\0\x02\0\0\0",
            ],
        ),
        row("nats", json!({}), &[b"INFO {\"version\":\"2.10.0\",\"max_payload\":1048576}\r\n", b"PONG\r\n"]),
        row("postgres", json!({}), &[POSTGRES_SESSION]),
        row(
            "postgres",
            json!({ "query": "SELECT 1" }),
            &[
                POSTGRES_SESSION,
                b"T\0\0\0\x1a\0\x01a\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0\
                  D\0\0\0\x0b\0\x01\0\0\0\x011C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I",
            ],
        ),
        row("postgres", json!({ "password": "hunter2" }), &[]),
        row("redis", json!({}), &[b"+PONG\r\n"]),
        row("redis", json!({ "password": "hunter2" }), &[b"+OK\r\n", b"+PONG\r\n"]),
        row("tls", json!({}), &[]),
    ]
}

/// AuthenticationOk, a setting, the key to cancel by, ReadyForQuery.
const POSTGRES_SESSION: &[u8] =
    b"R\0\0\0\x08\0\0\0\0S\0\0\0\x11TimeZone\0UTC\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I";

/// Start; Tune; OpenOk; OpenOk of the channel and CloseOk.
fn amqp() -> Vec<Vec<u8>> {
    let method = |channel: u8, name: [u8; 4], arguments: &[u8]| {
        let length = u32::try_from(arguments.len() + 4).expect("short").to_be_bytes();
        [&[1, 0, channel][..], &length, &name, arguments, &[0xce]].concat()
    };
    let start = b"\0\x09\0\0\0\x15\x07productS\0\0\0\x08RabbitMQ\0\0\0\x05PLAIN\0\0\0\x05en_US";
    vec![
        method(0, [0, 10, 0, 10], start),
        method(0, [0, 10, 0, 30], &[7, 0xff, 0, 2, 0, 0, 0, 60]),
        method(0, [0, 10, 0, 41], &[0]),
        [method(1, [0, 20, 0, 11], &[0; 4]), method(0, [0, 10, 0, 51], &[])].concat(),
    ]
}

/// Answers to ApiVersions and to Metadata.
fn kafka() -> (Vec<u8>, Vec<u8>) {
    let answer = |body: &[u8]| {
        let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        [&length[..], b"rgck", body].concat()
    };
    let broker = b"\0\0\0\x01\0\0\0\x6f\0\x01b\0\0\x23\x84\xff\xff\0\0\0\x6f\0\0\0\0";
    (answer(b"\0\0\0\0\0\x02\0\x12\0\0\0\x04\0\x03\0\0\0\x0c"), answer(broker))
}
