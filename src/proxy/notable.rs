//! Which fields of a head matter on its way: found in one pass, where a look-up for each would cost more than
//! all that is done with them.
//!
//! A field that is noted may have been removed since; one that is not noted is not there.

use http::header::HeaderMap;

use crate::traffic::WARMUP_HEADER;

/// A set of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notable(u16);

impl Notable {
    pub const CONNECTION: Self = Self(1);
    pub const KEEP_ALIVE: Self = Self(1 << 1);
    pub const PROXY_CONNECTION: Self = Self(1 << 2);
    pub const TE: Self = Self(1 << 3);
    pub const TRANSFER_ENCODING: Self = Self(1 << 4);
    pub const UPGRADE: Self = Self(1 << 5);
    pub const HTTP2_SETTINGS: Self = Self(1 << 6);
    pub const CONTENT_LENGTH: Self = Self(1 << 7);
    pub const EXPECT: Self = Self(1 << 8);
    pub const COOKIE: Self = Self(1 << 9);
    pub const FORWARDED_FOR: Self = Self(1 << 10);
    pub const FORWARDED_PROTO: Self = Self(1 << 11);
    pub const FORWARDED_HOST: Self = Self(1 << 12);
    pub const WARMUP: Self = Self(1 << 13);

    /// Of one connection (RFC 9110, 7.6.1), beside [`Self::CONNECTION`] and what that names.
    pub const HOP_BY_HOP_ALONE: Self = Self::KEEP_ALIVE
        .and(Self::PROXY_CONNECTION)
        .and(Self::TE)
        .and(Self::TRANSFER_ENCODING)
        .and(Self::UPGRADE)
        .and(Self::HTTP2_SETTINGS);

    /// These and those.
    pub const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Those that a head has.
    pub fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |found, name| found | bit(name.as_str())))
    }

    /// Whether any of these may be there.
    pub fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }
}

fn bit(name: &str) -> u16 {
    let field = match name {
        "connection" => Notable::CONNECTION,
        "keep-alive" => Notable::KEEP_ALIVE,
        "proxy-connection" => Notable::PROXY_CONNECTION,
        "te" => Notable::TE,
        "transfer-encoding" => Notable::TRANSFER_ENCODING,
        "upgrade" => Notable::UPGRADE,
        "http2-settings" => Notable::HTTP2_SETTINGS,
        "content-length" => Notable::CONTENT_LENGTH,
        "expect" => Notable::EXPECT,
        "cookie" => Notable::COOKIE,
        "x-forwarded-for" => Notable::FORWARDED_FOR,
        "x-forwarded-proto" => Notable::FORWARDED_PROTO,
        "x-forwarded-host" => Notable::FORWARDED_HOST,
        WARMUP_HEADER => Notable::WARMUP,
        _ => return 0,
    };
    field.0
}

#[cfg(test)]
mod tests {
    use http::header::{self, HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn every_field_is_found_and_no_other() {
        let all = [
            (header::CONNECTION, Notable::CONNECTION),
            (HeaderName::from_static("keep-alive"), Notable::KEEP_ALIVE),
            (HeaderName::from_static("proxy-connection"), Notable::PROXY_CONNECTION),
            (header::TE, Notable::TE),
            (header::TRANSFER_ENCODING, Notable::TRANSFER_ENCODING),
            (header::UPGRADE, Notable::UPGRADE),
            (HeaderName::from_static("http2-settings"), Notable::HTTP2_SETTINGS),
            (header::CONTENT_LENGTH, Notable::CONTENT_LENGTH),
            (header::EXPECT, Notable::EXPECT),
            (header::COOKIE, Notable::COOKIE),
            (HeaderName::from_static("x-forwarded-for"), Notable::FORWARDED_FOR),
            (HeaderName::from_static("x-forwarded-proto"), Notable::FORWARDED_PROTO),
            (HeaderName::from_static("x-forwarded-host"), Notable::FORWARDED_HOST),
            (HeaderName::from_static(WARMUP_HEADER), Notable::WARMUP),
        ];
        for (name, field) in &all {
            let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("1"))]);
            let found = Notable::of(&headers);
            for (_, other) in &all {
                assert_eq!(found.has(*other), field == other, "{name}");
            }
        }
        let plain = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("*/*"))]);
        assert_eq!(Notable::of(&plain), Notable(0));
    }
}
