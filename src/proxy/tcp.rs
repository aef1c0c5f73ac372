//! A client of a listener whose app speaks bytes: gated once, at its start, then a tunnel.
//!
//! Nothing is read before the app is there: whichever side the protocol lets speak first, it does.
//!
//! A connection that is not taken is reset, not closed: no answer of ours would mean anything to its protocol, and a
//! FIN would, where an app that has nothing to say sends just that. The client sees what it would see if the app's
//! port refused, a moment later. It also leaves nothing behind in TIME_WAIT.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use crate::config::{Listener, NotReady};
use crate::traffic::ErrorKind;

use super::dial::Stream;
use super::error::ProxyError;
use super::lane::Lane;
use super::layers::gated::hold;
use super::metered::{Metered, Tally};
use super::registry::ConnectionState;
use super::tunnel::{Broken, End, Side, Transport, Tunnel, carry};
use super::upstream::Patience;

/// Serves one connection until both sides ended, one broke, or the worker cut it.
pub async fn serve(client: impl Transport, state: Rc<ConnectionState>, lane: Rc<Lane>) {
    let _flight = Flight::begin(&lane, &state);
    let settings = lane.settings();
    let Some(app) = state.until_cut(reach(&lane, &settings.listener)).await else {
        return client.reset_on_close();
    };
    // Not kept for the life of the tunnel: a reload may replace them.
    drop(settings);
    let app = match app {
        Ok(app) => app,
        Err(error) => {
            lane.counters.error(error.kind);
            tracing::debug!(listener = %lane.shared.name, peer = %state.peer, %error, "connection not taken");
            client.reset_on_close();
            return;
        }
    };
    let counted = ClientSide { state: Rc::clone(&state), lane: Rc::clone(&lane) };
    let client = Metered::new(client, Bytes::new(), counted);
    let end = carry(Tunnel::new((client, Bytes::new()), (app, Bytes::new()), false), &state, &lane).await;
    match end {
        End::Whole | End::Cut => {}
        End::Broken(Broken { side: Side::Client, .. }) => lane.counters.error(ErrorKind::ClientClosed),
        End::Broken(Broken { side: Side::App, .. }) => lane.counters.error(ErrorKind::UpstreamBroken),
    }
}

/// The app, once the gate lets the client through and the app accepts.
async fn reach(lane: &Rc<Lane>, listener: &Listener) -> Result<Stream, ProxyError> {
    let word = lane.view.word();
    match listener.not_ready {
        _ if word.admits() => {}
        NotReady::Forward => {}
        // Waits for the app below, whatever the policy, as requests do.
        NotReady::Reject if word.app_refuses(lane.number) => {}
        NotReady::Reject => return Err(ProxyError::new(ErrorKind::NotReady)),
        NotReady::Hold => hold(lane, listener.hold.longest).await?,
    }
    lane.upstream.stream(lane, listener, &mut Patience::new(listener, false)).await
}

/// Counts the connection as in flight, until dropped: a drain waits for it.
struct Flight {
    lane: Rc<Lane>,
    state: Rc<ConnectionState>,
}

impl Flight {
    fn begin(lane: &Rc<Lane>, state: &Rc<ConnectionState>) -> Self {
        lane.counters.request_began(lane.clock.since_origin(Instant::now()));
        state.request_began(&lane.clock);
        Self { lane: Rc::clone(lane), state: Rc::clone(state) }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.state.request_ended(&self.lane.clock);
        self.lane.counters.tunnel_ended();
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
