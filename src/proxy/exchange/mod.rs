//! One connection of HTTP/1.1 to the app, and the exchange that is under way on it.
//!
//! No task of its own: the request's future writes the request and reads the head of the answer, and the answer's
//! body reads the rest as the client takes it, so nothing is read that has nowhere to go and a request passes no
//! channel. Only what is left of a request's body when the answer has begun goes on in a task. Buffers belong to
//! the thread: a connection at rest has none.

mod reading;
mod reply;
mod sending;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::JoinHandle;

use super::body::RequestBody;
use super::dial::Stream;
use super::message::Lines;

pub use self::reading::Broken;

use self::reading::Reading;
use self::sending::{Sending, Stop};

/// The connection.
#[derive(Debug)]
pub struct Connection {
    stream: RefCell<Stream>,
    sending: RefCell<Sending>,
    reading: RefCell<Reading>,
    /// The rest of a request's body is sent while its answer comes.
    uploading: Cell<bool>,
    /// Who reads the answer meanwhile.
    reader: RefCell<Option<Waker>>,
    /// That body broke off.
    given_up: Cell<bool>,
    /// The request asks to wait for the app's `100 Continue`.
    expects: Cell<bool>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Trouble {
    /// Not a byte of the request was written: it is as it was.
    Unsent(Broken),
    /// Not a byte of an answer came.
    Unanswered(Broken),
    /// An answer began.
    Answered(Broken),
    /// The body did not come to its end: its [`super::upload::Failure`] says why.
    Upload,
}

/// The head of an answer, and what sends the rest of the request.
type Answered = (Response<()>, Option<Uploader>);

impl Connection {
    pub fn new(stream: Stream) -> Self {
        Self {
            stream: RefCell::new(stream),
            sending: RefCell::default(),
            reading: RefCell::default(),
            uploading: Cell::default(),
            reader: RefCell::default(),
            given_up: Cell::default(),
            expects: Cell::default(),
        }
    }

    /// The request to come says `Expect: 100-continue`: its body waits for the app's word, but not for ever.
    pub fn expect_continue(&self) {
        self.expects.set(true);
    }

    /// Sends the request and waits for the head of its answer. The request's head stays where it is. What is left of
    /// its body then is sent by the [`Uploader`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time; the connection is of no use then.
    pub async fn send(
        self: &Rc<Self>,
        request: &mut Request<RequestBody>,
        lines: &Lines,
    ) -> Result<Answered, Trouble> {
        self.reading.borrow_mut().begin(request.method() == Method::HEAD);
        self.sending.borrow_mut().begin(request, lines, self.expects.take());
        let mut stopped = None;
        let answered = poll_fn(|cx| self.poll_exchange(cx, &mut stopped)).await;
        if let Err(Trouble::Unsent(_)) = &answered {
            *request.body_mut() = self.sending.borrow_mut().take_body();
        }
        answered
    }

    /// `stopped`: why no more is sent.
    fn poll_exchange(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        stopped: &mut Option<Broken>,
    ) -> Poll<Result<Answered, Trouble>> {
        let mut reading = self.reading.borrow_mut();
        loop {
            let through = self.poll_send(cx, stopped)?;
            let head = reading.poll_head(cx, &mut self.stream.borrow_mut());
            if reading.take_continued() && !through {
                self.sending.borrow_mut().go_on();
                if head.is_pending() {
                    continue;
                }
            }
            return Poll::Ready(match ready!(head) {
                Ok(response) => Ok((response, if through { None } else { self.upload() })),
                Err(broken) => {
                    let broken = stopped.take().filter(|_| broken.is_end()).unwrap_or(broken);
                    let begun = reading.has_begun();
                    Err(if begun { Trouble::Answered(broken) } else { Trouble::Unanswered(broken) })
                }
            });
        }
    }

    /// Whether nothing more is to be sent.
    fn poll_send(&self, cx: &mut Context<'_>, stopped: &mut Option<Broken>) -> Result<bool, Trouble> {
        if stopped.is_some() {
            return Ok(true);
        }
        match self.sending.borrow_mut().poll(cx, &mut self.stream.borrow_mut()) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(Stop::Body)) => Err(Trouble::Upload),
            Poll::Ready(Err(Stop::Unwritten(error))) => Err(Trouble::Unsent(error.into())),
            // An app that wants no more of the body may have said why (RFC 9112, 9.5).
            Poll::Ready(Err(Stop::Broken(error))) => {
                *stopped = Some(error.into());
                Ok(true)
            }
        }
    }

    /// Lets the rest of the request's body go on beside the answer: a client may send all of it before it reads.
    fn upload(self: &Rc<Self>) -> Option<Uploader> {
        if self.sending.borrow_mut().drop_expected() {
            return None;
        }
        let connection = Rc::clone(self);
        self.uploading.set(true);
        Some(Uploader(tokio::task::spawn_local(async move {
            let sent =
                poll_fn(|cx| connection.sending.borrow_mut().poll(cx, &mut connection.stream.borrow_mut()));
            let sent = sent.await;
            connection.given_up.set(matches!(sent, Err(Stop::Body)));
            connection.uploading.set(false);
            if let Some(reader) = connection.reader.take() {
                reader.wake();
            }
        })))
    }

    /// The fields of the answer's head that are not in its map: they pass through.
    pub fn take_lines(&self) -> Lines {
        self.reading.borrow_mut().take_lines()
    }

    /// The next piece of the answer's body, of at most so many bytes if it must be read.
    pub fn poll_frame(
        &self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.given_up.get() {
            return Poll::Ready(Some(Err(Broken::GivenUp)));
        }
        if self.uploading.get() {
            self.reader.replace(Some(cx.waker().clone()));
        }
        self.reading.borrow_mut().poll_frame(cx, &mut self.stream.borrow_mut(), most)
    }

    /// Whether all of the answer's body was handed on.
    pub fn is_end_stream(&self) -> bool {
        self.reading.borrow().is_end()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.reading.borrow().size_hint()
    }

    /// Whether another exchange may follow, once all of this one's request was sent.
    pub fn may_go_on(&self) -> bool {
        self.reading.borrow().may_go_on() && !self.sending.borrow().is_stuck()
    }

    /// Whether the rest of the request is still being sent.
    pub fn is_uploading(&self) -> bool {
        self.uploading.get()
    }

    /// Lets go of what a connection at rest has no use for.
    pub fn rest(&self) {
        self.sending.borrow_mut().rest();
    }

    /// Whether nothing came and the app has not hung up, as far as this thread has heard.
    pub fn is_silent(&self) -> bool {
        self.stream.borrow_mut().is_silent()
    }

    /// The same; the task is woken when that changes.
    pub fn stays_silent(&self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut byte).is_pending()
    }

    /// The socket, and what came after the head of the answer.
    pub fn into_parts(self) -> (Stream, Bytes) {
        (self.stream.into_inner(), self.reading.into_inner().into_rest())
    }
}

/// Sends the rest of a request's body; dropped, it sends no more.
#[derive(Debug)]
pub struct Uploader(JoinHandle<()>);

impl Uploader {
    /// Waits until all was sent, or no more can be.
    pub async fn ended(mut self) {
        let _ = (&mut self.0).await;
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt as _;
    use tokio::io::Interest;
    use tokio::net::{TcpListener, TcpStream};

    use super::super::bench::House;
    use super::*;

    /// The app's reset came between the look at an idle connection and the write.
    #[tokio::test]
    async fn request_that_could_not_be_written_is_as_it_was() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (app, client) = (TcpStream::connect(address).await, TcpStream::connect(address).await);
        let (app, client) = (app.expect("it accepts"), client.expect("it accepts"));
        let (accepted, _) = listener.accept().await.expect("the first");
        socket2::SockRef::from(&accepted)
            .set_linger(Some(std::time::Duration::ZERO))
            .expect("a socket option");
        drop(accepted);
        app.ready(Interest::READABLE).await.expect("the reset");
        let body = House::default().upload(client, b"hello");
        let request = Request::post("/up").header("content-length", "5").body(body);
        let mut request = request.expect("a request");
        let connection = Rc::new(Connection::new(Stream::Tcp { stream: app }));
        let sent = connection.send(&mut request, &Lines::default()).await;
        assert!(matches!(sent, Err(Trouble::Unsent(_))), "{sent:?}");
        assert_eq!(request.body().size_hint().exact(), Some(5));
        let body = request.into_body().collect().await.expect("all of it");
        assert_eq!(body.to_bytes(), "hello");
    }
}
