use proptest::prelude::*;
use serde_json::json;

use super::*;

fn refusal(code: &str) -> Meaning {
    meaning(b'E', format!("SFATAL\0C{code}\0Msorry\0\0").as_bytes())
}

#[test]
fn only_a_refusal_of_the_user_or_database_means_that_work_is_accepted() {
    for code in ["28000", "28P01", "3D000", "42501"] {
        assert_eq!(refusal(code), Meaning::Refused(format!("{code} sorry")));
    }
    for code in ["57P03", "53300", "57P01", "08P01", "XX000", ""] {
        assert_eq!(refusal(code), Meaning::Fails(format!("refused the session: {code} sorry")));
    }
}

#[test]
fn a_session_is_ready_when_it_says_so() {
    assert_eq!(meaning(b'R', &[0, 0, 0, 0]), Meaning::Authentication);
    assert_eq!(meaning(b'S', b"TimeZone\0UTC\0"), Meaning::GoOn);
    assert_eq!(meaning(b'Z', b"I"), Meaning::Ready);
}

#[test]
fn a_startup_message_says_its_length_user_and_database() {
    let message = startup("u", "d");
    assert_eq!(message[..8], [0, 0, 0, message.len() as u8, 0, 3, 0, 0]);
    assert_eq!(&message[8..26], b"user\0u\0database\0d\0"[..].get(..18).expect("18 bytes"));
}

#[test]
fn names_that_cannot_be_are_refused() {
    for (key, name) in [("user", "".to_owned()), ("database", "x".repeat(64)), ("user", "a\0b".to_owned())] {
        let own = Own(json!({ "address": "db:5432", key: name }));
        assert_eq!(accept(&own, &[]).expect_err(key)[0].path, [key]);
    }
}

#[test]
fn a_password_and_a_query_are_bounded_and_the_first_is_never_shown() {
    let own = Own(json!({ "address": "db:5432", "password": "hunter2", "query": "SELECT 1" }));
    accept(&own, &[]).expect("good keys");
    assert!(!format!("{:?}", own::parse::<Keys>(&own)).contains("hunter2"));
    for (key, bad) in [("password", String::new()), ("query", " ".to_owned()), ("query", "x".repeat(4097))] {
        let own = Own(json!({ "address": "db:5432", key: bad }));
        assert_eq!(accept(&own, &[]).expect_err(key)[0].path, [key]);
    }
}

/// What `Login` does at each of these messages, in words.
async fn login(messages: &[&[u8]], over_tls: bool) -> Vec<String> {
    let password: Secret = serde_json::from_value(json!("hunter2")).expect("text");
    let mut login = Login::Begun;
    let mut done = Vec::new();
    for message in messages {
        done.push(match login.answer(message, &password, over_tls).await {
            Next::Send(bytes) => String::from_utf8_lossy(&bytes[5..]).into_owned(),
            Next::GoOn => "go on".to_owned(),
            Next::Stop(why) => why.to_owned(),
        });
    }
    done
}

#[tokio::test]
async fn a_password_in_plain_is_sent_over_tls_only() {
    let (asks, ok) = (&b"\0\0\0\x03"[..], &b"\0\0\0\0"[..]);
    assert_eq!(login(&[asks, ok], true).await, ["hunter2\0", "go on"]);
    let refused = "asks for the password in plain, expected SCRAM-SHA-256 (or tls)";
    assert_eq!(login(&[asks], false).await, [refused]);
    assert_eq!(login(&[b"\0\0\0\x05salt"], true).await, ["asks for MD5, expected SCRAM-SHA-256"]);
    assert_eq!(login(&[ok], false).await, ["go on"], "a server that trusts");
}

#[tokio::test]
async fn a_server_that_skips_its_proof_is_no_server_of_ours() {
    let (sasl, ok) = (&b"\0\0\0\x0aSCRAM-SHA-256\0\0"[..], &b"\0\0\0\0"[..]);
    let skipped = login(&[sasl, ok], true).await;
    assert!(
        skipped[0].starts_with("SCRAM-SHA-256\0") && skipped[1].contains("without a proof"),
        "{skipped:?}"
    );
    let last = login(&[sasl, b"\0\0\0\x0cv=AAAA"], true).await.pop();
    assert_eq!(
        last.expect("two").as_str(),
        "asks for a kind of login that is not known here, expected SCRAM-SHA-256"
    );
    assert_eq!(login(&[b"\0\0\0\x0aOTHER\0\0"], true).await, ["offers no SCRAM-SHA-256, expected it"]);
    for odd in [&b""[..], b"\0\0\0\x07", b"\0\0\0\x0b", b"\0\0"] {
        let stopped = login(&[odd], true).await;
        assert!(stopped[0].starts_with("asks for a kind") || stopped[0].contains("malformed"), "{stopped:?}");
    }
}

proptest! {
    #[test]
    fn no_message_makes_the_parser_panic(kind: u8, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = meaning(kind, &body);
    }
}
