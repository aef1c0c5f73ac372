//! An app that writes down every request it gets, reads them by the letter, and answers each with the same.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// The app. Its connections without a byte are no concern of anybody.
#[derive(Debug)]
pub struct Recorder {
    pub address: SocketAddr,
    log: Arc<Mutex<Log>>,
    accepting: AbortHandle,
}

/// What came so far.
#[derive(Debug, Default)]
pub struct Log {
    pub requests: Vec<Recorded>,
    /// Bytes that are no request by the letter, and why.
    pub invalid: Vec<String>,
    /// Of connections that ended: what came of a request that never became whole.
    pub partial: Vec<String>,
}

/// A whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub line: String,
    /// With names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let log = Arc::<Mutex<Log>>::default();
        let shared = Arc::clone(&log);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(record(stream, Arc::clone(&shared)));
            }
        });
        Self { address, log, accepting: accepting.abort_handle() }
    }

    /// What came since this was last asked.
    pub fn take(&self) -> Log {
        std::mem::take(&mut self.log.lock().expect("no panic holds it"))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Recorded {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

async fn record(mut stream: TcpStream, log: Arc<Mutex<Log>>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    loop {
        loop {
            match read(&buffer) {
                Ok(Some((request, length))) => {
                    buffer.drain(..length);
                    log.lock().expect("no panic holds it").requests.push(request);
                    let _ = stream.write_all(super::OK.as_bytes()).await;
                }
                Ok(None) => break,
                Err(why) => {
                    let bytes = String::from_utf8_lossy(&buffer).into_owned();
                    log.lock().expect("no panic holds it").invalid.push(format!("{why}: {bytes:?}"));
                    return;
                }
            }
        }
        if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
            if !buffer.is_empty() {
                let bytes = String::from_utf8_lossy(&buffer).into_owned();
                log.lock().expect("no panic holds it").partial.push(bytes);
            }
            return;
        }
    }
}

/// The first request of these bytes and its length; `None` if more is to come.
///
/// By the letter of RFC 9112, and where that leaves a choice, only what every parser reads in the same way.
fn read(bytes: &[u8]) -> Result<Option<(Recorded, usize)>, &'static str> {
    let Some((head, mut rest)) = split_at(bytes, b"\r\n\r\n") else { return Ok(None) };
    let mut lines = split(head, b"\r\n").into_iter();
    let line = lines.next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| "request line beyond ASCII")?;
    let [method, target, version] = line.split(' ').collect::<Vec<_>>()[..] else {
        return Err("request line");
    };
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err("method");
    }
    let origin =
        target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !(origin || (target == "*" && method == "OPTIONS")) || version != "HTTP/1.1" {
        return Err("target or version");
    }
    let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
    let all = |name: &str| {
        fields.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    match all("host")[..] {
        [host] if is_authority(host) => {}
        _ => return Err("host"),
    }
    let body = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => Some(Vec::new()),
        ([length], []) => {
            let length: usize = length.parse().map_err(|_| "content-length")?;
            if all("content-length")[0] != length.to_string() {
                return Err("content-length");
            }
            take(&mut rest, length).map(<[u8]>::to_vec)
        }
        ([], ["chunked"]) => chunks(&mut rest)?,
        _ => return Err("framing"),
    };
    let Some(body) = body else { return Ok(None) };
    let length = bytes.len() - rest.len();
    Ok(Some((Recorded { line: line.to_owned(), fields, body }, length)))
}

fn chunks(rest: &mut &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let mut body = Vec::new();
    loop {
        let Some((size, after)) = split_at(rest, b"\r\n") else { return Ok(None) };
        *rest = after;
        let size = std::str::from_utf8(size).map_err(|_| "chunk size")?;
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("chunk size");
        }
        let size = usize::from_str_radix(size, 16).map_err(|_| "chunk size")?;
        if size == 0 {
            break;
        }
        let Some(data) = take(rest, size) else { return Ok(None) };
        body.extend_from_slice(data);
        match take(rest, 2) {
            Some(b"\r\n") => {}
            Some(_) => return Err("end of chunk"),
            None => return Ok(None),
        }
    }
    loop {
        let Some((line, after)) = split_at(rest, b"\r\n") else { return Ok(None) };
        *rest = after;
        if line.is_empty() {
            return Ok(Some(body));
        }
        field(line)?;
    }
}

fn field(line: &[u8]) -> Result<(String, String), &'static str> {
    let Some((name, value)) = split_at(line, b":") else { return Err("field without a colon") };
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err("name of a field");
    }
    if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err("value of a field");
    }
    let name = String::from_utf8_lossy(name).to_lowercase();
    Ok((name, String::from_utf8_lossy(value.trim_ascii()).into_owned()))
}

fn is_authority(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, "1"),
    };
    let literal = name.starts_with('[') && name.ends_with(']');
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte));
    !name.is_empty()
        && (literal || plain)
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok()
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn split_at<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let found = bytes.windows(at.len()).position(|part| part == at)?;
    Some((&bytes[..found], &bytes[found + at.len()..]))
}

fn split<'a>(mut bytes: &'a [u8], at: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some((part, rest)) = split_at(bytes, at) {
        parts.push(part);
        bytes = rest;
    }
    parts.push(bytes);
    parts
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

#[test]
fn recorder_reads_by_the_letter() {
    const HEAD: &str = "POST / HTTP/1.1\r\nhost: a\r\n";
    for valid in
        ["\r\n", "content-length: 2\r\n\r\nhi", "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"]
    {
        let text = format!("{HEAD}{valid}");
        let (_, length) = read(text.as_bytes()).expect("valid").expect("whole");
        assert_eq!(length, text.len());
        assert_eq!(read(&text.as_bytes()[..length - 1]), Ok(None));
    }
    for invalid in [
        "host: a\r\n\r\n",
        "a : 1\r\n\r\n",
        "a: 1\nb: 2\r\n\r\n",
        "a: 1\r\n b\r\n\r\n",
        "content-length: 02\r\n\r\nhi",
        "content-length: +2\r\n\r\nhi",
        "content-length: 2\r\ncontent-length: 2\r\n\r\nhi",
        "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n2 \r\nhi\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n2\r\nhi!\r\n0\r\n\r\n",
    ] {
        assert!(read(format!("{HEAD}{invalid}").as_bytes()).is_err(), "{invalid:?}");
    }
}
