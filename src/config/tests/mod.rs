//! Promises of the loader, against kinds of its own.

mod bounds;
mod places;
mod problems;
mod secrets;
mod sources;

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use schemars::{SchemaGenerator, json_schema};
use serde_json::json;

use super::*;

/// Keys of a kind of these tests, and whether the value of each is a number.
type Keys = &'static [(&'static str, bool)];

fn accept(own: &Own, keys: Keys, needed: &str) -> Result<(), Vec<KeyError>> {
    let known: Vec<String> = keys.iter().map(|(key, _)| (*key).to_owned()).collect();
    let error = |path: &[&str], message: String, known| KeyError {
        path: path.iter().map(|key| (*key).to_owned()).collect(),
        message,
        known,
    };
    let mut errors = Vec::new();
    for (key, value) in own.0.as_object().into_iter().flatten() {
        match keys.iter().find(|(name, _)| name == key) {
            None => errors.push(error(&[key], "unknown key".to_owned(), known.clone())),
            Some((_, true)) if !value.is_number() => {
                errors.push(error(&[key], format!("{value} is not allowed, expected a number"), Vec::new()));
            }
            Some((_, false)) if !value.is_string() => {
                errors.push(error(&[key], format!("{value} is not allowed, expected text"), Vec::new()));
            }
            Some(_) if value == "admim" => {
                errors.push(error(&[key], "there is no admim".to_owned(), vec!["admin".to_owned()]));
            }
            Some(_) => {}
        }
    }
    if own.0.get(needed).is_none() {
        errors.push(error(&[], format!("{needed} is missing"), Vec::new()));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

const TCP: Keys = &[("address", false)];
const HTTP: Keys = &[("url", false), ("token", false), ("retries", true)];

fn kinds() -> [Kind; 2] {
    [
        Kind {
            name: "tcp",
            passes_when: "connection established",
            gates: |_, _| Gates::Startup,
            accept: |own, _| accept(own, TCP, "address"),
            schema: |_: &mut SchemaGenerator| json_schema!({ "type": "object", "properties": { "address": { "type": "string" } } }),
            schemes: &["tcp"],
            defaults: Defaults::COMMON,
            from_url: |url| match url.strip_prefix("tcp://") {
                Some(address) if address.contains(':') => Ok(json!({ "address": address })),
                _ => Err(format!("{url}: no port, expected tcp://host:port")),
            },
        },
        Kind {
            name: "http",
            passes_when: "the answer is as expected",
            gates: |_, _| Gates::Always,
            accept: |own, _| accept(own, HTTP, "url"),
            schema: |_: &mut SchemaGenerator| {
                json_schema!({ "type": "object", "properties": { "url": { "type": "string" }, "token": { "type": "string" },
                    "retries": { "type": "integer", "default": 2 } } })
            },
            schemes: &["http", "https"],
            defaults: Defaults::COMMON,
            from_url: |url| Ok(json!({ "url": url })),
        },
    ]
}

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("readygate-config-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("temporary folder");
        Folder(folder)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let file = self.0.join(name);
        fs::write(&file, text).expect("temporary file");
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn sources(file: Option<PathBuf>, variables: &[(&str, &str)]) -> Sources {
    let cpus = NonZeroUsize::new(2).expect("2 is not 0");
    Sources { file, environment: environment(variables), flags: Flags::default(), cpus }
}

/// The problems of a file, one a line, without the advice at the end.
fn problems_of(name: &str, text: &str, variables: &[(&str, &str)]) -> String {
    let folder = Folder::new();
    let file = folder.write(name, text);
    match load(&sources(Some(file), variables), &kinds()) {
        Ok(_) => String::new(),
        Err(problems) => {
            let shown = problems.to_string().replace(&format!("{}/", folder.0.display()), "");
            let (lines, advice) = shown.rsplit_once('\n').expect("an advice");
            assert!(advice.contains("correct and run \"readygate validate "), "{advice}");
            lines.to_owned()
        }
    }
}

fn loaded(text: &str, variables: &[(&str, &str)]) -> Loaded {
    let folder = Folder::new();
    let file = folder.write("app.yaml", text);
    match load(&sources(Some(file), variables), &kinds()) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{problems}"),
    }
}
