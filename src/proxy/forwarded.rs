//! Whom a request came from, and how: `X-Forwarded-For`, `-Proto` and `-Host`.

use http::header::{self, HeaderMap, HeaderValue};

use crate::config::Forwarded;

use super::message::Lines;
use super::notable::Notable;

/// The client's side of it.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'c> {
    /// Its address.
    pub peer: &'c HeaderValue,
    /// The scheme it came by.
    pub proto: &'static str,
}

/// Tells the app. What the client says of it is in the map; what is ours alone goes with the fields that pass.
pub fn tell(
    headers: &mut HeaderMap,
    lines: &mut Lines,
    notable: Notable,
    policy: Forwarded,
    whose: Whose<'_>,
) {
    let keeps = match policy {
        Forwarded::Off => return,
        Forwarded::Append => true,
        Forwarded::Replace => false,
    };
    for (field, name) in FIELDS {
        if notable.has(field) {
            if keeps {
                continue;
            }
            headers.remove(name);
        }
        match field {
            Notable::FORWARDED_FOR => lines.add(name, whose.peer.as_bytes()),
            Notable::FORWARDED_PROTO => lines.add(name, whose.proto.as_bytes()),
            _ => {
                if let Some(host) = headers.get(header::HOST) {
                    lines.add(name, host.as_bytes());
                }
            }
        }
    }
    if keeps && notable.has(Notable::FORWARDED_FOR) {
        append(headers, whose.peer);
    }
}

const FIELDS: [(Notable, &str); 3] = [
    (Notable::FORWARDED_FOR, FORWARDED_FOR),
    (Notable::FORWARDED_PROTO, "x-forwarded-proto"),
    (Notable::FORWARDED_HOST, "x-forwarded-host"),
];

/// One line in the end, whatever came: the way as far as it is known, then our peer.
fn append(headers: &mut HeaderMap, peer: &HeaderValue) {
    let mut line = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        line.extend_from_slice(value.as_bytes());
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(peer.as_bytes());
    // Parts that were valid are valid together.
    let value = HeaderValue::from_bytes(&line).unwrap_or_else(|_| peer.clone());
    headers.insert(FORWARDED_FOR, value);
}

const FORWARDED_FOR: &str = "x-forwarded-for";

#[cfg(test)]
mod tests {
    use super::super::message::map;
    use super::*;

    /// What the app hears in the end.
    fn told(mut headers: HeaderMap, policy: Forwarded, proto: &'static str) -> HeaderMap {
        let (notable, mut lines) = (Notable::of(&headers), Lines::default());
        let peer = HeaderValue::from_static("10.0.0.9");
        tell(&mut headers, &mut lines, notable, policy, Whose { peer: &peer, proto });
        lines.read_into(&mut headers);
        headers
    }

    #[test]
    fn append_tells_the_whole_way_in_one_line() {
        let headers = map(&[("host", "a"), ("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")]);
        let expected = map(&[
            ("host", "a"),
            ("x-forwarded-for", "1.1.1.1, 2.2.2.2, 10.0.0.9"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "a"),
        ]);
        assert_eq!(told(headers, Forwarded::Append, "http"), expected);
        let said = map(&[("x-forwarded-proto", "https"), ("x-forwarded-host", "b"), ("host", "a")]);
        let expected = map(&[
            ("host", "a"),
            ("x-forwarded-for", "10.0.0.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "b"),
        ]);
        assert_eq!(told(said, Forwarded::Append, "http"), expected);
    }

    #[test]
    fn replace_believes_nobody_and_off_touches_nothing() {
        let lies = map(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-host", "evil")]);
        let expected = map(&[("x-forwarded-for", "10.0.0.9"), ("x-forwarded-proto", "https")]);
        assert_eq!(told(lies.clone(), Forwarded::Replace, "https"), expected);
        assert_eq!(told(lies.clone(), Forwarded::Off, "http"), lies);
    }
}
