//! The data plane, byte by byte: a raw client on one side, an app played by the test on the other, the real
//! binary between them.

mod answers;
mod answers_http2;
mod app_side;
mod bodies;
mod closing;
mod counting;
mod early;
mod fields;
mod framing;
mod h2;
mod half;
mod http2;
mod http2_rules;
mod limits;
mod malformed;
mod malformed_http2;
mod mutated;
mod pooling;
mod recorder;
mod resending;
mod resting;
mod streaming;
mod tcp;
mod tls;
mod upgrade;
mod waiting;
mod websocket;
mod wire;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{Sidecar, merge};

use self::wire::{Origin, Wire};

/// A sidecar with one worker in front of an app that the test plays; `more` goes below `listeners.http`.
async fn house(more: Value) -> (Sidecar, Origin) {
    let origin = Origin::start().await;
    let sidecar = before(origin.address, json!({ "listeners": { "http": more } })).await;
    sidecar.until_ready().await;
    (sidecar, origin)
}

/// A sidecar in front of that address; `more` overrides its configuration, key by key.
async fn before(app: SocketAddr, more: Value) -> Sidecar {
    Sidecar::start(&configuration(app, more)).await
}

fn configuration(app: SocketAddr, more: Value) -> Value {
    let base = json!({
        "listeners": { "http": { "listen": "127.0.0.1:0", "upstream": format!("http://{app}") } },
        "admin": { "listen": "127.0.0.1:0" },
        "drain": { "min": "200ms", "quiet": "100ms", "deadline": "60s" },
        "workers": 1,
    });
    merge(base, more)
}

/// A client's connection to the traffic port.
async fn client(sidecar: &Sidecar) -> Wire {
    Wire::connect(sidecar.traffic).await
}

/// A request without a body, as most clients send it.
const GET: &str = "GET /a HTTP/1.1\r\nhost: app.test\r\n\r\n";

/// A small answer of the app.
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
