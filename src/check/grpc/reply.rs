//! The answer to a call: is it gRPC, with which status, and with which message.

use std::fmt;

use http::header::{CONTENT_TYPE, HeaderMap};

use crate::check::own::one_line;

/// A complete answer over HTTP/2.
#[derive(Clone, Debug)]
pub(in crate::check) struct Reply {
    pub status: http::StatusCode,
    pub head: HeaderMap,
    pub trailers: Option<HeaderMap>,
    /// Messages behind their prefixes.
    pub body: Vec<u8>,
}

/// How the call ended, in the server's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::check) struct Status {
    pub code: u32,
    /// One line; may be empty.
    message: String,
}

impl Reply {
    /// The status, from the trailers or from an answer that is nothing but trailers.
    ///
    /// # Errors
    ///
    /// What the server did instead of speaking gRPC; goes on after its name.
    pub(in crate::check) fn status(&self) -> Result<Status, String> {
        let kind = self.head.get(CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()));
        if !kind.as_deref().is_some_and(is_grpc) {
            return Err(match (self.status.as_u16(), kind) {
                (200, Some(kind)) => {
                    format!("answered with content-type {}, expected application/grpc", one_line(&kind, 80))
                }
                (200, None) => "answered without a content-type, expected application/grpc".to_owned(),
                (status, _) => format!("answered HTTP {status} and no gRPC, expected a gRPC server"),
            });
        }
        let holder = self.trailers.iter().chain([&self.head]).find(|fields| fields.contains_key(STATUS));
        let Some((holder, code)) = holder.and_then(|holder| Some((holder, holder.get(STATUS)?))) else {
            return Err(match self.status.as_u16() {
                200 => "ended its answer without a grpc-status, expected one".to_owned(),
                status => format!("answered HTTP {status} without a grpc-status, expected one"),
            });
        };
        let code = code.to_str().ok().and_then(|code| code.parse().ok());
        let code = code.ok_or("answered with a grpc-status that is not a number, expected 0 to 16")?;
        let message = holder.get(MESSAGE).map(|message| one_line(&decoded(message.as_bytes()), 200));
        Ok(Status { code, message: message.unwrap_or_default() })
    }

    /// The one message of the answer.
    ///
    /// # Errors
    ///
    /// What the body is instead; goes on after the server's name.
    pub(in crate::check) fn message(&self) -> Result<&[u8], &'static str> {
        let Some((prefix, rest)) = self.body.split_first_chunk::<5>() else {
            return Err("answered OK without a message, expected one");
        };
        let [compressed, length @ ..] = prefix;
        if *compressed != 0 {
            return Err("answered with a compressed message, expected a plain one");
        }
        if u32::from_be_bytes(*length) as usize != rest.len() {
            return Err("answered with a body that is not one message, expected one");
        }
        Ok(rest)
    }
}

impl Status {
    /// `UNAVAILABLE (14)`.
    pub(in crate::check) fn name(&self) -> String {
        match usize::try_from(self.code).ok().and_then(|code| NAMES.get(code)) {
            Some(name) => format!("{name} ({})", self.code),
            None => format!("the unknown grpc-status {}", self.code),
        }
    }
}

impl fmt::Display for Status {
    /// The name, and the server's words if it has any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if self.message.is_empty() { Ok(()) } else { write!(f, " \"{}\"", self.message) }
    }
}

/// `application/grpc`, `application/grpc+proto`, `application/grpc; charset=utf-8`; not `application/grpc-web`.
fn is_grpc(kind: &str) -> bool {
    let name = "application/grpc";
    let beginning = kind.get(..name.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(name));
    beginning && matches!(kind.as_bytes().get(name.len()), None | Some(b'+' | b';' | b' '))
}

/// Percent-decoding as gRPC has it: what is broken stays as it is.
fn decoded(text: &[u8]) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, others @ ..] = rest {
        match (first, digit(others.first()), digit(others.get(1))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &others[2..];
            }
            _ => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

/// By their codes.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        };
        fields.iter().map(field).collect()
    }

    fn reply(status: u16, head: &[(&'static str, &str)], trailers: &[(&'static str, &str)]) -> Reply {
        let trailers = (!trailers.is_empty()).then(|| fields(trailers));
        let status = http::StatusCode::from_u16(status).expect("a status");
        Reply { status, head: fields(head), trailers, body: Vec::new() }
    }

    const GRPC: (&str, &str) = ("content-type", "application/grpc");

    #[test]
    fn the_status_comes_from_the_trailers_or_from_an_answer_of_trailers_only() {
        let shown = |reply: Reply| reply.status().map(|status| status.to_string());
        assert_eq!(shown(reply(200, &[GRPC], &[("grpc-status", "0")])), Ok("OK (0)".to_owned()));
        let message = ("grpc-message", "a%20b%0d%zz%");
        assert_eq!(
            shown(reply(200, &[GRPC, ("grpc-status", "14"), message], &[])),
            Ok("UNAVAILABLE (14) \"a b %zz%\"".to_owned())
        );
        let both = reply(200, &[GRPC, ("grpc-status", "0")], &[("grpc-status", "99")]);
        assert_eq!(shown(both), Ok("the unknown grpc-status 99".to_owned()));
    }

    #[test]
    fn what_is_not_grpc_is_told() {
        for (reply, why) in [
            (reply(404, &[("content-type", "text/html")], &[]), "answered HTTP 404 and no gRPC"),
            (
                reply(200, &[("content-type", "application/grpc-web")], &[]),
                "content-type application/grpc-web,",
            ),
            (reply(200, &[], &[("grpc-status", "0")]), "without a content-type"),
            (reply(200, &[GRPC], &[]), "ended its answer without a grpc-status"),
            (reply(503, &[GRPC], &[]), "answered HTTP 503 without a grpc-status"),
            (reply(200, &[GRPC], &[("grpc-status", "ok")]), "not a number"),
        ] {
            let error = reply.status().expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        for good in ["application/grpc+proto", "Application/gRPC;x=y", "application/grpc"] {
            assert!(is_grpc(good), "{good}");
        }
    }

    #[test]
    fn a_unary_answer_has_one_plain_message() {
        let message =
            |body: &[u8]| Reply { body: body.to_vec(), ..reply(200, &[], &[]) }.message().map(<[u8]>::to_vec);
        assert_eq!(message(&[0, 0, 0, 0, 2, 8, 1]), Ok(vec![8, 1]));
        assert_eq!(message(&[0, 0, 0, 0, 0]), Ok(Vec::new()));
        for bad in [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 1], &[0, 0, 0, 0, 0, 0]] {
            assert!(message(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_body_and_no_words_of_a_server_break_it(
            body in prop::collection::vec(any::<u8>(), 0..40),
            code in "[ -~]{0,12}",
            words in prop::collection::vec(0x20_u8..0xff, 0..400),
        ) {
            let mut reply = Reply { body, ..reply(200, &[GRPC, ("grpc-status", &code)], &[]) };
            if let Ok(words) = HeaderValue::from_bytes(&words) {
                reply.head.insert(MESSAGE, words);
            }
            let _ = reply.message();
            let shown = reply.status().map_or_else(|error| error, |status| status.to_string());
            prop_assert!(shown.chars().count() < 300 && !shown.contains(char::is_control), "{}", shown);
        }
    }
}
