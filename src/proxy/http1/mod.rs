//! A client that speaks HTTP/1.
//!
//! No task but the connection's, and no buffers of its own: a request is read into memory of the thread, its body as the
//! app takes it, and the answer's body as the client does.

mod answering;
mod link;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::traffic::{ErrorKind, From};

use super::body::Body;
use super::error::ProxyError;
use super::lane::Lane;
use super::message::Outgoing;
use super::message::request::{Head, Refusal, framing};
use super::notable::Notable;
use super::registry::{ConnectionState, Order};
use super::rest::{self, LAST_WORDS};
use super::stack::Stack;
use super::terminate::Stream;

use self::answering::{Answering, Broken, Terms};
use self::link::{Asked, Io, Link};

pub use self::link::Incoming;

/// Serves requests until the client, the app or the worker wants no more; gives the socket back where only the
/// client has nothing to ask right now.
pub async fn serve(
    stream: Stream,
    early: Bytes,
    state: Rc<ConnectionState>,
    lane: Rc<Lane>,
) -> Option<Stream> {
    let link = Link::new(stream, early, &state, &lane);
    let stack = Stack::new(Rc::clone(&lane), Rc::clone(&state));
    let mut out = Outgoing::default();
    loop {
        match poll_fn(|cx| link.poll_request(cx)).await {
            Asked::Request(head) => match exchange(&link, &stack, head, &state, &mut out).await {
                Next::Request => {}
                Next::Tunnel => {
                    // Boxed: most connections never come here, and their future would be as large.
                    Box::pin(switch(link, &state, &lane)).await;
                    return None;
                }
                Next::End { heard } => {
                    // Boxed, as above.
                    Box::pin(end(link, heard)).await;
                    return None;
                }
                Next::Nothing => {
                    // Of a 101 that did not go out: it holds the state that holds it.
                    drop(state.handover.take());
                    return None;
                }
            },
            Asked::Rest => return link.into_parts().map(|(io, _)| io.into_inner()),
            Asked::End => {
                Box::pin(end(link, true)).await;
                return None;
            }
            Asked::Refused(refusal) => {
                Box::pin(refuse(link, refusal, &state, &lane)).await;
                return None;
            }
            Asked::Gone(error) => {
                tracing::debug!(peer = %state.peer, %error, "connection ended");
                return None;
            }
            Asked::Cut => return None,
        }
    }
}

/// What comes after an answer.
enum Next {
    Request,
    /// The app switched to another protocol.
    Tunnel,
    /// The connection ends. `heard`: all that the client said was read, as far as one knows.
    End {
        heard: bool,
    },
    /// The connection has ended.
    Nothing,
}

/// Takes one request through the stack, and its answer to the client.
async fn exchange(
    link: &Rc<Link>,
    stack: &Stack,
    head: Head,
    state: &Rc<ConnectionState>,
    out: &mut Outgoing,
) -> Next {
    let Head { request, lines } = head;
    let notable = Notable::of(request.headers());
    let terms = Terms::of(&request, notable);
    let (body, misframed) = match framing(&request, notable) {
        Ok(None) => (None, None),
        Ok(Some(framing)) => {
            let expects = notable.has(Notable::EXPECT) && expects(&request);
            (Some(link.open(framing, expects)), None)
        }
        Err(fault) => (None, Some(fault)),
    };
    let answered = {
        let mut serving = pin!(stack.serve(Head { request, lines }, notable, body, misframed));
        poll_fn(|cx| poll_unless_gone(cx, link, state, |cx| serving.as_mut().poll(cx))).await
    };
    let response: Response<Body> = match answered {
        Some(Ok(response)) => response,
        Some(Err(_)) | None => return Next::Nothing,
    };
    let switches = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
    let is_unasked = link.answer_begins(out);
    let last = is_unasked || state.is_finishing();
    let (mut answering, goes_on) = Answering::begin(response, terms, last, out);
    let sent = poll_fn(|cx| poll_unless_gone(cx, link, state, |cx| answering.poll(cx, out, link))).await;
    match sent {
        Some(Ok(())) => {}
        Some(Err(broken)) => {
            tracing::debug!(peer = %state.peer, %broken, "answer broke off");
            if answering.seems_whole() && !matches!(broken, Broken::Client(_)) {
                link.reset_on_close();
            }
            return Next::Nothing;
        }
        None => return Next::Nothing,
    }
    // Counts the request as ended, or leaves what the app switched to.
    drop(answering);
    if switches {
        return Next::Tunnel;
    }
    if is_unasked {
        return Next::End { heard: false };
    }
    // Whatever follows a head without a certain body was not read.
    let heard = poll_fn(|cx| link.poll_through(cx)).await && misframed.is_none();
    if goes_on && heard { Next::Request } else { Next::End { heard } }
}

/// Goes on with a request while its client is there, and the worker serves it: else None.
fn poll_unless_gone<T>(
    cx: &mut Context<'_>,
    link: &Link,
    state: &ConnectionState,
    work: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<Option<T>> {
    if state.order(cx) == Order::Cut {
        return Poll::Ready(None);
    }
    if let Poll::Ready(done) = work(cx) {
        return Poll::Ready(Some(done));
    }
    match link.poll_gone(cx) {
        Some(error) => {
            tracing::debug!(peer = %state.peer, %error, "client has gone");
            Poll::Ready(None)
        }
        None => Poll::Pending,
    }
}

/// Whether a client of HTTP/1.1 waits until it is asked for its body (RFC 9110, 10.1.1).
fn expects(request: &Request<()>) -> bool {
    let expect = request.headers().get(header::EXPECT);
    request.version() == http::Version::HTTP_11
        && expect.is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Carries what follows a 101.
async fn switch(link: Rc<Link>, state: &Rc<ConnectionState>, lane: &Lane) {
    // Taken in any case: it holds the state that holds it.
    let granted = state.handover.take();
    if let (Some((io, early)), Some(granted)) = (link.into_parts(), granted) {
        granted.run(io, early, state, lane).await;
    }
}

/// Ends the connection. A client that is still sending is heard for a moment: closing over what it sent would be a
/// reset, which overtakes the answer.
async fn end(link: Rc<Link>, heard: bool) {
    let Some((io, rest)) = link.into_parts() else { return };
    if heard && rest.is_empty() {
        rest::end(&mut io.into_inner()).await;
    } else {
        hear_out(io).await;
    }
}

async fn hear_out(mut io: Io) {
    let heard = async {
        io.shutdown().await?;
        while io.read(&mut [0; 1 << 10]).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LAST_WORDS, heard).await;
}

/// Says why what came is no request, and ends the connection.
async fn refuse(link: Rc<Link>, refusal: Refusal, state: &ConnectionState, lane: &Lane) {
    let refusal = match refusal {
        Refusal::Fault(fault) => ProxyError::fault(ErrorKind::BadRequest, fault),
        Refusal::TooLarge => ProxyError::new(ErrorKind::TooManyFields),
    };
    tracing::debug!(peer = %state.peer, error = %refusal, "request refused");
    lane.counters.error(refusal.kind);
    let (status, answer) = refusal.last_words();
    lane.counters.request_began(lane.clock.millis());
    lane.counters.request_ended(status.as_u16(), Duration::ZERO, From::Other);
    let Some((mut io, _)) = link.into_parts() else { return };
    if matches!(tokio::time::timeout(LAST_WORDS, io.write_all(answer.as_bytes())).await, Ok(Ok(()))) {
        hear_out(io).await;
    }
}

/// A body of which all bytes came already.
#[cfg(test)]
pub fn body_of(stream: Stream, bytes: Bytes, state: &Rc<ConnectionState>, lane: &Rc<Lane>) -> Incoming {
    let length = bytes.len() as u64;
    Link::new(stream, bytes, state, lane).open(super::message::Framing::Length(length), false)
}
