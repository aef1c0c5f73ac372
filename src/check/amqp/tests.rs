use proptest::prelude::*;
use serde_json::{Value, json};

use super::frame::Frame;
use super::*;

fn start(mechanisms: &[u8]) -> Frame {
    let properties = long(b"\x07productS\0\0\0\x08RabbitMQ\x07versionS\0\0\0\x063.10.8");
    let arguments = [&[0, 9][..], &properties, &long(mechanisms), &long(b"en_US")].concat();
    Frame { kind: 1, channel: 0, payload: [&[0, 10, 0, 10][..], &arguments].concat() }
}

#[test]
fn a_start_tells_the_product_and_what_it_takes() {
    let read = Start::read(&start(b"AMQPLAIN PLAIN")).expect("read");
    assert_eq!((read.product.as_str(), read.mechanisms.as_str()), ("RabbitMQ 3.10.8", "AMQPLAIN PLAIN"));
    let mut other = start(b"PLAIN");
    other.payload[5] = 10;
    assert_eq!(Start::read(&other), None, "version 0-10");
}

#[test]
fn what_a_broker_says_is_read() {
    let said = |name, arguments: &[u8]| Said::read(0, name, Reader(arguments));
    assert_eq!(said(TUNE, &[7, 0xff, 0, 2, 0, 0, 0, 60]), Some(Said::Tune { limits: [7, 0xff, 0, 2, 0, 0] }));
    assert_eq!(said(CLOSE, b"\x02\x12\x03NOT\0\x0a\0\x28"), Some(Said::Close(530, "NOT".to_owned())));
    assert_eq!(said(BLOCKED, b"\x0dlow on memory"), Some(Said::Blocked("low on memory".to_owned())));
    assert_eq!(said((10, 20), b""), None, "Secure: PLAIN has one step");
    assert_eq!(Said::read(CHANNEL, (20, 40), Reader(b"")), Some(Said::OfTheChannel));
}

#[test]
fn credentials_come_in_pairs_and_are_never_repeated() {
    let errors = |more: Value| {
        let mut own = json!({ "address": "mq:5672" });
        own.as_object_mut().expect("a map").extend(more.as_object().cloned().expect("a map"));
        let own = Own(own);
        assert!(!format!("{:?}", own::parse::<Keys>(&own)).contains("hunter2"));
        accept(&own, &[]).err().map(|errors| errors[0].message.clone())
    };
    for good in [json!({}), json!({ "user": "a", "password": "hunter2", "vhost": "/orders" })] {
        assert_eq!(errors(good), None);
    }
    for (bad, why) in [
        (json!({ "user": "a" }), "password is missing, expected it beside user"),
        (json!({ "password": "hunter2" }), "user is missing, expected it beside password"),
        (
            json!({ "user": "a", "password": "" }),
            "not a password, expected 1 to 1024 bytes and no zero among them",
        ),
        (json!({ "vhost": "" }), "not a name, expected 1 to 255 bytes"),
    ] {
        assert_eq!(errors(bad).as_deref(), Some(why));
    }
}

proptest! {
    #[test]
    fn no_frame_makes_it_panic(kind: u8, channel: u16, payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let frame = Frame { kind, channel, payload };
        let _ = Start::read(&frame);
        let _ = frame.method().and_then(|(name, arguments)| Said::read(channel, name, arguments));
    }
}
