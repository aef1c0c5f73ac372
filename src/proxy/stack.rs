//! What a request passes between its connection and the app: the list, outermost first.

use std::cell::RefCell;
use std::rc::Rc;

use http::{HeaderValue, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use tower::{Service, ServiceBuilder};

use super::body::{Body, RequestBody};
use super::error::{Dialect, ProxyError};
use super::fault::Fault;
use super::forward::Forward;
use super::head;
use super::lane::{Lane, Settings};
use super::layers::admit::Admit;
use super::layers::bounds::Bounds;
use super::layers::gated::Gated;
use super::layers::headers::Headers;
use super::layers::observe::Observe;
use super::layers::probe::Probe;
use super::layers::rescue::Rescue;
use super::layers::strict::Strict;
use super::notable::Notable;
use super::registry::ConnectionState;
use super::upload::Upload;
use super::wire::Wire;

/// A request on its way in. In a box: eight layers hand it on, and a pointer is cheaper to hand on.
pub type Inbound = Box<Entered>;

/// What [`Inbound`] is.
#[derive(Debug)]
pub struct Entered {
    pub request: Request<RequestBody>,
    /// Which of its fields need a look.
    pub notable: Notable,
    pub lane: Rc<Lane>,
    pub connection: Rc<ConnectionState>,
    /// As they were when the request came: a reload in between changes nothing for it.
    pub settings: Rc<Settings>,
    /// The protocols that the app may switch to.
    pub upgrade: Option<HeaderValue>,
    /// One of our own warm-up requests: passes the gate, waits for nothing, is not counted as traffic.
    pub warmup: bool,
    /// Why it must not be served.
    pub fault: Option<Fault>,
}

/// The services of one connection.
#[derive(Clone, Debug)]
pub struct Stack {
    lane: Rc<Lane>,
    connection: Rc<ConnectionState>,
    /// What reads the bytes of this connection a second time, if it speaks HTTP/1.
    wire: Option<Rc<RefCell<Wire>>>,
    service: Layers<Forward>,
}

/// All layers around what sends a request.
pub type Layers<S> = Probe<Observe<Rescue<Strict<Bounds<Gated<Admit<Headers<S>>>>>>>>;

pub fn layers<S>(innermost: S) -> Layers<S> {
    ServiceBuilder::new()
        .layer_fn(Probe) // the readiness answer on this port, and whose request this is
        .layer_fn(Observe) // clock, in flight, access log: sees every answer, also our own
        .layer_fn(Rescue) // any error below becomes an answer
        .layer_fn(Strict) // what is refused for its form
        .layer_fn(Bounds) // what no request may exceed
        .layer_fn(Gated) // what `not_ready` says
        .layer_fn(Admit) // places at the app
        .layer_fn(Headers) // hop-by-hop out, forwarded in
        .service(innermost)
}

impl Stack {
    pub fn new(lane: Rc<Lane>, connection: Rc<ConnectionState>) -> Self {
        Self { lane, connection, wire: None, service: layers(Forward) }
    }

    /// Serves only what this parser, which sees the connection's bytes, reads as hyper does.
    pub fn reading_along(mut self, wire: Rc<RefCell<Wire>>) -> Self {
        self.wire = Some(wire);
        self
    }

    fn judge(&self, request: &Request<Incoming>, notable: Notable) -> Result<(), Fault> {
        if let Some(wire) = &self.wire {
            let framing = wire.borrow_mut().next_head().unwrap_or(Err(Fault::Disagreement))?;
            if framing.length() != request.body().size_hint().exact() {
                return Err(Fault::Disagreement);
            }
        }
        head::check(request, notable)
    }
}

impl hyper::service::Service<Request<Incoming>> for Stack {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = <Layers<Forward> as Service<Inbound>>::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let notable = Notable::of(request.headers());
        let fault = self.judge(&request, notable).err();
        let settings = self.lane.settings();
        // Messages of a gRPC stream come when they come.
        let patient = Dialect::of(&request) == Dialect::Grpc;
        let upload = |body: Incoming| match body.is_end_stream() {
            true => RequestBody::Empty,
            false => {
                let upload = Upload::new(body, &settings.listener, &self.lane.clock, patient);
                RequestBody::Client(Box::new(upload))
            }
        };
        let inbound = Box::new(Entered {
            request: request.map(upload),
            notable,
            settings: Rc::clone(&settings),
            lane: Rc::clone(&self.lane),
            connection: Rc::clone(&self.connection),
            upgrade: None,
            warmup: false,
            fault,
        });
        // No layer keeps a state of its own, so each is always ready and a copy costs nothing.
        let mut service = self.service.clone();
        service.call(inbound)
    }
}
