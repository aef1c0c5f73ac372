//! Every way a request can fail on its way, and the answer each one gets: one table.

use std::error::Error as _;
use std::fmt;
use std::io;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::traffic::ErrorKind;

use super::body::Body;
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

    /// The app's side of an exchange broke before its answer came.
    pub fn exchange(error: hyper::Error) -> Self {
        // hyper reports a client's broken request body as an error of the user of its client half.
        let kind = if error.is_user() {
            if is_malformed(&error) { ErrorKind::BadRequest } else { ErrorKind::ClientClosed }
        } else if error.is_parse() {
            ErrorKind::UpstreamProtocol
        } else {
            ErrorKind::UpstreamClosed
        };
        Self { kind, cause: Some(Cause::Http(error)) }
    }

    /// The answer for the client. gRPC's twin of this table comes with HTTP/2.
    pub fn answer(&self) -> Response<Body> {
        let (status, text) = match self.kind {
            ErrorKind::BadRequest | ErrorKind::ClientClosed => {
                (StatusCode::BAD_REQUEST, "the request is malformed\n")
            }
            ErrorKind::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "this pod is not ready\n"),
            ErrorKind::HoldTimeout => {
                (StatusCode::SERVICE_UNAVAILABLE, "this pod did not become ready in time\n")
            }
            ErrorKind::QueueFull => (StatusCode::SERVICE_UNAVAILABLE, "too many requests wait\n"),
            ErrorKind::ConnectRefused => (StatusCode::SERVICE_UNAVAILABLE, "the app refuses connections\n"),
            ErrorKind::ConnectTimeout => (StatusCode::GATEWAY_TIMEOUT, "the app takes no connection\n"),
            ErrorKind::ConnectFailed => (StatusCode::BAD_GATEWAY, "no connection to the app\n"),
            ErrorKind::UpstreamClosed => {
                (StatusCode::BAD_GATEWAY, "the app closed the connection before it answered\n")
            }
            ErrorKind::UpstreamProtocol => (StatusCode::BAD_GATEWAY, "the app's answer is not HTTP\n"),
            ErrorKind::UpstreamBroken => (StatusCode::BAD_GATEWAY, "the app's answer broke off\n"),
            ErrorKind::ResponseTimeout => (StatusCode::GATEWAY_TIMEOUT, "the app did not answer in time\n"),
            ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "readygate failed\n"),
        };
        let mut response = Response::new(Body::full(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert("x-readygate-error", HeaderValue::from_static(self.kind.name()));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Whether bytes came that make no body, and not only too few of them.
fn is_malformed(error: &hyper::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput};
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|io| matches!(io.kind(), InvalidData | InvalidInput))
        {
            return true;
        }
        cause = error.source();
    }
    false
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        match &self.cause {
            Some(Cause::Fault(fault)) => write!(f, ": {fault}"),
            Some(Cause::Io(error)) => write!(f, ": {error}"),
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
            let answer = ProxyError::new(kind).answer();
            assert_eq!(answer.headers()["x-readygate-error"], kind.name());
            assert!(answer.status().is_client_error() || answer.status().is_server_error());
        }
    }

    #[test]
    fn unavailable_says_when_to_come_again() {
        for kind in ErrorKind::ALL {
            let answer = ProxyError::new(kind).answer();
            let unavailable = answer.status() == StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(answer.headers().contains_key(header::RETRY_AFTER), unavailable, "{kind:?}");
        }
    }
}
