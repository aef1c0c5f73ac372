//! HTTP/2 frame by frame as far as the crate h2 shows it: a client, and an app that the test plays.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, client, server};
use http::{HeaderMap, Request, Response};
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::support::frames;

/// A client's connection.
#[derive(Debug)]
pub struct Client {
    pub sender: client::SendRequest<Bytes>,
    /// Ends when the connection does, with its error.
    pub ended: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub head: Response<()>,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with(address, &client::Builder::new()).await
    }

    pub async fn with(address: SocketAddr, builder: &client::Builder) -> Self {
        let stream = TcpStream::connect(address).await.expect("the port accepts");
        let (sender, connection) = builder.handshake(stream).await.expect("HTTP/2");
        Self { sender, ended: tokio::spawn(connection) }
    }

    /// Opens a stream; its end stays open if `body` is to follow.
    pub async fn open(
        &mut self,
        request: Request<()>,
        body: bool,
    ) -> (client::ResponseFuture, h2::SendStream<Bytes>) {
        poll_fn(|cx| self.sender.poll_ready(cx)).await.expect("it takes a stream");
        self.sender.send_request(request, !body).expect("a request")
    }

    /// A request without a body.
    pub async fn ask(&mut self, request: Request<()>) -> Result<Answer, h2::Error> {
        let (response, _) = self.open(request, false).await;
        patiently(whole(response)).await
    }
}

/// Reads an answer to its end.
pub async fn whole(response: client::ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut stream) = response.await?.into_parts();
    let body = read(&mut stream).await?;
    let trailers = stream.trailers().await?;
    Ok(Answer { head: Response::from_parts(head, ()), body, trailers })
}

/// Reads a body to its end.
pub async fn read(stream: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        let _ = stream.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    Ok(body)
}

/// A request of that method to that path.
pub fn request(method: &str, path: &str) -> Request<()> {
    let uri = format!("http://app.test{path}");
    Request::builder().method(method).uri(uri).body(()).expect("a request")
}

/// A request that has reached the app.
#[derive(Debug)]
pub struct Arrived {
    /// Which of the app's connections it came on, from 0.
    pub connection: usize,
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
}

impl Arrived {
    /// Answers with this text.
    pub fn answer(mut self, text: &'static str) {
        let mut stream = self.respond.send_response(Response::new(()), false).expect("it is open");
        stream.send_data(Bytes::from_static(text.as_bytes()), true).expect("it is open");
    }
}

/// An app that speaks HTTP/2 only. Connections without a byte are no concern of the test.
#[derive(Debug)]
pub struct App {
    pub address: SocketAddr,
    arrived: mpsc::UnboundedReceiver<Arrived>,
    orders: mpsc::UnboundedSender<()>,
    accepting: AbortHandle,
}

impl App {
    pub async fn start() -> Self {
        Self::with(server::Builder::new()).await
    }

    pub async fn with(builder: server::Builder) -> Self {
        Self::made(builder, 0).await
    }

    /// One that resets its first so many connections before it says a word, as a server that ends does with those that
    /// only its kernel accepted.
    pub async fn after_resets(resets: usize) -> Self {
        Self::made(server::Builder::new(), resets).await
    }

    async fn made(builder: server::Builder, mut resets: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (arrives, arrived) = mpsc::unbounded_channel();
        let (orders, mut ordered) = mpsc::unbounded_channel::<()>();
        let accepting = tokio::spawn(async move {
            let mut number = 0;
            let mut connections: Vec<mpsc::UnboundedSender<()>> = Vec::new();
            loop {
                let mut stream = tokio::select! {
                    accepted = listener.accept() => accepted.expect("a connection").0,
                    Some(()) = ordered.recv() => {
                        for connection in &connections {
                            let _ = connection.send(());
                        }
                        continue;
                    }
                };
                if !matches!(stream.peek(&mut [0]).await, Ok(1)) {
                    continue;
                }
                if resets > 0 {
                    resets -= 1;
                    let _ = timeout(SILENCE, first_headers(&mut stream)).await;
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket option");
                    continue;
                }
                let (leave, mut leaving) = mpsc::unbounded_channel();
                connections.push(leave);
                let (arrives, builder, connection) = (arrives.clone(), builder.clone(), number);
                number += 1;
                tokio::spawn(async move {
                    let Ok(mut serving) = builder.handshake(stream).await else { return };
                    loop {
                        tokio::select! {
                            accepted = serving.accept() => match accepted {
                                Some(Ok((request, respond))) => {
                                    let _ = arrives.send(Arrived { connection, request, respond });
                                }
                                Some(Err(_)) | None => return,
                            },
                            Some(()) = leaving.recv() => serving.graceful_shutdown(),
                        }
                    }
                });
            }
        });
        Self { address, arrived, orders, accepting: accepting.abort_handle() }
    }

    /// The next request.
    pub async fn next(&mut self) -> Arrived {
        patiently(self.arrived.recv()).await.expect("it accepts")
    }

    /// Sends GOAWAY on all connections.
    pub fn go_away(&self) {
        self.orders.send(()).expect("it accepts");
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Reads until a request begins.
async fn first_headers(stream: &mut TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0; frames::PREFACE.len()]).await?;
    let mut head = [0; 9];
    while head[3] != frames::HEADERS {
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
    }
    Ok(())
}

/// How long an app waits for a request before it says a word.
const SILENCE: Duration = Duration::from_millis(200);

/// The longest that anything may take: far more than it does.
pub async fn patiently<F: Future>(work: F) -> F::Output {
    timeout(Duration::from_secs(15), work).await.expect("nothing came")
}
