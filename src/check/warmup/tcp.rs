//! A connection that warms an app of bytes: through the listener's own entrance, said something, heard, closed.
//!
//! Bytes carry no header, so the token comes first, and the proxy answers it with one byte once the app accepted the
//! connection: then it is the app that is spoken to. Each exchange has a connection of its own, as those of clients.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{Plan, Trouble, Verdict};

/// One of the exchanges that warm the app.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub send: Bytes,
    /// What the answer begins with; empty: it is not waited for.
    pub expect: Bytes,
}

/// Connects, sends, hears the beginning of the answer, closes.
pub(super) async fn exchange(plan: &Plan, recipe: &Recipe) -> Result<Verdict, Trouble> {
    let mut stream = TcpStream::connect(plan.address).await.map_err(Trouble::Unreachable)?;
    // Small messages on an idle connection: waiting for more to send would only show as latency.
    stream.set_nodelay(true).map_err(Trouble::Unreachable)?;
    let broken = |what: &'static str| move |_: std::io::Error| Trouble::Broken(what.to_owned());
    let no_app = "got no connection to the app";
    stream.write_all(plan.token.1.as_bytes()).await.map_err(broken(no_app))?;
    stream.read_u8().await.map_err(broken(no_app))?;
    stream.write_all(&recipe.send).await.map_err(broken("was cut off while it sent"))?;
    let mut heard = Vec::with_capacity(recipe.expect.len());
    while heard.len() < recipe.expect.len() {
        let mut rest = (&mut stream).take((recipe.expect.len() - heard.len()) as u64);
        let got = rest.read_buf(&mut heard).await.map_err(broken("was cut off"))?;
        // What differs from the beginning on need not be waited for.
        if got == 0 || !recipe.expect.starts_with(&heard) {
            return Ok(Err(unexpected(&heard)));
        }
    }
    Ok(Ok(()))
}

/// What is expected is not told: it may be a secret.
fn unexpected(heard: &[u8]) -> String {
    match heard {
        [] => "was closed by the app before it answered as expect_bytes says".to_owned(),
        heard => {
            let shown = heard[..heard.len().min(SHOWN_BYTES)].escape_ascii();
            format!("answered \"{shown}\", which does not begin as expect_bytes says")
        }
    }
}

/// Of what was heard, in words.
const SHOWN_BYTES: usize = 32;
