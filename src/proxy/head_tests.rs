use proptest::prelude::*;

use super::*;

const GET: &str = "GET";

fn request(method: &str, uri: &str, version: Version, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(uri).version(version);
    for (name, value) in fields {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value that http takes");
        request = request.header(*name, value);
    }
    request.body(()).expect("a request that http takes")
}

fn old(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<(), Fault> {
    judged(&request(method, uri, Version::HTTP_11, fields))
}

fn new(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<(), Fault> {
    judged(&request(method, uri, Version::HTTP_2, fields))
}

fn judged<B>(request: &Request<B>) -> Result<(), Fault> {
    check(request, Notable::of(request.headers()))
}

/// A request of HTTP/1.1 with these fields besides Host.
fn with(fields: &[(&str, &str)]) -> Result<(), Fault> {
    old("POST", "/", &[&[("host", "a")], fields].concat())
}

#[test]
fn host_is_one_authority() {
    for host in ["a", "a.b-c_d", "a:1", "a:65535", "10.0.0.1:80", "[::1]", "[::1]:8080", "A."] {
        assert_eq!(old(GET, "/", &[("host", host)]), Ok(()), "{host:?}");
    }
    for host in [
        "",
        ":80",
        "a:",
        "a:x",
        "a:65536",
        "a:123456",
        "a:-1",
        "a:+1",
        "a:1:2",
        "u@a",
        "u:p@a",
        "a,b",
        "a, b",
        "a/b",
        "a b",
        "a%20b",
        "a\tb",
        "a?b",
        "a#b",
        "a\\b",
        "::1",
        "[::1",
        "[::1]x",
        "[::1]:",
        "[g]",
        "[]",
        "[::1%25eth0]",
        "[v1.a]",
        "\u{e4}",
        "a\"b",
        "<a>",
        "{a}",
        "a|b",
        "a^b",
        "http://a",
    ] {
        assert_eq!(old(GET, "/", &[("host", host)]), Err(Fault::Host), "{host:?}");
    }
    assert_eq!(old(GET, "/", &[]), Err(Fault::Host));
    assert_eq!(old(GET, "/", &[("host", "a"), ("host", "a")]), Err(Fault::Host));
    assert_eq!(judged(&request(GET, "/", Version::HTTP_10, &[])), Ok(()));
}

#[test]
fn host_and_target_agree() {
    for (uri, host, expected) in [
        ("http://a/", "a", Ok(())),
        ("http://A:80/", "a", Ok(())),
        ("http://a/", "a:80", Ok(())),
        ("https://a:443/", "A", Ok(())),
        ("http://a:81/", "a:81", Ok(())),
        ("http://a?b", "a", Ok(())),
        ("http://a/", "b", Err(Fault::Authority)),
        ("http://a:81/", "a", Err(Fault::Authority)),
        ("https://a/", "a:80", Err(Fault::Authority)),
        ("http://u@a/", "a", Err(Fault::Host)),
        ("http://a/", "u@a", Err(Fault::Host)),
        ("ftp://a/", "a", Err(Fault::TargetForm)),
    ] {
        assert_eq!(old(GET, uri, &[("host", host)]), expected, "{uri} {host}");
        assert_eq!(new(GET, uri, &[("host", host)]), expected, "{uri} {host}");
    }
    assert_eq!(old(GET, "http://a/", &[]), Err(Fault::Host));
    assert_eq!(new(GET, "http://a/", &[]), Ok(()));
    assert_eq!(new(GET, "/", &[]), Err(Fault::Host));
    assert_eq!(new(GET, "/", &[("host", "a")]), Ok(()));
}

#[test]
fn targets_are_of_a_form_that_the_method_takes() {
    for (method, uri, expected) in [
        (GET, "/a?b=c&d=%20", Ok(())),
        (GET, "//a", Ok(())),
        ("OPTIONS", "*", Ok(())),
        (GET, "*", Err(Fault::TargetForm)),
        (GET, "a", Err(Fault::TargetForm)),
        (GET, "a:80", Err(Fault::TargetForm)),
        (GET, "/\u{e4}", Err(Fault::TargetByte)),
        ("CONNECT", "a:80", Err(Fault::Connect)),
        ("CONNECT", "/", Err(Fault::Connect)),
    ] {
        assert_eq!(old(method, uri, &[("host", "a")]), expected, "{method} {uri}");
    }
}

#[test]
fn connection_may_not_name_what_must_reach_the_app() {
    for value in [
        "close",
        "keep-alive",
        "Upgrade, HTTP2-Settings",
        "te",
        "x-mine, close",
        "trailer",
        "",
        ",,",
        "hos",
        "x-forwarded",
    ] {
        assert_eq!(with(&[("connection", value)]), Ok(()), "{value:?}");
    }
    for value in [
        "Host",
        "close, content-length",
        "Transfer-Encoding",
        "cookie,close",
        "\tAUTHORIZATION ",
        "x-forwarded-for",
        "X-Forwarded-Anything",
        "x-readygate-warmup",
        "Forwarded",
        "x-real-ip",
        "cache-control",
        "expect",
    ] {
        assert_eq!(with(&[("connection", value)]), Err(Fault::Connection), "{value:?}");
        assert_eq!(
            with(&[("connection", "close"), ("connection", value)]),
            Err(Fault::Connection),
            "{value:?}"
        );
    }
}

#[test]
fn body_before_another_protocol_is_refused_but_not_beside_h2c() {
    let socket = ("upgrade", "websocket");
    assert_eq!(with(&[socket]), Ok(()));
    assert_eq!(with(&[socket, ("content-length", "0")]), Ok(()));
    for body in [("content-length", "3"), ("transfer-encoding", "chunked")] {
        assert_eq!(with(&[socket, body]), Err(Fault::UpgradeBody));
        assert_eq!(with(&[("upgrade", "h2c, websocket"), body]), Err(Fault::UpgradeBody));
        assert_eq!(with(&[("upgrade", "h2c"), socket, body]), Err(Fault::UpgradeBody));
        assert_eq!(with(&[("upgrade", "H2C"), body]), Ok(()));
    }
}

#[test]
fn fields_of_connections_have_no_place_in_http2() {
    let check = |fields: &[(&str, &str)]| new("POST", "http://a/", fields);
    assert_eq!(check(&[("te", "trailers"), ("content-length", "12"), ("x", "a b")]), Ok(()));
    for field in [
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("x", " a"),
        ("x", "a\t"),
    ] {
        assert_eq!(check(&[field]), Err(Fault::Http2Field), "{field:?}");
    }
    for length in ["", "+1", "1,1", "x", "10000000000000000000"] {
        assert_eq!(check(&[("content-length", length)]), Err(Fault::ContentLength), "{length:?}");
    }
    assert_eq!(check(&[("content-length", "1"), ("content-length", "1")]), Err(Fault::ContentLength));
    // What no value can be, however it came.
    for value in ["a\rb", "a\nb", "a\0b", "a\u{7f}b"] {
        assert!(HeaderValue::from_bytes(value.as_bytes()).is_err());
    }
}

proptest! {
    #[test]
    fn whatever_passes_as_host_is_read_in_one_way(host in "[ -~]{0,3}[a-z0-9.:@,/\\[\\]%_ -]{0,12}") {
        if old(GET, "/", &[("host", host.as_str())]).is_ok() {
            let uri: Uri = format!("http://{host}/x").parse().expect("an authority has its place in a URI");
            prop_assert_eq!(uri.authority().map(http::uri::Authority::as_str), Some(host.as_str()));
            prop_assert_eq!(uri.path(), "/x");
            prop_assert!(!host.contains(['@', ',', '/', ' ']));
        }
    }

    #[test]
    fn port_is_a_number_or_the_host_is_refused(name in "[a-z][a-z0-9.-]{0,9}", port in "[ -~]{0,6}") {
        let host = format!("{name}:{port}");
        let number = port.bytes().all(|byte| byte.is_ascii_digit()) && port.len() <= 5 && port.parse::<u16>().is_ok();
        prop_assert_eq!(old(GET, "/", &[("host", host.as_str())]).is_ok(), number);
    }
}
