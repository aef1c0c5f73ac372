//! A way to the app for one request: a connection of its own, or a share of one.

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;

use super::body::RequestBody;
use super::dial::Stream;
use super::error::ProxyError;
use super::message::Lines;
use super::{multiplex, pool};

/// The way. Dropping it before the exchange ended gives up the exchange.
#[derive(Debug)]
pub enum Lease {
    /// HTTP/1.1: nobody else uses the connection meanwhile.
    Exclusive(pool::Lease),
    /// HTTP/2.
    Shared(multiplex::Lease),
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Failure {
    pub error: ProxyError,
    pub fate: Fate,
}

/// What became of a request without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not a byte of it was written: it is whole, where it was.
    Unsent,
    /// The app said that it did nothing with it.
    Unprocessed,
    /// Nobody knows what the app did; not a byte of an answer came.
    Unanswered,
    /// It is not to be sent again.
    Answered,
}

impl Lease {
    /// Sends the request; waits for the head of the answer, whose body comes with it, or else by this lease. `lines`:
    /// its fields that are not in its map. There are none for an app that may speak HTTP/2.
    ///
    /// # Errors
    ///
    /// The exchange broke; see [`Failure`].
    pub async fn send(
        &mut self,
        request: &mut Request<RequestBody>,
        lines: &Lines,
    ) -> Result<Response<Option<Incoming>>, Failure> {
        match self {
            Self::Exclusive(lease) => {
                lease.send(request, lines).await.map(|response| response.map(|()| None))
            }
            Self::Shared(lease) => lease.send(request).await.map(|response| response.map(Some)),
        }
    }

    /// Says that the body of the request to come waits for the app's `100 Continue`.
    pub fn expect_continue(&self) {
        match self {
            Self::Exclusive(lease) => lease.expect_continue(),
            Self::Shared(_) => {} // hyper does not tell of a 100 of HTTP/2
        }
    }

    /// Takes the connection apart after a 101: the socket, and what the app sent after the head.
    pub fn switch(self) -> Option<(Stream, Bytes)> {
        match self {
            Self::Exclusive(lease) => lease.switch(),
            Self::Shared(_) => None, // nothing of HTTP/2 asks for it
        }
    }

    /// The exchange ended well.
    pub fn give_back(self) {
        match self {
            Self::Exclusive(lease) => lease.give_back(),
            Self::Shared(_) => {}
        }
    }
}
