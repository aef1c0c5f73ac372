//! Raw ends of a connection, and an app whose every byte is the test's.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// One end of a connection. Every wait ends after a while, with what was read.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The start of a message: its first line, and its fields with names in lower case.
#[derive(Debug)]
pub struct Head {
    pub line: String,
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// The value of a field; all of them where it came more than once.
    pub fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> =
            self.fields.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(" | "))
    }

    /// The status of an answer.
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
    }
}

impl From<TcpStream> for Wire {
    fn from(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the port accepts");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends. That the other side is gone already is for the reads to find.
    pub async fn say(&mut self, text: &str) {
        let _ = self.stream.write_all(text.as_bytes()).await;
    }

    /// Sends bytes for as long as the other side takes them; says how many it took before it stayed silent.
    pub async fn flood(&mut self, total: usize) -> usize {
        let block = [b'x'; 16 << 10];
        let mut sent = 0;
        while sent < total {
            let length = block.len().min(total - sent);
            match timeout(STALLED, self.stream.write(&block[..length])).await {
                Ok(Ok(written)) => sent += written,
                Ok(Err(_)) | Err(_) => break,
            }
        }
        sent
    }

    /// Sends chunks until the other side closes the connection.
    pub async fn flood_chunks_until_stopped(&mut self) {
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
        let stopped = async { while self.stream.write_all(chunk.as_bytes()).await.is_ok() {} };
        timeout(PATIENCE, stopped).await.expect("the other side neither reads nor closes");
    }

    /// Ends its own direction.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("it is open");
    }

    /// Closes with a reset.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a socket option");
    }

    /// The next head.
    pub async fn head(&mut self) -> Head {
        let text = self.until("\r\n\r\n").await;
        let mut lines = text.lines();
        let line = lines.next().unwrap_or_default().to_owned();
        let fields = lines.filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
        Head { line, fields: fields.collect() }
    }

    /// Everything up to and including this.
    pub async fn until(&mut self, wanted: &str) -> String {
        loop {
            if let Some(at) = self.buffer.windows(wanted.len()).position(|part| part == wanted.as_bytes()) {
                let text: Vec<u8> = self.buffer.drain(..at + wanted.len()).collect();
                return String::from_utf8_lossy(&text).into_owned();
            }
            assert!(self.more().await, "it ended before {wanted:?}: {}", self.rest());
        }
    }

    /// That many bytes.
    pub async fn take(&mut self, length: usize) -> String {
        while self.buffer.len() < length {
            assert!(self.more().await, "it ended before {length} bytes: {}", self.rest());
        }
        let text: Vec<u8> = self.buffer.drain(..length).collect();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// An answer with a length: its head and its body.
    pub async fn answer(&mut self) -> (Head, String) {
        let head = self.head().await;
        let length = head.field("content-length").expect("an answer with a length");
        let body = self.take(length.parse().expect("a number")).await;
        (head, body)
    }

    /// An answer of the sidecar's own: its status, and what it says the reason is.
    pub async fn refusal(&mut self) -> (u16, String) {
        let (head, _) = self.answer().await;
        if head.status() == 503 {
            assert!(head.field("retry-after").is_some(), "{head:?}");
        }
        (head.status(), head.field("x-readygate-error").unwrap_or_default())
    }

    /// As a client: sends a request that the app gets on this connection, and gets its answer.
    pub async fn is_served_by(&mut self, app: &mut Wire) {
        self.say(super::GET).await;
        assert_eq!(app.head().await.line, "GET /a HTTP/1.1");
        app.say(super::OK).await;
        assert_eq!(self.answer().await.1, "ok");
    }

    /// The same on a connection that is new to the app.
    pub async fn is_served_anew(&mut self, origin: &mut Origin) -> Wire {
        self.say(super::GET).await;
        let (app, _) = origin.serve().await;
        assert_eq!(self.answer().await.1, "ok");
        app
    }

    /// Everything until the other side ends or resets the connection.
    pub async fn end(&mut self) -> String {
        while self.more().await {}
        let text = self.rest();
        self.buffer.clear();
        text
    }

    /// How the other side ended the connection: with a reset, or in order. Bytes that still come are dropped.
    pub async fn is_reset(&mut self) -> bool {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await;
            match read.expect("the connection is still open") {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                    return true;
                }
            }
        }
    }

    /// Whether the other side ends the connection, and does not reset it.
    pub async fn ends_in_order(&mut self) -> bool {
        let ended = async {
            loop {
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) => break true,
                    Ok(_) => {}
                    Err(_) => break false,
                }
            }
        };
        timeout(PATIENCE, ended).await.expect("it never ends")
    }

    /// Whether nothing came and nothing ended so far.
    pub fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        let would_block = std::io::ErrorKind::WouldBlock;
        self.buffer.is_empty()
            && matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == would_block)
    }

    fn rest(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("nothing more came after: {}", self.rest()));
        read.is_ok_and(|bytes| bytes > 0)
    }
}

/// An app that the test plays. Connections without a byte, such as those of the watch over its port, are
/// no concern of the test.
#[derive(Debug)]
pub struct Origin {
    pub address: SocketAddr,
    spoken: mpsc::UnboundedReceiver<Wire>,
    accepting: AbortHandle,
}

impl Origin {
    pub async fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (speaks, spoken) = mpsc::unbounded_channel();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let speaks = speaks.clone();
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let mut wire = Wire { stream, buffer: Vec::new() };
                    if matches!(wire.stream.read_buf(&mut wire.buffer).await, Ok(1..)) {
                        let _ = speaks.send(wire);
                    }
                });
            }
        });
        Self { address, spoken, accepting: accepting.abort_handle() }
    }

    /// The next connection on which a request comes.
    pub async fn connection(&mut self) -> Wire {
        let wire = timeout(PATIENCE, self.spoken.recv()).await.expect("no request reached the app");
        wire.expect("it accepts")
    }

    /// The next request on a new connection, answered with [`super::OK`].
    pub async fn serve(&mut self) -> (Wire, Head) {
        let mut wire = self.connection().await;
        let head = wire.head().await;
        wire.say(super::OK).await;
        (wire, head)
    }

    /// Whether no further connection brought a request so far.
    pub fn is_silent(&mut self) -> bool {
        self.spoken.try_recv().is_err()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The longest that anything may take: far more than it does.
const PATIENCE: Duration = Duration::from_secs(15);

/// After this long without a byte taken, the other side takes no more.
const STALLED: Duration = Duration::from_millis(500);
