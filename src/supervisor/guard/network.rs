//! How a guard reaches its peers.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::check;
use crate::config::PeerAddress;
use crate::guard::{Answer, MOST_ANSWER_BYTES};

/// Finds and asks peers. The deadlines are the caller's.
pub trait Network: fmt::Debug {
    /// The addresses behind a name.
    ///
    /// # Errors
    ///
    /// The name does not resolve now.
    fn find<'a>(&'a self, peer: &'a PeerAddress) -> Local<'a, io::Result<Vec<SocketAddr>>>;

    /// What a peer answers about a check; none if it does not.
    fn ask<'a>(&'a self, address: SocketAddr, check: &'a str) -> Local<'a, Option<Answer>>;
}

/// A future of this thread.
pub type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// The peers' admin ports, one connection a question.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peers;

impl Network for Peers {
    fn find<'a>(
        &'a self,
        PeerAddress { host, port }: &'a PeerAddress,
    ) -> Local<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            match host.parse::<IpAddr>() {
                Ok(ip) => Ok(vec![SocketAddr::new(ip, *port)]),
                Err(_) => check::look_up(host, *port).await.map_err(io::Error::other),
            }
        })
    }

    fn ask<'a>(&'a self, address: SocketAddr, check: &'a str) -> Local<'a, Option<Answer>> {
        Box::pin(async move { exchange(address, check).await.ok().flatten() })
    }
}

/// HTTP/1.1 with `connection: close` by hand: the answer ends with the connection, and is ours, or none.
async fn exchange(address: SocketAddr, check: &str) -> io::Result<Option<Answer>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET /guard/{check} HTTP/1.1\r\nhost: {address}\r\nuser-agent: readygate/{}\r\nconnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(512);
    stream.take(MOST_ANSWER_BYTES as u64).read_to_end(&mut answer).await?;
    Ok(read(&answer))
}

/// The answer of a peer, if it says 200 and the JSON that follows is one.
fn read(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let ok = bytes.starts_with(b"HTTP/1.1 200 ") || bytes.starts_with(b"HTTP/1.0 200 ");
    ok.then(|| Answer::read(&bytes[end + 4..])).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;

    const JSON: &str =
        r#"{"instance":"a","phase":"ready","ready":true,"leaving":false,"gone":false,"check":null}"#;

    #[test]
    fn only_a_whole_answer_of_a_peer_is_one() {
        let good = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{JSON}");
        assert!(read(good.as_bytes()).is_some_and(|answer| answer.ready));
        for bad in [
            String::new(),
            JSON.to_owned(),
            good.replace("200 OK", "404 Not Found"),
            good[..good.len() - 1].to_owned(),
            good.replace("HTTP/1.1", "HTTP/1.7"),
            format!("{good}{JSON}"),
        ] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&[b"HTTP/1.1 200 OK\r\n\r\n", bytes.as_slice()].concat());
            let _ = read(&bytes);
        }
    }

    #[tokio::test]
    async fn endless_answer_is_cut_and_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut sent = 0_usize;
            while stream.write_all(&[b'a'; 4096]).await.is_ok() {
                sent += 4096;
            }
            sent
        });
        assert_eq!(Peers.ask(address, "db").await, None);
        assert!(server.await.expect("no panic") < 64 << 20, "it went on reading");
    }

    #[tokio::test]
    async fn addresses_are_found_without_a_resolver_and_names_by_one() {
        let found = async |host: &str| Peers.find(&PeerAddress { host: host.to_owned(), port: 80 }).await;
        assert_eq!(found("::1").await.expect("an address"), ["[::1]:80".parse().expect("an address")]);
        assert!(
            found("localhost")
                .await
                .is_ok_and(|found| found.iter().all(|address| address.ip().is_loopback()))
        );
        assert!(found("no-such-name.invalid").await.is_err());
    }
}
