//! An HTTP/1.1 request of the warm-up, and the keep-alive connection that it goes over.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};

use bytes::Bytes;
use http::header::{ACCEPT, HOST, HeaderMap, HeaderValue, USER_AGENT};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::client::{Plan, Trouble, Verdict, in_words};
use crate::check::values::Expect;

/// One of the HTTP requests that warm the app.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub method: http::Method,
    pub target: http::Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub expect: Expect,
}

/// Sends the request and reads the whole answer. Gives the connection to go on with, too.
pub(super) async fn exchange(
    plan: &Plan,
    recipe: &Recipe,
    open: Option<Open>,
) -> Result<(Option<Open>, Verdict), Trouble> {
    let mut open = match open {
        Some(open) => open,
        None => Open::new(plan.address).await?,
    };
    // hyper gives a request back that it could not write: the connection had ended in between.
    let answer = match open.send(recipe.request(plan)).await {
        Err(error) if error.is_canceled() || error.is_closed() => {
            open = Open::new(plan.address).await?;
            open.send(recipe.request(plan)).await.map_err(broken)?
        }
        answer => answer.map_err(broken)?,
    };
    let status = answer.status().as_u16();
    let own_error = answer.headers().get("x-readygate-error").cloned();
    open.drain(answer.into_body()).await.map_err(broken)?;
    let verdict = match own_error {
        Some(kind) => Err(format!("got {status} from the sidecar: {}", in_words(&kind))),
        None if recipe.expect.accepts(status) => Ok(()),
        None => Err(format!("answered {status}, expected {}", recipe.expect)),
    };
    Ok(((!open.ended).then_some(open), verdict))
}

impl Recipe {
    fn request(&self, plan: &Plan) -> http::Request<Full<Bytes>> {
        let mut request = http::Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        let headers = request.headers_mut();
        let host = HeaderValue::try_from(plan.address.to_string()).expect("an address is a header value");
        headers.insert(HOST, host);
        headers
            .insert(USER_AGENT, HeaderValue::from_static(concat!("readygate/", env!("CARGO_PKG_VERSION"))));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        for name in self.headers.keys() {
            headers.remove(name);
        }
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        headers.insert(plan.token.0.clone(), plan.token.1.clone());
        request
    }
}

/// An open connection.
pub(super) struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: Pin<Box<Connection<TokioIo<TcpStream>, Full<Bytes>>>>,
    /// The connection is over; what it read can still be taken.
    ended: bool,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Open {
    async fn new(address: SocketAddr) -> Result<Self, Trouble> {
        let stream = TcpStream::connect(address).await.map_err(Trouble::Unreachable)?;
        // Small requests on an idle connection: waiting for more to send would only show as latency.
        stream.set_nodelay(true).map_err(Trouble::Unreachable)?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        Ok(Self { sender, driver: Box::pin(driver), ended: false })
    }

    async fn send(&mut self, request: http::Request<Full<Bytes>>) -> hyper::Result<http::Response<Incoming>> {
        let (driver, ended) = (&mut self.driver, &mut self.ended);
        let sender = &mut self.sender;
        alongside(driver, ended, async {
            sender.ready().await?;
            sender.send_request(request).await
        })
        .await
    }

    /// Reads the body and forgets it.
    async fn drain(&mut self, mut body: Incoming) -> hyper::Result<()> {
        alongside(&mut self.driver, &mut self.ended, async {
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                frame?;
            }
            Ok(())
        })
        .await
    }
}

fn broken(error: hyper::Error) -> Trouble {
    Trouble::Broken(format!("broke off: {error}"))
}

/// Runs `work` while the connection is driven. The connection's own error is not lost: `work` meets it.
async fn alongside<T>(
    driver: &mut Pin<Box<Connection<TokioIo<TcpStream>, Full<Bytes>>>>,
    ended: &mut bool,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    let drive = async {
        if !*ended {
            let _ = driver.as_mut().await;
            *ended = true;
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        done = &mut work => done,
        never = drive => match never {},
    }
}
