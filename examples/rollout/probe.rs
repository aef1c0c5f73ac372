//! What the kubelet asks over HTTP: probes, and the hooks before a container stops.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An `httpGet` probe.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    pub address: SocketAddr,
    pub path: &'static str,
    pub period: Duration,
    pub failure_threshold: u32,
}

impl Probe {
    /// Asks once: the error says why it is a failure.
    pub async fn ask(&self) -> Result<(), String> {
        let answer = timeout(TIMEOUT, get(self.address, self.path, "kube-probe/1.36"));
        match answer.await {
            Err(_) => Err("no answer within 1 s".to_owned()),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Ok(Ok((status, body))) if !(200..400).contains(&status.as_u16()) => {
                Err(format!("{} {}", status.as_u16(), body.trim_end()))
            }
            Ok(Ok(_)) => Ok(()),
        }
    }
}

/// Calls a `preStop` hook. Any answer ends it; nothing but the grace period bounds the wait.
pub async fn hook(address: SocketAddr, path: &str) -> anyhow::Result<()> {
    get(address, path, "kube-lifecycle/1.36").await.map(drop)
}

/// A GET on a connection of its own.
///
/// # Errors
///
/// When no complete answer came.
pub async fn get(address: SocketAddr, path: &str, agent: &str) -> anyhow::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::task::spawn_local(connection);
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, agent)
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.context("no answer")?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
    connection.abort();
    let body = body.map_err(|error| anyhow::anyhow!("answer cut short: {error}"))?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

const TIMEOUT: Duration = Duration::from_secs(1);
const MOST_BYTES: usize = 64 * 1024;
