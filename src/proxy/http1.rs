//! A client that speaks HTTP/1.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::net::TcpStream;

use super::lane::Lane;
use super::metered::{Metered, Tally};
use super::registry::{ConnectionState, Order, Stage};
use super::stack::Stack;

/// Serves requests until the client, the app or the worker wants no more.
pub async fn serve(stream: TcpStream, early: Bytes, state: Rc<ConnectionState>, lane: Rc<Lane>) {
    let limits = lane.settings().listener.limits.clone();
    let io = Metered::new(stream, early, ClientSide { state: Rc::clone(&state), lane: Rc::clone(&lane) });
    let connection = http1::Builder::new()
        // The app's client may have sent FIN after its request (`nc`, HTTP/1.0 clients) and still listen.
        .half_close(true)
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_buf_size(limits.header_bytes)
        .serve_connection(TokioIo::new(io), Stack::new(Rc::clone(&lane), Rc::clone(&state)));
    let peer = state.peer;
    match (Driver { connection, state, finishing: false }).await {
        Ok(()) => {}
        Err(error) if error.is_parse() => {
            lane.counters.error(crate::traffic::ErrorKind::BadRequest);
            tracing::debug!(%peer, %error, "request refused");
        }
        Err(error) => tracing::debug!(%peer, %error, "connection ended"),
    }
}

pin_project! {
    /// hyper's connection, and an ear for the worker's orders.
    struct Driver {
        #[pin]
        connection: http1::Connection<TokioIo<Metered<TcpStream, ClientSide>>, Stack>,
        state: Rc<ConnectionState>,
        finishing: bool,
    }
}

impl Future for Driver {
    type Output = hyper::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let order = this.state.order(cx);
        if order == Order::Cut {
            return Poll::Ready(Ok(()));
        }
        let polled = this.connection.as_mut().poll(cx);
        // Only after a look at what has come: hyper closes a connection at rest at once, and where the head
        // of the next request is coming, for hyper that is at rest. Such a request is answered first.
        let finish = order == Order::Finish && this.state.stage() != Stage::Head;
        if polled.is_pending() && finish && !*this.finishing {
            *this.finishing = true;
            this.connection.as_mut().graceful_shutdown();
            return this.connection.poll(cx);
        }
        polled
    }
}

/// Counts bytes, and notes when a request's head begins.
struct ClientSide {
    state: Rc<ConnectionState>,
    lane: Rc<Lane>,
}

impl Tally for ClientSide {
    fn received(&self, bytes: &[u8]) {
        self.lane.counters.received(bytes.len() as u64);
        if matches!(self.state.stage(), Stage::Silent | Stage::Idle) {
            self.state.enter(Stage::Head, &self.lane.clock);
        }
    }

    fn sent(&self, bytes: usize) {
        self.lane.counters.sent(bytes as u64);
        if self.state.stage() == Stage::Idle {
            // The end of an answer goes out to a slow reader: that is no idle connection.
            self.state.enter(Stage::Idle, &self.lane.clock);
        }
    }
}
