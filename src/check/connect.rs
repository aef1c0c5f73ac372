//! Reaching a server: names to addresses, addresses to a connection.
//!
//! All addresses of a name are tried, each a little after the one before or as soon as that one failed, and
//! the first connection wins. `getaddrinfo` knows no deadline and cannot be cancelled, so few of them run at
//! once: a resolver that hangs costs at most [`LOOKUPS`] threads, however often checks run.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::CheckError;
use super::values::Address;

/// Connects to the first of the server's addresses that takes the connection.
///
/// # Errors
///
/// [`CheckError::Refused`] if the first failure is a refusal, else [`CheckError::Connect`].
///
/// # Cancel safety
///
/// Dropped, it leaves no connection; a name look-up that has begun ends on its own.
pub(super) async fn connect(target: &Address) -> Result<TcpStream, CheckError> {
    let addresses = resolve(target).await?;
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut first_failure = None;
    loop {
        match waiting.next() {
            Some(address) => {
                attempts.spawn(async move { (address, TcpStream::connect(address).await) });
            }
            None if attempts.is_empty() => break,
            None => {}
        }
        // The last address has no successor to hurry for.
        let patience = if waiting.len() == 0 { Duration::MAX } else { HEAD_START };
        let Ok(Some(ended)) = tokio::time::timeout(patience, attempts.join_next()).await else { continue };
        match ended {
            Ok((_, Ok(stream))) => return Ok(stream),
            Ok((address, Err(error))) => {
                first_failure.get_or_insert_with(|| failure(target, address, &error));
            }
            Err(error) => {
                first_failure.get_or_insert_with(|| unreachable(target, &error.to_string()));
            }
        }
    }
    Err(first_failure.unwrap_or_else(|| unreachable(target, "the name has no address")))
}

async fn resolve(target: &Address) -> Result<Vec<SocketAddr>, CheckError> {
    if let Ok(address) = target.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, target.port)]);
    }
    let answer = look_up(&target.host, target.port).await;
    answer.map_err(|reason| unreachable(target, &format!("the name does not resolve: {reason}")))
}

/// The addresses of a name, as `getaddrinfo` finds them.
///
/// # Cancel safety
///
/// Dropped while it waits for its turn, it leaves nothing; a look-up that has begun ends on its own.
/// # Errors
///
/// What the resolver said, in one line.
pub async fn look_up(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    static LOOKUP: OnceLock<Arc<Semaphore>> = OnceLock::new();
    let lookups = Arc::clone(LOOKUP.get_or_init(|| Arc::new(Semaphore::new(LOOKUPS))));
    let permit = lookups.acquire_owned().await.map_err(|error| error.to_string())?;
    let question = (name.to_owned(), port);
    let answer = tokio::task::spawn_blocking(move || {
        let _until_it_ends = permit;
        question.to_socket_addrs().map(Iterator::collect)
    });
    match answer.await {
        Ok(found) => found.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn failure(target: &Address, address: SocketAddr, error: &io::Error) -> CheckError {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        CheckError::Refused { address }
    } else {
        unreachable(target, &error.to_string())
    }
}

fn unreachable(target: &Address, reason: &str) -> CheckError {
    CheckError::Connect { target: target.to_string(), reason: reason.to_owned() }
}

/// Look-ups at once.
const LOOKUPS: usize = 4;

/// How long an address may take before the next one is tried too (RFC 8305 section 5 allows 100 ms to 2 s).
const HEAD_START: Duration = Duration::from_millis(300);
