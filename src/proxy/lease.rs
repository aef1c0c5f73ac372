//! A way to the app for one request: a connection of its own, or a share of one.

use bytes::Bytes;
use futures_util::future::Either;
use http::{Request, Response};
use hyper::body::Incoming;

use super::body::RequestBody;
use super::dial::Stream;
use super::error::ProxyError;
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
#[derive(Debug)]
pub enum Fate {
    /// Not a byte of it was written: here it is.
    Unsent(Box<Request<RequestBody>>),
    /// The app said that it did nothing with it.
    Unprocessed,
    /// Nobody knows what the app did; not a byte of an answer came.
    Unanswered,
    /// It is not to be sent again.
    Answered,
}

impl Lease {
    /// Sends the request; waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// The exchange broke; see [`Failure`].
    pub fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, Failure>> {
        // Handed to hyper before the first poll: a future that had the request would carry it from place to place.
        match self {
            Self::Exclusive(lease) => Either::Left(lease.send(request)),
            Self::Shared(lease) => Either::Right(lease.send(request)),
        }
    }

    /// Says that the request to come asks for an upgrade.
    pub fn may_switch(&self) {
        match self {
            Self::Exclusive(lease) => lease.may_switch(),
            Self::Shared(_) => {} // nothing of HTTP/2 asks for it
        }
    }

    /// Says whether the answer may be read in large pieces: they are cheaper, and what a slow client leaves is kept.
    pub fn read_much(&self, much: bool) {
        match self {
            Self::Exclusive(lease) => lease.read_much(much),
            Self::Shared(_) => {} // pieces are frames, and windows bound them
        }
    }

    /// Takes the connection apart after a 101: the socket, and what the app sent after the head. None if it broke
    /// meanwhile.
    pub async fn switch(self) -> Option<(Stream, Bytes)> {
        match self {
            Self::Exclusive(lease) => lease.switch().await,
            Self::Shared(_) => None,
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
