//! `Expect: 100-continue`, from end to end: the client is asked for the body when the app asks for it.
//!
//! hyper's server sends `100 Continue` when a body is first polled, and its client polls the body right after
//! the head. So between the two the body waits here for the app's own `100`. An app that answers at once
//! instead does not get the body at all, and the client does not send it in vain.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::Timeout;

use super::body::RequestBody;
use super::upload::{Broken, Upload};

/// A request's body that waits for the app's word.
#[derive(Debug)]
pub struct Expected {
    /// None once the app answered without it.
    body: Option<Box<Upload>>,
    word: Option<Pin<Box<Timeout<oneshot::Receiver<Word>>>>>,
}

/// What the app says to the body.
#[derive(Debug)]
enum Word {
    Come,
    Stay,
}

/// Tells a waiting body that the app answered.
#[derive(Debug)]
pub struct Answered(Arc<Mutex<Option<oneshot::Sender<Word>>>>);

impl Answered {
    /// Lets the body go if the app did not ask for it: it will never be sent.
    pub fn tell(self) {
        tell(&self.0, Word::Stay);
    }
}

/// Makes the body of a request that expects `100 Continue` wait for it.
pub fn wait_for_continue(request: &mut Request<RequestBody>) -> Option<Answered> {
    if !request.headers().contains_key(header::EXPECT) {
        return None;
    }
    let (sender, receiver) = oneshot::channel();
    let sender = Arc::new(Mutex::new(Some(sender)));
    let body = request.body_mut();
    *body = match std::mem::replace(body, RequestBody::Empty) {
        RequestBody::Client(body) => RequestBody::Expected(Expected {
            body: Some(body),
            word: Some(Box::pin(tokio::time::timeout(PATIENCE, receiver))),
        }),
        other => other,
    };
    let on_continue = Arc::clone(&sender);
    hyper::ext::on_informational(request, move |answer| {
        if answer.status() == StatusCode::CONTINUE {
            tell(&on_continue, Word::Come);
        }
    });
    Some(Answered(sender))
}

fn tell(sender: &Mutex<Option<oneshot::Sender<Word>>>, word: Word) {
    if let Some(sender) = sender.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = sender.send(word);
    }
}

impl Expected {
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(word) = &mut self.word {
            let word = ready!(word.as_mut().poll(cx));
            self.word = None;
            if let Ok(Ok(Word::Stay)) = word {
                // Dropped, it is neither asked for nor mistaken for the next request.
                self.body = None;
            }
        }
        match &mut self.body {
            Some(body) => body.poll_frame(cx),
            // The head promised a body, so its connection is closed after the answer (see `pool`).
            None => Poll::Pending,
        }
    }

    pub fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(|body| body.is_end_stream())
    }

    pub fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, |body| body.size_hint())
    }
}

/// An app that knows nothing of `100 Continue` gets the body after this (RFC 9110, 10.1.1, wants no client to
/// wait for ever either; curl waits as long).
const PATIENCE: Duration = Duration::from_secs(1);
