//! What is needed to send a request again: its head, and its body as far as it is small.
//!
//! An app of HTTP/1 that did nothing with a request cannot say so, so only requests without a body are kept
//! for it. An app of HTTP/2 can (RFC 9113, 6.8 and 8.7), and calls of gRPC have bodies: for it the first
//! frames of a body are kept until the head of the answer came.

use std::cell::RefCell;
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
    /// Keeps what it takes. `says_so`: the app tells if it did nothing with a request.
    pub fn of(request: &mut Request<RequestBody>, says_so: bool) -> Option<Self> {
        if request.body().is_end_stream() {
            return Some(Self { parts: head_of(request), body: None });
        }
        if !says_so {
            return None;
        }
        let parts = head_of(request);
        let body = request.body_mut();
        match std::mem::replace(body, RequestBody::Empty) {
            RequestBody::Client(upload) => {
                let source = Rc::new(RefCell::new(Source::new(upload)));
                *body = RequestBody::Kept(Kept::of(&source));
                Some(Self { parts, body: Some(source) })
            }
            other => {
                *body = other;
                None
            }
        }
    }

    /// Whether a second copy does no harm, whatever became of the first: idempotent (RFC 9110, 9.2.2) and without a
    /// body.
    pub fn is_harmless(&self) -> bool {
        self.body.is_none() && self.parts.method.is_idempotent()
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
    upload: Upload,
    frames: Vec<Part>,
    size: usize,
    /// Whether `frames` is all that came.
    keeps: bool,
    ended: bool,
    /// Which copy reads on: those before it are over, and may not know it yet.
    copy: u32,
}

#[derive(Clone, Debug)]
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Source {
    fn new(upload: Upload) -> Self {
        Self { upload, frames: Vec::new(), size: 0, keeps: true, ended: false, copy: 0 }
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        let part = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Part::Data(data.clone()),
            (None, Some(trailers)) => Part::Trailers(trailers.clone()),
            (None, None) => return,
        };
        self.size += if let Part::Data(data) = &part { data.len() } else { 0 };
        if self.size > LARGEST || self.frames.len() >= MOST_FRAMES {
            self.forget();
        } else {
            self.frames.push(part);
        }
    }

    fn forget(&mut self) {
        self.keeps = false;
        self.frames = Vec::new();
    }
}

/// One copy of a body on its way to the app.
#[derive(Debug)]
pub struct Kept {
    source: Rc<RefCell<Source>>,
    copy: u32,
    /// Frames of the source that were read.
    read: usize,
}

impl Kept {
    fn of(source: &Rc<RefCell<Source>>) -> Self {
        Self { copy: source.borrow().copy, source: Rc::clone(source), read: 0 }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut source = self.source.borrow_mut();
        if source.copy != self.copy {
            // Another stream has the body now; this one has been reset.
            return Poll::Pending;
        }
        if let Some(part) = source.frames.get(self.read).cloned() {
            self.read += 1;
            return Poll::Ready(Some(Ok(match part {
                Part::Data(data) => Frame::data(data),
                Part::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        if source.ended {
            return Poll::Ready(None);
        }
        let polled = ready!(source.upload.poll_frame(cx));
        match &polled {
            None => source.ended = true,
            Some(Ok(frame)) if source.keeps => {
                source.keep(frame);
                self.read += 1;
            }
            Some(_) => {}
        }
        Poll::Ready(polled)
    }

    pub fn is_end_stream(&self) -> bool {
        let source = self.source.borrow();
        self.read >= source.frames.len() && (source.ended || source.upload.is_end_stream())
    }

    pub fn size_hint(&self) -> SizeHint {
        let source = self.source.borrow();
        let unread = source.frames.iter().skip(self.read);
        let kept: usize = unread.map(|part| if let Part::Data(data) = part { data.len() } else { 0 }).sum();
        let (kept, rest) = (kept as u64, source.upload.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + kept);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + kept);
        }
        hint
    }
}

/// Bytes of a body that are kept: most calls fit, and it is what a stream's first window holds.
const LARGEST: usize = 64 << 10;

/// A body in very small pieces costs more than its bytes.
const MOST_FRAMES: usize = 64;
