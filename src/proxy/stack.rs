//! What a request passes between its connection and the app: the list, outermost first.

use std::rc::Rc;

use http::{HeaderValue, Request, Response};
use http_body::Body as _;
use hyper::body;
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
use super::message::Lines;
use super::message::request::Head;
use super::notable::Notable;
use super::registry::ConnectionState;
use super::upload::{Incoming, Upload};

/// A request on its way in. In a box: eight layers hand it on, and a pointer is cheaper to hand on.
pub type Inbound = Box<Entered>;

/// What [`Inbound`] is.
#[derive(Debug)]
pub struct Entered {
    pub request: Request<RequestBody>,
    /// Fields that pass through: of HTTP/1 those that are not in the request's map.
    pub lines: Lines,
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
    service: Layers<Forward>,
}

/// An answer that is waited for.
pub type Answered = <Layers<Forward> as Service<Inbound>>::Future;

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
        Self { lane, connection, service: layers(Forward) }
    }

    /// Serves a request; one that has a fault already, or is found to have one, is refused on its way.
    pub fn serve(
        &self,
        head: Head,
        notable: Notable,
        body: Option<impl Into<Incoming>>,
        fault: Option<Fault>,
    ) -> Answered {
        let Head { request, lines } = head;
        let fault = fault.or_else(|| head::check(&request, notable).err());
        let settings = self.lane.settings();
        let body = body.map_or(RequestBody::Empty, |body| {
            // Messages of a gRPC stream come when they come.
            let patient = Dialect::of(&request) == Dialect::Grpc;
            RequestBody::Client(Box::new(Upload::new(
                body.into(),
                &settings.listener,
                &self.lane.clock,
                patient,
            )))
        });
        let inbound = Box::new(Entered {
            request: request.map(|()| body),
            lines,
            notable,
            settings,
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

impl hyper::service::Service<Request<body::Incoming>> for Stack {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Answered;

    fn call(&self, request: Request<body::Incoming>) -> Self::Future {
        let notable = Notable::of(request.headers());
        let (parts, body) = request.into_parts();
        let body = (!body.is_end_stream()).then_some(body);
        let head = Head { request: Request::from_parts(parts, ()), lines: Lines::default() };
        self.serve(head, notable, body, None)
    }
}
