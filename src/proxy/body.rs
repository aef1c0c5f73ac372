//! Bodies: what goes to the app, what comes back, and what is let go when it ended.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderName;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::exchange;
use super::layers::observe::Flight;
use super::lease::Lease;
use super::message::Lines;
use super::octets::is_name;
use super::registry::{ConnectionState, PIECE};
use super::resend::Kept;
use super::upgrade::Switch;
use super::upload::{Broken, Failure, Upload};

/// The body of a request on its way to the app.
#[derive(Debug, Default)]
pub enum RequestBody {
    /// As it comes from the client.
    // Boxed: most requests have no body.
    Client(Box<Upload>),
    /// The same, kept for the case that the app does nothing with it.
    Kept(Kept),
    /// None, or that of a request without a body that is sent again.
    #[default]
    Empty,
}

impl RequestBody {
    /// Tells why it did not come to its end, if so.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Client(body) => Some(body.failure()),
            Self::Kept(_) | Self::Empty => None,
        }
    }

    /// Takes its last piece again.
    pub fn put_back(&mut self, piece: Bytes) {
        if let Self::Client(body) = self {
            body.put_back(piece);
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Client(body) => body.poll_frame(cx),
            Self::Kept(body) => body.poll_frame(cx),
            Self::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(body) => body.is_end_stream(),
            Self::Kept(body) => body.is_end_stream(),
            Self::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(body) => body.size_hint(),
            Self::Kept(body) => body.size_hint(),
            Self::Empty => SizeHint::with_exact(0),
        }
    }
}

/// The body of an answer on its way to the client.
///
/// Carries what the exchange holds: dropped, or read to its end, it counts the request as ended and gives
/// back the connection to the app and the place in flight.
#[derive(Debug)]
pub struct Body {
    // Declared first, dropped first: the connection is back in the pool before a waiting request gets
    // the place in flight.
    lease: Option<Lease>,
    permit: Option<OwnedSemaphorePermit>,
    flight: Option<Flight>,
    source: Source,
    lines: Lines,
}

#[derive(Debug)]
enum Source {
    Full(Option<Bytes>),
    /// The lease has it, until it is given back.
    Exclusive,
    Shared(Incoming),
    /// That of a 101: what follows its head is no body.
    Switch(Option<Box<Switch>>),
}

impl Body {
    fn of(source: Source) -> Self {
        Self { lease: None, permit: None, flight: None, source, lines: Lines::default() }
    }

    /// An answer of our own.
    pub fn full(bytes: Bytes) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        Self::of(Source::Full(bytes))
    }

    /// The app's answer, whose body comes by the lease unless it is here; the lease goes back when the body ended.
    pub fn app(body: Option<Incoming>, lease: Lease) -> Self {
        let mut body = Self::of(body.map_or(Source::Exclusive, Source::Shared));
        if let Lease::Exclusive(lease) = &lease {
            body.lines = lease.take_lines();
        }
        body.lease = Some(lease);
        if body.is_end_stream() {
            body.end_lease();
        }
        body
    }

    /// Whether it comes from the app.
    pub fn is_the_apps(&self) -> bool {
        !matches!(self.source, Source::Full(_))
    }

    /// The app granted an upgrade: dropped with the head on its way, it hands over the rest.
    pub fn switch(switch: Switch) -> Self {
        Self::of(Source::Switch(Some(Box::new(switch))))
    }

    /// The fields of its head that pass through: they are not in its map.
    pub fn take_lines(&mut self) -> Lines {
        std::mem::take(&mut self.lines)
    }

    pub fn carry_permit(&mut self, permit: OwnedSemaphorePermit) {
        self.permit = Some(permit);
    }

    pub fn carry_flight(&mut self, flight: Flight) {
        self.flight = Some(flight);
    }

    fn end_lease(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    fn end(&mut self) {
        self.end_lease();
        self.permit = None;
        if let Some(flight) = self.flight.take() {
            flight.landed();
        }
    }
}

/// The app's answer broke off.
#[derive(Debug, thiserror::Error)]
pub enum BrokenOff {
    #[error(transparent)]
    Exclusive(#[from] exchange::Broken),
    #[error(transparent)]
    Shared(#[from] hyper::Error),
}

impl Body {
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let client = self.flight.as_ref().map(Flight::connection);
        match &mut self.source {
            Source::Full(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Switch(_) => return Poll::Ready(None),
            Source::Exclusive | Source::Shared(_) => {}
        }
        match (&mut self.source, &self.lease) {
            (Source::Shared(body), _) => Pin::new(body).poll_frame(cx).map_err(BrokenOff::from),
            (_, Some(Lease::Exclusive(lease))) => {
                let most = client.map_or(PIECE, ConnectionState::appetite);
                lease.poll_frame(cx, most).map_err(BrokenOff::from)
            }
            _ => Poll::Ready(None),
        }
        .map_ok(presentable)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        let polled = this.poll_source(cx);
        match &polled {
            Poll::Ready(None) => this.end(),
            // After trailers nobody asks for more.
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() || this.is_end_stream() => this.end(),
            Poll::Ready(Some(Err(_))) => {
                if let Some(flight) = this.flight.take() {
                    flight.broken();
                }
            }
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(bytes) => bytes.is_none(),
            Source::Exclusive => match &self.lease {
                Some(Lease::Exclusive(lease)) => lease.is_end_stream(),
                Some(Lease::Shared(_)) | None => true,
            },
            Source::Shared(body) => body.is_end_stream(),
            Source::Switch(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Source::Exclusive => match &self.lease {
                Some(Lease::Exclusive(lease)) => lease.size_hint(),
                Some(Lease::Shared(_)) | None => SizeHint::with_exact(0),
            },
            Source::Shared(body) => body.size_hint(),
            Source::Switch(_) => SizeHint::with_exact(0),
        }
    }
}

/// Without trailers whose names are none (see `octets`).
fn presentable(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        let bad: Vec<HeaderName> = trailers.keys().filter(|name| !is_name(name)).cloned().collect();
        for name in bad {
            trailers.remove(name);
        }
    }
    frame
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Source::Switch(switch) = &mut self.source
            && let Some(switch) = switch.take()
        {
            return switch.grant(self.permit.take(), self.flight.take());
        }
        // Nobody polls a body without bytes, nor that of an answer to HEAD: dropped at its end, or of our own
        // making, it ended.
        if self.is_end_stream() || matches!(self.source, Source::Full(_)) {
            self.end();
        }
    }
}
