use proptest::collection::vec;
use proptest::prelude::*;

use super::super::framing::LONGEST_LINE;
use super::*;

/// What is seen of these bytes, and how many of them are sound.
fn seen(bytes: &[u8]) -> (Vec<Seen>, usize) {
    in_pieces(bytes, &[bytes.len()])
}

/// The same, of pieces of these lengths, over and over.
fn in_pieces(bytes: &[u8], lengths: &[usize]) -> (Vec<Seen>, usize) {
    let mut wire = Wire::new();
    let (mut rest, mut sound) = (bytes, 0);
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*length).clamp(1, rest.len()));
        sound += wire.see(piece);
        rest = after;
    }
    (std::iter::from_fn(|| wire.next_head()).collect(), sound)
}

fn fault(request: &str) -> Option<Fault> {
    let (seen, _) = seen(request.as_bytes());
    seen.first().and_then(|seen| seen.err())
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
        ("Transfer-Encoding: \u{b}chunked\r\n\r\n", Fault::TransferEncoding),
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
    assert_eq!(seen(odd.as_bytes()).0, [Ok(Framing::Length(7))]);
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
        let expected = (vec![Ok(Framing::Chunked)], HEAD.len() + sound.len());
        assert_eq!(seen(bytes.as_bytes()), expected, "{sound:?} {broken:?}");
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
    assert_eq!(seen(bytes), (vec![Ok(Framing::None), Err(Fault::Name)], bytes.len()));
}

#[test]
fn requests_sent_ahead_are_bounded() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2 * MOST_AHEAD);
    let (seen, _) = seen(&bytes);
    assert_eq!((seen.len(), seen.last()), (MOST_AHEAD + 2, Some(&Err(Fault::Pipeline))));
}

/// A valid request, and how its body is framed.
#[derive(Clone, Debug)]
struct Valid {
    bytes: Vec<u8>,
    framing: Framing,
}

prop_compose! {
    fn valid()(
        blank in 0_usize..3,
        method in "[A-Z!#$%&'*+.^_`|~-]{1,8}",
        target in "/[!$-~]{0,40}",
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
                Framing::None
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
                Framing::Chunked
            }
            Some((length, _)) => {
                text += &format!("Content-Length: {length}\r\n\r\n{}", &filler[..length as usize]);
                Framing::Length(length)
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
        requests in vec(valid(), 1..4),
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

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 1..300)) {
        let whole = seen(&bytes);
        prop_assert_eq!(in_pieces(&bytes, &[1]), whole);
    }
}
