//! Every way a request can fail on its way, and the answer each one gets: one table.

use std::error::Error as _;
use std::fmt;
use std::io;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};

use crate::traffic::ErrorKind;

use super::body::Body;
use super::exchange::Broken;
use super::fault::Fault;

/// Why the data plane answers by itself.
#[derive(Debug)]
pub struct ProxyError {
    pub kind: ErrorKind,
    /// What happened below, for the log; never shown to clients.
    pub cause: Option<Cause>,
}

/// What a library said, or our own parser.
#[derive(Debug)]
pub enum Cause {
    Fault(Fault),
    Io(io::Error),
    Http(hyper::Error),
    Exchange(Broken),
}

impl ProxyError {
    pub fn new(kind: ErrorKind) -> Self {
        Self { kind, cause: None }
    }

    pub fn io(kind: ErrorKind, error: io::Error) -> Self {
        Self { kind, cause: Some(Cause::Io(error)) }
    }

    /// A message is refused for its form.
    pub fn fault(kind: ErrorKind, fault: Fault) -> Self {
        Self { kind, cause: Some(Cause::Fault(fault)) }
    }

    pub fn http(kind: ErrorKind, error: hyper::Error) -> Self {
        Self { kind, cause: Some(Cause::Http(error)) }
    }

    /// The app's side of an exchange broke before its answer came.
    pub fn broken(broken: Broken) -> Self {
        let kind = if broken.is_protocol() { ErrorKind::UpstreamProtocol } else { ErrorKind::UpstreamClosed };
        Self { kind, cause: Some(Cause::Exchange(broken)) }
    }

    /// The same, of HTTP/2.
    pub fn stream(error: hyper::Error) -> Self {
        Self::http(ErrorKind::UpstreamClosed, error)
    }

    /// Whether this holds for the I/O error below.
    pub fn io_cause(&self, holds: impl FnOnce(&io::Error) -> bool) -> bool {
        matches!(&self.cause, Some(Cause::Io(error)) if holds(error))
    }

    /// The answer for the client, in its protocol.
    pub fn answer(&self, dialect: Dialect) -> Response<Body> {
        let (status, grpc, text) = self.row();
        let mut response = match dialect {
            Dialect::Http => {
                let mut response = Response::new(Body::full(Bytes::from_static(text.as_bytes())));
                *response.status_mut() = status;
                let plain = HeaderValue::from_static("text/plain; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, plain);
                if status == StatusCode::SERVICE_UNAVAILABLE {
                    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                }
                response
            }
            // Trailers-only: one block of fields that is head and end (gRPC over HTTP/2, Responses).
            Dialect::Grpc => {
                let mut response = Response::new(Body::full(Bytes::new()));
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert("grpc-status", HeaderValue::from(grpc as u16));
                headers.insert("grpc-message", HeaderValue::from_static(text.trim_ascii_end()));
                response
            }
        };
        response.headers_mut().insert("x-readygate-error", HeaderValue::from_static(self.kind.name()));
        response
    }

    /// The answer for a client of HTTP/1 whose connection nobody serves any more: its status, and all of its bytes.
    pub fn last_words(&self) -> (StatusCode, String) {
        let (status, _, text) = self.row();
        let (kind, length) = (self.kind.name(), text.len());
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\n");
        let fields =
            format!("x-readygate-error: {kind}\r\nconnection: close\r\ncontent-length: {length}\r\n");
        (status, format!("{head}{fields}\r\n{text}"))
    }

    /// The table: the status, its twin of gRPC, and what to say.
    fn row(&self) -> (StatusCode, Code, &'static str) {
        use Code::{
            DeadlineExceeded, Internal, PermissionDenied, ResourceExhausted, Unavailable, Unimplemented,
        };
        match self.kind {
            ErrorKind::BadRequest | ErrorKind::ClientClosed => {
                (StatusCode::BAD_REQUEST, Internal, "the request is malformed\n")
            }
            ErrorKind::BodyTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, ResourceExhausted, "the request's body is too large\n")
            }
            ErrorKind::BodyTimeout => {
                (StatusCode::REQUEST_TIMEOUT, DeadlineExceeded, "the request's body did not come\n")
            }
            ErrorKind::TooManyFields => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                ResourceExhausted,
                "the request has too many header fields\n",
            ),
            ErrorKind::Unsupported => {
                (StatusCode::NOT_IMPLEMENTED, Unimplemented, "tunnels by CONNECT are not carried\n")
            }
            ErrorKind::NotReady => (StatusCode::SERVICE_UNAVAILABLE, Unavailable, "this pod is not ready\n"),
            ErrorKind::HoldTimeout => {
                (StatusCode::SERVICE_UNAVAILABLE, Unavailable, "this pod did not become ready in time\n")
            }
            ErrorKind::QueueFull => {
                (StatusCode::SERVICE_UNAVAILABLE, ResourceExhausted, "too many requests wait\n")
            }
            ErrorKind::ConnectRefused => {
                (StatusCode::SERVICE_UNAVAILABLE, Unavailable, "the app refuses connections\n")
            }
            ErrorKind::ConnectTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, Unavailable, "the app takes no connection\n")
            }
            ErrorKind::ConnectFailed => (StatusCode::BAD_GATEWAY, Unavailable, "no connection to the app\n"),
            ErrorKind::UpstreamClosed => {
                (StatusCode::BAD_GATEWAY, Unavailable, "the app closed the connection before it answered\n")
            }
            ErrorKind::UpstreamProtocol => {
                (StatusCode::BAD_GATEWAY, Internal, "the app's answer is not HTTP\n")
            }
            ErrorKind::UpstreamBroken => {
                (StatusCode::BAD_GATEWAY, Unavailable, "the app's answer broke off\n")
            }
            ErrorKind::ResponseTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, DeadlineExceeded, "the app did not answer in time\n")
            }
            ErrorKind::UpstreamTls => {
                (StatusCode::BAD_GATEWAY, Unavailable, "no TLS connection to the app\n")
            }
            ErrorKind::TlsHandshake => (StatusCode::BAD_REQUEST, Internal, "this port speaks TLS\n"),
            ErrorKind::Forbidden => {
                (StatusCode::FORBIDDEN, PermissionDenied, "only warm-up requests come this way\n")
            }
            ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, Internal, "readygate failed\n"),
        }
    }
}

/// How a client wants to be told of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Http,
    Grpc,
}

impl Dialect {
    /// gRPC is spoken over HTTP/2 only, and says so in its content type.
    pub fn of<B>(request: &Request<B>) -> Self {
        let is_grpc = request.version() == Version::HTTP_2
            && request
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if is_grpc { Self::Grpc } else { Self::Http }
    }
}

/// The codes of gRPC that are used here (grpc/grpc, doc/statuscodes.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
enum Code {
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        match &self.cause {
            Some(Cause::Fault(fault)) => write!(f, ": {fault}"),
            Some(Cause::Io(error)) => write!(f, ": {error}"),
            Some(Cause::Exchange(broken)) => write!(f, ": {broken}"),
            Some(Cause::Http(error)) => {
                write!(f, ": {error}")?;
                // hyper keeps the reason one floor down.
                error.source().map_or(Ok(()), |source| write!(f, ": {source}"))
            }
            None => Ok(()),
        }
    }
}

impl std::error::Error for ProxyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_own_answer_says_that_it_is_ours_and_why() {
        for kind in ErrorKind::ALL {
            let answer = ProxyError::new(kind).answer(Dialect::Http);
            assert_eq!(answer.headers()["x-readygate-error"], kind.name());
            assert!(answer.status().is_client_error() || answer.status().is_server_error());
        }
    }

    #[test]
    fn unavailable_says_when_to_come_again() {
        for kind in ErrorKind::ALL {
            let answer = ProxyError::new(kind).answer(Dialect::Http);
            let unavailable = answer.status() == StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(answer.headers().contains_key(header::RETRY_AFTER), unavailable, "{kind:?}");
        }
    }

    #[test]
    fn grpc_is_told_in_trailers_only() {
        for kind in ErrorKind::ALL {
            let answer = ProxyError::new(kind).answer(Dialect::Grpc);
            assert_eq!(answer.status(), StatusCode::OK, "{kind:?}");
            assert_eq!(answer.headers()["x-readygate-error"], kind.name());
            assert!(
                ["4", "7", "8", "12", "13", "14"]
                    .contains(&answer.headers()["grpc-status"].to_str().expect("digits"))
            );
            assert!(http_body::Body::is_end_stream(answer.body()), "{kind:?}: one block of fields");
        }
    }
}
