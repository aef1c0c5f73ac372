//! `file` sees what is there, and nothing on a file system makes it hang or act.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::checks::{accept, kind, run};

/// A directory of its own for a test, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("readygate-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a file");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the check says: the summary, or why not.
async fn look(path: &Path, more: Value) -> Result<String, String> {
    let mut own = json!({ "path": path });
    own.as_object_mut().expect("a map").extend(more.as_object().cloned().unwrap_or_default());
    let result = run("file", own, Duration::from_secs(10)).await;
    result.map(|evidence| evidence.summary).map_err(|error| error.to_string())
}

async fn refused(path: &Path, more: Value, why: &str) {
    let error = look(path, more).await.expect_err(why);
    assert!(error.contains(why), "{error}");
    assert!(error.starts_with(&path.display().to_string()), "{error}");
}

#[tokio::test]
async fn only_regular_files_are_opened() {
    let scratch = Scratch::new("kinds");
    let fifo = scratch.0.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let socket = scratch.0.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let link = scratch.0.join("link");
    symlink(&fifo, &link).expect("a link");
    refused(&fifo, json!({ "format": "json" }), "is a FIFO, expected a regular file").await;
    refused(&link, json!({ "format": "json" }), "is a FIFO, expected a regular file").await;
    refused(&socket, json!({}), "is a socket, expected a regular file").await;
    refused(&scratch.0, json!({}), "is a directory, expected a regular file").await;
    refused(Path::new("/dev/zero"), json!({ "matches": "x" }), "is a device, expected a regular file").await;
}

#[tokio::test]
async fn links_are_followed_and_loops_are_errors() {
    let scratch = Scratch::new("links");
    let (file, link, here) = (scratch.file("a", "ok"), scratch.0.join("link"), scratch.0.join("loop"));
    symlink(&file, &link).expect("a link");
    symlink(&here, &here).expect("a loop");
    assert_eq!(look(&link, json!({})).await, Ok("2 bytes".to_owned()));
    refused(&here, json!({}), "symbolic links").await;
}

#[tokio::test]
async fn files_of_proc_have_content_though_they_claim_to_be_empty() {
    let found =
        look(Path::new("/proc/self/status"), json!({ "matches": "(?m)^Threads:", "min_bytes": 100 })).await;
    assert!(found.is_ok(), "{found:?}");
}

#[tokio::test]
async fn a_format_must_parse() {
    let scratch = Scratch::new("formats");
    for (format, good, bad) in [
        ("json", r#"{"a": [1]}"#, r#"{"a": [1}"#),
        ("yaml", "a: [1]\n---\nb: {c: d}\n", "a: [1\nb: 2"),
        ("toml", "a = 1\n[b]\n", "a = \n"),
    ] {
        assert!(look(&scratch.file("good", good), json!({ "format": format })).await.is_ok(), "{good}");
        let why = format!("not {}: ", format.to_uppercase());
        refused(&scratch.file("bad", bad), json!({ "format": format }), &why).await;
    }
    refused(&scratch.file("bytes", b"\xff\xfe"), json!({ "format": "yaml" }), "not UTF-8").await;
}

#[tokio::test]
async fn hostile_content_costs_little() {
    let scratch = Scratch::new("hostile");
    // A billion laughs: as a tree it would be 10^9 nodes.
    let mut laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..10 {
        let before = format!("*a{}", level - 1);
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(",")));
    }
    assert!(look(&scratch.file("laughs", laughs), json!({ "format": "yaml" })).await.is_ok());
    for format in ["json", "yaml", "toml"] {
        let deep =
            if format == "toml" { format!("a = {}", "[".repeat(100_000)) } else { "[".repeat(100_000) };
        assert!(look(&scratch.file("deep", deep), json!({ "format": format })).await.is_err(), "{format}");
    }
    let big = scratch.0.join("big");
    fs::File::create(&big).expect("a file").set_len(1 << 40).expect("a sparse file");
    refused(&big, json!({ "matches": "x" }), "longer than 16 MiB").await;
    assert_eq!(look(&big, json!({})).await, Ok("1099511627776 bytes".to_owned()));
}

#[tokio::test]
async fn content_length_and_age_are_checked() {
    let scratch = Scratch::new("content");
    let file = scratch.file("a", "state: ready\n");
    assert!(
        look(&file, json!({ "matches": "(?m)^state: ready$", "min_bytes": 13, "max_age": "1h" }))
            .await
            .is_ok()
    );
    refused(&file, json!({ "matches": "^other" }), "does not match ^other").await;
    refused(&file, json!({ "min_bytes": "1KiB" }), "13 bytes, expected at least 1024").await;
    let old = std::time::SystemTime::now() - Duration::from_secs(7200);
    fs::File::options().write(true).open(&file).expect("open").set_modified(old).expect("set");
    refused(&file, json!({ "max_age": "1h" }), "expected at most 1h").await;
}

#[tokio::test]
async fn an_absent_file_can_be_wanted() {
    let scratch = Scratch::new("absent");
    let missing = scratch.0.join("missing");
    assert_eq!(look(&missing, json!({ "absent": true })).await, Ok("absent".to_owned()));
    refused(&missing, json!({}), "No such file").await;
    refused(&scratch.file("a", ""), json!({ "absent": true }), "is there, expected to be absent").await;
}

#[test]
fn keys_that_cannot_work_are_refused() {
    for (own, path) in [
        (json!({ "path": "etc/app" }), "path"),
        (json!({ "path": "/a", "matches": "(" }), "matches"),
        (json!({ "path": "/a", "absent": true, "format": "json" }), "absent"),
        (json!({ "path": "/a", "format": "xml" }), "format"),
        (json!({ "path": "/a", "min_bytes": "1 TB" }), "min_bytes"),
        (json!({ "path": "/a", "max_age": "soon" }), "max_age"),
    ] {
        let errors = accept("file", own.clone(), &[]).expect_err(path);
        assert_eq!(errors[0].path, [path], "{own}: {errors:?}");
    }
    assert_eq!((kind("file").config.from_url)("file:///etc/a.yaml"), Ok(json!({ "path": "/etc/a.yaml" })));
    assert!((kind("file").config.from_url)("file://etc/a.yaml").is_err());
}
