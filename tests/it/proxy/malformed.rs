//! Requests that two parsers could read differently: each is refused and the connection closed, or it reaches the
//! app in one form that leaves no choice. What is smuggled in them never does.

mod case;
mod oddities;
mod refusals;

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Sidecar, machine};

use self::case::{Case, Expected, Form};
use super::recorder::{Recorded, Recorder};

#[tokio::test]
async fn malformed_requests_are_refused_or_reach_the_app_in_one_form() {
    let _turn = machine::shared();
    let app = Recorder::start().await;
    let more = json!({ "listeners": { "http": { "timeouts": { "header_read": "1s" } } } });
    let mut sidecar = super::before(app.address, more).await;
    sidecar.until_ready().await;
    let cases = [refusals::refusals(), oddities::oddities()].concat();
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        for pieces in [usize::MAX, 7] {
            if let Err(why) = holds(case, pieces, &sidecar, &app).await {
                wrong.push(format!("{}: {why}", case.name));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(sidecar.runs());
    let refused = cases.iter().filter(|case| case.expected.refused).count() as f64;
    let counted = sidecar.metric("readygate_proxy_errors_total", "bad_request").await
        + sidecar.metric("readygate_proxy_errors_total", "too_many_fields").await;
    assert_eq!(counted, 2.0 * refused);
    assert_eq!(sidecar.metric("readygate_connections", "").await, 0.0);
}

/// Sends the case in pieces of so many bytes, and compares what the client and the app got of it.
async fn holds(case: &Case, pieces: usize, sidecar: &Sidecar, app: &Recorder) -> Result<(), String> {
    let Expected { forwarded, refused } = &case.expected;
    // A long one in small pieces takes a while and shows nothing more.
    let pieces = pieces.max(case.bytes.len() / 50);
    let said =
        attack(sidecar, &case.bytes, pieces, if *refused { None } else { Some(forwarded.len()) }).await?;
    alive(sidecar).await?;
    let log = app.take();
    let (seen, alive): (Vec<_>, Vec<_>) =
        log.requests.into_iter().partition(|request| !request.line.contains("/alive"));
    let statuses: Vec<&str> = said.split("HTTP/1.").skip(1).filter_map(|part| part.get(2..5)).collect();
    let refusals =
        statuses.iter().filter(|status| ["400", "414", "431", "501", "505"].contains(status)).count();
    if !log.invalid.is_empty() || log.partial.iter().any(|bytes| bytes.contains("smuggled")) {
        return Err(format!("the app got {:?} {:?}", log.invalid, log.partial));
    }
    if alive.len() != 1
        || seen.len() != forwarded.len()
        || !seen.iter().zip(forwarded).all(|(seen, form)| form.is(seen))
    {
        return Err(format!("the app got {seen:?}; the client got {said:?}"));
    }
    let ours = said.matches("x-readygate-error: ").count();
    if refusals != usize::from(*refused) || statuses.len() != forwarded.len() + refusals || ours != refusals {
        return Err(format!("the client got {said:?}"));
    }
    Ok(())
}

impl Form {
    fn is(&self, request: &Recorded) -> bool {
        let fields = self.fields.iter().all(|(name, value)| request.field(name) == *value);
        request.line == self.line && request.body == self.body.as_bytes() && fields
    }
}

/// What the client gets: all until the connection is closed, or so many answers.
async fn attack(
    sidecar: &Sidecar,
    bytes: &[u8],
    pieces: usize,
    answers: Option<usize>,
) -> Result<String, String> {
    let mut stream = TcpStream::connect(sidecar.traffic).await.expect("the port accepts");
    stream.set_nodelay(true).expect("a socket option");
    for piece in bytes.chunks(pieces) {
        if stream.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut said = Vec::new();
    let reading = async {
        loop {
            let text = String::from_utf8_lossy(&said);
            if answers.is_some_and(|answers| text.matches("\r\n\r\nok").count() == answers) {
                break;
            }
            if !matches!(stream.read_buf(&mut said).await, Ok(1..)) {
                break;
            }
        }
    };
    let ended = timeout(Duration::from_secs(5), reading).await;
    let said = String::from_utf8_lossy(&said).into_owned();
    if ended.is_err() { Err(format!("the connection stays, after {said:?}")) } else { Ok(said) }
}

/// Another client is served all the same.
pub async fn alive(sidecar: &Sidecar) -> Result<(), String> {
    let bytes = b"GET /alive HTTP/1.1\r\nHost: app.test\r\n\r\n";
    let said = attack(sidecar, bytes, usize::MAX, Some(1)).await?;
    if said.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(format!("nobody is served: {said:?}")) }
}
