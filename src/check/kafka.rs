//! `kafka`: the broker answers ApiVersions, and tells of enough brokers and a controller if asked to.
//!
//! ApiVersions (version 0, which every broker takes) is the one request that is answered before a client has
//! authenticated, so it passes on listeners of SASL too, and logs nothing. An answer comes only after the broker has
//! caught up with its cluster. A controller of KRaft, which takes no clients, offers no Metadata and fails.
//!
//! With `min_brokers` Metadata is asked for as well. That wants a listener without SASL: on another one the broker
//! hangs up, and counts a failed authentication; hence it is not asked for by default.

use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;

use super::peer::{self, Peer};
use super::trust::Tls;
use super::values::Address;
use super::{Check, CheckError, CheckFuture, CheckResult, Evidence, Kind, own};
use crate::config::{self, Gates, KeyError, Listener, Own};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "kafka",
        passes_when: "ApiVersions is answered as by a broker; with `min_brokers` (where clients need no SASL): that many \
                      brokers are there, and a controller",
        gates: |_, _| Gates::Startup,
        accept,
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["kafka"],
        from_url: |url| peer::from_url(url, 9092),
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| {
        Box::new(Kafka { keys: own::parse(&spec.own).expect("configuration accepted the keys") })
    },
};

/// The keys of `kafka`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// Where a broker listens: host:port.
    address: Address,
    /// Whether TLS is spoken: false, true, or a map of settings (which means true). False if not given.
    #[serde(default)]
    tls: Tls,
    /// Brokers that the cluster must have at least, and a controller. Not asked for if not given: listeners of SASL
    /// do not tell.
    #[schemars(range(min = 1))]
    min_brokers: Option<u32>,
}

fn accept(own: &Own, _: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = keys.tls.problems();
    if keys.min_brokers == Some(0) {
        problems.push(own::problem("min_brokers", "0 is not allowed, expected at least 1"));
    }
    own::all(problems)
}

#[derive(Debug)]
struct Kafka {
    keys: Keys,
}

impl Check for Kafka {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.attempt())
    }

    fn tests(&self) -> String {
        let Keys { address, tls, min_brokers } = &self.keys;
        let cluster = min_brokers
            .map_or(String::new(), |least| format!(", and at least {least} brokers with a controller"));
        format!(
            "connects to {}, asks for ApiVersions, and expects a broker's answer{cluster}",
            tls.place(address)
        )
    }
}

impl Kafka {
    async fn attempt(&self) -> CheckResult {
        let mut peer = Peer::greet(&self.keys.address, &self.keys.tls).await?;
        let awaited = "an answer to ApiVersions";
        let answer = ask(&mut peer, API_VERSIONS, 0, &[], awaited).await?;
        let Some(offer) = Offer::read(&answer) else { return Err(peer.answered(&answer, awaited)) };
        let metadata = match offer {
            Offer::Error(code) => {
                return Err(
                    peer.unexpected(&format!("answered ApiVersions with error {code}, expected none"))
                );
            }
            Offer::Metadata(None) => {
                peer.leave(b"").await;
                return Err(
                    peer.unexpected("offers no Metadata, expected a broker (this may be a controller)")
                );
            }
            Offer::Metadata(Some(range)) => range,
        };
        let summary = match self.keys.min_brokers {
            None => "answers ApiVersions".to_owned(),
            Some(wanted) => brokers(&mut peer, metadata, wanted).await?,
        };
        peer.leave(b"").await;
        Ok(Evidence { summary, ..Evidence::default() })
    }
}

/// Asks for the cluster's brokers.
async fn brokers(peer: &mut Peer, (lowest, highest): (i16, i16), wanted: u32) -> Result<String, CheckError> {
    // Of version 0 the controller is missing, from 9 on the encoding is another one.
    let version = lowest.max(1);
    if version > highest.min(8) {
        let offered = format!("offers Metadata in versions {lowest} to {highest}, expected one of 1 to 8");
        return Err(peer.unexpected(&offered));
    }
    let awaited = "an answer to Metadata (it tells nothing to clients before SASL)";
    let answer = ask(peer, METADATA, version, no_topics(version), awaited).await?;
    let Some(cluster) = Cluster::read(&answer, version) else { return Err(peer.answered(&answer, awaited)) };
    let Cluster { brokers, has_controller } = cluster;
    let lacks = if brokers < wanted {
        format!("knows {brokers} brokers, expected at least {wanted}")
    } else if !has_controller {
        format!("knows {brokers} brokers and no controller, expected one")
    } else {
        return Ok(format!("{brokers} brokers and a controller"));
    };
    peer.leave(b"").await;
    Err(peer.unexpected(&lacks))
}

/// Sends a request, and gives what its answer holds after the correlation id.
async fn ask(
    peer: &mut Peer,
    api: i16,
    version: i16,
    body: &[u8],
    awaited: &str,
) -> Result<Vec<u8>, CheckError> {
    peer.send(&request(api, version, body)).await?;
    let head = peer.exactly(8, awaited).await?;
    let (length, correlation) = head.split_at(4);
    let length = length.try_into().map_or(0, u32::from_be_bytes);
    if correlation != CORRELATION || !(4..=LONGEST_ANSWER).contains(&length) {
        return Err(peer.answered(&head, awaited));
    }
    peer.exactly(length as usize - 4, awaited).await
}

/// A request with a header of version 1: length, api, version, correlation id, client id.
fn request(api: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let client = b"\0\x09readygate";
    let head = [&api.to_be_bytes()[..], &version.to_be_bytes(), CORRELATION, client, body].concat();
    let length = u32::try_from(head.len()).expect("requests of ours are short");
    [&length.to_be_bytes()[..], &head].concat()
}

/// The body of Metadata for no topic at all; none may be created, no permissions are told.
fn no_topics(version: i16) -> &'static [u8] {
    match version {
        ..=3 => &[0; 4],
        4..=7 => &[0; 5],
        _ => &[0; 7],
    }
}

/// What an answer to ApiVersions of version 0 says of Metadata.
#[derive(Debug, PartialEq)]
enum Offer {
    Error(i16),
    Metadata(Option<(i16, i16)>),
}

impl Offer {
    /// Error code (2), count (4), and for each request its number, lowest and highest version (2 each).
    fn read(answer: &[u8]) -> Option<Self> {
        let mut reader = Reader(answer);
        let error = reader.i16()?;
        if error != 0 {
            return Some(Self::Error(error));
        }
        let count = reader.i32()?;
        let mut metadata = None;
        for _ in 0..count {
            let (api, lowest, highest) = (reader.i16()?, reader.i16()?, reader.i16()?);
            if api == METADATA {
                metadata = Some((lowest, highest));
            }
        }
        (count >= 0 && reader.0.is_empty()).then_some(Self::Metadata(metadata))
    }
}

/// What an answer to Metadata says of the cluster.
#[derive(Debug, PartialEq)]
struct Cluster {
    brokers: u32,
    has_controller: bool,
}

impl Cluster {
    /// [throttle time (4), from version 3], brokers (each: id, host, port, rack), [cluster id, from 2], controller id (4).
    fn read(answer: &[u8], version: i16) -> Option<Self> {
        let mut reader = Reader(answer);
        if version >= 3 {
            reader.i32()?;
        }
        let brokers = u32::try_from(reader.i32()?).ok()?;
        for _ in 0..brokers {
            reader.i32()?;
            reader.text()?;
            reader.i32()?;
            reader.text()?;
        }
        if version >= 2 {
            reader.text()?;
        }
        Some(Self { brokers, has_controller: reader.i32()? >= 0 })
    }
}

/// Takes values from the front; None where they end early.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn i16(&mut self) -> Option<i16> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i16::from_be_bytes(*value))
    }

    fn i32(&mut self) -> Option<i32> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i32::from_be_bytes(*value))
    }

    /// A text that may be null (length -1), passed over.
    fn text(&mut self) -> Option<()> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        self.0 = self.0.get(length..)?;
        Some(())
    }
}

const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;

/// Any number that no other protocol would send back.
const CORRELATION: &[u8] = b"rgck";

/// Bytes of an answer; brokers know some 90 requests (6 bytes each), and a cluster of 1000 brokers takes 64 KiB.
const LONGEST_ANSWER: u32 = 256 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_that_of_the_protocol() {
        assert_eq!(request(18, 0, &[]), b"\0\0\0\x13\0\x12\0\0rgck\0\x09readygate");
    }

    #[test]
    fn an_offer_is_an_error_or_a_range_of_versions() {
        let answer = b"\0\0\0\0\0\x02\0\x12\0\0\0\x04\0\x03\0\x01\0\x0d";
        assert_eq!(Offer::read(answer), Some(Offer::Metadata(Some((1, 13)))));
        assert_eq!(Offer::read(b"\0\0\0\0\0\x01\0\x12\0\0\0\x04"), Some(Offer::Metadata(None)));
        assert_eq!(Offer::read(b"\0\x23\0\0\0\0"), Some(Offer::Error(35)), "UNSUPPORTED_VERSION");
        for bad in [&answer[..17], b"", b"\0\0\x7f\xff\xff\xff", b"\0\0\xff\xff\xff\xff"] {
            assert_eq!(Offer::read(bad), None);
        }
    }

    #[test]
    fn a_cluster_is_read_in_each_version() {
        let broker = b"\0\0\0\x01\0\0\0\x6f\0\x01b\0\0\x23\x84\xff\xff";
        let one = |has_controller| Some(Cluster { brokers: 1, has_controller });
        assert_eq!(Cluster::read(&[&broker[..], b"\0\0\0\x6f\0\0\0\0"].concat(), 1), one(true));
        assert_eq!(Cluster::read(&[&broker[..], b"\xff\xff\xff\xff\0\0\0\0"].concat(), 1), one(false));
        assert_eq!(Cluster::read(&[&[0; 4], &broker[..], b"\0\x02id\0\0\0\x6f"].concat(), 4), one(true));
        assert_eq!(Cluster::read(b"\x7f\xff\xff\xff", 1), None);
    }

    #[test]
    fn no_broker_at_all_is_not_to_be_waited_for() {
        let own = Own(json!({ "address": "k:9092", "min_brokers": 0 }));
        assert_eq!(accept(&own, &[]).expect_err("refused")[0].path, ["min_brokers"]);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(answer in prop::collection::vec(any::<u8>(), 0..200), version in 1_i16..9) {
            let _ = (Offer::read(&answer), Cluster::read(&answer, version));
        }
    }
}
