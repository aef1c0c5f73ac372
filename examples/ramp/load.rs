//! A steady rate of requests, answered or not: latency counts from when each was due.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// What became of one request.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Since the first one.
    pub began: Duration,
    pub took: Duration,
    /// By the app; not refused by the sidecar, nor broken.
    pub served: bool,
}

pub const RUN: Duration = Duration::from_secs(30);

/// Requests a second.
pub const RATE: u32 = 100;

/// All requests of a run, in no order.
pub async fn run(address: SocketAddr) -> Vec<Answer> {
    let first = Instant::now();
    let mut requests = JoinSet::new();
    for number in 0..RUN.as_secs() as u32 * RATE {
        let due = first + Duration::from_secs(1) * number / RATE;
        requests.spawn(async move {
            sleep_until(due).await;
            let served = get(address, "/").await.is_ok_and(|status| status == 200);
            Answer { began: due - first, took: due.elapsed(), served }
        });
    }
    requests.join_all().await
}

/// The status of the answer, on a connection of its own.
///
/// # Errors
///
/// There is no answer.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<u16> {
    let (mut sender, connection) = handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    answer.into_body().collect().await?;
    connection.abort();
    Ok(status)
}
