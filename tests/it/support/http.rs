//! A small HTTP/1.1 client over a raw socket: it sees what a library hides, a FIN, a reset, a cut answer.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Refused,
    /// The connection ended in order before the first byte of an answer.
    Closed,
    Reset,
    /// The answer began and broke off.
    Cut,
    /// Not an HTTP answer.
    Garbage(String),
    Timeout,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether the connection ends after this answer.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Read, not yet used.
    buffer: Vec<u8>,
}

/// One request on a connection of its own, at most 60 s.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer, Failure> {
    timeout(PATIENCE, async {
        let mut client = Client::connect(address).await?;
        client.send("GET", path, &[("connection", "close")], b"").await?;
        client.answer().await
    })
    .await
    .unwrap_or(Err(Failure::Timeout))
}

/// The longest that any request of a test may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

impl Client {
    pub async fn connect(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await.map_err(|error| failure(&error))?;
        stream.set_nodelay(true).map_err(|error| failure(&error))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Whether the other side has neither closed the connection nor sent anything unasked.
    pub fn is_open(&self) -> bool {
        let mut byte = [0];
        matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Sends a request.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(), Failure> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: app.test\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || method == "POST" {
            head += &format!("content-length: {}\r\n", body.len());
        }
        let message = [head.as_bytes(), b"\r\n", body].concat();
        self.stream.write_all(&message).await.map_err(|error| failure(&error))
    }

    /// Sends a request and reads the answer, at most 60 s.
    pub async fn get(&mut self, path: &str) -> Result<Answer, Failure> {
        timeout(PATIENCE, async {
            self.send("GET", path, &[], b"").await?;
            self.answer().await
        })
        .await
        .unwrap_or(Err(Failure::Timeout))
    }

    /// Reads one answer to its end; informational ones are passed over.
    pub async fn answer(&mut self) -> Result<Answer, Failure> {
        loop {
            let (status, headers) = self.head().await?;
            if (100..200).contains(&status) {
                continue;
            }
            let mut answer = Answer { status, headers, body: Vec::new() };
            let chunked = answer.header("transfer-encoding").is_some_and(|value| value.ends_with("chunked"));
            if chunked {
                while let Some(chunk) = self.chunk().await? {
                    answer.body.extend(chunk);
                }
            } else if let Some(length) = answer.header("content-length") {
                let length = length.parse().map_err(|_| Failure::Garbage(length.to_owned()))?;
                self.fill(length).await?;
                answer.body = self.buffer.drain(..length).collect();
            } else if status != 204 && status != 304 {
                while self.more().await? > 0 {}
                answer.body = std::mem::take(&mut self.buffer);
            }
            return Ok(answer);
        }
    }

    /// Status and header fields (names in lower case).
    pub async fn head(&mut self) -> Result<(u16, Vec<(String, String)>), Failure> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            if self.more().await? == 0 {
                return Err(if self.buffer.is_empty() { Failure::Closed } else { Failure::Cut });
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok());
        let status = status.ok_or_else(|| Failure::Garbage(head.clone()))?;
        let fields = lines.filter_map(|line| line.split_once(':'));
        Ok((status, fields.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect()))
    }

    /// The next chunk of a chunked body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                break at;
            }
            self.more_of_it().await?;
        };
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        let size = usize::from_str_radix(line.split(';').next().unwrap_or(""), 16);
        let size = size.map_err(|_| Failure::Garbage(line))?;
        self.fill(end + 2 + size + 2).await?;
        self.buffer.drain(..end + 2);
        let chunk: Vec<u8> = self.buffer.drain(..size).collect();
        self.buffer.drain(..2);
        Ok((size > 0).then_some(chunk))
    }

    /// Waits for the end of the connection; bytes that still come are an error.
    pub async fn closed(&mut self) -> Result<(), Failure> {
        match self.more().await {
            Ok(0) => Ok(()),
            Ok(_) => Err(Failure::Garbage(String::from_utf8_lossy(&self.buffer).into_owned())),
            Err(failure) => Err(failure),
        }
    }

    async fn fill(&mut self, length: usize) -> Result<(), Failure> {
        while self.buffer.len() < length {
            self.more_of_it().await?;
        }
        Ok(())
    }

    async fn more_of_it(&mut self) -> Result<(), Failure> {
        if self.more().await? == 0 { Err(Failure::Cut) } else { Ok(()) }
    }

    async fn more(&mut self) -> Result<usize, Failure> {
        self.stream.read_buf(&mut self.buffer).await.map_err(|error| failure(&error))
    }
}

fn failure(error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::ConnectionRefused => Failure::Refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Failure::Reset,
        _ => Failure::Garbage(error.to_string()),
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}
