//! What is odd and has one meaning, in which it reaches the app.

use super::case::{Case, Expected, Form, HOST, SMUGGLED, case, forwarded};

/// All of it.
pub fn oddities() -> Vec<Case> {
    const NONE: &[(&str, Option<&str>)] = &[("content-length", None), ("transfer-encoding", None)];
    let post = |rest: &str| format!("POST /a HTTP/1.1\r\n{HOST}{rest}");
    vec![
        case(
            "an empty line before",
            format!("\r\n\r\nGET /a HTTP/1.1\r\n{HOST}\r\n"),
            forwarded("GET /a HTTP/1.1", "", NONE),
        ),
        case("an old client", "GET /a HTTP/1.0\r\n\r\n", forwarded("GET /a HTTP/1.1", "", NONE)),
        case(
            "absolute form",
            "GET http://APP.test:80/a?b HTTP/1.1\r\nHost: app.test\r\n\r\n",
            forwarded("GET /a?b HTTP/1.1", "", &[("host", Some("APP.test:80"))]),
        ),
        case(
            "two slashes",
            format!("GET //evil.test/a HTTP/1.1\r\n{HOST}\r\n"),
            forwarded("GET //evil.test/a HTTP/1.1", "", NONE),
        ),
        case(
            "dots and escapes",
            format!("GET /../%2e%00%0d%0a HTTP/1.1\r\n{HOST}\r\n"),
            forwarded("GET /../%2e%00%0d%0a HTTP/1.1", "", NONE),
        ),
        case(
            "an unknown method",
            format!("M-SEARCH /a HTTP/1.1\r\n{HOST}\r\n"),
            forwarded("M-SEARCH /a HTTP/1.1", "", NONE),
        ),
        case(
            "blanks around a value",
            post("A:\t 1 \t\r\n\r\n"),
            forwarded("POST /a HTTP/1.1", "", &[("a", Some("1"))]),
        ),
        case("an empty value", post("A:\r\n\r\n"), forwarded("POST /a HTTP/1.1", "", &[("a", Some(""))])),
        case(
            "IPv6",
            "GET /a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
            forwarded("GET /a HTTP/1.1", "", &[("host", Some("[::1]:80"))]),
        ),
        case(
            "a request as a body",
            post(&format!("Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len())),
            forwarded("POST /a HTTP/1.1", SMUGGLED, &[("content-length", Some("42"))]),
        ),
        case(
            "a request as the body of GET",
            format!("GET /a HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
            forwarded("GET /a HTTP/1.1", SMUGGLED, &[("content-length", Some("42"))]),
        ),
        case(
            "a request as a chunk",
            post(&format!(
                "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n",
                SMUGGLED.len()
            )),
            forwarded("POST /a HTTP/1.1", SMUGGLED, &[("transfer-encoding", Some("chunked"))]),
        ),
        case(
            "zeros before a length",
            post("Content-Length: 005\r\n\r\nhello"),
            forwarded("POST /a HTTP/1.1", "hello", &[("content-length", Some("5"))]),
        ),
        case(
            "chunks in capitals, zeros, an extension, a trailer nobody announced",
            post("TRANSFER-ENCODING: ChunkeD\r\n\r\n0005;a=\"b;c\"\r\nhello\r\n00\r\nX: 1\r\n\r\n"),
            forwarded("POST /a HTTP/1.1", "hello", &[("transfer-encoding", Some("chunked")), ("x", None)]),
        ),
        case(
            "an upgrade to h2c with a body",
            post(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 5\r\n\r\nhello",
            ),
            forwarded(
                "POST /a HTTP/1.1",
                "hello",
                &[("upgrade", None), ("http2-settings", None), ("connection", None)],
            ),
        ),
        case(
            "a field that Connection may name",
            post("Connection: X-Mine\r\nX-Mine: 1\r\n\r\n"),
            forwarded("POST /a HTTP/1.1", "", &[("x-mine", None), ("connection", None)]),
        ),
        case(
            "names that only look like those that frame",
            post("Content_Length: 45\r\nContent-Length2: 45\r\nTransfer-Encodings: chunked\r\n\r\n"),
            forwarded("POST /a HTTP/1.1", "", NONE),
        ),
        case(
            "a good request, then a bad one",
            format!("GET /a HTTP/1.1\r\n{HOST}\r\nGET /b HTTP/1.1\r\n{HOST}A : 1\r\n\r\n{SMUGGLED}"),
            Expected { refused: true, ..forwarded("GET /a HTTP/1.1", "", NONE) },
        ),
        case(
            "one byte more than the body",
            post(&format!("Content-Length: 5\r\n\r\nhello!{SMUGGLED}")),
            // The byte makes a method of it.
            Expected {
                forwarded: vec![
                    Form { line: "POST /a HTTP/1.1", body: "hello", fields: vec![] },
                    Form { line: "!GET /smuggled HTTP/1.1", body: "", fields: vec![] },
                ],
                refused: false,
            },
        ),
    ]
}
