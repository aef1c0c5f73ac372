//! Deadlines and limits of clients' connections and requests.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{eventually, machine};

use super::{GET, OK, client, house};

#[tokio::test]
async fn silent_connection_is_closed_after_first_byte() {
    let _turn = machine::shared();
    let (sidecar, _origin) = house(json!({ "timeouts": { "first_byte": "500ms" } })).await;
    let began = Instant::now();
    assert_eq!(client(&sidecar).await.end().await, "");
    assert!(began.elapsed() >= Duration::from_millis(240), "{:?}", began.elapsed());
}

#[tokio::test]
async fn head_that_dribbles_is_closed_after_header_read() {
    let _turn = machine::shared();
    let timeouts = json!({ "first_byte": "20s", "idle": "20s", "header_read": "500ms" });
    let (sidecar, mut origin) = house(json!({ "timeouts": timeouts })).await;
    for kept in [false, true] {
        let mut client = client(&sidecar).await;
        if kept {
            client.say(GET).await;
            origin.serve().await;
            client.answer().await;
        }
        let dribble = async {
            loop {
                client.say("GET").await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                if !client.is_silent() {
                    break;
                }
            }
        };
        let closed = tokio::time::timeout(Duration::from_secs(10), dribble).await;
        assert!(closed.is_ok(), "bytes that trickle in do not extend the deadline");
    }
}

#[tokio::test]
async fn connection_between_two_requests_is_closed_after_idle() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({ "timeouts": { "idle": "500ms" } })).await;
    let mut client = client(&sidecar).await;
    client.say(GET).await;
    let mut app = origin.connection().await;
    app.head().await;
    // A request that takes longer is not idle.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    app.say(OK).await;
    assert_eq!(client.answer().await.1, "ok");
    assert_eq!(client.end().await, "");
}

#[tokio::test]
async fn reader_of_the_last_bytes_may_be_slower_than_idle() {
    let _turn = machine::shared();
    const TOTAL: usize = 24 << 20;
    let (sidecar, mut origin) = house(json!({ "timeouts": { "idle": "1s" } })).await;
    let mut client = client(&sidecar).await;
    client.say(GET).await;
    let mut app = origin.connection().await;
    app.head().await;
    app.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {TOTAL}\r\n\r\n")).await;
    let sending = tokio::spawn(async move { app.flood(TOTAL).await });
    client.head().await;
    let began = Instant::now();
    let mut read = 0;
    while read < TOTAL {
        let part = (1 << 20).min(TOTAL - read);
        client.take(part).await;
        read += part;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() > Duration::from_secs(2));
    assert_eq!(sending.await.expect("no panic"), TOTAL);
}

#[tokio::test]
async fn connections_over_the_limit_wait_in_the_kernel_and_are_served_later() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({ "limits": { "connections": 2 } })).await;
    let (mut one, mut two, mut three) =
        (client(&sidecar).await, client(&sidecar).await, client(&sidecar).await);
    one.say(GET).await;
    let (mut app, _) = origin.serve().await;
    one.answer().await;
    three.say(GET).await;
    // The second place is taken by a connection that says nothing yet; that it still works shows the order.
    two.is_served_by(&mut app).await;
    assert!(three.is_silent());
    assert_eq!(sidecar.metric("readygate_connections", "").await, 2.0);
    drop(one);
    app.head().await;
    app.say(OK).await;
    assert_eq!(three.answer().await.1, "ok");
}

#[tokio::test]
async fn lower_limit_of_connections_holds_after_a_reload() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({ "limits": { "connections": 2 } })).await;
    let (mut one, mut two) = (client(&sidecar).await, client(&sidecar).await);
    one.say(GET).await;
    let (mut app, _) = origin.serve().await;
    one.answer().await;
    // With the limit, something that the app can see.
    let http = json!({ "limits": { "connections": 1 }, "forwarded": "off" });
    sidecar.reconfigure(&super::configuration(origin.address, json!({ "listeners": { "http": http } })));
    eventually("the reload is in force", Duration::from_secs(20), async || {
        two.say(GET).await;
        let head = app.head().await;
        app.say(OK).await;
        two.answer().await;
        head.field("x-forwarded-for").is_none()
    })
    .await;
    let mut three = client(&sidecar).await;
    three.say(GET).await;
    drop(one);
    eventually("one is left", Duration::from_secs(10), async || {
        sidecar.metric("readygate_connections", "").await == 1.0
    })
    .await;
    two.is_served_by(&mut app).await;
    assert!(three.is_silent());
    drop(two);
    app.head().await;
    app.say(OK).await;
    assert_eq!(three.answer().await.1, "ok");
}

#[tokio::test]
async fn requests_over_in_flight_wait_in_line_and_pass_in_their_order() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({ "limits": { "in_flight": 1, "queue": 2 } })).await;
    let mut clients = Vec::new();
    for number in 0..3 {
        let mut client = client(&sidecar).await;
        client.say(&GET.replace("/a", &format!("/{number}"))).await;
        if number > 0 {
            eventually("it waits", Duration::from_secs(10), async || {
                sidecar.metric("readygate_held_requests", "").await == f64::from(number)
            })
            .await;
        }
        clients.push(client);
    }
    let mut late = client(&sidecar).await;
    late.say(GET).await;
    assert_eq!(late.refusal().await, (503, "queue_full".to_owned()));
    let mut app = origin.connection().await;
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(app.head().await.line, format!("GET /{number} HTTP/1.1"));
        // The place is kept to the last byte of the answer, not to its head.
        app.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no").await;
        client.until("\r\n\r\no").await;
        assert!(origin.is_silent() && app.is_silent());
        app.say("k").await;
        assert_eq!(client.take(1).await, "k");
    }
    assert_eq!(sidecar.metric("readygate_requests_in_flight", "").await, 0.0);
}

#[tokio::test]
async fn place_in_flight_is_given_back_when_a_client_goes_away() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({ "limits": { "in_flight": 1 } })).await;
    for _ in 0..3 {
        let mut gone = client(&sidecar).await;
        gone.say("POST /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 9\r\n\r\nhello").await;
        let mut app = origin.connection().await;
        app.head().await;
        gone.reset();
        assert_eq!(app.end().await, "hello");
    }
    let mut client = client(&sidecar).await;
    client.is_served_anew(&mut origin).await;
}

#[tokio::test]
async fn head_over_its_limits_is_431_and_does_not_reach_the_app() {
    let _turn = machine::shared();
    let limits = json!({ "header_bytes": "8KiB", "headers": 10 });
    let (sidecar, mut origin) = house(json!({ "limits": limits })).await;
    let many: String = (0..10).map(|number| format!("x-{number}: 1\r\n")).collect();
    let long = format!("x-long: {}\r\n", "x".repeat(9000));
    for fields in [many.as_str(), &long] {
        let mut client = client(&sidecar).await;
        client.say(&format!("GET /a HTTP/1.1\r\nhost: app.test\r\n{fields}\r\n")).await;
        assert_eq!(client.refusal().await, (431, "too_many_fields".to_owned()));
        assert_eq!(client.end().await, "");
    }
    assert_eq!(sidecar.metric("readygate_requests_total", "code=\"4xx\"").await, 2.0);
    assert!(origin.is_silent());
    let most: String = (0..9).map(|number| format!("x-{number}: 1\r\n")).collect();
    let mut client = client(&sidecar).await;
    client.say(&format!("GET /a HTTP/1.1\r\nhost: app.test\r\n{most}\r\n")).await;
    let (_app, head) = origin.serve().await;
    assert_eq!(head.field("x-8").as_deref(), Some("1"));
    assert_eq!(client.answer().await.1, "ok");
    assert_eq!(sidecar.metric("readygate_proxy_errors_total", "too_many_fields").await, 2.0);
    assert_eq!(sidecar.metric("readygate_connections", "").await, 1.0);
}

#[tokio::test]
async fn refused_head_that_nobody_reads_the_answer_of_does_not_stay() {
    let _turn = machine::shared();
    let timeouts = json!({ "header_read": "500ms" });
    let (sidecar, _origin) = house(json!({ "timeouts": timeouts })).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = client(&sidecar).await;
        client.say("nonsense\r\n\r\n").await;
        clients.push(client);
    }
    eventually("all are closed", Duration::from_secs(10), async || {
        sidecar.metric("readygate_connections", "").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn every_refusal_says_whose_it_is() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let heads = [
        "nonsense\r\n\r\n",
        "GET ?a HTTP/1.1\r\nhost: app.test\r\n\r\n",
        "GET / HTTP/1.1\r\n folded\r\n\r\n",
        "GET http://[::1/ HTTP/1.1\r\nhost: app.test\r\n\r\n",
        "GET a HTTP/1.1\r\nhost: app.test\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ];
    for head in heads {
        // At once, and behind a request that is served.
        for before in ["", GET] {
            let mut client = client(&sidecar).await;
            client.say(before).await;
            if !before.is_empty() {
                drop(origin.serve().await);
                assert_eq!(client.answer().await.1, "ok");
            }
            client.say(head).await;
            assert_eq!(client.refusal().await, (400, "bad_request".to_owned()), "{head:?}");
            assert_eq!(client.end().await, "", "{head:?}");
        }
    }
    let count = 2.0 * heads.len() as f64;
    assert_eq!(sidecar.metric("readygate_proxy_errors_total", "bad_request").await, count);
    assert_eq!(sidecar.metric("readygate_requests_total", "code=\"4xx\"").await, count);
    assert_eq!(sidecar.metric("readygate_requests_in_flight", "").await, 0.0);
}

#[tokio::test]
async fn refusal_of_the_app_stays_its_own() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    // To the letter what the library refuses with, as an answer and in one; the connection ends or goes on.
    const REFUSAL: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    for closes in [true, false] {
        let mut client = client(&sidecar).await;
        client
            .say(&if closes {
                GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")
            } else {
                GET.to_owned()
            })
            .await;
        let mut app = origin.connection().await;
        app.head().await;
        app.say(REFUSAL).await;
        let (head, _) = client.answer().await;
        assert_eq!((head.status(), head.field("x-readygate-error")), (400, None));
        if closes {
            assert_eq!(client.end().await, "");
            continue;
        }
        client.say(GET).await;
        let mut app = origin.connection().await;
        app.head().await;
        app.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", REFUSAL.len())).await;
        assert_eq!(client.head().await.status(), 200);
        // The body alone, so that it goes out alone.
        app.say(REFUSAL).await;
        assert_eq!(client.take(REFUSAL.len()).await, REFUSAL);
        client.is_served_by(&mut app).await;
    }
    assert_eq!(sidecar.metric("readygate_proxy_errors_total", "").await, 0.0);
}
