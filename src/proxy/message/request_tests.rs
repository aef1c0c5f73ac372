use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::super::head;
use super::super::chunked::MOST_EXTENSIONS;
use super::super::content::{Broken, Content};
use super::super::grammar::LONGEST_LINE;
use super::*;

/// What is seen of one request's head.
type Seen = Result<Shape, Refusal>;

/// How its body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    None,
    Length(u64),
    Chunked,
}

const BOUNDS: Bounds = Bounds { bytes: 64 << 10, fields: 100 };

/// What is seen of these bytes, and how many of them are sound.
fn seen(bytes: &[u8]) -> (Vec<Seen>, usize) {
    in_pieces(bytes, &[bytes.len()])
}

/// The same, of pieces of these lengths, over and over.
fn in_pieces(bytes: &[u8], lengths: &[usize]) -> (Vec<Seen>, usize) {
    let (mut partial, mut content, mut seen) = (Partial::default(), Content::default(), Vec::new());
    let (mut rest, mut came) = (bytes, 0);
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*length).clamp(1, rest.len()));
        content.rest = Bytes::copy_from_slice(piece);
        (rest, came) = (after, came + piece.len());
        loop {
            if !passes(&mut content) {
                return (seen, came - content.rest.len());
            }
            if !content.is_over() || content.rest.is_empty() {
                break;
            }
            let request = match partial.next(&mut content.rest, BOUNDS) {
                Ok(Some(head)) => head.request,
                Ok(None) => break,
                Err(refusal) => {
                    seen.push(Err(refusal));
                    return (seen, bytes.len());
                }
            };
            let notable = Notable::of(request.headers());
            let framed = framing(&request, notable);
            let framed = framed.and_then(|framing| match head::check(&request, notable) {
                Err(Fault::Host) => Err(Fault::Host),
                _ => Ok(framing),
            });
            match framed {
                Ok(framing) => {
                    seen.push(Ok(match &framing {
                        None => Shape::None,
                        Some(Framing::Length(length)) => Shape::Length(*length),
                        Some(Framing::Chunked(_)) => Shape::Chunked,
                        Some(Framing::UntilEnd) => panic!("no request goes on until the end"),
                    }));
                    content.begin(framing.unwrap_or_default());
                }
                Err(fault) => {
                    seen.push(Err(Refusal::Fault(fault)));
                    return (seen, bytes.len());
                }
            }
        }
    }
    (seen, bytes.len())
}

/// Passes what is here of a body; false if it is none.
fn passes(content: &mut Content) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match content.poll_frame(&mut cx, Pin::new(&mut &[][..]), 1) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(Broken::Fault(_)))) => return false,
            Poll::Ready(None | Some(Err(_))) | Poll::Pending => return true,
        }
    }
}

fn fault(request: &str) -> Option<Fault> {
    let (seen, _) = seen(request.as_bytes());
    match seen.first()? {
        Err(Refusal::Fault(fault)) => Some(*fault),
        Err(Refusal::TooLarge) => panic!("too large: {request:?}"),
        Ok(_) => None,
    }
}

#[test]
fn faults_are_called_by_their_names() {
    const HOST: &str = "GET / HTTP/1.1\r\nHost: a\r\n";
    let table: &[(&str, Fault)] = &[
        ("GET /\r\n\r\n", Fault::RequestLine),
        ("GET  / HTTP/1.1\r\n", Fault::RequestLine),
        ("GET /  HTTP/1.1\r\n", Fault::RequestLine),
        ("GET / HTTP/1.1 \r\n", Fault::RequestLine),
        ("GET / HTTP/1.2\r\n", Fault::RequestLine),
        ("GET / HTTP/2.0\r\n", Fault::RequestLine),
        ("GET / http/1.1\r\n", Fault::RequestLine),
        ("GET / HTTP/1.10\r\n", Fault::RequestLine),
        ("GET\t/ HTTP/1.1\r\n", Fault::RequestLine),
        (" GET / HTTP/1.1\r\n", Fault::RequestLine),
        ("G(T / HTTP/1.1\r\n", Fault::RequestLine),
        ("\nGET / HTTP/1.1\r\n", Fault::BareLf),
        ("\rGET / HTTP/1.1\r\n", Fault::BareCr),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", Fault::BareLf),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", Fault::BareCr),
        ("GET /#a HTTP/1.1\r\n", Fault::TargetByte),
        ("GET /\u{e4} HTTP/1.1\r\n", Fault::TargetByte),
        ("GET /\u{7f} HTTP/1.1\r\n", Fault::TargetByte),
        ("GET / HTTP/1.1\r\n\r\n", Fault::Host),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Fault::Host),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Fault::Host),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::TransferEncoding),
    ];
    for (request, expected) in table {
        assert_eq!(fault(request), Some(*expected), "{request:?}");
    }
    let fields: &[(&str, Fault)] = &[
        ("A: 1\n\r\n", Fault::BareLf),
        ("A: 1\r\n\n", Fault::BareLf),
        ("A: 1\rB: 2\r\n\r\n", Fault::BareCr),
        ("A: 1\r\r\n\r\n", Fault::BareCr),
        ("A: 1\r\n 2\r\n\r\n", Fault::Fold),
        ("A: 1\r\n\t2\r\n\r\n", Fault::Fold),
        ("A : 1\r\n\r\n", Fault::Name),
        ("A\t: 1\r\n\r\n", Fault::Name),
        ("A\r\n\r\n", Fault::Name),
        (": 1\r\n\r\n", Fault::Name),
        ("A\0: 1\r\n\r\n", Fault::Name),
        ("A(: 1\r\n\r\n", Fault::Name),
        ("\u{c4}: 1\r\n\r\n", Fault::Name),
        ("A: 1\0\r\n\r\n", Fault::Value),
        ("A: 0123456789abcdef\u{1}0123456789abcdef\r\n\r\n", Fault::Value),
        ("A: \u{7f}\r\n\r\n", Fault::Value),
        ("Content-Length: 1\r\nContent-Length: 1\r\n\r\n", Fault::ContentLength),
        ("Content-Length: 1, 1\r\n\r\n", Fault::ContentLength),
        ("Content-Length: +1\r\n\r\n", Fault::ContentLength),
        ("Content-Length: -1\r\n\r\n", Fault::ContentLength),
        ("Content-Length: 0x1\r\n\r\n", Fault::ContentLength),
        ("Content-Length: 1 1\r\n\r\n", Fault::ContentLength),
        ("Content-Length: \r\n\r\n", Fault::ContentLength),
        ("Content-Length:\r\n\r\n", Fault::ContentLength),
        ("Content-Length: 10000000000000000000\r\n\r\n", Fault::ContentLength),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::TwoLengths),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", Fault::TwoLengths),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: gzip, chunked\r\n\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: chunked, identity\r\n\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: identity\r\n\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: xchunked\r\n\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: chunkedx\r\n\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: chunked;a=b\r\n\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: chun ked\r\n\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: \"chunked\"\r\n\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: \u{b}chunked\r\n\r\n", Fault::Value),
        ("Transfer-Encoding:\r\n\r\n", Fault::TransferEncoding),
    ];
    for (fields, expected) in fields {
        assert_eq!(fault(&format!("{HOST}{fields}")), Some(*expected), "{fields:?}");
    }
}

#[test]
fn line_may_be_as_long_as_promised_and_no_longer() {
    for (length, expected) in [(LONGEST_LINE - 4, None), (LONGEST_LINE - 2, Some(Fault::LongLine))] {
        let target = format!("/{}", "x".repeat(length));
        assert_eq!(fault(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")), expected);
    }
}

#[test]
fn field_that_only_looks_like_one_that_matters_does_not() {
    let odd = "GET / HTTP/1.1\r\nHost: a\r\nHos: b\r\nHosts: c\r\nContent-Length2: x\r\nContent-: y\r\n\
               Transfer-Encodin: z\r\nX-Host: d\r\nCONTENT-length: \t7 \r\n\r\n";
    assert_eq!(seen(odd.as_bytes()).0, [Ok(Shape::Length(7))]);
}

#[test]
fn body_that_breaks_is_sound_up_to_there() {
    const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n";
    for (sound, broken) in [
        ("", "\r\n"),
        ("", ";a\r\n"),
        ("", "g\r\n"),
        ("", "-1\r\n"),
        ("0", "x5\r\n"),
        ("5", " \r\n"),
        ("5", "\nhello"),
        ("5\r", "hello"),
        ("5\r\nhello", "!\r\n0\r\n\r\n"),
        ("5\r\nhello", "\n0\r\n\r\n"),
        ("5;a", "\nhello"),
        ("5;a=\"b", "\0\"\r\nhello"),
        ("0000000000000005", "0\r\n"),
        ("0\r\n", "\n"),
        ("0\r\n", " a: 1\r\n"),
        ("0\r\nhost", ": b\r\n\r\n"),
        ("0\r\ncontent-length", ": 1\r\n\r\n"),
        ("0\r\nx: 1", "\ny: 2\r\n\r\n"),
    ] {
        let bytes = [HEAD, sound, broken, HEAD].concat();
        let (seen, passed) = seen(bytes.as_bytes());
        assert_eq!(seen, [Ok(Shape::Chunked)], "{sound:?} {broken:?}");
        // Trailers are judged by the line, and by their names at the end.
        let latest = if sound.starts_with("0\r") { broken.len() } else { 0 };
        let at = HEAD.len() + sound.len();
        assert!((at..=at + latest).contains(&passed), "{sound:?} {broken:?}: {passed}");
    }
    for (length, whole) in [(MOST_EXTENSIONS / 2, true), (MOST_EXTENSIONS / 2 + 1, false)] {
        let extension = "x".repeat(length);
        let bytes = format!("{HEAD}1;{extension}\r\na\r\n1;{extension}\r\nb\r\n0\r\n\r\n");
        assert_eq!(seen(bytes.as_bytes()).1 == bytes.len(), whole, "{length}");
    }
}

#[test]
fn nothing_is_a_request_after_a_fault() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost : a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(seen(bytes), (vec![Ok(Shape::None), Err(Refusal::Fault(Fault::Name))], bytes.len()));
}

#[test]
fn head_is_as_large_as_it_may_be_and_no_larger() {
    let head = |fields: usize, length: usize| {
        let fields = "A: 1\r\n".repeat(fields - 2);
        let empty = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}B: \r\n\r\n");
        empty.replace("B: ", &format!("B: {}", "b".repeat(length - empty.len())))
    };
    for lengths in [&[1][..], &[7, 100], &[1 << 20]] {
        for (fields, length, fits) in
            [(100, BOUNDS.bytes, true), (101, 2000, false), (100, BOUNDS.bytes + 1, false)]
        {
            let expected = if fits { Ok(Shape::None) } else { Err(Refusal::TooLarge) };
            assert_eq!(
                in_pieces(head(fields, length).as_bytes(), lengths).0,
                [expected],
                "{fields} {length}"
            );
        }
    }
    // Refused before it ends, if it ever does.
    assert_eq!(in_pieces(&[b'a'; LONGEST_LINE + 1], &[1000]).0, [Err(Refusal::Fault(Fault::LongLine))]);
    let endless = [b"GET / HTTP/1.1\r\nA: ", &vec![b'a'; BOUNDS.bytes][..]].concat();
    assert_eq!(in_pieces(&endless, &[1000]).0, [Err(Refusal::TooLarge)]);
}

/// A valid request, and how its body is framed.
#[derive(Clone, Debug)]
struct Valid {
    bytes: Vec<u8>,
    framing: Shape,
}

prop_compose! {
    fn valid()(
        blank in 0_usize..3,
        method in "[A-Z!#$%&'*+.^_`|~-]{1,8}",
        target in "/[!$-;=?@-Z_a-z~]{0,40}",
        old in any::<bool>(),
        fields in vec(("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,20}", "[ \t]{0,2}[!-~\u{80}-\u{ff}\t ]{0,40}"), 0..6),
        framing in prop_oneof![
            Just(None),
            (0_u64..200).prop_map(|length| Some((length, Vec::new()))),
            vec(("[ -~\r\n]{1,40}", "(;[ -~\t]{0,20})?"), 0..5).prop_map(|chunks| Some((0, chunks))),
        ],
        chunked in any::<bool>(),
        trailers in vec(("x-[a-z]{1,9}", "[ -~]{0,20}"), 0..3),
        name in prop_oneof!["Transfer-Encoding", "transfer-encoding", "TRANSFER-ENCODING"],
        filler in "[ -~\r\n]{200}",
    ) -> Valid {
        let version = if old { "HTTP/1.0" } else { "HTTP/1.1" };
        let mut text = "\r\n".repeat(blank) + &format!("{method} {target} {version}\r\n");
        for (name, value) in &fields {
            if !["host", "content-length", "transfer-encoding"].contains(&name.to_lowercase().as_str()) {
                text += &format!("{name}:{value}\r\n");
            }
        }
        text += "hOst: app.test\r\n";
        let framing = match framing {
            None => {
                text += "\r\n";
                Shape::None
            }
            Some((_, chunks)) if chunked && !old => {
                text += &format!("{name}: \t cHunKed \r\n\r\n");
                for (data, extension) in &chunks {
                    text += &format!("{:x}{extension}\r\n{data}\r\n", data.len());
                }
                text += "000\r\n";
                for (name, value) in &trailers {
                    text += &format!("{name}: {value}\r\n");
                }
                text += "\r\n";
                Shape::Chunked
            }
            Some((length, _)) => {
                text += &format!("Content-Length: {length}\r\n\r\n{}", &filler[..length as usize]);
                if length == 0 { Shape::None } else { Shape::Length(length) }
            }
        };
        Valid { bytes: text.into_bytes(), framing }
    }
}

proptest! {
    #[test]
    fn heads_are_found_exactly_where_they_are(requests in vec(valid(), 1..6), lengths in vec(1_usize..50, 1..5)) {
        let bytes: Vec<u8> = requests.iter().flat_map(|request| request.bytes.clone()).collect();
        let expected: Vec<Seen> = requests.iter().map(|request| Ok(request.framing)).collect();
        prop_assert_eq!(in_pieces(&bytes, &lengths), (expected, bytes.len()));
    }

    #[test]
    fn pieces_change_nothing(
        requests in vec(valid(), 1..3),
        mutations in vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' ')], 0_usize..3), 0..4),
        lengths in vec(1_usize..50, 1..5),
    ) {
        let mut bytes: Vec<u8> = requests.iter().flat_map(|request| request.bytes.clone()).collect();
        for (at, byte, how) in mutations {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        let whole = seen(&bytes);
        prop_assert_eq!(&in_pieces(&bytes, &[1]), &whole);
        prop_assert_eq!(&in_pieces(&bytes, &lengths), &whole);
    }

    /// What is taken here says the same to a parser that others use.
    #[test]
    fn request_is_the_same_to_httparse(
        request in valid(),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut bytes = request.bytes;
        for (at, byte) in mutations {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut rest = Bytes::copy_from_slice(&bytes);
        let Ok(Some(head)) = Partial::default().next(&mut rest, BOUNDS) else { return Ok(()) };
        let Head { request: mut ours, lines } = head;
        lines.read_into(ours.headers_mut());
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut theirs = httparse::Request::new(&mut fields);
        let length = theirs.parse(&bytes).expect("a request to both").unwrap();
        prop_assert_eq!(length, bytes.len() - rest.len());
        prop_assert_eq!(theirs.method, Some(ours.method().as_str()));
        if ours.uri().scheme().is_none() {
            prop_assert_eq!(theirs.path.map(str::to_owned), Some(ours.uri().to_string()));
        }
        prop_assert_eq!(theirs.version == Some(0), ours.version() == Version::HTTP_10);
        // The map keeps fields of one name together.
        let mut said: Vec<_> = theirs.headers.iter().map(|field| (field.name.to_lowercase(), field.value)).collect();
        let mut heard: Vec<_> =
            ours.headers().iter().map(|(name, value)| (name.to_string(), value.as_bytes())).collect();
        said.sort();
        heard.sort();
        prop_assert_eq!(said, heard);
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 1..300)) {
        let whole = seen(&bytes);
        prop_assert_eq!(in_pieces(&bytes, &[1]), whole);
    }
}
