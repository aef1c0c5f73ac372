//! `GET /`: the status page, one file that loads nothing else.
//!
//! It reads `/status` and `/events` of its own origin. What checks and servers say becomes text there, never markup; the
//! policy below would not run it otherwise either: only the page's own script and style, known by their hashes, count.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use http::{HeaderValue, Response, StatusCode};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

/// The page, as it is sent.
pub fn page() -> Response<Bytes> {
    let mut response = super::routes::full(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

const PAGE: &str = include_str!("page.html");

static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        allowed(between("<style>", "</style>")),
        allowed(between("<script>", "</script>")),
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// What stands between two tags of the page, to the byte.
fn between(begin: &str, end: &str) -> &'static str {
    let rest = PAGE.split_once(begin).map_or("", |(_, rest)| rest);
    rest.split_once(end).map_or("", |(inside, _)| inside)
}

/// As a policy names it: by SHA-256, which the TLS library brings along.
fn allowed(text: &str) -> String {
    let suite = TLS13_AES_128_GCM_SHA256.tls13();
    let hash = suite.map(|suite| STANDARD.encode(suite.common.hash_provider.hash(text.as_bytes()).as_ref()));
    hash.map_or("'none'".to_owned(), |hash| format!("'sha256-{hash}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_allows_the_pages_own_script_and_style_and_nothing_else() {
        // From the specification of content security policies, level 2.
        assert_eq!(
            allowed("alert('Hello, world.');"),
            "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
        );
        let response = page();
        let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().expect("text");
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        for (begin, end) in [("<style>", "</style>"), ("<script>", "</script>")] {
            assert!(policy.contains(&allowed(between(begin, end))) && between(begin, end).len() > 1000);
            assert_eq!((PAGE.matches(begin).count(), PAGE.matches(end).count()), (1, 1));
        }
    }

    #[test]
    fn page_loads_nothing_from_elsewhere_and_makes_no_markup_of_what_it_is_told() {
        for forbidden in [
            "//cdn",
            "http:",
            "https:",
            "src=",
            "@import",
            "url(",
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "style=",
            "onclick",
            "href=\"/",
        ] {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
        assert!(PAGE.contains("width=device-width"), "readable on a phone");
        assert!(PAGE.len() < 16 * 1024, "{} bytes", PAGE.len());
    }
}
