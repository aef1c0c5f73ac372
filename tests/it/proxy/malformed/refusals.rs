//! What is refused: the request smuggled behind it reaches nobody.

use super::case::{Case, HOST, chunks, fields, head};

/// All of it.
pub fn refusals() -> Vec<Case> {
    [request_lines(), hosts(), lengths(), field_lines(), broken_chunks()].into_iter().flatten().collect()
}

fn request_lines() -> Vec<Case> {
    let host = |line: &str| format!("{line}{HOST}\r\n");
    vec![
        head("HTTP/0.9", "GET /a\r\n\r\n"),
        head("HTTP/0.9 with fields", host("GET /a\r\n")),
        head("no target", host("GET HTTP/1.1\r\n")),
        head("empty target", host("GET  HTTP/1.1\r\n")),
        head("two spaces before the target", host("GET  /a HTTP/1.1\r\n")),
        head("two spaces after the target", host("GET /a  HTTP/1.1\r\n")),
        head("a tab for a space", host("GET\t/a HTTP/1.1\r\n")),
        head("a tab after the target", host("GET /a\tHTTP/1.1\r\n")),
        head("a space before the method", host(" GET /a HTTP/1.1\r\n")),
        head("a space after the version", host("GET /a HTTP/1.1 \r\n")),
        head("a space within the target", host("GET /a b HTTP/1.1\r\n")),
        head("HTTP/1.2", host("GET /a HTTP/1.2\r\n")),
        head("HTTP/2.0", host("GET /a HTTP/2.0\r\n")),
        head("HTTP/1.10", host("GET /a HTTP/1.10\r\n")),
        head("HTTP/1", host("GET /a HTTP/1\r\n")),
        head("http/1.1", host("GET /a http/1.1\r\n")),
        head("HTTP/01.1", host("GET /a HTTP/01.1\r\n")),
        head("a method with a bracket", host("G[T /a HTTP/1.1\r\n")),
        head("a method with a NUL", host("GE\0T /a HTTP/1.1\r\n")),
        head("LF ends the request line", format!("GET /a HTTP/1.1\n{HOST}\r\n")),
        head("CR ends the request line", format!("GET /a HTTP/1.1\r{HOST}\r\n")),
        head("LF ends every line", "GET /a HTTP/1.1\nHost: app.test\n\n"),
        head("LF before the request line", host("\nGET /a HTTP/1.1\r\n")),
        head("CR before the request line", host("\rGET /a HTTP/1.1\r\n")),
        head("CR CR LF ends the request line", host("GET /a HTTP/1.1\r\r\n")),
        head("a NUL in the target", host("GET /a\0b HTTP/1.1\r\n")),
        head("a CR in the target", host("GET /a\rb HTTP/1.1\r\n")),
        head("DEL in the target", host("GET /a\x7f HTTP/1.1\r\n")),
        head("UTF-8 in the target", host("GET /\u{e4} HTTP/1.1\r\n")),
        head("Latin-1 in the target", [b"GET /\xe4 HTTP/1.1\r\n", HOST.as_bytes(), b"\r\n"].concat()),
        head("a fragment", host("GET /a#b HTTP/1.1\r\n")),
        head("a backslash for a slash", host("GET \\a HTTP/1.1\r\n")),
        head("a relative target", host("GET a HTTP/1.1\r\n")),
        head("a relative target with a slash", host("GET a/b HTTP/1.1\r\n")),
        head("a target that is a query", host("GET ?a HTTP/1.1\r\n")),
        head("an asterisk for GET", host("GET * HTTP/1.1\r\n")),
        head("CONNECT", "CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n\r\n"),
        head("CONNECT of a path", host("CONNECT /a HTTP/1.1\r\n")),
        head("another scheme", host("GET ftp://app.test/a HTTP/1.1\r\n")),
        head("absolute form of another host", host("GET http://other.test/a HTTP/1.1\r\n")),
        head("absolute form of another port", host("GET http://app.test:81/a HTTP/1.1\r\n")),
        head("absolute form with a user", host("GET http://u@app.test/a HTTP/1.1\r\n")),
        head("absolute form without Host", "GET http://app.test/a HTTP/1.1\r\n\r\n"),
        head("a request line of 20 KiB", host(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(20 << 10)))),
        head("a request line of 200 KiB", host(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(200 << 10)))),
        head("a preface of HTTP/2 within HTTP/1", format!("PRI * HTTP/2.0\r\n{HOST}\r\nSM\r\n\r\n")),
    ]
}

fn hosts() -> Vec<Case> {
    let host = |name, host: &str| head(name, format!("GET /a HTTP/1.1\r\n{host}\r\n"));
    vec![
        host("no Host", ""),
        host("two Hosts", "Host: app.test\r\nHost: other.test\r\n"),
        host("the same Host twice", "Host: app.test\r\nHost: app.test\r\n"),
        host("two Hosts around another field", "Host: app.test\r\nA: 1\r\nhOST: other.test\r\n"),
        host("an empty Host", "Host: \r\n"),
        host("a list of Hosts", "Host: app.test, other.test\r\n"),
        host("a user in Host", "Host: u@app.test\r\n"),
        host("a path in Host", "Host: app.test/a\r\n"),
        host("a space in Host", "Host: app test\r\n"),
        host("an empty port", "Host: app.test:\r\n"),
        host("a port that is none", "Host: app.test:x\r\n"),
        host("a port that is too high", "Host: app.test:65536\r\n"),
        host("two ports", "Host: app.test:80:81\r\n"),
        host("IPv6 without brackets", "Host: ::1\r\n"),
        host("an open bracket", "Host: [::1\r\n"),
        host("UTF-8 in Host", "Host: \u{e4}.test\r\n"),
        host("two Hosts of an old client", "Host: a\r\nHost: b\r\n"),
        head("two Hosts in HTTP/1.0", "GET /a HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    ]
}

fn lengths() -> Vec<Case> {
    const SIZED: &str = "Content-Length: 45\r\n";
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
    let length = |name, value: &str| fields(name, format!("Content-Length:{value}\r\n"));
    let coding = |name, value: &str| fields(name, format!("Transfer-Encoding:{value}\r\n\r\n0\r\n"));
    vec![
        fields("length, then chunks", format!("{SIZED}{CHUNKED}\r\n0\r\n")),
        fields("chunks, then length", format!("{CHUNKED}{SIZED}\r\n0\r\n")),
        fields("length 0 and chunks", format!("Content-Length: 0\r\n{CHUNKED}\r\n0\r\n")),
        fields("chunks and a length that is none", format!("{CHUNKED}Content-Length: x\r\n\r\n0\r\n")),
        fields("two lengths that differ", format!("Content-Length: 0\r\n{SIZED}")),
        fields("two lengths that do not", format!("{SIZED}{SIZED}")),
        length("a list of lengths", " 0, 45"),
        length("a list of equal lengths", " 45, 45"),
        length("a positive length", " +45"),
        length("a negative length", " -1"),
        length("a hexadecimal length", " 0x2d"),
        length("a fraction", " 45.0"),
        length("an exponent", " 4e1"),
        length("an empty length", ""),
        length("a length with a space within", " 4 5"),
        length("a length with an underscore", " 4_5"),
        length("a length in quotes", " \"45\""),
        length("a length of other digits", " \u{664}\u{665}"),
        length("a length with a NUL", " 45\0"),
        length("a length with a vertical tab", " \x0b45"),
        length("a length beyond 64 bits", " 18446744073709551661"),
        length("a length of 20 digits", " 00000000000000000045"),
        fields("a length after a space", "Content-Length : 45\r\n"),
        coding("gzip, chunked", " gzip, chunked"),
        coding("chunked, gzip", " chunked, gzip"),
        coding("chunked, chunked", " chunked, chunked"),
        coding("chunked, identity", " chunked, identity"),
        coding("identity", " identity"),
        coding("an unknown coding", " xchunked"),
        coding("a coding with a parameter", " chunked;a=b"),
        coding("a coding in quotes", " \"chunked\""),
        coding("a coding after a comma", " ,chunked"),
        coding("a coding before a comma", " chunked,"),
        coding("a coding with a vertical tab", " \x0bchunked"),
        coding("a coding with a NUL", " chunked\0"),
        coding("an empty coding", ""),
        fields("two codings", format!("{CHUNKED}{CHUNKED}\r\n0\r\n")),
        fields("two codings that differ", format!("Transfer-Encoding: identity\r\n{CHUNKED}\r\n0\r\n")),
        fields("a coding in a folded line", "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n"),
        fields("a coding after a space", "Transfer-Encoding : chunked\r\n\r\n0\r\n"),
        head("chunks of an old client", format!("POST /a HTTP/1.0\r\n{HOST}{CHUNKED}\r\n0\r\n\r\n")),
    ]
}

fn field_lines() -> Vec<Case> {
    vec![
        fields("LF ends a field", "A: 1\n"),
        fields("LF ends the head", "A: 1\r\n\n"),
        fields("CR within a value", "A: 1\rB: 2\r\n"),
        fields("CR CR LF", "A: 1\r\r\n"),
        fields("a field that goes on", "A: 1\r\n 2\r\n"),
        fields("a field that goes on after a tab", "A: 1\r\n\t2\r\n"),
        head("a first field that goes on", format!("POST /a HTTP/1.1\r\n A: 1\r\n{HOST}\r\n")),
        fields("a space before the colon", "A : 1\r\n"),
        fields("a tab before the colon", "A\t: 1\r\n"),
        fields("a space within a name", "A B: 1\r\n"),
        fields("no colon", "A\r\n"),
        fields("no name", ": 1\r\n"),
        fields("a NUL in a name", "A\0: 1\r\n"),
        fields("a bracket in a name", "A(: 1\r\n"),
        fields("UTF-8 in a name", "\u{c4}: 1\r\n"),
        fields("a NUL in a value", "A: 1\0\r\n"),
        fields("a control character in a value", "A: \x01\r\n"),
        fields("ESC in a value", "A: \x1b[31m\r\n"),
        fields("DEL in a value", "A: \x7f\r\n"),
        fields("Connection names Host", "Connection: Host\r\n"),
        fields("Connection names a length", "Connection: close, Content-Length\r\nContent-Length: 45\r\n"),
        fields(
            "Connection names a coding",
            "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        ),
        fields("Connection names the way", "Connection: X-Forwarded-For\r\nX-Forwarded-For: 1.1.1.1\r\n"),
        fields("Connection names a field of ours", "Connection: x-readygate-warmup\r\n"),
        fields("Connection names a cookie", "Connection: cookie\r\nCookie: a=b\r\n"),
        fields("Connection names who asks", "Connection: Authorization\r\nAuthorization: Basic YTpi\r\n"),
        fields(
            "a body beside an upgrade",
            "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 45\r\n",
        ),
        fields(
            "chunks beside an upgrade",
            "Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        ),
        fields("too many fields", "A: 1\r\n".repeat(200)),
        fields("a field of 200 KiB", format!("A: {}\r\n", "a".repeat(200 << 10))),
    ]
}

fn broken_chunks() -> Vec<Case> {
    vec![
        chunks("no size", "\r\n"),
        chunks("a size with a sign", "+5\r\nhello\r\n0\r\n"),
        chunks("a negative size", "-5\r\nhello\r\n0\r\n"),
        chunks("a size with a prefix", "0x5\r\nhello\r\n0\r\n"),
        chunks("a size that is none", "g\r\nhello\r\n0\r\n"),
        chunks("a size with a space before", " 5\r\nhello\r\n0\r\n"),
        chunks("a size with a space after", "5 \r\nhello\r\n0\r\n"),
        chunks("a size with an underscore", "0_5\r\nhello\r\n0\r\n"),
        chunks("a size beyond 64 bits", "10000000000000005\r\nhello\r\n0\r\n"),
        chunks("a size of many zeros", "00000000000000000005\r\nhello\r\n0\r\n"),
        chunks("LF ends a size", "5\nhello\r\n0\r\n"),
        chunks("CR ends a size", "5\rhello\r\n0\r\n"),
        chunks("LF ends a chunk", "5\r\nhello\n0\r\n"),
        chunks("nothing ends a chunk", "5\r\nhello0\r\n"),
        chunks("a chunk longer than its size", "5\r\nhello!\r\n0\r\n"),
        chunks("LF ends an extension", "5;a\nhello\r\n0\r\n"),
        chunks("LF in a quoted extension", "5;a=\"\n\"\r\nhello\r\n0\r\n"),
        chunks("a control character in an extension", "5;a=\x01\r\nhello\r\n0\r\n"),
        chunks("extensions without end", format!("5;{}\r\nhello\r\n0\r\n", "a".repeat(20 << 10))),
        chunks("many extensions", format!("1;{}\r\na\r\n", "a".repeat(1000)).repeat(20) + "0\r\n"),
        chunks("LF ends the last size", "0\n\n"),
        chunks("LF ends the trailers", "0\r\n\n"),
        chunks("LF ends a trailer", "0\r\nA: 1\nB: 2\r\n"),
        chunks("a trailer that goes on", "0\r\nA: 1\r\n B: 2\r\n"),
        chunks("a trailer without a colon", "0\r\nA\r\n"),
        chunks("a trailer with a NUL", "0\r\nA: \0\r\n"),
        chunks("a length in the trailers", "0\r\nContent-Length: 45\r\n"),
        chunks("a coding in the trailers", "0\r\nTransfer-Encoding: chunked\r\n"),
        chunks("a Host in the trailers", "0\r\nHost: other.test\r\n"),
    ]
}
