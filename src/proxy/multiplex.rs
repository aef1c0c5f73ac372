//! One lane's connection to an app that speaks HTTP/2: one, shared by all requests, made anew when it ends.
//!
//! Requests beyond the streams that the app allows wait for one of them (h2 holds them back). After a GOAWAY
//! the connection takes no more requests, those under way go on, and the next request gets a new connection.
//! No pings are sent to the app: gRPC servers take them for abuse, and over loopback a dead app is a reset.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::traffic::ErrorKind;

use super::body::RequestBody;
use super::dial::Stream;
use super::error::ProxyError;
use super::http2::{Local, SEND_BUFFER};
use super::lane::{Clock, Lane};
use super::lease::{Failure, Fate};
use super::metered::{Metered, Tally};

/// The connection, while there is one.
#[derive(Debug, Default)]
pub struct Multiplex {
    current: RefCell<Option<Rc<Connection>>>,
    /// Whoever holds it makes the connection; others wait for it.
    pub making: tokio::sync::Mutex<()>,
    /// Attempts that failed other than by a refusal.
    pub failures: Cell<u64>,
}

impl Multiplex {
    /// The connection, if it takes requests.
    pub fn take(&self) -> Option<Lease> {
        let mut current = self.current.borrow_mut();
        let connection = current.as_ref()?;
        if connection.sender.is_closed() {
            *current = None;
            return None;
        }
        Some(Lease::of(connection))
    }

    /// Closes the connection if nobody used it for that long.
    pub fn sweep(&self, clock: &Clock, longest: Duration) {
        let mut current = self.current.borrow_mut();
        let idle = |connection: &Rc<Connection>| {
            Rc::strong_count(connection) == 1 && clock.passed(connection.used.get(), longest)
        };
        if current.as_ref().is_some_and(idle) {
            *current = None;
        } else if let Some(connection) = current.as_ref()
            && Rc::strong_count(connection) > 1
        {
            connection.used.set(clock.millis());
        }
    }
}

/// A connection to the app. Dropping the last handle closes it.
struct Connection {
    sender: SendRequest<RequestBody>,
    scheme: Scheme,
    /// When it was last in use, on the coarse clock.
    used: Cell<u64>,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The connection, lent to one request.
pub struct Lease(Rc<Connection>);

impl Lease {
    fn of(connection: &Rc<Connection>) -> Self {
        Self(Rc::clone(connection))
    }

    /// Makes a new connection fit for requests, and that of the lane, once the app has said its first word, which comes
    /// unasked (RFC 9113, 3.4). An app that ends resets connections that only its kernel accepted: a request on one of
    /// those could not be told from one that the app had. One that is silent for `patience` gets requests all the same.
    ///
    /// # Errors
    ///
    /// The app's first bytes are not HTTP/2, or it hung up before them. No request was sent.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time; the connection is closed.
    pub async fn open(stream: Stream, lane: &Rc<Lane>, patience: Duration) -> Result<Self, ProxyError> {
        let spoke = Rc::new(Notify::new());
        let word = FirstWord { heard: Cell::new(false), spoke: Rc::clone(&spoke) };
        let scheme = if matches!(stream, Stream::Tls { .. }) { Scheme::HTTPS } else { Scheme::HTTP };
        let (sender, connection) = http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(HEADER_LIST)
            .handshake(TokioIo::new(Metered::new(stream, Bytes::new(), word)))
            .await
            .map_err(ProxyError::stream)?;
        let on = Rc::clone(lane);
        let task = tokio::task::spawn_local(async move {
            let ended = connection.await;
            if let Err(error) = &ended {
                tracing::debug!(listener = %on.shared.name, %error, "connection to the app ended");
            }
            on.upstream.suspect();
            ended
        });
        let used = Cell::new(lane.clock.millis());
        let connection = Rc::new(Connection { sender, scheme, used, task: task.abort_handle() });
        let first = async {
            tokio::select! {
                biased;
                ended = task => Some(ended),
                () = spoke.notified() => None,
            }
        };
        match tokio::time::timeout(patience, first).await {
            Ok(None) | Err(_) => {}
            Ok(Some(Ok(Err(error)))) if is_faulty(&error) => {
                return Err(ProxyError::http(ErrorKind::UpstreamProtocol, error));
            }
            Ok(Some(Ok(Err(error)))) => return Err(ProxyError::stream(error)),
            Ok(Some(_)) => return Err(ProxyError::new(ErrorKind::UpstreamClosed)),
        }
        lane.upstream.multiplex.current.replace(Some(Rc::clone(&connection)));
        Ok(Self(connection))
    }

    /// Sends the request; waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// What hyper says, and how far the request came.
    pub async fn send(&self, request: &mut Request<RequestBody>) -> Result<Response<Incoming>, Failure> {
        let addressed = addressed(std::mem::take(request), self.0.scheme.clone())?;
        // Handed to hyper before the first poll: a future that had it would carry it from place to place.
        let sending = self.0.sender.clone().try_send_request(addressed);
        sending.await.map_err(|mut error| {
            let unsent = error.take_message();
            let error = error.into_error();
            let fate = match unsent {
                Some(unsent) => {
                    *request = as_before(unsent);
                    Fate::Unsent
                }
                None if is_unprocessed(&error) => Fate::Unprocessed,
                None if is_faulty(&error) => {
                    let error = ProxyError::http(ErrorKind::UpstreamProtocol, error);
                    return Failure { error, fate: Fate::Answered };
                }
                None => Fate::Unanswered,
            };
            Failure { error: ProxyError::stream(error), fate }
        })
    }
}

/// Wakes who waits until anything comes.
struct FirstWord {
    heard: Cell<bool>,
    spoke: Rc<Notify>,
}

impl Tally for FirstWord {
    fn received(&self, _: &[u8]) {
        if !self.heard.replace(true) {
            self.spoke.notify_one();
        }
    }

    fn sent(&self, _: usize) {}
}

/// Puts what `Host` says where HTTP/2 has it, and takes away what frames only a message of HTTP/1.
fn addressed(mut request: Request<RequestBody>, scheme: Scheme) -> Result<Request<RequestBody>, Failure> {
    let refused = || Failure { error: ProxyError::new(ErrorKind::BadRequest), fate: Fate::Answered };
    let host = request.headers_mut().remove(header::HOST).ok_or_else(refused)?;
    for name in [header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE] {
        request.headers_mut().remove(name);
    }
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| refused())?;
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(scheme);
    uri.authority = Some(authority);
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| refused())?;
    *request.version_mut() = Version::HTTP_2;
    Ok(request)
}

/// Undoes [`addressed`]: the next connection may be another's.
fn as_before(mut request: Request<RequestBody>) -> Request<RequestBody> {
    let uri = std::mem::take(request.uri_mut()).into_parts();
    let host = uri.authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = uri.path_and_query.map_or_else(Uri::default, Uri::from);
    *request.version_mut() = Version::HTTP_11;
    request
}

/// Whether the app says that it did nothing with the request (RFC 9113, 6.8 and 8.7).
fn is_unprocessed(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|error| {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (refused || error.is_go_away())
    })
}

/// Whether what the app answered is not HTTP/2, so that h2 ended the stream, or the connection.
fn is_faulty(error: &hyper::Error) -> bool {
    cause(error).is_some_and(h2::Error::is_library)
}

fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref())
}

/// Bytes of an answer that wait here while its client takes none. The app is near: at a round trip of 100 µs, busy
/// threads included, this is 1.3 Gb/s.
const WINDOW: u32 = 16 << 10;

/// Not a bound of its own: were it less than all streams' windows, a few clients that read nothing would use it up, and
/// the answers of all others would wait for them.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Bytes of an answer's head.
const HEADER_LIST: u32 = 256 << 10;

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("used", &self.used).finish_non_exhaustive()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.0).finish()
    }
}
