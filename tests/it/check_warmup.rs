//! `warmup` passes as soon as the evidence suffices, not before, and leaves the app in peace otherwise.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use readygate::check::{CheckError, CheckResult, Report};
use readygate::config::Scheme;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::checks::{News, accept, kind, listener, run_with};

/// What the app does with its n-th request (from 0): a status, after a time. None: never answers.
type Behaviour = fn(u32) -> Option<(u16, Duration)>;

/// An app behind a listener; ends with the runtime.
struct App {
    address: SocketAddr,
    requests: Rc<RefCell<Vec<String>>>,
    open: Rc<Cell<u32>>,
    connections: Rc<Cell<u32>>,
}

impl App {
    async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let app = Self { address, requests: Rc::default(), open: Rc::default(), connections: Rc::default() };
        let (requests, open, connections) =
            (Rc::clone(&app.requests), Rc::clone(&app.open), Rc::clone(&app.connections));
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                let (requests, open) = (Rc::clone(&requests), Rc::clone(&open));
                connections.set(connections.get() + 1);
                open.set(open.get() + 1);
                tokio::task::spawn_local(async move {
                    let _ = serve(stream, &requests, behaviour).await;
                    open.set(open.get() - 1);
                });
            }
        });
        app
    }

    fn count(&self) -> usize {
        self.requests.borrow().len()
    }
}

async fn serve(
    mut stream: TcpStream,
    requests: &RefCell<Vec<String>>,
    behaviour: Behaviour,
) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        while !read.windows(4).any(|window| window == b"\r\n\r\n") {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        let request = String::from_utf8_lossy(&read).into_owned();
        read.clear();
        let turn = u32::try_from(requests.borrow().len()).expect("few");
        requests.borrow_mut().push(request);
        match behaviour(turn) {
            None => {
                while stream.read_buf(&mut read).await? > 0 {}
                return Ok(());
            }
            Some((status, time)) => {
                tokio::time::sleep(time).await;
                let own = if status == 503 { "x-readygate-error: connect\r\n" } else { "" };
                let answer = format!("HTTP/1.1 {status} X\r\n{own}content-length: 2\r\n\r\nok");
                stream.write_all(answer.as_bytes()).await?;
            }
        }
    }
}

fn inside<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

#[allow(clippy::needless_pass_by_value)]
fn keys(more: Value) -> Value {
    let mut own = json!({ "listener": "http", "requests": ["GET /a?x=1"], "min_requests": 20 });
    own.as_object_mut().expect("a map").extend(more.as_object().cloned().unwrap_or_default());
    own
}

async fn warm(app: &App, more: Value) -> (CheckResult, News) {
    let news = News::default();
    let result = run_with("warmup", keys(more), Duration::from_secs(5), &news, Some(app.address)).await;
    (result, news)
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

const AT_ONCE: Behaviour = |_| Some((200, Duration::ZERO));

#[test]
fn it_passes_with_the_first_window_of_good_answers_and_not_before() {
    inside(async {
        let app = App::start(AT_ONCE).await;
        let (result, news) = warm(&app, json!({ "concurrency": 3 })).await;
        let evidence = result.expect("passes");
        assert!(evidence.summary.starts_with("20/20 ok, p95 "), "{}", evidence.summary);
        let figures = evidence.figures.expect("figures");
        assert_eq!((&figures["requests"], &figures["budget_exhausted"]), (&json!(20), &json!(false)));
        // And what was on its way when the twentieth answer was counted: one in flight and one read per client.
        assert!((20..=26).contains(&app.count()), "{}", app.count());
        assert_eq!(app.connections.get(), 3, "connections are kept alive");
        until(|| app.open.get() == 0).await;
        let news = news.0.borrow();
        assert_eq!(news.iter().filter(|report| **report == Report::WarmupRequest { ok: true }).count(), 20);
        for quantile in [0.5, 0.95, 0.99] {
            assert!(
                news.iter()
                    .any(|news| matches!(news, Report::WarmupLatency { quantile: q, .. } if *q == quantile))
            );
        }
        assert!(
            news.iter().any(|report| matches!(report, Report::Progress(line) if line.contains("/20 ok")))
        );
    });
}

#[test]
fn requests_carry_the_token_and_take_turns() {
    inside(async {
        let app = App::start(AT_ONCE).await;
        let requests = json!([
            "GET /a",
            { "path": "/b", "method": "PUT", "headers": { "content-type": "text/plain", "user-agent": "mine" }, "body": "" },
        ]);
        warm(&app, json!({ "requests": requests, "concurrency": 1, "min_requests": 2 }))
            .await
            .0
            .expect("passes");
        let seen = app.requests.borrow();
        assert!(
            seen[0].starts_with("GET /a HTTP/1.1\r\n") && seen[1].starts_with("PUT /b HTTP/1.1\r\n"),
            "{seen:?}"
        );
        for request in seen.iter() {
            assert!(request.contains("x-readygate-warmup: token-of-the-test\r\n"), "{request}");
            assert!(request.contains(&format!("host: {}\r\n", app.address)), "{request}");
        }
        assert!(
            seen[0].contains("user-agent: readygate/") && seen[1].contains("user-agent: mine\r\n"),
            "{seen:?}"
        );
    });
}

#[test]
fn early_failures_do_not_count_once_the_window_is_good() {
    inside(async {
        let cold: Behaviour = |turn| Some((if turn < 8 { 500 } else { 200 }, Duration::ZERO));
        let app = App::start(cold).await;
        let (result, _) = warm(&app, json!({ "success_ratio": 1.0 })).await;
        let figures = result.expect("passes").figures.expect("figures");
        assert_eq!((&figures["requests"], &figures["ok"]), (&json!(28), &json!(20)));
    });
}

#[test]
fn slow_answers_keep_it_from_passing() {
    inside(async {
        let warming: Behaviour = |turn| Some((200, Duration::from_millis(if turn < 25 { 30 } else { 0 })));
        let app = App::start(warming).await;
        let target = json!({ "concurrency": 1, "target": { "quantile": 0.95, "latency": "20ms" } });
        let figures = warm(&app, target).await.0.expect("passes").figures.expect("figures");
        // Five more at least, which must not deny that it is fast now.
        assert!(figures["requests"].as_u64().expect("a number") >= 30, "{figures}");
        assert!(figures["first_window"]["p95_ms"].as_f64().expect("a number") >= 30.0, "{figures}");
        assert!(figures["routes"][0]["now_ms"].as_f64().expect("a number") <= 20.0, "{figures}");
    });
}

#[test]
fn a_plateau_needs_two_windows_that_agree() {
    inside(async {
        let falling: Behaviour = |turn| Some((200, Duration::from_millis(if turn < 20 { 60 } else { 5 })));
        let app = App::start(falling).await;
        let figures = warm(&app, json!({ "concurrency": 1, "plateau": "20%" }))
            .await
            .0
            .expect("passes")
            .figures
            .expect("figures");
        assert!(figures["requests"].as_u64().expect("a number") >= 50, "{figures}");
    });
}

#[test]
fn a_broken_app_fails_at_the_end_of_the_budget_and_is_not_hammered() {
    inside(async {
        let broken: Behaviour = |_| Some((500, Duration::ZERO));
        let app = App::start(broken).await;
        let began = Instant::now();
        let (result, _) = warm(&app, json!({ "budget": "600ms" })).await;
        assert!(began.elapsed() >= Duration::from_millis(600));
        let Err(CheckError::Unexpected { message, figures }) = result else { panic!("{result:?}") };
        assert!(
            message
                .starts_with("0/20 ok when the budget of 600ms was over; last failure: GET /a answered 500"),
            "{message}"
        );
        assert_eq!(figures.expect("figures")["budget_exhausted"], json!(true));
        // One at a time, with pauses of 20, 40, 80, 160, 250, … ms.
        assert!(app.count() <= 6, "{}", app.count());
    });
}

#[test]
fn it_may_pass_at_the_end_of_the_budget_if_configured_so() {
    inside(async {
        let broken: Behaviour = |_| Some((500, Duration::ZERO));
        let app = App::start(broken).await;
        let (result, _) = warm(&app, json!({ "budget": "100ms", "on_budget_exhausted": "pass" })).await;
        let evidence = result.expect("passes");
        assert!(evidence.summary.contains("when the budget of 100ms was over"), "{}", evidence.summary);
        assert_eq!(evidence.figures.expect("figures")["budget_exhausted"], json!(true));
    });
}

#[test]
fn an_answer_of_the_sidecar_itself_is_a_failure_whatever_is_expected() {
    inside(async {
        let held: Behaviour = |_| Some((503, Duration::ZERO));
        let app = App::start(held).await;
        let request = json!([{ "path": "/a", "expect": 503 }]);
        let (result, news) = warm(&app, json!({ "requests": request, "budget": "100ms" })).await;
        let line = "0/20 ok; last failure: GET /a got 503 from the sidecar: connect";
        let news = news.0.borrow();
        assert!(news.contains(&Report::Progress(line.to_owned())), "{news:?}");
        let error = result.expect_err("fails").to_string();
        assert!(error.contains("got 503 from the sidecar: connect"), "{error}");
    });
}

#[test]
fn a_request_that_is_never_answered_ends_at_its_timeout() {
    inside(async {
        let silent: Behaviour = |turn| (turn > 0).then_some((200, Duration::ZERO));
        let app = App::start(silent).await;
        let news = News::default();
        let own = keys(json!({ "concurrency": 1, "success_ratio": 1.0 }));
        let result = run_with("warmup", own, Duration::from_millis(200), &news, Some(app.address)).await;
        let figures = result.expect("passes").figures.expect("figures");
        assert_eq!((&figures["requests"], &figures["ok"]), (&json!(21), &json!(20)));
    });
}

#[test]
fn a_dropped_run_leaves_no_connection() {
    inside(async {
        let silent: Behaviour = |_| None;
        let app = App::start(silent).await;
        {
            let news = News::default();
            let run = run_with("warmup", keys(json!({})), Duration::from_secs(60), &news, Some(app.address));
            tokio::pin!(run);
            tokio::select! {
                result = &mut run => panic!("{result:?}"),
                () = until(|| app.open.get() == 1 && app.count() == 1) => {}
            }
        }
        until(|| app.open.get() == 0).await;
    });
}

#[test]
fn a_listener_that_refuses_ends_the_run_at_once() {
    inside(async {
        let address =
            std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
        let result =
            run_with("warmup", keys(json!({})), Duration::from_secs(5), &News::default(), Some(address))
                .await;
        assert!(
            matches!(&result, Err(CheckError::Connect { target, .. }) if target.contains("listener http")),
            "{result:?}"
        );
    });
}

#[test]
fn without_a_sidecar_it_is_skipped() {
    inside(async {
        let result =
            run_with("warmup", keys(json!({})), Duration::from_secs(5), &News::default(), None).await;
        assert!(matches!(result, Err(CheckError::Skipped { .. })), "{result:?}");
    });
}

#[test]
fn keys_that_cannot_work_are_refused_with_their_path() {
    let listeners = [listener("http", 1), listener("grpc", 2)];
    for (own, path) in [
        (json!({ "requests": ["GET /"] }), "listener"),
        (json!({ "listener": "htp", "requests": ["GET /"] }), "listener"),
        (keys(json!({ "requests": [] })), "requests"),
        (keys(json!({ "requests": ["GET a"] })), "requests.0.path"),
        (keys(json!({ "requests": ["GET /", { "path": "/", "verb": "PUT" }] })), "requests.1.verb"),
        (keys(json!({ "requests": [{ "path": "/", "method": "A B" }] })), "requests.0.method"),
        (
            keys(json!({ "requests": [{ "path": "/", "headers": { "connection": "close" } }] })),
            "requests.0.headers",
        ),
        (keys(json!({ "requests": [{ "path": "/", "expect": "no" }] })), "requests.0.expect"),
        (keys(json!({ "requests": [{ "path": "/", "weight": 0 }] })), "requests.0.weight"),
        (keys(json!({ "requests": [{ "path": "/", "name": "" }] })), "requests.0.name"),
        (
            keys(json!({ "requests": [{ "path": "/", "name": "a" }, { "path": "/b", "name": "a" }] })),
            "requests.1.name",
        ),
        (
            keys(json!({ "requests": [{ "path": "/", "until": { "quantile": 2, "latency": "1s" } }] })),
            "requests.0.until.quantile",
        ),
        (keys(json!({ "requests": [{ "path": "/", "until": {} }] })), "requests.0.until"),
        (keys(json!({ "requests": [{ "path": "/", "body": {} }] })), "requests.0.body"),
        (keys(json!({ "requests": [{ "path": "/", "body": { "base64": "%" } }] })), "requests.0.body"),
        (keys(json!({ "requests": [{ "path": "/", "body": { "fil": "/x" } }] })), "requests.0.body.fil"),
        (
            keys(json!({ "requests": [{ "path": "/", "headers": { "a": { "fil": "/x" } } }] })),
            "requests.0.headers.a",
        ),
        (keys(json!({ "requests": [{ "path": "/", "tcp": {} }] })), "requests.0.path"),
        (keys(json!({ "requests": [{ "tcp": { "sends": "" } }] })), "requests.0.tcp.sends"),
        (keys(json!({ "requests": [{ "tcp": { "send": { "base64": "%" } } }] })), "requests.0.tcp.send"),
        (keys(json!({ "requests": [{ "tcp": {} }] })), "requests.0"),
        (keys(json!({ "concurrency": 0 })), "concurrency"),
        (keys(json!({ "min_requests": 0 })), "min_requests"),
        (keys(json!({ "success_ratio": 1.5 })), "success_ratio"),
        (keys(json!({ "target": { "quantile": 95, "latency": "1s" } })), "target.quantile"),
        (keys(json!({ "target": { "latency": "0s" } })), "target.latency"),
        (keys(json!({ "plateau": "0%" })), "plateau"),
        (keys(json!({ "budget": "0s" })), "budget"),
        (keys(json!({ "on_budget_exhausted": "maybe" })), "on_budget_exhausted"),
    ] {
        let errors = accept("warmup", own.clone(), &listeners).expect_err(path);
        assert_eq!(errors[0].path.join("."), path, "{own}: {errors:?}");
    }
    assert!(accept("warmup", json!({ "requests": ["GET /"] }), &listeners[..1]).is_ok());
    let mut bytes = listeners[0].clone();
    bytes.upstream.scheme = Scheme::Tcp;
    for own in [json!({ "requests": ["GET /"] }), json!({ "requests": ["GET /"], "listener": bytes.name })] {
        let errors = accept("warmup", own, std::slice::from_ref(&bytes)).expect_err("no requests pass there");
        assert_eq!(errors[0].path, ["requests", "0"]);
    }
    let tcp = json!({ "requests": [{ "tcp": { "send": "a" } }] });
    assert!(accept("warmup", tcp, std::slice::from_ref(&bytes)).is_ok());
    for (probe, path) in
        [(json!({ "path": "/", "weight": 2 }), "probes.0.weight"), (json!({ "tcp": {} }), "probes.0")]
    {
        let errors = accept("traffic", json!({ "probes": [probe] }), &listeners[..1]).expect_err(path);
        assert_eq!(errors[0].path.join("."), path);
    }
    assert!((kind("warmup").config.from_url)("http://a/").is_err());
}
