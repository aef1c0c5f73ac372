//! Answers that come before the request's body was read, where one side or both speak HTTP/2: nothing hangs, and
//! what is left of the body is no part of anything that follows. HTTP/1.1 on both sides is in `streaming`.

use bytes::Bytes;
use http::Response;
use serde_json::json;

use crate::support::machine;

use super::h2::{App, Arrived, Client, patiently, request, whole};
use super::{GET, client, house};

const REFUSED: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno";
const UPLOAD: &str = "POST /up HTTP/1.1\r\nhost: app.test\r\ncontent-length: 1000000\r\n\r\nhello";

async fn before(app: &App) -> crate::support::Sidecar {
    let listener = json!({ "upstream": format!("h2c://{}", app.address) });
    let sidecar = super::before(app.address, json!({ "listeners": { "http": listener } })).await;
    sidecar.until_ready().await;
    sidecar
}

/// The app takes the first bytes, and wants no more.
async fn refuse(mut arrived: Arrived) {
    let first = patiently(arrived.request.body_mut().data()).await.expect("data").expect("no error");
    assert_eq!(first, "hello");
    let head = Response::builder().status(401).body(()).expect("a head");
    let mut stream = arrived.respond.send_response(head, false).expect("it is open");
    stream.send_data(Bytes::from_static(b"no"), true).expect("it is open");
}

#[tokio::test]
async fn early_answer_of_http1_reaches_a_client_of_http2_that_still_sends() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = Client::connect(sidecar.traffic).await;
    let (response, mut body) = client.open(request("POST", "/up"), true).await;
    body.send_data(Bytes::from_static(b"hello"), false).expect("it is open");
    let mut app = origin.connection().await;
    app.head().await;
    app.until("hello").await;
    app.say(REFUSED).await;
    let answer = patiently(whole(response)).await.expect("an answer");
    assert_eq!((answer.head.status().as_u16(), answer.body.as_slice()), (401, &b"no"[..]));
    // Too late, or for nobody.
    let _ = body.send_data(Bytes::from_static(b"GET /smuggled HTTP/1.1\r\n\r\n"), false);
    assert!(!app.end().await.contains("0\r\n\r\n"), "the app does not take the part for the whole");
    let (asked, (_app, head)) = tokio::join!(client.ask(request("GET", "/next")), origin.serve());
    assert_eq!(head.line, "GET /next HTTP/1.1");
    assert_eq!(asked.expect("the connection goes on").body, b"ok");
}

#[tokio::test]
async fn early_answer_of_http2_reaches_a_client_of_http1_that_still_sends() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let sidecar = before(&app).await;
    let mut uploader = client(&sidecar).await;
    uploader.say(UPLOAD).await;
    refuse(app.next().await).await;
    let head = uploader.head().await;
    assert_eq!(head.status(), 401);
    // Where the body ends nobody knows: the connection does.
    uploader.say(GET).await;
    let said = uploader.end().await;
    assert_eq!(said.matches("HTTP/1.1").count(), 0, "{said}");
    let mut next = client(&sidecar).await;
    next.say(&GET.replace("/a", "/next")).await;
    let arrived = app.next().await;
    assert_eq!((arrived.connection, arrived.request.uri().path()), (0, "/next"), "nobody else was disturbed");
    arrived.answer("ok");
    assert_eq!(next.head().await.status(), 200);
}

#[tokio::test]
async fn early_answer_of_http2_reaches_a_client_of_http2_that_still_sends() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let sidecar = before(&app).await;
    let mut client = Client::connect(sidecar.traffic).await;
    let (response, mut body) = client.open(request("POST", "/up"), true).await;
    body.send_data(Bytes::from_static(b"hello"), false).expect("it is open");
    refuse(app.next().await).await;
    let answer = patiently(whole(response)).await.expect("an answer");
    assert_eq!((answer.head.status().as_u16(), answer.body.as_slice()), (401, &b"no"[..]));
    let _ = body.send_data(Bytes::from_static(b"more"), false);
    let (response, _) = client.open(request("GET", "/next"), false).await;
    let arrived = app.next().await;
    assert_eq!((arrived.connection, arrived.request.uri().path()), (0, "/next"), "nobody else was disturbed");
    arrived.answer("ok");
    assert_eq!(patiently(whole(response)).await.expect("an answer").body, b"ok");
}
