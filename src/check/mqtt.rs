//! `mqtt`: the broker answers CONNECT (MQTT 3.1.1, which all of them speak).
//!
//! CONNACK 0 passes. So do 2, 4 and 5 (this client id, these credentials, this client are not wanted): the broker took
//! the packet and decided, and who may come in is the app's affair. 3, server unavailable, fails. The client id is
//! random, since a broker throws out whoever has the same, and the session is a clean one. DISCONNECT ends it, so no
//! will is published and nothing is kept.

use rustls::crypto::ring;
use schemars::{JsonSchema, SchemaGenerator};

use super::own;
use super::peer::{self, Keys, Peer};
use super::{Check, CheckFuture, CheckResult, Evidence, Kind};
use crate::config::{self, Gates};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "mqtt",
        passes_when: "CONNECT is accepted, or refused for who we are; server unavailable fails",
        gates: |_, _| Gates::Startup,
        accept: |own, _| Keys::accept(own),
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["mqtt", "mqtts"],
        from_url: |url| peer::from_url_or_secure(url, "mqtts", (1883, 8883)),
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| Box::new(Mqtt { keys: own::parse(&spec.own).expect("configuration accepted the keys") }),
};

#[derive(Debug)]
struct Mqtt {
    keys: Keys,
}

impl Check for Mqtt {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.attempt())
    }

    fn tests(&self) -> String {
        format!(
            "connects to {}, sends CONNECT, and expects that only our credentials may be refused",
            self.keys
        )
    }
}

impl Mqtt {
    async fn attempt(&self) -> CheckResult {
        let mut peer = Peer::greet(&self.keys.address, &self.keys.tls).await?;
        peer.send(&connect_packet(&client_id())).await?;
        let answer = peer.exactly(4, "CONNACK").await?;
        let summary = match verdict(&answer) {
            Ok(summary) => summary,
            Err(Some(reason)) => return Err(peer.unexpected(reason)),
            Err(None) => return Err(peer.answered(&answer, "CONNACK")),
        };
        // After a refusal the broker has closed already: nothing may be sent.
        peer.leave(if answer[3] == 0 { DISCONNECT } else { b"" }).await;
        Ok(Evidence { summary: summary.to_owned(), ..Evidence::default() })
    }
}

/// What the broker's answer means (section 3.2.2.3); an error without words is no CONNACK.
fn verdict(answer: &[u8]) -> Result<&'static str, Option<&'static str>> {
    let &[0x20, 2, 0 | 1, code] = answer else { return Err(None) };
    match code {
        0 => Ok("accepts connections"),
        1 => Err(Some(
            "refused the connection: 1 unacceptable protocol version, expected it to speak MQTT 3.1.1",
        )),
        2 => Ok("accepts connections, but refused this client id"),
        3 => Err(Some("refused the connection: 3 server unavailable, expected 0 accepted")),
        4 | 5 => Ok("accepts connections, with credentials"),
        _ => Err(None),
    }
}

/// CONNECT (section 3.1) with a clean session, and a keep-alive of 30 s, after which the broker forgets a client that
/// never said goodbye.
fn connect_packet(client_id: &str) -> Vec<u8> {
    let mut rest = b"\x00\x04MQTT\x04\x02\x00\x1e\x00".to_vec();
    rest.push(client_id.len() as u8);
    rest.extend_from_slice(client_id.as_bytes());
    let mut packet = vec![0x10, rest.len() as u8];
    packet.extend(rest);
    packet
}

/// 23 letters and digits, which every broker must take (section 3.1.3.1).
fn client_id() -> String {
    let mut random = [0; 7];
    // Without randomness there is no TLS either; zeros then are the smaller evil.
    let _ = ring::default_provider().secure_random.fill(&mut random);
    random.iter().fold("readygate".to_owned(), |id, byte| format!("{id}{byte:02x}"))
}

const DISCONNECT: &[u8] = b"\xe0\x00";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_packet_is_that_of_the_standard() {
        let packet = connect_packet("ab");
        assert_eq!(packet, b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x1e\x00\x02ab");
    }

    #[test]
    fn client_ids_are_of_23_characters_and_differ() {
        let ids: Vec<_> = (0..100).map(|_| client_id()).collect();
        assert!(ids.iter().all(|id| id.len() == 23 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())));
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 100);
    }

    #[test]
    fn mqtts_means_tls() {
        assert_eq!((KIND.config.from_url)("mqtt://b"), Ok(json!({ "address": "b:1883" })));
        assert_eq!((KIND.config.from_url)("mqtts://b"), Ok(json!({ "address": "b:8883", "tls": true })));
    }

    proptest! {
        #[test]
        fn only_a_connack_is_judged(bytes in any::<[u8; 4]>()) {
            let is_connack = bytes[..2] == [0x20, 2] && bytes[2] < 2 && bytes[3] < 6;
            prop_assert_eq!(verdict(&bytes) != Err(None), is_connack);
        }
    }
}
