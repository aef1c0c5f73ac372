//! An HTTP/2 connection to a gRPC server, for one unary call at a time.
//!
//! By the `h2` crate itself and not through hyper: it leaves the connection's future to its user, while hyper spawns
//! tasks for it. So here, too, a connection ends with the future that uses it, and nothing is left behind.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use tokio::io::{AsyncRead, AsyncWrite};

use super::opening::{Heard, Opening};
use super::reply::Reply;

/// A unary call, ready to be sent.
#[derive(Clone, Debug)]
pub(in crate::check) struct Call {
    request: http::Request<()>,
    /// The message behind its prefix.
    framed: Bytes,
}

impl Call {
    /// `metadata` must not have names that gRPC itself uses; `timeout` is told to the server.
    pub(in crate::check) fn new(
        scheme: Scheme,
        authority: Authority,
        path: PathAndQuery,
        metadata: HeaderMap,
        message: &[u8],
        timeout: Duration,
    ) -> Self {
        let mut uri = http::uri::Parts::default();
        (uri.scheme, uri.authority, uri.path_and_query) = (Some(scheme), Some(authority), Some(path));
        let mut request = http::Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = http::Uri::from_parts(uri).expect("all parts are there");
        *request.headers_mut() = metadata;
        let headers = request.headers_mut();
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        if !headers.contains_key(USER_AGENT) {
            let name = concat!("readygate/", env!("CARGO_PKG_VERSION"));
            headers.insert(USER_AGENT, HeaderValue::from_static(name));
        }
        // At most eight digits.
        let millis = timeout.as_millis().clamp(1, 99_999_999);
        let timeout = HeaderValue::try_from(format!("{millis}m")).expect("digits and a letter");
        headers.insert(HeaderName::from_static("grpc-timeout"), timeout);
        let mut framed = BytesMut::with_capacity(message.len() + 5);
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).expect("a message of configuration is short"));
        framed.put_slice(message);
        Self { request, framed: framed.freeze() }
    }
}

/// Why there is no answer. `Display` goes on after the name of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::check) enum Broken {
    /// The server closed the connection and had said nothing.
    Closed,
    /// It left, and certainly did not begin with this call: a new connection may do.
    Unheard(String),
    Other(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed the connection without an answer, expected HTTP/2"),
            Self::Unheard(what) | Self::Other(what) => f.write_str(what),
        }
    }
}

/// What becomes of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::check) enum Body {
    /// It is kept, and must be short.
    Short,
    /// It is read to its end, however long, and forgotten.
    Forgotten,
}

/// The connection. Dropped without [`Link::close`], it just closes.
pub(in crate::check) struct Link {
    sender: SendRequest<Bytes>,
    driver: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The connection is over.
    ended: bool,
    heard: Heard,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Link {
    /// Begins to speak HTTP/2. Does not wait for the server.
    pub(in crate::check) async fn open<S>(stream: S) -> Result<Self, Broken>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stream, heard) = Opening::new(stream);
        let mut builder = Builder::new();
        builder.enable_push(false).max_header_list_size(LONGEST_HEAD);
        let begun = builder.handshake(stream).await;
        let (sender, connection) = begun.map_err(|error| broken(&error, &heard))?;
        // What breaks the connection breaks the call, which tells of it.
        let driver = Box::pin(async { drop(connection.await) });
        Ok(Self { sender, driver, ended: false, heard })
    }

    /// Whether a call may be tried, as far as what the server sent until now tells.
    pub(in crate::check) async fn is_open(&mut self) -> bool {
        let Self { sender, driver, ended, .. } = self;
        if !*ended {
            *ended = poll_fn(|cx| Poll::Ready(driver.as_mut().poll(cx).is_ready())).await;
        }
        !*ended && poll_fn(|cx| Poll::Ready(!matches!(sender.poll_ready(cx), Poll::Ready(Err(_))))).await
    }

    /// Sends the call and reads the whole answer.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves the connection fit for nothing but to be dropped.
    pub(in crate::check) async fn call(&mut self, call: &Call, wanted: Body) -> Result<Reply, Broken> {
        let exchange = exchange(self.sender.clone(), call, wanted);
        match alongside(&mut self.driver, &mut self.ended, exchange).await {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(Broken::Other("sent too long an answer, expected at most 64 KiB".to_owned())),
            Err(error) => Err(broken(&error, &self.heard)),
        }
    }

    /// Says goodbye, so that the server sees an end and no reset.
    pub(in crate::check) async fn close(self) {
        let Self { sender, driver, ended, .. } = self;
        drop(sender);
        if !ended {
            let _ = tokio::time::timeout(FAREWELL, driver).await;
        }
    }
}

/// None if there is more of it than is wanted.
async fn exchange(sender: SendRequest<Bytes>, call: &Call, wanted: Body) -> Result<Option<Reply>, h2::Error> {
    let mut sender = sender.ready().await?;
    let (answer, mut message) = sender.send_request(call.request.clone(), false)?;
    // A server may answer before it has read anything; then the answer says why this could not be sent.
    let _ = message.send_data(call.framed.clone(), true);
    let (head, mut stream) = answer.await?.into_parts();
    let Some(body) = body(&mut stream, wanted).await? else { return Ok(None) };
    let trailers = match stream.trailers().await {
        Err(error) if !is_harmless(&error) => return Err(error),
        trailers => trailers.ok().flatten(),
    };
    Ok(Some(Reply { status: head.status, head: head.headers, trailers, body }))
}

async fn body(stream: &mut RecvStream, wanted: Body) -> Result<Option<Vec<u8>>, h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        match data {
            Ok(data) => {
                match wanted {
                    Body::Short if body.len() + data.len() > LONGEST_BODY => return Ok(None),
                    Body::Short => body.extend_from_slice(&data),
                    Body::Forgotten => {}
                }
                stream.flow_control().release_capacity(data.len())?;
            }
            Err(error) if is_harmless(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Some(body))
}

/// A reset after the answer: the server wants no more of the request (RFC 9113, section 8.1).
fn is_harmless(error: &h2::Error) -> bool {
    error.is_reset() && error.reason() == Some(Reason::NO_ERROR)
}

fn broken(error: &h2::Error, heard: &Heard) -> Broken {
    if let Some(strange) = heard.instead_of_http2() {
        return strange
            .map_or(Broken::Closed, |strange| Broken::Other(format!("answered {strange}, expected HTTP/2")));
    }
    let reason = error.reason().map_or_else(|| error.to_string(), |reason| reason.to_string());
    match error.reason() {
        Some(Reason::NO_ERROR) if error.is_go_away() && error.is_remote() => Broken::Unheard(
            "is going away (GOAWAY): it is shutting down, or closes old connections".to_owned(),
        ),
        Some(Reason::REFUSED_STREAM) => Broken::Unheard("refused the call (REFUSED_STREAM)".to_owned()),
        Some(_) if error.is_go_away() && error.is_remote() => {
            Broken::Other(format!("sent us away (GOAWAY): {reason}"))
        }
        Some(_) if error.is_reset() && error.is_remote() => {
            Broken::Other(format!("reset the call: {reason}"))
        }
        Some(_) => Broken::Other(format!("does not speak HTTP/2 properly: {reason}")),
        None => Broken::Other(format!("closed the connection before the answer was complete: {reason}")),
    }
}

/// Runs `work` while the connection is driven. The connection's own error is not lost: `work` meets it.
async fn alongside<T>(
    driver: &mut Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: &mut bool,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    let drive = async {
        if !*ended {
            driver.as_mut().await;
            *ended = true;
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        done = &mut work => done,
        never = drive => match never {},
    }
}

/// Header fields of an answer that are read at most, in bytes.
const LONGEST_HEAD: u32 = 16 << 10;

/// What is kept of an answer's body, in bytes.
const LONGEST_BODY: usize = 64 << 10;

/// For the end of a connection; it goes at once unless the server's buffers are full.
const FAREWELL: Duration = Duration::from_millis(50);
