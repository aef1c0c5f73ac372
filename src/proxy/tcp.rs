//! A client of a listener whose app speaks bytes: gated once, at its start, then a tunnel.
//!
//! Nothing is read before the app is there: whichever side the protocol lets speak first, it does.
//!
//! A connection that is not taken is reset, not closed: no answer of ours would mean anything to its protocol, and a
//! FIN would, where an app that has nothing to say sends just that. The client sees what it would see if the app's
//! port refused, a moment later. It also leaves nothing behind in TIME_WAIT.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;

use crate::config::{Listener, NotReady};
use crate::traffic::ErrorKind;

use super::dial::Stream;
use super::error::ProxyError;
use super::lane::Lane;
use super::layers::gated::hold;
use super::metered::{Metered, Tally};
use super::registry::{ConnectionState, Order, Stage};
use super::tunnel::{Broken, End, Side, Transport, Tunnel, carry};
use super::upstream::Patience;

/// Serves one connection until both sides ended, one broke, or the worker cut it.
pub async fn serve(client: impl Transport, state: Rc<ConnectionState>, lane: Rc<Lane>) {
    state.enter(Stage::Busy, &lane.clock);
    let _flight = Flight::begin(&lane);
    let settings = lane.settings();
    let app = tokio::select! {
        biased;
        () = cut(&state) => {
            client.reset_on_close();
            return;
        }
        app = reach(&lane, &settings.listener) => app,
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

/// Waits for the worker to end this connection.
async fn cut(state: &ConnectionState) {
    poll_fn(|cx| match state.order(cx) {
        Order::Cut => Poll::Ready(()),
        Order::Serve | Order::Finish => Poll::Pending,
    })
    .await;
}

/// Counts the connection as in flight, until dropped: a drain waits for it.
struct Flight<'a>(&'a Lane);

impl<'a> Flight<'a> {
    fn begin(lane: &'a Lane) -> Self {
        lane.counters.request_began(lane.clock.since_origin(Instant::now()));
        Self(lane)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.counters.tunnel_ended();
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
