//! RFC 9113 and RFC 7541 rule by rule, frame by frame, in the manner of h2spec (which no registry of ours has): what a
//! client must not do ends its stream or its connection with the right code, and what it may do is carried.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PADDED, PING, PREFACE,
    PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
};
use crate::support::machine;

use super::malformed::alive;
use super::recorder::Recorder;

/// What a rule asks for.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// The connection goes on; nothing is reset.
    Nothing,
    /// This stream is answered with 200.
    Answer(u32),
    /// Stream 1 ends with one of these codes, or the whole connection does (RFC 9113, 5.4).
    Stream(&'static [u32]),
    /// GOAWAY with one of these codes, then the end.
    Connection(&'static [u32]),
}

/// What a client saw.
#[derive(Debug, Default)]
struct Seen {
    frames: Vec<Frame>,
    closed: bool,
}

struct Case {
    rule: &'static str,
    name: &'static str,
    sends: Vec<Vec<u8>>,
    due: Due,
}

fn case(rule: &'static str, name: &'static str, sends: &[Vec<u8>], due: Due) -> Case {
    Case { rule, name, sends: sends.to_vec(), due }
}

const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const REFUSED: u32 = 7;
const COMPRESSION: u32 = 9;

const BROKEN: Due = Due::Connection(&[PROTOCOL]);
// h2 ends the connection for each of these, as it must, and calls most of them PROTOCOL_ERROR: what the RFC calls by
// a code of its own. Clients treat all of them alike, and h2spec, too, takes the end of the connection for it.
const SIZE: Due = Due::Connection(&[FRAME_SIZE, PROTOCOL]);
const GARBLED: Due = Due::Connection(&[COMPRESSION, PROTOCOL]);
const OVERFLOW: Due = Due::Connection(&[FLOW_CONTROL, PROTOCOL]);
const CLOSED: Due = Due::Stream(&[STREAM_CLOSED, PROTOCOL]);

/// `:scheme http`, `:path /` and `:authority app.test` behind a method of the static table.
fn head(method: u8) -> Vec<u8> {
    [&[method, 0x86, 0x84, 0x41, 8], &b"app.test"[..]].concat()
}

const BY_GET: u8 = 0x82;
const BY_POST: u8 = 0x83;

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head(BY_GET))
}

/// A request whose body is to come.
fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head(BY_POST))
}

/// A request whose head is to come on.
fn begun(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM, stream, &head(BY_GET))
}

/// A request with this at the end of its head.
fn with(rest: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&head(BY_GET), rest].concat())
}

fn setting(name: u8, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, name], &value.to_be_bytes()[..]].concat())
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])
}

const UNKNOWN: u8 = 0x16;

fn frames_and_streams() -> Vec<Case> {
    let large = vec![0; 1 << 14];
    let larger = vec![0; (1 << 14) + 1];
    let many: Vec<_> = (0..101).map(|number| post(2 * number + 1)).collect();
    vec![
        case("4.1", "a frame of an unknown type", &[frame(UNKNOWN, 0, 0, b"what")], Due::Nothing),
        case("4.1", "flags that mean nothing", &[frame(PING, 0x16, 0, b"12345678")], Due::Nothing),
        case("4.1", "the reserved bit", &[frame(PING, 0, 1 << 31, b"12345678")], Due::Nothing),
        case(
            "4.2",
            "DATA as large as may be",
            &[post(1), frame(DATA, END_STREAM, 1, &large)],
            Due::Answer(1),
        ),
        case("4.2", "DATA that is larger", &[post(1), frame(DATA, END_STREAM, 1, &larger)], SIZE),
        case("4.2", "HEADERS that are larger", &[frame(HEADERS, 5, 1, &larger)], SIZE),
        case("4.2", "an unknown frame that is larger", &[frame(UNKNOWN, 0, 0, &larger)], SIZE),
        case(
            "4.3",
            "another frame within a head",
            &[begun(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])],
            BROKEN,
        ),
        case("4.3", "another head within a head", &[begun(1), get(3)], BROKEN),
        case("4.3", "a PING within a head", &[begun(1), frame(PING, 0, 0, b"12345678")], BROKEN),
        case("5.1", "DATA on an idle stream", &[frame(DATA, END_STREAM, 1, b"hi")], BROKEN),
        case("5.1", "RST_STREAM on an idle stream", &[reset(1)], BROKEN),
        case("5.1", "WINDOW_UPDATE on an idle stream", &[window(1, 100)], BROKEN),
        case("5.1", "PRIORITY on an idle stream", &[frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])], Due::Nothing),
        case("5.1", "DATA after END_STREAM", &[get(1), frame(DATA, END_STREAM, 1, b"hi")], CLOSED),
        case("5.1", "HEADERS after END_STREAM", &[get(1), get(1)], CLOSED),
        case("5.1", "DATA after a reset", &[post(1), reset(1), frame(DATA, END_STREAM, 1, b"hi")], CLOSED),
        case("5.1", "HEADERS after a reset", &[post(1), reset(1), get(1)], CLOSED),
        case("5.1", "WINDOW_UPDATE after a reset", &[post(1), reset(1), window(1, 1)], Due::Nothing),
        case("5.1.1", "a stream with an even number", &[get(2)], BROKEN),
        case(
            "5.1.1",
            "a stream with a smaller number",
            &[get(5), get(3)],
            Due::Connection(&[PROTOCOL, STREAM_CLOSED]),
        ),
        case("5.1.2", "more streams than allowed", &many, Due::Stream(&[REFUSED, PROTOCOL])),
        case("5.5", "an unknown frame within a head", &[begun(1), frame(UNKNOWN, 0, 1, b"what")], BROKEN),
        case("6.1", "DATA on no stream", &[frame(DATA, 0, 0, b"hi")], BROKEN),
        case(
            "6.1",
            "padded DATA",
            &[post(1), frame(DATA, PADDED | END_STREAM, 1, b"\x03hi\0\0\0")],
            Due::Answer(1),
        ),
        case(
            "6.1",
            "DATA with more padding than bytes",
            &[post(1), frame(DATA, PADDED, 1, b"\x06hi\0")],
            BROKEN,
        ),
        case("6.2", "HEADERS on no stream", &[get(0)], BROKEN),
        case(
            "6.2",
            "HEADERS with more padding than bytes",
            &[frame(HEADERS, PADDED | 5, 1, &[9, 0x82])],
            BROKEN,
        ),
        case(
            "6.2",
            "padded HEADERS",
            &[frame(HEADERS, PADDED | 5, 1, &[&[2], &head(BY_GET)[..], &[0, 0]].concat())],
            Due::Answer(1),
        ),
        case("6.3", "PRIORITY on no stream", &[frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 1])], BROKEN),
        case(
            "6.3",
            "a short PRIORITY",
            &[post(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 1])],
            Due::Stream(&[FRAME_SIZE, PROTOCOL]),
        ),
        case("6.4", "RST_STREAM on no stream", &[reset(0)], BROKEN),
        case("6.4", "a short RST_STREAM", &[post(1), frame(RST_STREAM, 0, 1, &[0, 0, 8])], SIZE),
        case(
            "6.6",
            "PUSH_PROMISE of a client",
            &[get(1), frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2, 0x82])],
            BROKEN,
        ),
    ]
}

fn of_the_connection() -> Vec<Case> {
    let ping = |kind, stream| frame(PING, kind, stream, b"12345678");
    let most = i32::MAX as u32;
    vec![
        case("6.5", "SETTINGS with ACK and a payload", &[frame(SETTINGS, ACK, 0, &[0, 3, 0, 0, 0, 1])], SIZE),
        case("6.5", "SETTINGS on a stream", &[frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 1])], BROKEN),
        case("6.5", "SETTINGS of another length", &[frame(SETTINGS, 0, 0, &[0, 3, 0])], SIZE),
        case("6.5.2", "ENABLE_PUSH of two", &[setting(2, 2)], BROKEN),
        case("6.5.2", "a window that is too large", &[setting(4, 1 << 31)], OVERFLOW),
        case("6.5.2", "frames that are too small", &[setting(5, (1 << 14) - 1)], BROKEN),
        case("6.5.2", "frames that are too large", &[setting(5, 1 << 24)], BROKEN),
        case("6.5.2", "an unknown setting", &[setting(0xff, 1), get(1)], Due::Answer(1)),
        case("6.7", "PING with ACK", &[ping(ACK, 0)], Due::Nothing),
        case("6.7", "PING on a stream", &[ping(0, 1)], BROKEN),
        case("6.7", "PING of another length", &[frame(PING, 0, 0, b"123456")], SIZE),
        case("6.8", "GOAWAY on a stream", &[frame(GOAWAY, 0, 1, &[0; 8])], BROKEN),
        case("6.9", "a window of the connection enlarged by nothing", &[window(0, 0)], BROKEN),
        case(
            "6.9",
            "a window of a stream enlarged by nothing",
            &[post(1), window(1, 0)],
            Due::Stream(&[PROTOCOL]),
        ),
        case("6.9", "WINDOW_UPDATE of another length", &[frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1])], SIZE),
        case(
            "6.9.1",
            "a window of the connection beyond the largest",
            &[window(0, most), window(0, most)],
            Due::Connection(&[FLOW_CONTROL]),
        ),
        case(
            "6.9.1",
            "a window of a stream beyond the largest",
            &[post(1), window(1, most), window(1, most)],
            Due::Stream(&[FLOW_CONTROL]),
        ),
        case(
            "6.9.2",
            "a window beyond the largest by SETTINGS",
            &[post(1), window(1, most - 65_535), setting(4, 65_536)],
            Due::Connection(&[FLOW_CONTROL]),
        ),
        case("6.10", "CONTINUATION on no stream", &[begun(1), frame(CONTINUATION, 4, 0, &[])], BROKEN),
        case("6.10", "CONTINUATION without a head", &[frame(CONTINUATION, 4, 1, &[0x82])], BROKEN),
        case("6.10", "CONTINUATION after a whole head", &[post(1), frame(CONTINUATION, 4, 1, &[])], BROKEN),
        case(
            "6.10",
            "CONTINUATION after the last one",
            &[begun(1), frame(CONTINUATION, 4, 1, &[]), frame(CONTINUATION, 4, 1, &[])],
            BROKEN,
        ),
        case(
            "6.10",
            "CONTINUATION after DATA",
            &[post(1), frame(DATA, 0, 1, b"hi"), frame(CONTINUATION, 4, 1, &[])],
            BROKEN,
        ),
        case("6.10", "CONTINUATION on another stream", &[begun(1), frame(CONTINUATION, 4, 3, &[])], BROKEN),
        case(
            "6.10",
            "a head in three frames",
            &[
                frame(HEADERS, END_STREAM, 1, &head(BY_GET)[..2]),
                frame(CONTINUATION, 0, 1, &head(BY_GET)[2..7]),
                frame(CONTINUATION, 4, 1, &head(BY_GET)[7..]),
            ],
            Due::Answer(1),
        ),
        case(
            "8.1",
            "trailers that do not end the stream",
            &[post(1), frame(HEADERS, 4, 1, &[0, 1, b'a', 1, b'b'])],
            Due::Stream(&[PROTOCOL]),
        ),
        case(
            "8.1",
            "trailers",
            &[post(1), frame(DATA, 0, 1, b"hi"), frame(HEADERS, 5, 1, &[0, 1, b'a', 1, b'b'])],
            Due::Answer(1),
        ),
    ]
}

/// RFC 7541.
fn compression() -> Vec<Case> {
    vec![
        case("HPACK 2.3.3", "an index that is not there", &[with(&[0xff, 0x20])], GARBLED),
        case("HPACK 2.3.3", "a name by an index that is not there", &[with(&[0x7f, 0x20, 1, b'a'])], GARBLED),
        case("HPACK 4.2", "a new size of the table at the end", &[with(&[0x20])], GARBLED),
        case(
            "HPACK 4.2",
            "a new size of the table at the start",
            &[frame(HEADERS, 5, 1, &[&[0x20], &head(BY_GET)[..]].concat())],
            Due::Answer(1),
        ),
        case("HPACK 5.1", "a number without an end", &[with(&[0xff; 12])], GARBLED),
        case("HPACK 5.2", "a text that is longer than the head", &[with(&[0, 1, b'a', 9, b'b'])], GARBLED),
        case(
            "HPACK 5.2",
            "a code of Huffman that ends in zeros",
            &[with(&[0, 1, b'a', 0x81, 0x18])],
            GARBLED,
        ),
        case("HPACK 5.2", "padding of a whole byte", &[with(&[0, 1, b'a', 0x82, 0x1f, 0xff])], GARBLED),
        case(
            "HPACK 5.2",
            "the end of Huffman's codes",
            &[with(&[0, 1, b'a', 0x84, 0xff, 0xff, 0xff, 0xff])],
            GARBLED,
        ),
        case("HPACK 6.1", "the index 0", &[with(&[0x80])], GARBLED),
        case(
            "HPACK 6.3",
            "a table larger than allowed",
            &[frame(HEADERS, 5, 1, &[&[0x3f, 0xe2, 0x1f], &head(BY_GET)[..]].concat())],
            GARBLED,
        ),
        case(
            "HPACK 6.2",
            "a field of each form",
            &[with(&[0x40, 1, b'a', 1, b'1', 0xbe, 0x10, 1, b'b', 1, b'2', 0, 1, b'c', 0x81, 0x1f])],
            Due::Answer(1),
        ),
    ]
}

#[tokio::test]
async fn rules_of_http2_are_kept_one_by_one() {
    let _turn = machine::shared();
    let app = Recorder::start().await;
    let mut sidecar = super::before(app.address, json!({})).await;
    sidecar.until_ready().await;
    let cases: Vec<Case> =
        [frames_and_streams(), of_the_connection(), compression()].into_iter().flatten().collect();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let seen = play(sidecar.traffic, case).await;
        if let Err(why) = seen.is_as_due(case.due) {
            wrong.push(format!("{}: {}: {why}", case.rule, case.name));
        }
        alive(&sidecar).await.expect("others are served");
        let log = app.take();
        assert!(log.invalid.is_empty(), "{}: {log:?}", case.name);
    }
    println!("{} rules", cases.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(sidecar.runs());
}

/// Opens a connection, sends the frames and a PING behind them.
async fn play(address: std::net::SocketAddr, case: &Case) -> Seen {
    let mut stream = TcpStream::connect(address).await.expect("the port accepts");
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    bytes.extend(case.sends.concat());
    bytes.extend(frame(PING, 0, 0, LAST));
    let _ = stream.write_all(&bytes).await;
    let mut seen = Seen::default();
    let _ = timeout(Duration::from_secs(3), seen.read(&mut stream, case.due)).await;
    seen
}

const LAST: &[u8] = b"the last";

impl Seen {
    /// Reads until it is clear what came of it.
    async fn read(&mut self, stream: &mut TcpStream, due: Due) {
        while self.is_as_due(due).is_err() {
            match frames::read(stream).await {
                Some(frame) => self.frames.push(frame),
                None => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    fn is_as_due(&self, due: Due) -> Result<(), String> {
        let pong =
            self.frames.iter().any(|frame| frame.kind == PING && frame.has(ACK) && frame.payload == LAST);
        let codes = |kind, stream| {
            let of = self.frames.iter().filter(move |frame| frame.kind == kind && frame.stream == stream);
            of.filter_map(Frame::code).collect::<Vec<_>>()
        };
        let (gone, reset) = (codes(GOAWAY, 0), self.frames.iter().filter(|frame| frame.kind == RST_STREAM));
        let any = |codes: &[u32], of: &[u32]| codes.iter().any(|code| of.contains(code));
        let holds = match due {
            Due::Nothing => pong && gone.is_empty() && reset.count() == 0,
            Due::Answer(stream) => {
                let is_answer = |frame: &Frame| {
                    // `:status: 200` is 8 in the static table (RFC 7541, A).
                    frame.kind == HEADERS && frame.stream == stream && frame.payload.first() == Some(&0x88)
                };
                pong && gone.is_empty() && self.frames.iter().any(is_answer)
            }
            Due::Stream(due) => {
                let reset: Vec<u32> = reset.filter_map(Frame::code).collect();
                any(&reset, due) || (self.closed && any(&gone, due))
            }
            Due::Connection(due) => self.closed && any(&gone, due),
        };
        let text = || format!("{due:?} is due, {:?} came, closed: {}", self.frames, self.closed);
        if holds { Ok(()) } else { Err(text()) }
    }
}

/// What the client has not said is not done: windows hold answers back, and SETTINGS are answered.
#[tokio::test]
async fn windows_settings_and_pings_are_heeded() {
    let _turn = machine::shared();
    let app = Recorder::start().await;
    let sidecar = super::before(app.address, json!({})).await;
    sidecar.until_ready().await;
    let mut stream = TcpStream::connect(sidecar.traffic).await.expect("the port accepts");
    // A window of one byte (6.9.2), and answers of two.
    let opening = [PREFACE, &setting(4, 1), &get(1), &frame(PING, 0, 0, b"are you?")].concat();
    stream.write_all(&opening).await.expect("taken");
    let mut seen = Vec::new();
    let mut until = async |stream: &mut TcpStream, wanted: &dyn Fn(&Frame) -> bool| {
        let found = timeout(Duration::from_secs(10), async {
            loop {
                let frame = frames::read(stream).await.expect("the connection goes on");
                seen.push(frame.clone());
                if wanted(&frame) {
                    return frame;
                }
            }
        });
        found.await.expect("it never came")
    };
    let settings = until(&mut stream, &|frame| frame.kind == SETTINGS && !frame.has(ACK)).await;
    let offered: Vec<u8> = settings.payload.chunks(6).map(|setting| setting[1]).collect();
    assert!(offered.contains(&3), "how many streams it takes (6.5.2)");
    assert!(!offered.contains(&8), "RFC 8441, 3: extended CONNECT is not offered");
    let data = until(&mut stream, &|frame| frame.kind == DATA).await;
    assert_eq!((data.payload.as_slice(), data.has(END_STREAM)), (&b"o"[..], false));
    stream.write_all(&window(1, 1)).await.expect("taken");
    let data = until(&mut stream, &|frame| frame.kind == DATA && !frame.payload.is_empty()).await;
    assert_eq!(data.payload, b"k");
    stream.write_all(&frame(GOAWAY, 0, 0, &[0; 8])).await.expect("taken");
    // Who says goodbye is let go in order.
    let ended =
        timeout(Duration::from_secs(10), async { while frames::read(&mut stream).await.is_some() {} });
    ended.await.expect("it ends");
    assert!(seen.iter().any(|frame| frame.kind == SETTINGS && frame.has(ACK)), "6.5.3");
    let pong = seen.iter().find(|frame| frame.kind == PING && frame.has(ACK));
    assert_eq!(pong.expect("6.7").payload, b"are you?");
}
