//! `dns` says what the machine's own resolver says.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::checks::{accept, kind, run};

async fn look_up(own: Value) -> Result<String, String> {
    let result = run("dns", own, Duration::from_secs(10)).await;
    result.map(|evidence| evidence.summary).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_name_of_this_machine_resolves() {
    let found = look_up(json!({ "name": "localhost" })).await.expect("resolves");
    assert!(found.contains("127.0.0.1") || found.contains("::1"), "{found}");
}

#[tokio::test]
async fn too_few_addresses_are_told_with_their_number() {
    let error = look_up(json!({ "name": "localhost", "min_records": 1000 })).await.expect_err("few");
    assert!(error.starts_with("localhost has ") && error.ends_with("expected at least 1000"), "{error}");
}

#[tokio::test]
async fn a_name_that_cannot_exist_does_not_resolve() {
    let error = look_up(json!({ "name": "nothing.invalid." })).await.expect_err("RFC 6761 section 6.4");
    assert!(error.starts_with("nothing.invalid. does not resolve: "), "{error}");
}

/// The look-ups that begin end on their own, whether or not anybody waits, and the next ones get their turn.
#[tokio::test]
async fn runs_that_are_dropped_take_no_turn_for_ever() {
    for _ in 0..50 {
        let _ = run("dns", json!({ "name": "localhost" }), Duration::from_nanos(1)).await;
    }
    look_up(json!({ "name": "localhost" })).await.expect("resolves");
}

#[test]
fn keys_that_cannot_work_are_refused() {
    for (own, path) in [
        (json!({}), "name"),
        (json!({ "name": "10.0.0.1" }), "name"),
        (json!({ "name": "a b" }), "name"),
        (json!({ "name": "db", "min_records": 0 }), "min_records"),
        (json!({ "name": "db", "min_records": "two" }), "min_records"),
        (json!({ "name": "db", "type": "A" }), "type"),
    ] {
        let errors = accept("dns", own.clone(), &[]).expect_err(path);
        let named = errors[0].path.first().map_or("name", String::as_str);
        assert_eq!(named, path, "{own}: {errors:?}");
    }
    assert!((kind("dns").config.from_url)("dns://db").is_ok());
}
