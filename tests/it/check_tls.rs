//! `tls` judges the certificate of a real server, and leaves without a trace.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use readygate::check::CheckError;
use serde_json::{Value, json};

use crate::support::checks::{accept, run};
use crate::support::{Scratch, eventually, machine};

/// `openssl s_server` with certificates of its own: a root, an authority below it, and a leaf for localhost that is
/// valid for ten days.
struct Server {
    scratch: Scratch,
    child: Child,
    address: String,
    /// It ends when its input does.
    _input: ChildStdin,
}

impl Server {
    /// None where there is no openssl.
    async fn start(settings: &[&str]) -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            machine::skip("openssl is not installed: no tls check of a real server");
            return None;
        }
        let scratch = Scratch::new();
        let at = scratch.join(".");
        certificates(&at);
        let log = fs::File::create(scratch.join("log")).expect("a log");
        let errors = log.try_clone().expect("a log");
        let mut command = Command::new("openssl");
        command.current_dir(&at).args([
            "s_server",
            "-accept",
            "127.0.0.1:0",
            "-cert",
            "leaf.crt",
            "-key",
            "leaf.key",
        ]);
        command.args(settings).stdin(Stdio::piped()).stdout(log).stderr(errors);
        let mut child = command.spawn().expect("it starts");
        let input = child.stdin.take().expect("piped");
        let mut server = Self { scratch, child, address: String::new(), _input: input };
        eventually("it says where it listens", Duration::from_secs(20), async || {
            server.log().lines().any(|line| line.starts_with("ACCEPT 127"))
        })
        .await;
        let log = server.log();
        let line = log.lines().find_map(|line| line.strip_prefix("ACCEPT 127.0.0.1:")).expect("just seen");
        server.address = format!("localhost:{}", line.trim());
        Some(server)
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.scratch.join("log")).expect("a log")).into_owned()
    }

    /// Its root is trusted.
    async fn ask(&self, more: Value) -> Result<String, String> {
        ask(json!({ "address": self.address, "ca": self.scratch.join("root.crt") }), more).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Null takes a key away.
async fn ask(mut own: Value, more: Value) -> Result<String, String> {
    let keys = own.as_object_mut().expect("a map");
    keys.extend(more.as_object().cloned().unwrap_or_default());
    keys.retain(|_, value| !value.is_null());
    let result = run("tls", own, Duration::from_secs(10)).await;
    result.map(|evidence| evidence.summary).map_err(|error| error.to_string())
}

fn certificates(at: &Path) {
    fs::write(at.join("ca.ext"), "basicConstraints=critical,CA:TRUE\n").expect("a file");
    fs::write(at.join("leaf.ext"), "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost\n")
        .expect("a file");
    for (name, signed_by, extensions, days) in [
        ("root", None, "ca.ext", "3650"),
        ("authority", Some("root"), "ca.ext", "3650"),
        ("leaf", Some("authority"), "leaf.ext", "10"),
    ] {
        let openssl = |arguments: &str| {
            let done = Command::new("openssl").current_dir(at).args(arguments.split(' ')).output();
            let done = done.expect("it starts");
            assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
        };
        openssl("ecparam -name prime256v1 -genkey -noout -out NAME.key".replace("NAME", name).as_str());
        openssl(&format!("req -new -key {name}.key -subj /CN={name} -out {name}.csr"));
        let signer = match signed_by {
            Some(signer) => format!("-CA {signer}.crt -CAkey {signer}.key -CAcreateserial"),
            None => format!("-signkey {name}.key"),
        };
        openssl(&format!(
            "x509 -req -in {name}.csr {signer} -days {days} -extfile {extensions} -out {name}.crt"
        ));
    }
}

#[tokio::test]
async fn a_good_certificate_passes_and_the_server_notes_no_error_in_300_runs() {
    let Some(server) = Server::start(&["-cert_chain", "authority.crt"]).await else { return };
    let found = server.ask(json!({ "min_validity": "168h" })).await;
    assert_eq!(found, Ok("TLS 1.3, a certificate that is valid for 9d".to_owned()));
    // One more than is counted: openssl writes out what it noted of a client when the next one comes.
    for _ in 0..300 {
        server.ask(json!({})).await.expect("passes each time");
    }
    eventually("it saw all of them end", Duration::from_secs(10), async || {
        server.log().matches("CONNECTION CLOSED").count() == 300
    })
    .await;
    let log = server.log();
    assert!(!log.to_lowercase().contains("error"), "{log}");
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_told() {
    let Some(server) = Server::start(&["-cert_chain", "authority.crt"]).await else { return };
    for (more, why) in [
        (json!({ "min_validity": "264h" }), "is valid for 9d, expected at least 11d to go"),
        (json!({ "server_name": "db.example.com" }), "not valid for name"),
        (json!({ "ca": null }), "UnknownIssuer"),
        (json!({ "ca": "/nowhere.pem" }), "cannot read the certificate authorities in /nowhere.pem"),
    ] {
        let error = server.ask(more).await.expect_err(why);
        assert!(error.contains(why) && error.contains(&server.address), "{error}");
    }
    // Whoever it is, the dates count.
    let anybody = json!({ "ca": null, "insecure_skip_verify": true, "server_name": "db.example.com" });
    assert!(server.ask(anybody).await.is_ok());
    let anybody = json!({ "ca": null, "insecure_skip_verify": true, "min_validity": "264h" });
    assert!(server.ask(anybody).await.is_err());
}

#[tokio::test]
async fn a_chain_with_a_gap_fails() {
    let Some(server) = Server::start(&[]).await else { return };
    let error = server.ask(json!({})).await.expect_err("the authority is missing");
    assert!(error.contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_fails_and_older_tls_passes() {
    let data = |name: &str| format!("{}/tests/data/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let (cert, key) = (data("expired.crt"), data("expired.key"));
    let Some(server) = Server::start(&["-tls1_2", "-cert", &cert, "-key", &key]).await else { return };
    let error = server.ask(json!({ "ca": cert })).await.expect_err("expired");
    assert!(error.contains("expired"), "{error}");
    let anybody = json!({ "ca": null, "insecure_skip_verify": true });
    let found = server.ask(anybody).await.expect("asked not to verify");
    assert!(found.starts_with("TLS 1.2, a certificate that expired "), "{found}");
}

#[tokio::test]
async fn a_port_without_tls_fails_and_one_that_is_silent_runs_into_the_deadline() {
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = plain.local_addr().expect("bound").to_string();
    let serve = async {
        use tokio::io::AsyncWriteExt;
        let (mut stream, _) = plain.accept().await.expect("a client");
        stream.write_all(b"220 mail.example.com ESMTP\r\n").await.expect("sends");
        stream
    };
    let (error, _) = tokio::join!(ask(json!({ "address": address }), json!({})), serve);
    let error = error.expect_err("no TLS");
    assert!(
        error.contains("the TLS handshake failed") && error.ends_with("the answer is not TLS"),
        "{error}"
    );
    let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
    let own = json!({ "address": silent.local_addr().expect("bound").to_string() });
    let error = run("tls", own, Duration::from_millis(100)).await.expect_err("nobody answers");
    assert!(matches!(error, CheckError::Timeout { .. }), "{error}");
}

#[test]
fn keys_that_cannot_work_are_refused() {
    for (own, path) in [
        (json!({ "address": "db" }), "address"),
        (json!({ "address": "db:1", "server_name": "a b" }), "server_name"),
        (json!({ "address": "db:1", "min_validity": "0s" }), "min_validity"),
        (json!({ "address": "db:1", "ca": "/a", "insecure_skip_verify": true }), "insecure_skip_verify"),
        (json!({ "address": "db:1", "tls": true }), "tls"),
    ] {
        let errors = accept("tls", own.clone(), &[]).expect_err(path);
        assert_eq!(errors[0].path, [path], "{own}: {errors:?}");
    }
}
