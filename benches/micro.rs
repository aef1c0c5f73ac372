//! What single parts of a request's path cost: `cargo bench --features bench --bench micro`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use divan::Bencher;
use http::Request;
use readygate::gate::{Beats, Gate, Verdict};
use readygate::metrics::{ListenerFigures, Metrics, Sets};
use readygate::proxy::bench::{House, lend, reads, takes};
use readygate::traffic::{From, Traffic};

static HEAD: Bytes = Bytes::from_static(
    b"GET /items?limit=10 HTTP/1.1\r\nhost: shop.example\r\nuser-agent: bench\r\naccept: */*\r\n\r\n",
);

fn main() {
    // What is measured must be what is meant.
    assert_eq!(House::default().pass(request()).map(|status| status.as_u16()), Some(200));
    assert!(takes(&request()) && reads(&HEAD));
    divan::main();
}

fn request() -> Request<()> {
    let fields = [("host", "shop.example"), ("user-agent", "bench"), ("accept", "*/*")];
    let request = Request::builder().uri("/items?limit=10");
    let request = fields.into_iter().fold(request, |request, (name, value)| request.header(name, value));
    request.body(()).expect("a request")
}

/// Head check, every layer on both ways, counting, with an app that answers at once.
#[divan::bench]
fn all_layers(bencher: Bencher<'_, '_>) {
    let house = House::default();
    bencher.with_inputs(request).bench_local_values(|request| house.pass(request));
}

/// Head check and the layer that rewrites fields.
#[divan::bench]
fn header_layer(bencher: Bencher<'_, '_>) {
    let house = House::default();
    bencher.with_inputs(request).bench_local_values(|request| house.rewrite(request));
}

#[divan::bench]
fn head_check(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(request).bench_local_refs(|request| takes(request));
}

#[divan::bench]
fn head_parser() -> bool {
    reads(black_box(&HEAD))
}

#[divan::bench]
fn gate_verdict(bencher: Bencher<'_, '_>) {
    let now = Instant::now();
    let beats = Beats::new(4, Duration::from_secs(3600), now);
    let gate = Gate::new(Vec::new(), [std::sync::Arc::from("app")], beats, Box::new(|_, _, _| {}), now);
    gate.app_accepted(0);
    let view = gate.view();
    assert_eq!(view.verdict(now), Verdict::Ready);
    bencher.bench_local(|| view.verdict(black_box(now)));
}

/// What a request counts.
#[divan::bench]
fn counting(bencher: Bencher<'_, '_>) {
    let traffic = Traffic::new(["http"], 1, Instant::now());
    let counters = traffic.counters(0, 0);
    bencher.bench_local(|| {
        counters.request_began(black_box(1));
        counters.request_ended(black_box(200), black_box(Duration::from_micros(700)), From::App);
    });
}

/// Takes the connection from the pool and puts it back, as each request does.
#[divan::bench]
fn pool(bencher: Bencher<'_, '_>) {
    lend(|cycle| bencher.bench_local(cycle)).expect("the connection is still there");
}

/// The text of `/metrics`, with one listener and no checks.
#[divan::bench]
fn metrics_page(bencher: Bencher<'_, '_>) {
    let metrics = Metrics::new(Sets { version: "1", revision: "1", phases: &["ready"], transitions: &[] });
    let bounds: Vec<f64> = (1..=20).map(|bound| f64::from(bound) / 100.0).collect();
    let figures = ListenerFigures {
        codes: [0, 100_000, 10, 100, 1],
        errors: &[("not_ready", 2), ("internal", 0)],
        in_flight: 5,
        held: 0,
        connections: 64,
        connections_total: 1000,
        received_bytes: 1 << 30,
        sent_bytes: 1 << 40,
        duration_bounds: &bounds,
        durations: &[5000; 21],
        duration_sum: Duration::from_secs(500),
    };
    bencher.bench_local(|| {
        metrics.listener("http", &figures);
        metrics.render()
    });
}
