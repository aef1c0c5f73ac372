//! `mongodb`: `hello` is answered by a server that takes reads or writes. Experimental: tried against the documented
//! wire protocol only, for want of a server that could be had for tests.
//!
//! `hello` needs no credentials. A standalone server, a primary and a `mongos` answer `isWritablePrimary: true`, a
//! secondary `secondary: true`; both pass. Neither comes from a server that starts up, recovers, rolls back, only votes
//! (an arbiter), or belongs to a replica set that was never initiated. `ok: 0` fails with the server's words, as of
//! one that shuts down (91, 11600). OP_MSG and `hello` are spoken by MongoDB 4.4 and newer.

use schemars::{JsonSchema, SchemaGenerator};

use super::own;
use super::peer::{self, Keys, Peer};
use super::{Check, CheckFuture, CheckResult, Evidence, Kind};
use crate::config::{self, Gates};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "mongodb",
        passes_when: "`hello` is answered by a primary, a secondary, a standalone server or a `mongos`; starting up, \
                      recovering, an arbiter and `ok: 0` fail (experimental)",
        gates: |_, _| Gates::Startup,
        accept: |own, _| Keys::accept(own),
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["mongodb"],
        from_url: |url| peer::from_url(url, 27017),
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| {
        Box::new(MongoDb { keys: own::parse(&spec.own).expect("configuration accepted the keys") })
    },
};

#[derive(Debug)]
struct MongoDb {
    keys: Keys,
}

impl Check for MongoDb {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.attempt())
    }

    fn tests(&self) -> String {
        format!("connects to {}, sends hello, and expects a server that takes work", self.keys)
    }
}

impl MongoDb {
    async fn attempt(&self) -> CheckResult {
        let mut peer = Peer::greet(&self.keys.address, &self.keys.tls).await?;
        peer.send(HELLO).await?;
        // Header (length, number of the answer, number of the question, OP_MSG), flags, kind of section.
        let head = peer.exactly(21, AWAITED).await?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if head[8..16] != HELLO[4..8].iter().chain(OP_MSG).copied().collect::<Vec<_>>()[..]
            || head[20] != 0
            || !(21..=LONGEST_ANSWER).contains(&length)
        {
            return Err(peer.answered(&head, AWAITED));
        }
        let document = peer.exactly(length as usize - 21, AWAITED).await?;
        let Some(hello) = Hello::read(&document) else { return Err(peer.answered(&document, AWAITED)) };
        peer.leave(b"").await;
        match hello.verdict() {
            Ok(summary) => Ok(Evidence { summary, ..Evidence::default() }),
            Err(reason) => Err(peer.unexpected(&reason)),
        }
    }
}

/// What of the answer matters.
#[derive(Debug, Default, PartialEq)]
struct Hello {
    ok: bool,
    writable: bool,
    secondary: bool,
    arbiter: bool,
    /// Not yet initiated, or not yet read its configuration.
    unconfigured: bool,
    mongos: bool,
    set: Option<String>,
    code: Option<f64>,
    error: String,
}

impl Hello {
    /// Reads a BSON document (bsonspec.org, version 1.1) as far as it goes; None if that is not to its end.
    fn read(document: &[u8]) -> Option<Self> {
        let (length, fields) = document.split_first_chunk()?;
        if u32::from_le_bytes(*length) as usize != document.len() {
            return None;
        }
        let (mut hello, mut rest) = (Self::default(), fields);
        loop {
            let (&kind, after) = rest.split_first()?;
            if kind == 0 {
                return after.is_empty().then_some(hello);
            }
            let end = after.iter().position(|&byte| byte == 0)?;
            let (name, after) = (&after[..end], &after[end + 1..]);
            let (value, after) = Value::read(kind, after)?;
            hello.note(name, &value);
            rest = after;
        }
    }

    fn note(&mut self, name: &[u8], value: &Value<'_>) {
        match name {
            b"ok" => self.ok = value.holds(),
            b"isWritablePrimary" | b"ismaster" => self.writable |= value.holds(),
            b"secondary" => self.secondary = value.holds(),
            b"arbiterOnly" => self.arbiter = value.holds(),
            b"isreplicaset" => self.unconfigured = value.holds(),
            b"msg" => self.mongos = *value == Value::Text(b"isdbgrid"),
            b"setName" => self.set = value.text(),
            b"code" => self.code = value.number(),
            b"errmsg" => self.error = value.text().unwrap_or_default(),
            _ => {}
        }
    }

    fn verdict(&self) -> Result<String, String> {
        let member = |role: &str| match &self.set {
            Some(set) => own::one_line(&format!("{role} of {set}"), 80),
            None => role.to_owned(),
        };
        if !self.ok {
            let code = self.code.map_or_else(String::new, |code| format!("{code} "));
            return Err(format!("refused hello: {code}{}", self.error));
        }
        if self.writable {
            let role = if self.mongos { "mongos" } else { "primary" };
            return Ok(if self.mongos || self.set.is_some() {
                member(role)
            } else {
                "standalone server".to_owned()
            });
        }
        if self.secondary {
            return Ok(member("secondary"));
        }
        let state = if self.arbiter {
            "is an arbiter"
        } else if self.unconfigured {
            "has no configuration of its replica set yet"
        } else {
            "is neither primary nor secondary (it starts up, recovers or rolls back)"
        };
        Err(format!("{state}, expected a server that takes reads or writes"))
    }
}

/// A value of BSON, as far as it matters here.
#[derive(Debug, PartialEq)]
enum Value<'a> {
    Number(f64),
    Truth(bool),
    Text(&'a [u8]),
    Other,
}

impl<'a> Value<'a> {
    /// The value at the front of `bytes`, and what follows it.
    fn read(kind: u8, bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let length = || bytes.first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
        let size = match kind {
            // Double, date, int64, timestamp; int32; boolean; null, undefined, least and greatest.
            0x01 | 0x09 | 0x11 | 0x12 => 8,
            0x10 => 4,
            0x08 => 1,
            0x06 | 0x0a | 0x7f | 0xff => 0,
            // Text, code, symbol; document and array (which count their own length); binary; ObjectId; decimal.
            0x02 | 0x0d | 0x0e => length()?.checked_add(4)?,
            0x03 | 0x04 => length()?.max(5),
            0x05 => length()?.checked_add(5)?,
            0x07 => 12,
            0x13 => 16,
            _ => return None,
        };
        let (value, rest) = bytes.split_at_checked(size)?;
        let value = match kind {
            0x01 => Self::Number(f64::from_le_bytes(value.try_into().ok()?)),
            0x10 => Self::Number(i32::from_le_bytes(value.try_into().ok()?).into()),
            // Codes and truths are small.
            0x12 => Self::Number(i64::from_le_bytes(value.try_into().ok()?) as f64),
            0x08 => Self::Truth(value == [1]),
            0x02 => Self::Text(value.get(4..)?.strip_suffix(b"\0")?),
            _ => Self::Other,
        };
        Some((value, rest))
    }

    fn holds(&self) -> bool {
        matches!(self, Self::Truth(true)) || self.number().is_some_and(|number| number != 0.0)
    }

    fn number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    fn text(&self) -> Option<String> {
        if let Self::Text(text) = self { Some(String::from_utf8_lossy(text).into_owned()) } else { None }
    }
}

/// OP_MSG with the document `{ hello: 1, $db: "admin" }`.
const HELLO: &[u8] = b"\x34\0\0\0rgck\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\
    \x1f\0\0\0\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0";

const OP_MSG: &[u8] = b"\xdd\x07\0\0";

const AWAITED: &str = "an answer to hello";

/// Bytes; an answer of a set of 50 members takes some 3 KiB.
const LONGEST_ANSWER: u32 = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document(fields: &[u8]) -> Vec<u8> {
        let length = u32::try_from(fields.len() + 5).expect("short");
        [&length.to_le_bytes()[..], fields, b"\0"].concat()
    }

    fn verdict(fields: &[u8]) -> Result<String, String> {
        Hello::read(&document(fields)).expect("a document").verdict()
    }

    const OK: &[u8] = b"\x01ok\0\0\0\0\0\0\0\xf0\x3f";

    #[test]
    fn the_question_is_well_formed() {
        assert_eq!(usize::from(HELLO[0]), HELLO.len());
        assert_eq!(usize::from(HELLO[21]), HELLO.len() - 21);
        assert!(Hello::read(&HELLO[21..]).is_some());
    }

    #[test]
    fn only_those_that_take_reads_or_writes_pass() {
        let with = |fields: &[u8]| verdict(&[fields, OK].concat());
        let writable = b"\x08isWritablePrimary\0\x01";
        let set = b"\x02setName\0\x04\0\0\0rs0\0";
        assert_eq!(with(writable), Ok("standalone server".to_owned()));
        assert_eq!(with(&[&writable[..], set].concat()), Ok("primary of rs0".to_owned()));
        let mongos = b"\x02msg\0\x09\0\0\0isdbgrid\0";
        assert_eq!(with(&[&writable[..], mongos].concat()), Ok("mongos".to_owned()));
        assert_eq!(with(&[&b"\x08secondary\0\x01"[..], set].concat()), Ok("secondary of rs0".to_owned()));
        for (fields, why) in [
            (&b"\x08secondary\0\0"[..], "is neither primary nor secondary"),
            (b"\x08arbiterOnly\0\x01", "is an arbiter"),
            (b"\x08isreplicaset\0\x01", "has no configuration of its replica set yet"),
            (b"", "is neither primary nor secondary"),
        ] {
            assert!(with(fields).expect_err(why).starts_with(why));
        }
    }

    #[test]
    fn a_server_that_says_no_is_quoted() {
        let error = b"\x01ok\0\0\0\0\0\0\0\0\0\x10code\0\x5b\0\0\0\x02errmsg\0\x05\0\0\0busy\0";
        assert_eq!(verdict(error), Err("refused hello: 91 busy".to_owned()));
        assert_eq!(verdict(b""), Err("refused hello: ".to_owned()));
    }

    #[test]
    fn a_document_is_read_to_its_end_or_not_at_all() {
        let nested =
            b"\x03a\0\x05\0\0\0\0\x04b\0\x05\0\0\0\0\x07c\0abcdefghijkl\x05d\0\x01\0\0\0\0x\x11e\0--------";
        assert_eq!(Hello::read(&document(&[nested, OK].concat())).map(|hello| hello.ok), Some(true));
        for bad in [&b"\x02msg\0\xff\xff\xff\xff"[..], b"\x03a\0\xff\xff\xff\x7f", b"\x20a\0", b"\x08a"] {
            assert_eq!(Hello::read(&document(bad)), None);
        }
        assert_eq!(Hello::read(b"\x06\0\0\0\0"), None);
    }

    proptest! {
        #[test]
        fn no_document_makes_it_panic(fields in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Hello::read(&document(&fields)).map(|hello| hello.verdict());
        }
    }
}
