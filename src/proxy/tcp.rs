//! A client of a listener whose app speaks bytes: gated once, at its start, then a tunnel.
//!
//! Nothing is read before the app is there: whichever side the protocol lets speak first, it does.
//!
//! A connection that is not taken is reset, not closed: no answer of ours would mean anything to its protocol, and a
//! FIN would, where an app that has nothing to say sends just that. The client sees what it would see if the app's
//! port refused, a moment later. It also leaves nothing behind in TIME_WAIT.
//!
//! Our own warm-up comes by an entrance of its own, since bytes have no place for a token: it sends the token first, and
//! is told by one byte that the app took the connection. It passes the gate and is not counted.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::config::{Listener, NotReady};
use crate::traffic::ErrorKind;

use super::dial::Stream;
use super::error::ProxyError;
use super::lane::Lane;
use super::layers::gated::hold;
use super::metered::{Metered, Tally};
use super::registry::{ConnectionState, Entrance};
use super::tunnel::{Broken, End, Side, Transport, Tunnel, carry};
use super::upstream::Patience;

/// Serves one connection until both sides ended, one broke, or the worker cut it.
pub async fn serve(mut client: impl Transport, state: Rc<ConnectionState>, lane: Rc<Lane>) {
    let warmup = state.entrance == Entrance::Warmup;
    let token = lane.shared.warmup_token.as_bytes();
    // Under the deadline of the first byte, as whatever comes first.
    if warmup && state.until_cut(is_told(&mut client, token)).await != Some(true) {
        lane.counters.error(ErrorKind::Forbidden);
        return client.reset_on_close();
    }
    let _flight = Flight::begin(&lane, &state, !warmup);
    let settings = lane.settings();
    let Some(app) = state.until_cut(reach(&lane, &settings.listener, warmup)).await else {
        return client.reset_on_close();
    };
    // Not kept for the life of the tunnel: a reload may replace them.
    drop(settings);
    let app = match app {
        Ok(app) => app,
        Err(error) => {
            if !warmup {
                lane.counters.error(error.kind);
            }
            tracing::debug!(listener = %lane.shared.name, peer = %state.peer, %error, "connection not taken");
            client.reset_on_close();
            return;
        }
    };
    // It fits into the socket, or the client is gone, which the tunnel finds out.
    if warmup && state.until_cut(client.write_all(ADMITTED)).await.is_none() {
        return;
    }
    let counted = ClientSide { state: Rc::clone(&state), lane: Rc::clone(&lane) };
    let client = Metered::new(client, Bytes::new(), counted);
    let end = carry(Tunnel::new((client, Bytes::new()), (app, Bytes::new()), false), &state, &lane).await;
    match end {
        End::Whole | End::Cut => {}
        End::Broken(_) if warmup => {}
        End::Broken(Broken { side: Side::Client, .. }) => lane.counters.error(ErrorKind::ClientClosed),
        End::Broken(Broken { side: Side::App, .. }) => lane.counters.error(ErrorKind::UpstreamBroken),
    }
}

/// What a warm-up is told once the app took its connection.
const ADMITTED: &[u8] = b"+";

/// Whether these bytes come first. Reads no more than them.
async fn is_told(client: &mut (impl AsyncRead + Unpin), token: &[u8]) -> bool {
    let mut told = vec![0; token.len()];
    client.read_exact(&mut told).await.is_ok() && told == token
}

/// The app, once the gate lets the client through and the app accepts.
async fn reach(lane: &Rc<Lane>, listener: &Listener, warmup: bool) -> Result<Stream, ProxyError> {
    let word = lane.view.word();
    match listener.not_ready {
        _ if warmup || word.admits() => {}
        NotReady::Forward => {}
        // Waits for the app below, whatever the policy, as requests do.
        NotReady::Reject if word.app_refuses(lane.number) => {}
        NotReady::Reject => return Err(ProxyError::new(ErrorKind::NotReady)),
        NotReady::Hold => hold(lane, listener.hold.longest).await?,
    }
    lane.upstream.stream(lane, listener, &mut Patience::new(listener, warmup)).await
}

/// Notes that the connection is served, until dropped; counted, it is in flight and a drain waits for it.
struct Flight {
    lane: Rc<Lane>,
    state: Rc<ConnectionState>,
    counted: bool,
}

impl Flight {
    fn begin(lane: &Rc<Lane>, state: &Rc<ConnectionState>, counted: bool) -> Self {
        if counted {
            lane.counters.request_began(lane.clock.since_origin(Instant::now()));
        }
        state.request_began(&lane.clock);
        Self { lane: Rc::clone(lane), state: Rc::clone(state), counted }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.state.request_ended(&self.lane.clock);
        if self.counted {
            self.lane.counters.tunnel_ended();
        }
    }
}

/// Counts bytes, and notes that they moved.
struct ClientSide {
    state: Rc<ConnectionState>,
    lane: Rc<Lane>,
}

impl Tally for ClientSide {
    fn received(&self, bytes: &[u8]) {
        self.lane.counters.received(bytes.len() as u64);
        self.state.touch(&self.lane.clock);
    }

    fn sent(&self, bytes: usize) {
        self.lane.counters.sent(bytes as u64);
        self.state.touch(&self.lane.clock);
    }
}
