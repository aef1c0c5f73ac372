//! readygate: a sidecar that makes a pod's readiness probe true.
//!
//! It proxies the app's traffic, and answers `/ready` with 200 only on evidence that this pod can serve. This page
//! is the map; each module says its own job.
//!
//! # Floors
//!
//! A module imports from the floors below its own; a test (`tests/it/layers.rs`) holds this.
//!
//! ```text
//!  4  cli           one subcommand a file
//!  3  app           builds every part, puts it on its thread, runs the shutdown in order
//!  2  supervisor    runs checks on their schedules, watches the app's port, tells the gate
//!  1  check         one kind of evidence a file; knows no schedule and no gate
//!     proxy         the data plane: one request from its connection to the app and back
//!     admin         the port for kubelet, hooks and operators
//!  0  config        file, environment and flags become a valid Config, or every problem of theirs
//!     gate          the state machine, and the views that probes and requests read
//!     guard         what pods tell each other before one leaves, and what follows from it
//!     drain         how the pod leaves: hooks and signals in any order, one end
//!     traffic       what the data plane counts      metrics    what /metrics says
//!     telemetry     logs                            tls        certificates, and whom to trust
//!     signals       SIGTERM and its like
//! ```
//!
//! What parts of one floor tell each other goes through closures that `app::wiring` makes.
//!
//! # The path of a request
//!
//! Thread `data-N` (one a worker; they share nothing that a request writes):
//! `proxy::accept` takes a permit, then the connection → `proxy::connection` has `proxy::terminate` end its TLS, if the
//! listener speaks it, and hears what the client speaks → `proxy::http1` or `http2` serves it and hears of the
//! drain → `proxy::stack` lists the layers: observe, rescue, strict, bounds, gated, admit, headers →
//! `proxy::forward` sends it on a connection from `proxy::upstream`, which waits for an app that refuses → the body
//! streams back, and what was counted in flight is let go with its last frame or its drop. The bytes of HTTP/1
//! are read twice: `proxy::wire` must agree with hyper on every request.
//!
//! # The path of a probe
//!
//! Main thread: `admin` gives the connection a seat → `admin::routes` answers → `GateView::verdict` reads one published
//! word and the workers' beats → 200, or 503 with a line a reason. No check runs, nothing is waited for.
//!
//! # The path of evidence
//!
//! Thread `checks`: `supervisor` runs a `Check` when it is due → its result is an event for the `Gate`, under the arm in
//! which the run began → `gate::core` counts it and says what changed → word and report are published, then logs,
//! metrics and `/events` hear of it. What it does next is published beside the report, for people alone. A check with a
//! guard closes the gate only once `supervisor::guard` has asked the peers, whose `admin` answers from their views. A
//! warm-up goes through a listener, by the path of a request. That the app's port refuses or accepts again comes from
//! checks, traffic and the watch over it alike.
//!
//! # Invariants
//!
//! - `/ready` says yes only if every startup check passed since the last arm, no `always` check fails, the app's
//!   port does not refuse, and no file of TLS is lacking. An app that came back arms the gate again. One exception: a
//!   check with a guard that began to fail while the gate was open keeps it open until its guard lets the pod leave.
//! - Guards alone never bring ready pods below `min_ready`, whenever they decide; see `guard`.
//! - A pod that leaves never becomes ready again; requests are served until the drain is over.
//! - A request is sent twice only if the first copy provably never reached the app, or if it is idempotent, has no
//!   body, and no byte of the answer came.
//! - Requests take no lock and wait for no other thread. Neither does a probe.
//! - Nothing that came from outside is trusted, unwrapped, or made a label of a metric.

pub mod admin;
pub mod app;
pub mod check;
pub mod cli;
pub mod config;
pub mod drain;
pub mod gate;
pub mod guard;
pub mod metrics;
pub mod proxy;
pub mod signals;
pub mod supervisor;
pub mod telemetry;
pub mod tls;
pub mod traffic;
