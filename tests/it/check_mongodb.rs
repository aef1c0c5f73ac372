//! `mongodb` tells a server that takes reads or writes from one that does not.
//!
//! No server can be had here: a peer answers as the documentation of `hello` and of the wire protocol says
//! (mongodb.com/docs/manual/reference/command/hello and …/reference/mongodb-wire-protocol).

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::front::tls_front;
use crate::support::servers::{ask, refuses, trusted, with};

/// A server that answers `hello` with these fields, in BSON, and how many clients left as they should.
struct Peer {
    port: u16,
    left_well: Arc<AtomicUsize>,
}

impl Peer {
    fn new(fields: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("bound").port();
        let left_well = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&left_well);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = [0; 16];
                if stream.read_exact(&mut head).is_err() {
                    continue;
                }
                let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
                assert_eq!((number(8), number(12)), (0, 2013), "a question, in OP_MSG");
                let mut body = vec![0; number(0) as usize - 16];
                stream.read_exact(&mut body).expect("as long as it says");
                assert_eq!(body[..5], [0; 5], "no flags, one document");
                let question = document(&[int("hello", 1), text("$db", "admin")]);
                assert_eq!(body[5..], question);
                let answer = document(&fields);
                let length = u32::try_from(21 + answer.len()).expect("short");
                let bytes = [
                    &length.to_le_bytes()[..],
                    &77_u32.to_le_bytes(),
                    &head[4..8],
                    &2013_u32.to_le_bytes(),
                    &[0; 5],
                    &answer,
                ];
                stream.write_all(&bytes.concat()).expect("sends");
                if stream.read(&mut [0; 1]).is_ok_and(|length| length == 0) {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { port, left_well }
    }

    fn keys(&self) -> Value {
        json!({ "address": format!("127.0.0.1:{}", self.port) })
    }
}

fn field(kind: u8, name: &str, value: &[u8]) -> Vec<u8> {
    [&[kind], name.as_bytes(), b"\0", value].concat()
}

fn yes(name: &str) -> Vec<u8> {
    field(8, name, &[1])
}

fn no(name: &str) -> Vec<u8> {
    field(8, name, &[0])
}

fn int(name: &str, value: i32) -> Vec<u8> {
    field(16, name, &value.to_le_bytes())
}

fn double(name: &str, value: f64) -> Vec<u8> {
    field(1, name, &value.to_le_bytes())
}

fn text(name: &str, value: &str) -> Vec<u8> {
    let length = u32::try_from(value.len() + 1).expect("short");
    field(2, name, &[&length.to_le_bytes()[..], value.as_bytes(), b"\0"].concat())
}

fn document(fields: &[Vec<u8>]) -> Vec<u8> {
    let fields = fields.concat();
    let length = u32::try_from(fields.len() + 5).expect("short");
    [&length.to_le_bytes()[..], &fields, b"\0"].concat()
}

/// What every server says besides.
fn usual() -> Vec<Vec<u8>> {
    let process = field(7, "processId", &[7; 12]);
    let topology =
        field(3, "topologyVersion", &document(&[process, field(18, "counter", &[6, 0, 0, 0, 0, 0, 0, 0])]));
    vec![
        topology,
        int("maxBsonObjectSize", 16_777_216),
        field(9, "localTime", &[1; 8]),
        int("maxWireVersion", 21),
        no("readOnly"),
        double("ok", 1.0),
    ]
}

fn member(more: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let hosts = field(4, "hosts", &document(&[text("0", "a:27017"), text("1", "b:27017")]));
    let mut fields = vec![hosts, text("setName", "rs0"), int("setVersion", 1)];
    fields.extend_from_slice(more);
    fields.extend(usual());
    fields
}

#[tokio::test]
async fn a_server_that_takes_reads_or_writes_passes_and_is_left_in_order() {
    let alone = [vec![yes("isWritablePrimary")], usual()].concat();
    let mongos = [vec![yes("isWritablePrimary"), text("msg", "isdbgrid")], usual()].concat();
    for (fields, summary) in [
        (alone, "standalone server"),
        (mongos, "mongos"),
        (member(&[yes("isWritablePrimary"), no("secondary")]), "primary of rs0"),
        (member(&[no("isWritablePrimary"), yes("secondary")]), "secondary of rs0"),
    ] {
        let peer = Peer::new(fields);
        assert_eq!(ask("mongodb", peer.keys()).await, Ok(summary.to_owned()));
        assert_eq!(peer.left_well.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_server_that_takes_neither_fails_with_its_state() {
    let neither = [no("isWritablePrimary"), no("secondary")];
    let starting = member(&neither);
    let arbiter = member(&[&neither[..], &[yes("arbiterOnly")]].concat());
    let fresh = [
        neither.to_vec(),
        vec![yes("isreplicaset"), text("info", "Does not have a valid replica set config")],
        usual(),
    ];
    let leaving = vec![
        double("ok", 0.0),
        text("errmsg", "The server is in quiesce mode and will shut down"),
        int("code", 91),
        text("codeName", "ShutdownInProgress"),
    ];
    for (fields, why) in [
        (starting, "is neither primary nor secondary (it starts up, recovers or rolls back)"),
        (arbiter, "is an arbiter, expected a server that takes reads or writes"),
        (fresh.concat(), "has no configuration of its replica set yet"),
        (leaving, "refused hello: 91 The server is in quiesce mode and will shut down"),
    ] {
        refuses("mongodb", Peer::new(fields).keys(), why).await;
    }
}

#[tokio::test]
async fn a_server_with_tls_is_asked_in_tls() {
    let peer = Peer::new([vec![yes("isWritablePrimary")], usual()].concat());
    let plain = json!({ "address": format!("127.0.0.1:{}", tls_front(peer.port)) });
    assert_eq!(ask("mongodb", with(&plain, trusted())).await, Ok("standalone server".to_owned()));
    refuses("mongodb", plain.clone(), "in TLS (is tls missing?)").await;
    refuses("mongodb", with(&plain, json!({ "tls": true })), "the TLS handshake failed").await;
}
