use proptest::prelude::*;

use super::*;

/// Status, version, length, and all fields in order of their names.
type Read = (u16, Version, usize, Vec<(String, Vec<u8>)>);

fn read(head: &Head) -> Read {
    let mut headers = head.response.headers().clone();
    head.lines.read_into(&mut headers);
    if let Some(content) = head.content {
        headers.append(header::CONTENT_LENGTH, content.into());
    }
    let mut fields: Vec<_> =
        headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    fields.sort();
    (head.response.status().as_u16(), head.response.version(), head.length, fields)
}

#[test]
fn fields_that_nobody_needs_pass_as_they_came() {
    let bytes = b"HTTP/1.1 200 OK\r\nServer:  a \r\nContent-Length: 3\r\nSet-Cookie: 1\r\nset-cookie: 2\r\n\
        CONNECTION: Keep-Alive\r\nX: y\r\nTrailer: z\r\n\r\nabc";
    let reply = parse(bytes, false).expect("an answer").expect("all of it");
    let lines: &[u8] = b"Server:  a \r\nSet-Cookie: 1\r\nset-cookie: 2\r\nX: y\r\n";
    assert_eq!(reply.lines.as_bytes(), lines);
    let names: Vec<_> = reply.response.headers().keys().map(header::HeaderName::as_str).collect();
    assert_eq!(names, ["trailer"]);
    assert!(matches!(reply.body, Framing::Length(3)));
    assert_eq!(reply.length, bytes.len() - 3);
    assert!(reply.goes_on);
}

#[test]
fn answer_that_takes_a_closer_look_gets_it() {
    for head in [
        "HTTP/1.1 200 OK\r\nConnection: close, x-a\r\nX-A: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: x-a\r\nX-A: 1\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nX-A: 1\r\n\r\n",
        "HTTP/1.1 200 OK\nX-A: 1\n\n",
    ] {
        let reply = parse(head.as_bytes(), false).expect("an answer").expect("all of it");
        assert_eq!(reply.lines, Lines::default(), "{head}");
        assert!(reply.response.headers().contains_key("x-a"), "{head}");
    }
}

proptest! {
    /// What is read by the letter says the same to a parser that others use.
    #[test]
    fn answer_is_the_same_to_httparse(
        old in any::<bool>(),
        to_head in any::<bool>(),
        status in 100_u16..1000,
        reason in prop_oneof![Just(String::new()), " [ -~\t]{0,20}"],
        fields in prop::collection::vec((
            prop_oneof![
                "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,20}",
                "[Cc]onnection|[Kk]eep-[Aa]live|Content-Length|TE|Trailer|Upgrade|Transfer-Encoding|Proxy-Connection",
            ],
            prop_oneof![": keep-alive|: close|: Keep-Alive, close|:5|: 05|: 5, 5|: 0|: chunked", ":[ \t]{0,2}[!-~\u{80}-\u{ff}\t ]{0,40}"],
        ), 0..8),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let version = if old { "1.0" } else { "1.1" };
        let fields: String = fields.iter().map(|(name, value)| format!("{name}{value}\r\n")).collect();
        let mut bytes = format!("HTTP/{version} {status}{reason}\r\n{fields}\r\nbody").into_bytes();
        for (at, byte) in mutations {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let Some(ours) = by_the_letter(&bytes, to_head) else { return Ok(()) };
        let theirs = generously(&bytes).expect("an answer to both").expect("all of it");
        let (ours, mut theirs) = (read(&ours), read(&theirs));
        let is_usual = |(name, value): &(String, Vec<u8>)| {
            !old && name == "connection" && value.eq_ignore_ascii_case(b"keep-alive")
        };
        theirs.3.retain(|field| !is_usual(field));
        prop_assert_eq!(ours, theirs);
    }
}
