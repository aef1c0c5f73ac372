//! Fields that pass through as they came: nobody here needs to know what they say.
//!
//! To read a field into a map and write it anew costs more than all else that is done for it; most answers have six
//! such fields and two that matter here.

use http::header::{self, HeaderMap, HeaderValue};

use crate::traffic::WARMUP_HEADER;

use super::grammar::{Field, field};
use super::outgoing::write_field;

/// Whether a field of either kind of message does not: it says where a request goes or whom it comes from, frames a body,
/// or belongs to one connection.
pub fn matters(name: &[u8]) -> bool {
    let one_of = |names: &[&str]| names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
    // All names of a length, so that most fields are compared with none.
    match name.len() {
        2 => one_of(&["te"]),
        4 => one_of(&["host"]),
        6 => one_of(&["expect"]),
        7 => one_of(&["trailer", "upgrade"]),
        10 => one_of(&["connection", "keep-alive"]),
        14 => one_of(&["content-length", "http2-settings"]),
        15 => one_of(&["x-forwarded-for"]),
        16 => one_of(&["proxy-connection", "x-forwarded-host"]),
        17 => one_of(&["transfer-encoding", "x-forwarded-proto"]),
        18 => one_of(&[WARMUP_HEADER]),
        _ => false,
    }
}

/// Whether `Connection` takes fields away that may be among the lines.
pub fn names_others(headers: &HeaderMap) -> bool {
    let is_usual = |value: &HeaderValue| {
        let is = |usual: &&str| value.as_bytes().eq_ignore_ascii_case(usual.as_bytes());
        ["close", "keep-alive", "upgrade"].iter().any(is)
    };
    !headers.get_all(header::CONNECTION).iter().all(is_usual)
}

/// Whole lines, by the letter of RFC 9112, 5, with their ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Adds lines that [`field`] took.
    pub fn push(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        self.make_room(lines.len());
        self.0.extend_from_slice(lines);
    }

    /// Adds a field.
    pub fn add(&mut self, name: &str, value: &[u8]) {
        self.make_room(0);
        write_field(name, value, &mut self.0);
    }

    fn make_room(&mut self, bytes: usize) {
        if self.0.capacity() == 0 {
            self.0.reserve(bytes.max(ROOM));
        }
    }

    /// As HTTP/1 has them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds them to a map, for HTTP/2.
    pub fn read_into(&self, headers: &mut HeaderMap) {
        let mut rest = &self.0[..];
        while let Ok(Some((Field::Field { name, value }, taken))) = field(rest) {
            rest = &rest[taken..];
            // What the grammar takes, the crate does too: see the test.
            if let (Ok(name), Ok(value)) = (super::name(name), HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        }
    }
}

/// Room for those of most heads.
const ROOM: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn notable_fields_of_http1_matter_in_any_case_of_letters() {
        for name in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "transfer-encoding",
            "upgrade",
            "http2-settings",
            "content-length",
            "expect",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            WARMUP_HEADER,
        ] {
            assert!(matters(name.as_bytes()) && matters(name.to_uppercase().as_bytes()), "{name}");
        }
        for name in ["host", "Trailer"] {
            assert!(matters(name.as_bytes()), "{name}");
        }
        for name in ["", "date", "Cookie", "content-type", "x-forwarded-by", "tf"] {
            assert!(!matters(name.as_bytes()), "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_line_is_a_field_of_the_map(
            fields in prop::collection::vec(("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,30}", prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        ) {
            let (mut lines, mut expected) = (Lines::default(), Vec::new());
            for (name, value) in &fields {
                let line = [name.as_bytes(), b": ", value, b"\r\n"].concat();
                let Ok(Some((Field::Field { value, .. }, taken))) = field(&line) else { continue };
                // One that ends before is the end of a line that has more.
                if taken < line.len() {
                    continue;
                }
                expected.push((name.to_lowercase(), value.to_vec()));
                lines.push(&line);
            }
            let mut headers = HeaderMap::new();
            lines.read_into(&mut headers);
            let mut found: Vec<_> =
                headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
            // The map keeps fields of one name together.
            found.sort();
            expected.sort();
            prop_assert_eq!(found, expected);
        }
    }
}
