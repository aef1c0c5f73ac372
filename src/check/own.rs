//! The keys of a kind: how they are read, and how their errors are told.
//!
//! Every kind parses its own keys through [`parse`], so that an error names the key path, what was found
//! and what is allowed, and never repeats a string that may hold a secret.

use serde::de::DeserializeOwned;

use crate::config::{KeyError, Listener, Own};

/// Reads the keys of a kind.
///
/// # Errors
///
/// One error for the first key that is unknown, missing or of the wrong type.
pub(super) fn parse<T: DeserializeOwned>(own: &Own) -> Result<T, Vec<KeyError>> {
    serde_path_to_error::deserialize(&own.0).map_err(|error| {
        let path = error.path().iter().filter_map(segment).collect();
        let message = error.inner().to_string();
        let known = if message.starts_with("unknown field") { known_names(&message) } else { Vec::new() };
        vec![KeyError { path, message: in_our_words(&message), known }]
    })
}

/// A problem with one key, e.g. `problem("expect.0", "…")`; an empty path means the kind itself.
pub(super) fn problem(path: &str, message: impl Into<String>) -> KeyError {
    let path = path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    KeyError { path, message: message.into(), known: Vec::new() }
}

/// What a check wants to see on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    Requests,
    Anything,
}

/// What is wrong with a key `listener` that names one of those that carry this, or the only one.
pub(super) fn listener(name: Option<&str>, listeners: &[Listener], carries: Carries) -> Vec<KeyError> {
    let names = || listeners.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, meant(name, listeners)) {
        (Some(name), None) => {
            let message = format!("there is no listener {name}, expected one of {}", names());
            vec![problem("listener", message)]
        }
        (None, _) if listeners.len() > 1 => {
            let message = format!("missing while there are several listeners, expected one of {}", names());
            vec![problem("listener", message)]
        }
        (_, Some(listener)) if carries == Carries::Requests && !listener.upstream.scheme.is_http() => {
            let message = format!(
                "listener {} carries bytes and no requests (tcp://{}), expected one in front of an app that speaks HTTP",
                listener.name, listener.upstream.address,
            );
            vec![problem("listener", message)]
        }
        _ => Vec::new(),
    }
}

/// The listener that a key `listener` means; None if that is not clear.
pub(super) fn meant<'a>(name: Option<&str>, listeners: &'a [Listener]) -> Option<&'a Listener> {
    match name {
        None if listeners.len() > 1 => None,
        name => listeners.iter().find(|listener| name.is_none_or(|name| listener.name == name)),
    }
}

/// Turns collected problems into the result of `accept`.
pub(super) fn all(problems: Vec<KeyError>) -> Result<(), Vec<KeyError>> {
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// `text` on one line and without control characters, cut to `longest` characters: fit for a reason that
/// people read, whatever a server sent.
pub(super) fn one_line(text: &str, longest: usize) -> String {
    let mut line = String::new();
    for (index, word) in text.split(|c: char| c.is_whitespace() || c.is_control()).enumerate() {
        if index > 0 && !word.is_empty() && !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    match line.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn segment(segment: &serde_path_to_error::Segment) -> Option<String> {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.clone()),
        Segment::Enum { variant } => Some(variant.clone()),
        Segment::Unknown => None,
    }
}

/// The names in "unknown field `a`, expected one of `b`, `c`", but the first.
fn known_names(message: &str) -> Vec<String> {
    message.split('`').skip(1).step_by(2).skip(1).map(str::to_owned).collect()
}

/// Says what serde says as all errors of configuration are said, without the strings that it repeats: they may
/// hold secrets (`invalid type: string "hunter2", expected …`).
fn in_our_words(message: &str) -> String {
    let bare = |text: &str| text.replace('`', "");
    if let Some(name) = message.strip_prefix("missing field ") {
        return format!("{} is missing", bare(name));
    }
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return message.to_owned() };
    if found.starts_with("unknown field") {
        return format!("unknown key, expected {}", bare(expected));
    }
    let known_forms = ["invalid type: ", "invalid value: ", "unknown variant "];
    let Some(found) = known_forms.iter().find_map(|form| found.strip_prefix(form)) else {
        return message.to_owned();
    };
    let found = match found.split('`').nth(1) {
        Some(literal) => literal,
        None if found.starts_with("string ") => "a string",
        None => found,
    };
    format!("{found} is not allowed, expected {}", bare(expected))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::units::Period;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Sample {
        address: String,
        span: Option<Period>,
        list: Option<Vec<u32>>,
    }

    fn error(value: Value) -> KeyError {
        let mut errors = parse::<Sample>(&Own(value)).expect_err("accepted");
        errors.remove(0)
    }

    #[test]
    fn an_unknown_key_is_named_with_those_that_are_known() {
        let error = error(json!({ "adress": "a:1" }));
        assert_eq!(error.message, "unknown key, expected one of address, span, list");
        assert_eq!(error.path, ["adress"]);
        assert_eq!(error.known, ["address", "span", "list"]);
    }

    #[test]
    fn an_error_names_the_path_and_never_repeats_a_string() {
        let error = error(json!({ "address": "", "list": [1, "hunter2"] }));
        assert_eq!(error.path, ["list", "1"]);
        assert_eq!(error.message, "a string is not allowed, expected u32");
    }

    #[test]
    fn errors_say_what_was_found_and_what_is_allowed() {
        assert_eq!(error(json!({})).message, "address is missing");
        assert_eq!(error(json!({ "address": 5 })).message, "5 is not allowed, expected a string");
        let number = json!({ "address": "", "span": 60 });
        assert_eq!(error(number).message, "expected a duration such as 250ms, 10s or 2m");
        assert_eq!(error(json!({ "address": [] })).message, "sequence is not allowed, expected a string");
    }

    #[test]
    fn a_span_of_nothing_is_refused() {
        assert_eq!(error(json!({ "address": "", "span": "0s" })).message, "expected more than 0s");
        assert_eq!(error(json!({ "address": "", "span": "0s" })).path, ["span"]);
    }

    #[test]
    fn values_of_a_kind_are_told_as_those_of_all_configuration() {
        let folder = std::env::temp_dir().join(format!("readygate-own-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("temporary folder");
        let file = folder.join("app.yaml");
        let text = "checks: { a: { file: { path: /x, max_age: 5x, min_bytes: big } }, \
                    b: { warmup: { requests: [GET /], plateau: 1 } } }\n";
        std::fs::write(&file, text).expect("temporary file");
        let sources = crate::config::Sources {
            file: Some(file),
            environment: crate::config::Environment::new(),
            flags: crate::config::Flags::default(),
            cpus: std::num::NonZeroUsize::MIN,
        };
        let kinds: Vec<_> = crate::check::KINDS.iter().map(|kind| kind.config).collect();
        let problems = crate::config::load(&sources, &kinds).expect_err("refused").to_string();
        std::fs::remove_dir_all(folder).expect("temporary folder");
        for line in [
            "a.file.max_age: 5x is not allowed, expected a duration such as 250ms, 10s or 2m",
            "a.file.min_bytes: big is not allowed, expected a size such as 64KiB, 10MB or 4096 (bytes)",
            "b.warmup.plateau: 1 is not allowed, expected more than 0% and at most 100%, e.g. 10%",
        ] {
            assert!(problems.contains(line), "{problems}");
        }
    }

    #[test]
    fn what_a_server_says_becomes_one_plain_line() {
        assert_eq!(one_line("a\r\n\tb\x1b[31m  c\u{85}d", 80), "a b [31m c d");
        assert_eq!(one_line("äöüäöü", 3), "äöü…");
    }
}
