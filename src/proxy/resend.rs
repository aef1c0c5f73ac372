//! What is needed to send a request again after HTTP/2 took it: its head, and its body as far as it is small.
//!
//! An app of HTTP/1 that did nothing with a request cannot say so, so only requests without a body are sent again to
//! it, and their heads are still there. An app of HTTP/2 can (RFC 9113, 6.8 and 8.7), and calls of gRPC have bodies: for
//! it the first bytes of a body are kept until the head of the answer came, for a request and for all together in
//! bounds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, request};
use http_body::{Body as _, Frame, SizeHint};

use super::body::RequestBody;
use super::upload::{Broken, Upload};

/// A request that may be sent again.
#[derive(Debug)]
pub struct Copy {
    parts: request::Parts,
    body: Option<Rc<RefCell<Source>>>,
}

impl Copy {
    /// Keeps what it takes.
    pub fn of(request: &mut Request<RequestBody>, budget: &Rc<Budget>) -> Option<Self> {
        let parts = head_of(request);
        if request.body().is_end_stream() {
            return Some(Self { parts, body: None });
        }
        let body = request.body_mut();
        match std::mem::replace(body, RequestBody::Empty) {
            RequestBody::Client(upload) => {
                let source = Rc::new(RefCell::new(Source::new(upload, budget)));
                *body = RequestBody::Kept(Kept::of(&source));
                Some(Self { parts, body: Some(source) })
            }
            other => {
                *body = other;
                None
            }
        }
    }

    /// The request once more; None if its body has grown too large to be kept.
    pub fn request(&self) -> Option<Request<RequestBody>> {
        let body = match &self.body {
            None => RequestBody::Empty,
            Some(source) => {
                let mut shared = source.borrow_mut();
                if !shared.keeps {
                    return None;
                }
                shared.copy += 1;
                drop(shared);
                RequestBody::Kept(Kept::of(source))
            }
        };
        Some(Request::from_parts(self.parts.clone(), body))
    }
}

/// The answer came: nothing is sent again.
impl Drop for Copy {
    fn drop(&mut self) {
        if let Some(source) = &self.body {
            let mut source = source.borrow_mut();
            source.keeps = false;
            // A later copy may not have sent yet what the first one did.
            if source.copy == 0 {
                source.forget();
            }
        }
    }
}

fn head_of(request: &Request<RequestBody>) -> request::Parts {
    let mut parts = Request::new(()).into_parts().0;
    parts.method = request.method().clone();
    parts.uri = request.uri().clone();
    parts.headers = request.headers().clone();
    parts
}

/// A client's body, and what of it was sent so far.
#[derive(Debug)]
struct Source {
    upload: Box<Upload>,
    /// One piece, whatever the pieces were in which it came: those of hyper hold on to whole buffers.
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    budget: Rc<Budget>,
    /// Whether `data` and `trailers` are all that came.
    keeps: bool,
    ended: bool,
    /// Which copy reads on: those before it are over, and may not know it yet.
    copy: u32,
}

impl Source {
    fn new(upload: Box<Upload>, budget: &Rc<Budget>) -> Self {
        let (data, budget) = (Vec::new(), Rc::clone(budget));
        Self { upload, data, trailers: None, budget, keeps: true, ended: false, copy: 0 }
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            let (before, size) = (self.data.capacity(), self.data.len() + data.len());
            if size > LARGEST {
                return self.forget();
            }
            self.data.extend_from_slice(data);
            if !self.budget.take(self.data.capacity() - before) {
                // What it was given before; the rest it did not get.
                self.budget.give_back(before);
                self.data = Vec::new();
                self.forget();
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
    }

    fn forget(&mut self) {
        self.keeps = false;
        self.budget.give_back(std::mem::take(&mut self.data).capacity());
        self.trailers = None;
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.budget.give_back(self.data.capacity());
    }
}

/// Bytes that the requests of one lane may keep together: an app that answers none of them must not fill the memory
/// with them. Who finds nothing left is not sent again.
#[derive(Debug)]
pub struct Budget(Cell<usize>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(TOGETHER))
    }
}

impl Budget {
    fn take(&self, bytes: usize) -> bool {
        let left = self.0.get().checked_sub(bytes);
        left.inspect(|left| self.0.set(*left)).is_some()
    }

    fn give_back(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes);
    }
}

/// One copy of a body on its way to the app.
#[derive(Debug)]
pub struct Kept {
    source: Rc<RefCell<Source>>,
    copy: u32,
    /// Bytes of the source's that were read, and whether its trailers were.
    read: usize,
    told: bool,
}

impl Kept {
    fn of(source: &Rc<RefCell<Source>>) -> Self {
        Self { copy: source.borrow().copy, source: Rc::clone(source), read: 0, told: false }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut source = self.source.borrow_mut();
        if source.copy != self.copy {
            // Another stream has the body now; this one has been reset.
            return Poll::Pending;
        }
        if let Some(unread) = source.data.get(self.read..).filter(|unread| !unread.is_empty()) {
            self.read += unread.len();
            return Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(unread)))));
        }
        if let Some(trailers) = source.trailers.as_ref().filter(|_| !self.told) {
            self.told = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        if source.ended {
            return Poll::Ready(None);
        }
        let polled = ready!(source.upload.poll_frame(cx));
        match &polled {
            None => source.ended = true,
            Some(Ok(frame)) if source.keeps => {
                source.keep(frame);
                self.read = source.data.len();
                self.told = source.trailers.is_some();
            }
            Some(_) => {}
        }
        Poll::Ready(polled)
    }

    pub fn is_end_stream(&self) -> bool {
        let source = self.source.borrow();
        let is_through = self.read >= source.data.len() && (self.told || source.trailers.is_none());
        is_through && (source.ended || source.upload.is_end_stream())
    }

    pub fn size_hint(&self) -> SizeHint {
        let source = self.source.borrow();
        let (kept, rest) = (source.data.len().saturating_sub(self.read) as u64, source.upload.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + kept);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + kept);
        }
        hint
    }
}

/// Bytes of a body that are kept: most calls fit.
const LARGEST: usize = 64 << 10;

/// The same for all requests of a lane together.
const TOGETHER: usize = 1 << 20;
