//! What a server says of the password that it was sent, and what the sidecar then says.

use std::time::Duration;

use serde_json::json;

use crate::support::servers::{stranger, with};
use crate::support::{Scratch, Sidecar, TestApp, config, eventually};

#[tokio::test]
async fn a_password_that_a_server_repeats_is_shown_nowhere() {
    let scratch = Scratch::new();
    let file = scratch.join("password");
    std::fs::write(&file, "hunter2\n").expect("a file");
    let password = json!({ "password": format!("${{file:{}}}", file.display()) });

    let redis = stranger(b"-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n".to_vec());
    let error = b"SFATAL\0C28P01\0Mpassword hunter2 is wrong\0\0";
    let length = u32::try_from(error.len() + 4).expect("short").to_be_bytes();
    let postgres = stranger([b"E", &length[..], error].concat());
    let mut amqp = super::amqp().swap_remove(0);
    let words = b"PLAIN login with hunter2 refused";
    let close = [&[0, 10, 0, 50, 1, 0x93, words.len() as u8][..], words, &[0; 4]].concat();
    amqp.extend([&[1, 0, 0, 0, 0, 0, close.len() as u8][..], &close, &[0xce]].concat());
    let amqp = with(&stranger(amqp), json!({ "user": "u" }));

    let checks = json!({
        "log": { "level": "trace" },
        "checks": {
            "a": { "redis": with(&redis, password.clone()) },
            "b": { "postgres": with(&postgres, password.clone()) },
            "c": { "amqp": with(&amqp, password) },
        },
    });
    let app = TestApp::start(&[]).await;
    let sidecar = Sidecar::start(&config(&app, checks)).await;
    let told = async || sidecar.ask("/ready?verbose").await.text().matches("***").count() == 3;
    eventually("each has failed and said why", Duration::from_secs(20), told).await;
    let mut said = String::new();
    for path in ["/ready", "/ready?verbose", "/status", "/metrics"] {
        said.push_str(&sidecar.ask(path).await.text());
    }
    assert!(said.len() > 4000 && !said.contains("hunter2"), "{said}");
    assert!(sidecar.said("***") && !sidecar.said("hunter2"), "in the log");
}
