//! What the lines of an answer's head mean, as Go's `net/http` decides it (`ReadResponse`, `readTransfer`). Pure.

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Empty,
    Length(u64),
    Chunked,
    UntilClose,
}

/// The fields that matter, in the order of their lines.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub location: Option<Vec<u8>>,
    content_length: Vec<Vec<u8>>,
    transfer_encoding: Vec<Vec<u8>>,
    trailer: Vec<Vec<u8>>,
}

impl Fields {
    /// A name with a blank in it is accepted and means nothing, as for Go.
    pub(super) fn keep(&mut self, name: &[u8], value: &[u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("location") {
            self.location.get_or_insert_with(|| value.to_vec());
        } else if is("content-length") {
            self.content_length.push(value.to_vec());
        } else if is("transfer-encoding") {
            self.transfer_encoding.push(value.to_vec());
        } else if is("trailer") {
            self.trailer.push(value.to_vec());
        }
    }

    /// Go's `readTransfer`.
    pub(super) fn framing(
        &self,
        status: u16,
        http_1_1: bool,
        body_expected: bool,
    ) -> Result<Framing, String> {
        let encodings = if http_1_1 { self.transfer_encoding.as_slice() } else { &[] };
        let chunked = match encodings {
            [] => false,
            [one] if one.eq_ignore_ascii_case(b"chunked") => true,
            [one] => return Err(format!("an unsupported transfer encoding: {}", quoted(one))),
            _ => return Err("more than one transfer encoding".to_owned()),
        };
        let length = match self.content_length.as_slice() {
            [] => None,
            [first, others @ ..] if others.iter().all(|other| other == first) => Some(content_length(first)?),
            _ => return Err("several lengths that differ".to_owned()),
        };
        if chunked {
            let forbidden = ["transfer-encoding", "trailer", "content-length"];
            for name in self.trailer.iter().flat_map(|list| list.split(|&byte| byte == b',')) {
                if forbidden.iter().any(|known| trim(name).eq_ignore_ascii_case(known.as_bytes())) {
                    return Err(format!("a trailer that may not be one: {}", quoted(trim(name))));
                }
            }
        }
        let no_body = !body_expected || (100..200).contains(&status) || matches!(status, 204 | 304);
        Ok(match length {
            _ if no_body => Framing::Empty,
            _ if chunked => Framing::Chunked,
            Some(0) => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        })
    }
}

/// Status, and whether the version is at least HTTP/1.1.
pub(super) fn status_line(line: &[u8]) -> Result<(u16, bool), String> {
    // An alert or a handshake, of any version.
    if let [0x15 | 0x16, 3, ..] = line {
        return Err("an answer in TLS (is it https:// there?)".to_owned());
    }
    let malformed = |what: &str| format!("not an HTTP answer, {what}: {}", quoted(line));
    let blank = line.iter().position(|&byte| byte == b' ').ok_or_else(|| malformed("no status"))?;
    let (version, rest) = line.split_at(blank);
    let first = rest.iter().position(|&byte| byte != b' ').unwrap_or(rest.len());
    let code = rest[first..].split(|&byte| byte == b' ').next().unwrap_or_default();
    let status = match code {
        [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9'] => {
            code.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
        }
        _ => return Err(malformed("the status is not three digits")),
    };
    match version {
        [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] => {
            Ok((status, (*major, *minor) >= (b'1', b'1')))
        }
        _ => Err(malformed("the version is not HTTP/x.y")),
    }
}

fn content_length(value: &[u8]) -> Result<u64, String> {
    let digits =
        std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length =
        digits.and_then(|text| text.parse::<u64>().ok()).filter(|&length| length <= i64::MAX.unsigned_abs());
    length.ok_or_else(|| format!("a bad length: {}", quoted(value)))
}

pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes.iter().position(|byte| !is_blank(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// The beginning of what a server sent, fit for a message.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let end = bytes.len().min(200);
    format!("\"{}\"", crate::check::own::one_line(&String::from_utf8_lossy(&bytes[..end]), 60))
}
