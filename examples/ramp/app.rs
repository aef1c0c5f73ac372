//! An app that is cold at first: few at once, and each answer makes the next ones faster.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Gone when dropped.
pub struct App {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl App {
    /// # Errors
    ///
    /// No port.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let (hands, served) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(AtomicU32::new(0)));
            while let Ok((stream, _)) = listener.accept().await {
                let (hands, served) = (Arc::clone(&hands), Arc::clone(&served));
                let service = service_fn(move |_| {
                    let (hands, served) = (Arc::clone(&hands), Arc::clone(&served));
                    async move {
                        let _hand = hands.acquire().await;
                        sleep(time_for(served.fetch_add(1, Ordering::Relaxed))).await;
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok\n"))))
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Of the n-th answer.
fn time_for(n: u32) -> Duration {
    Duration::from_secs_f64((5.0 + 300.0 * (-f64::from(n) / 150.0).exp()) / 1000.0)
}

const AT_ONCE: usize = 4;
