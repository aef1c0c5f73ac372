//! Bytes between two ends, both ways, on one task: what a connection becomes after an upgrade, and all that a
//! TCP listener does.
//!
//! Each way lives by itself: the end of what one side sends is passed on as just that, and the other way goes
//! on, for as long as it likes (a `select!` over two copies would end both). Only when a side breaks do both
//! end, and the other side is told by a reset, as it would be without us.
//!
//! A tunnel at rest holds no buffer: bytes are read into one that the thread's tunnels share, and written at
//! once. Only what the other end does not take right away is kept, and nothing is read until it went. Not `splice`:
//! it wants a pipe for each way, which is two descriptors and a page, and sees neither frames nor TLS.

mod way;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

use super::lane::Lane;
use super::registry::{ConnectionState, Order, Stage};
use super::websocket::{Frames, Sender};

use self::way::{Failure, Way};

/// What a tunnel runs between.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Makes the close to come a reset, where there is such a thing.
    fn reset_on_close(&self);
}

/// The two ends, and what is under way between them. A future: ready when both ways ended.
#[derive(Debug)]
pub struct Tunnel<C, A> {
    client: C,
    app: A,
    /// From the client to the app.
    up: Way,
    /// From the app to the client.
    down: Way,
    /// One side takes nothing any more; what it sent before is still passed on.
    broken: Option<Broken>,
}

/// How a tunnel ended.
#[derive(Debug)]
pub enum End {
    /// Both sides said all they had to say, or were told to go and went.
    Whole,
    Broken(Broken),
    /// The worker wanted it to end.
    Cut,
}

/// A side that broke.
#[derive(Debug)]
pub struct Broken {
    pub side: Side,
    pub error: io::Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    App,
}

impl<C: Transport, A: Transport> Tunnel<C, A> {
    /// A tunnel between a client and an app, each with the bytes of it that were read already. Of a WebSocket
    /// the frames are followed, so that it can be told to go.
    pub fn new(client: (C, Bytes), app: (A, Bytes), websocket: bool) -> Self {
        Self {
            client: client.0,
            app: app.0,
            up: Way::new(client.1, websocket.then(|| Frames::new(Sender::Client))),
            down: Way::new(app.1, websocket.then(|| Frames::new(Sender::App))),
            broken: None,
        }
    }

    /// Tells both ends of a WebSocket that this connection goes away, each at the next boundary of frames, and
    /// passes nothing on after that. Says whether it could: the caller gives it only so long, and cuts what
    /// cannot be told.
    pub fn leave(&mut self) -> bool {
        let up = self.up.leave();
        self.down.leave() && up
    }

    /// Breaks the tunnel off: where an end was not told, this must not look like the end of what was sent.
    pub fn cut(self) {
        if !self.down.is_told() {
            self.client.reset_on_close();
        }
        if !self.up.is_told() {
            self.app.reset_on_close();
        }
    }
}

impl<C: Transport, A: Transport> Future for Tunnel<C, A> {
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = self.get_mut();
        let is_broken = this.broken.is_some();
        let (client, app) = (Pin::new(&mut this.client), Pin::new(&mut this.app));
        let up = this.up.poll(cx, client, app, is_broken);
        let is_broken = is_broken || matches!(up, Poll::Ready(Err(_)));
        let (client, app) = (Pin::new(&mut this.client), Pin::new(&mut this.app));
        let down = this.down.poll(cx, app, client, is_broken);
        let mut is_over = up.is_ready() && down.is_ready();
        for (polled, from, to) in [(up, Side::Client, Side::App), (down, Side::App, Side::Client)] {
            let Poll::Ready(Err(failure)) = polled else { continue };
            let (side, error) = match failure {
                Failure::Read(error) => {
                    is_over = true;
                    (from, error)
                }
                // What it sent before it closed may wait to be read, and is worth reading: a read says when
                // there is no more.
                Failure::Write(error) => (to, error),
            };
            this.broken.get_or_insert(Broken { side, error });
        }
        if !is_over {
            return Poll::Pending;
        }
        Poll::Ready(match this.broken.take() {
            None => End::Whole,
            Some(broken) => {
                this.client.reset_on_close();
                this.app.reset_on_close();
                End::Broken(broken)
            }
        })
    }
}

/// Runs a tunnel for the connection `state` until it ended or the worker cut it: where nothing moved for
/// `timeouts.tunnel_idle`, and at the deadline of the drain.
pub async fn carry<C: Transport, A: Transport>(
    mut tunnel: Tunnel<C, A>,
    state: &ConnectionState,
    lane: &Lane,
) -> End {
    state.enter(Stage::Tunnel, &lane.clock);
    let mut goodbye = None;
    let end = poll_fn(|cx| {
        if state.order(cx) == Order::Cut && goodbye.is_none() {
            if !tunnel.leave() {
                return Poll::Ready(End::Cut);
            }
            goodbye = Some(Box::pin(sleep(GOODBYE)));
        }
        if let Poll::Ready(end) = Pin::new(&mut tunnel).poll(cx) {
            return Poll::Ready(end);
        }
        match &mut goodbye {
            Some(goodbye) => goodbye.as_mut().poll(cx).map(|()| End::Cut),
            None => Poll::Pending,
        }
    })
    .await;
    match &end {
        End::Whole => {}
        End::Broken(Broken { side, error }) => {
            tracing::debug!(listener = %lane.shared.name, peer = %state.peer, ?side, %error, "tunnel broke");
            if *side == Side::App {
                lane.upstream.suspect();
            }
        }
        End::Cut => tunnel.cut(),
    }
    end
}

/// How long both ends of a WebSocket have to hear that it goes away, and to say so too.
pub const GOODBYE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
