//! Checks built from their keys, as the supervisor builds them.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use readygate::check::{CheckError, CheckResult, Context, KINDS, Kind, Report, Target};
use readygate::config::{CheckSpec, Gates, KeyError, Listener, Own, Upstream};
use serde_json::Value;

pub fn kind(name: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.config.name == name).expect("a row of the table")
}

pub fn spec(kind_name: &str, own: Value, timeout: Duration) -> CheckSpec {
    CheckSpec {
        name: "sample".to_owned(),
        kind: kind(kind_name).config.name,
        gates: Gates::Startup,
        after: Vec::new(),
        interval: Duration::from_secs(5),
        interval_failing: Duration::from_secs(1),
        timeout,
        success_threshold: 1,
        failure_threshold: 3,
        guard: None,
        own: Own(own),
    }
}

/// What configuration says to the keys.
pub fn accept(kind_name: &str, own: Value, listeners: &[Listener]) -> Result<(), Vec<KeyError>> {
    (kind(kind_name).config.accept)(&Own(own), listeners)
}

/// Runs a check once, with its deadline; the keys must be acceptable.
pub async fn run(kind_name: &str, own: Value, timeout: Duration) -> CheckResult {
    run_with(kind_name, own, timeout, &News::default(), None).await
}

/// The same with a listener to go through.
pub async fn run_with(
    kind_name: &str,
    own: Value,
    timeout: Duration,
    news: &News,
    target: Option<SocketAddr>,
) -> CheckResult {
    let listeners = [listener("http", 1)];
    accept(kind_name, own.clone(), &listeners).expect("acceptable keys");
    let reports = Rc::clone(&news.0);
    let context = Context {
        targets: target.into_iter().map(|address| Target { listener: "http".to_owned(), address }).collect(),
        warmup_token: "token-of-the-test".into(),
        traffic: None,
        report: Rc::new(move |report| reports.borrow_mut().push(report)),
    };
    let check = (kind(kind_name).build)(&spec(kind_name, own, timeout), context);
    let deadline = check.deadline(timeout);
    match tokio::time::timeout(deadline, check.run()).await {
        Ok(result) => result,
        Err(_) => Err(CheckError::Timeout { after: deadline }),
    }
}

/// What a run reported.
#[derive(Clone, Debug, Default)]
pub struct News(pub Rc<RefCell<Vec<Report>>>);

pub fn listener(name: &str, upstream_port: u16) -> Listener {
    let upstream = Upstream::http(([127, 0, 0, 1], upstream_port).into());
    Listener { name: name.to_owned(), upstream, ..Listener::default() }
}
