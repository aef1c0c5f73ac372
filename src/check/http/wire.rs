//! HTTP/1.x answers, read as Go's `net/http` and `net/textproto` read them, since the kubelet does.
//!
//! More lenient than hyper (bare LF, folded lines, blanks before a colon, `HTTP/1.9`), and stricter in
//! places (no blank line before the status line). Only the fields that frame or redirect an answer are
//! kept, so that megabytes of header cost no more than their longest line. Nothing here trusts a byte:
//! every loop is bounded by a budget or by the end of the stream.

use std::io;
use std::pin::Pin;

use super::head::{Fields, Framing, is_token, quoted, status_line, trim};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};

/// Why an answer could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Before the body: final.
    Head(String),
    /// In the body: the kubelet asks again, up to three times in all.
    Body(String),
}

/// Where an answer comes from.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: BufReader<S>,
    /// What the head may still be long.
    budget: usize,
}

/// The head of a final answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// 000 to 999: the kubelet accepts any three digits.
    pub status: u16,
    pub location: Option<String>,
    pub framing: Framing,
}

impl<S: AsyncRead + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream), budget: LONGEST_HEAD }
    }

    /// Reads to the head of the final answer; interim answers (100, 103, but not 101) are skipped.
    ///
    /// `body_expected` is false for the answer to a HEAD.
    pub(super) async fn head(&mut self, body_expected: bool) -> Result<Head, Broken> {
        loop {
            let line =
                self.line().await?.ok_or_else(|| Broken::Head("it closed the connection".to_owned()))?;
            let (status, http_1_1) = status_line(&line).map_err(Broken::Head)?;
            let fields = self.fields().await?;
            if !(100..200).contains(&status) || status == 101 {
                let framing = fields.framing(status, http_1_1, body_expected).map_err(Broken::Head)?;
                let location = fields.location.map(|value| String::from_utf8_lossy(&value).into_owned());
                return Ok(Head { status, location, framing });
            }
        }
    }

    /// Reads a body, but no byte more than `limit`.
    pub(super) async fn body(&mut self, framing: Framing, limit: usize) -> Result<Vec<u8>, Broken> {
        let mut body = Vec::new();
        match framing {
            Framing::Empty => {}
            Framing::Length(length) => {
                let wanted = limit.min(usize::try_from(length).unwrap_or(limit));
                self.read_into(&mut body, wanted).await?;
                if body.len() < wanted {
                    return Err(Broken::Body(format!(
                        "the body ended after {} of {length} bytes",
                        body.len()
                    )));
                }
            }
            Framing::UntilClose => self.read_into(&mut body, limit).await?,
            Framing::Chunked => self.chunks_into(&mut body, limit).await?,
        }
        Ok(body)
    }

    /// Appends until `body` is `wanted` bytes long or the stream ends.
    async fn read_into(&mut self, body: &mut Vec<u8>, wanted: usize) -> Result<(), Broken> {
        while body.len() < wanted {
            let bytes = fill(&mut self.stream).await.map_err(|error| Broken::Body(error.to_string()))?;
            let taken = bytes.len().min(wanted - body.len());
            if taken == 0 {
                break;
            }
            body.extend_from_slice(&bytes[..taken]);
            self.stream.consume(taken);
        }
        Ok(())
    }

    async fn chunks_into(&mut self, body: &mut Vec<u8>, limit: usize) -> Result<(), Broken> {
        let broken = |what: &str| Broken::Body(what.to_owned());
        // Overhead beyond 16 bytes and the size of each chunk, as Go counts it.
        let mut excess: u64 = 0;
        while body.len() < limit {
            let line = self.chunk_line().await?;
            let size = chunk_size(&line).map_err(broken)?;
            excess =
                (excess + line.len() as u64 + 2).saturating_sub(size.saturating_mul(2).saturating_add(16));
            if excess > 16 << 10 {
                return Err(broken("the chunks hold too much besides data"));
            }
            if size == 0 {
                return self.trailers().await;
            }
            let end = body.len().saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
            self.read_into(body, end.min(limit)).await?;
            if body.len() < end.min(limit) {
                return Err(broken("the body ended in a chunk"));
            }
            if body.len() < limit {
                let mut end_of_chunk = Vec::new();
                self.read_into(&mut end_of_chunk, 2).await?;
                if end_of_chunk != b"\r\n" {
                    return Err(broken("a chunk does not end where it says"));
                }
            }
        }
        Ok(())
    }

    /// The line that begins a chunk, without its end: CRLF, no bare LF (RFC 9112 section 7.1).
    async fn chunk_line(&mut self) -> Result<Vec<u8>, Broken> {
        let broken = |what: &str| Broken::Body(what.to_owned());
        self.budget = LONGEST_CHUNK_LINE;
        let line = self.raw_line().await.map_err(|reason| Broken::Body(reason.to_owned()))?;
        let line = line.strip_suffix(b"\n").ok_or_else(|| broken("the body ended without its last chunk"))?;
        let line = line.strip_suffix(b"\r").ok_or_else(|| broken("a chunk's line ends with a bare LF"))?;
        if line.contains(&b'\r') {
            return Err(broken("a bare CR in a chunk's line"));
        }
        Ok(line.to_vec())
    }

    async fn trailers(&mut self) -> Result<(), Broken> {
        self.budget = LONGEST_CHUNK_LINE;
        match self.fields().await {
            Ok(_) => Ok(()),
            Err(Broken::Head(reason) | Broken::Body(reason)) => {
                Err(Broken::Body(format!("in the trailers: {reason}")))
            }
        }
    }

    /// Reads fields up to the empty line.
    async fn fields(&mut self) -> Result<Fields, Broken> {
        let broken = |what: &str, line: &[u8]| Broken::Head(format!("{what} {}", quoted(line)));
        let mut fields = Fields::default();
        if self.at_blank().await? {
            let line = self.line().await?.unwrap_or_default();
            return Err(broken("the first header line starts with a blank:", &line));
        }
        loop {
            let cut_short = || Broken::Head("it closed the connection within the header".to_owned());
            let line = self.line().await?.ok_or_else(cut_short)?;
            if line.is_empty() {
                return Ok(fields);
            }
            if !line.contains(&b':') {
                return Err(broken("a header line without a colon:", &line));
            }
            let mut field = trim(&line).to_vec();
            while self.at_blank().await? {
                let continuation = self.line().await?.ok_or_else(cut_short)?;
                field.push(b' ');
                field.extend_from_slice(trim(&continuation));
            }
            let colon = field.iter().position(|&byte| byte == b':').unwrap_or(field.len());
            let (name, value) = (&field[..colon], field.get(colon + 1..).unwrap_or_default());
            let control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
            if name.is_empty()
                || !name.iter().all(|&byte| byte == b' ' || is_token(byte))
                || value.iter().any(control)
            {
                return Err(broken("a malformed header line:", &field));
            }
            fields.keep(name, trim(value));
        }
    }

    /// Whether the next byte is a blank or a tab.
    async fn at_blank(&mut self) -> Result<bool, Broken> {
        let bytes = fill(&mut self.stream).await.map_err(|error| Broken::Head(error.to_string()))?;
        Ok(matches!(bytes.first(), Some(b' ' | b'\t')))
    }

    /// The next line without LF or CRLF; None at the end of the stream.
    async fn line(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        let mut line = self.raw_line().await.map_err(Broken::Head)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        Ok(Some(line))
    }

    /// The next line with its end, which is missing only at the end of the stream.
    async fn raw_line(&mut self) -> Result<Vec<u8>, String> {
        let mut line = Vec::new();
        loop {
            let bytes = fill(&mut self.stream).await.map_err(|error| error.to_string())?;
            let (taken, complete) = match bytes.iter().position(|&byte| byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (bytes.len(), bytes.is_empty()),
            };
            self.budget =
                self.budget.checked_sub(taken).ok_or("too long a header, expected at most 10 MiB")?;
            line.extend_from_slice(&bytes[..taken]);
            self.stream.consume(taken);
            if complete {
                return Ok(line);
            }
        }
    }
}

/// As `fill_buf`; a TLS peer that leaves without saying so has ended the stream, as for Go.
async fn fill<R: AsyncBufRead + Unpin>(stream: &mut R) -> io::Result<&[u8]> {
    match std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_fill_buf(cx).map_ok(|_| ())).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(&[]),
        Err(error) => return Err(error),
        Ok(()) => {}
    }
    stream.fill_buf().await
}

fn chunk_size(line: &[u8]) -> Result<u64, &'static str> {
    let size = line.split(|&byte| byte == b';').next().unwrap_or_default();
    let size = size.trim_ascii_end();
    if size.is_empty() || size.len() > 16 {
        return Err("a chunk without a size");
    }
    size.iter().try_fold(0_u64, |sum, &byte| {
        let digit = char::from(byte).to_digit(16).ok_or("an invalid byte in a chunk's size")?;
        Ok(sum << 4 | u64::from(digit))
    })
}

/// Interim answers included, as in Go.
const LONGEST_HEAD: usize = 10 << 20;

/// Of a line that begins a chunk, and of all trailers.
const LONGEST_CHUNK_LINE: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn read(bytes: &[u8], limit: usize) -> Result<(u16, Vec<u8>), Broken> {
        let mut wire = Wire::new(bytes);
        let head = wire.head(true).await?;
        Ok((head.status, wire.body(head.framing, limit).await?))
    }

    #[tokio::test]
    async fn a_body_ends_where_its_framing_says() {
        for (answer, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokMORE", "ok"),
            ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "ok"),
            ("HTTP/1.0 200 OK\r\n\r\nall of it", "all of it"),
            (
                "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                "2\r\nok\r\n0\r\n\r\n",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n",
                "ok!",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length : 9\r\n\r\nok", "ok"),
            ("HTTP/1.1 204 No\r\nContent-Length: 7\r\n\r\n", ""),
        ] {
            assert_eq!(
                read(answer.as_bytes(), 100).await,
                Ok((body_status(answer), body.into())),
                "{answer}"
            );
        }
    }

    fn body_status(answer: &str) -> u16 {
        answer[9..12].parse().expect("status")
    }

    #[tokio::test]
    async fn a_broken_body_is_told_from_a_broken_head() {
        for broken in [
            "\r\n2\r\nok",
            "\r\n2\r\nokX",
            "\r\nxyz\r\n",
            "\r\n2\nok\r\n",
            "\r\n0\r\nno colon\r\n\r\n",
            "\r\n0\r\n",
        ] {
            let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{broken}");
            assert!(matches!(read(answer.as_bytes(), 100).await, Err(Broken::Body(_))), "{broken}");
        }
        for broken in
            ["", "HTTP/1.1", "HTTP/1.1 2 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nA: b\r"]
        {
            assert!(matches!(read(broken.as_bytes(), 100).await, Err(Broken::Head(_))), "{broken}");
        }
    }

    #[tokio::test]
    async fn interim_answers_are_skipped_but_a_101_is_final() {
        let answer = "HTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 101 Switch\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(read(answer.as_bytes(), 100).await, Ok((101, Vec::new())));
    }

    #[tokio::test]
    async fn reading_stops_at_the_limit_whatever_follows() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nokok\r\nbroken";
        assert_eq!(read(answer, 4).await, Ok((200, b"okok".to_vec())));
    }

    fn answer() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop_oneof![
            Just(&b"HTTP/1.1 200 OK\r\n"[..]),
            Just(&b"HTTP/1.1 100 Continue\r\n\r\n"[..]),
            Just(&b"Transfer-Encoding: chunked\r\n"[..]),
            Just(&b"Content-Length: 5\r\n"[..]),
            Just(&b"\r\n"[..]),
            Just(&b"ffffffffffffffff\r\n"[..]),
            Just(&b"5\r\nhello\r\n"[..]),
            Just(&b"0\r\n"[..]),
            Just(&b" \t"[..]),
            Just(&b":"[..]),
        ]
        .prop_map(<[u8]>::to_vec);
        let anything = prop::collection::vec(any::<u8>(), 0..20);
        prop::collection::vec(prop_oneof![4 => pieces, 1 => anything], 0..20).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic_or_exceed_the_limit(bytes in answer(), limit in 0_usize..64) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
            if let Ok((status, body)) = runtime.block_on(read(&bytes, limit)) {
                prop_assert!(status <= 999);
                prop_assert!(body.len() <= limit);
            }
        }

        #[test]
        fn arbitrary_bytes_end_in_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
            let _ = runtime.block_on(read(&bytes, 1024));
        }
    }
}
