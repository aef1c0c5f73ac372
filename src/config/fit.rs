//! Fits a tree of values into a type, and says everything that does not fit.
//!
//! serde stops at its first error. So: take the error's key path, note the problem, remove the value,
//! try again, until the rest fits.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::error::{Report, unknown};
use super::place::Path;
use super::tree::{Tree, find_mut};

impl Tree {
    /// The value at `path` as a `T`; what does not fit is noted and left out.
    pub(super) fn fit<T: DeserializeOwned + Default>(&mut self, path: &[String], report: &mut Report) -> T {
        // Each round removes or rereads a value; the bound is for mistakes in this file.
        for _ in 0..100_000 {
            let Some(value) = self.get(path) else { break };
            let error = match serde_path_to_error::deserialize::<_, T>(value) {
                Ok(fitting) => return fitting,
                Err(error) => error,
            };
            let at = self.place_of(path, error.path());
            let message = error.inner().to_string();
            if let Some(known) = known_keys(&message) {
                self.drop_unknown(&at, &known, report);
            } else if self.get(&at).is_some_and(Value::is_null) && !self.is_item(&at) {
                // A key without a value, as when all below it is commented out: a map is empty, others are
                // not there.
                if message.ends_with(EXPECTED_MAP) {
                    self.empty(&at);
                } else {
                    self.remove(&at);
                }
            } else if !self.reread(&at) {
                let message = self.choices::<T>(path, &at, message);
                // What is missing because it was wrong is no news.
                let missing = message.strip_prefix("missing field ").map(|name| name.replace('`', ""));
                if !missing.is_some_and(|name| report.is_blamed(&[at.as_slice(), &[name]].concat())) {
                    report.value(&at, self.misfit(&at, &message));
                }
                if at.len() <= path.len() || self.is_item(&at) {
                    // Nothing can stand in for the whole, nor for an item of a list.
                    let whole = if at.len() <= path.len() { path } else { &at[..at.len() - 1] };
                    self.remove(whole);
                } else if self.remove(&at).is_none() {
                    break;
                }
            }
        }
        T::default()
    }

    /// serde names the choices only to who tries a wrong one; of a number it says `string or map`.
    fn choices<T: DeserializeOwned>(&self, from: &[String], at: &[String], message: String) -> String {
        if !message.ends_with("expected string or map") {
            return message;
        }
        let mut whole = self.get(from).cloned().unwrap_or_default();
        if let Some(value) = at.get(from.len()..).and_then(|below| find_mut(&mut whole, below)) {
            *value = Value::String(String::new());
        }
        T::deserialize(whole).err().map_or(message, |error| error.to_string())
    }

    /// What to say of a value that does not fit: what was written, and what serde expected.
    pub(super) fn misfit(&self, at: &[String], message: &str) -> String {
        let found = shown(self.written(at).unwrap_or(&Value::Null));
        if let Some(missing) = message.strip_prefix("missing field ") {
            return format!("{found} is not allowed, expected the key {} in it", missing.replace('`', ""));
        }
        let expected = message.rsplit_once("expected ").map_or("another value", |(_, expected)| expected);
        let (expected, off) = match expected.strip_suffix(", or off") {
            Some(expected) => (expected, ", or off"),
            None => (expected, ""),
        };
        let words = expected.strip_prefix("one of ").map_or(expected.to_owned(), |names| {
            match names.rsplit_once(", ") {
                Some((names, last)) => format!("{names} or {last}"),
                None => names.to_owned(),
            }
        });
        let words = words.replace('`', "");
        let expected = match words.as_str() {
            "u32" | "u64" | "usize" => "a whole number",
            "a nonzero u32" | "a nonzero usize" => "a whole number from 1",
            "f32" | "f64" => "a number",
            "a boolean" => "true or false",
            "a string" | "path string" => "text",
            "a sequence" => "a list",
            words => words,
        };
        format!("{found} is not allowed, expected {expected}{off}")
    }

    fn drop_unknown(&mut self, at: &[String], known: &[&str], report: &mut Report) {
        // The path leads to the first unknown key; its siblings may be unknown too.
        let map = at.split_last().map_or(at, |(_, map)| map);
        for key in self.keys(map) {
            if !known.contains(&key.as_str()) {
                let path = [map, std::slice::from_ref(&key)].concat();
                report.key(&path, unknown("unknown key", &key, known));
                self.remove(&path);
            }
        }
    }

    /// The deepest existing key path that serde's path leads to.
    fn place_of(&self, from: &[String], path: &serde_path_to_error::Path) -> Path {
        let mut at = from.to_vec();
        for segment in path {
            let key = match segment {
                Segment::Map { key } => key.clone(),
                Segment::Seq { index } => index.to_string(),
                Segment::Enum { .. } | Segment::Unknown => break,
            };
            at.push(key);
            if self.get(&at).is_none() {
                at.pop();
                break;
            }
        }
        at
    }

    fn is_item(&self, path: &[String]) -> bool {
        path.split_last().is_some_and(|(_, above)| self.get(above).is_some_and(Value::is_array))
    }
}

/// A value as it may stand in an error: short, and on one line.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
        Value::String(text) if text.chars().count() > 60 => {
            format!("{:?}…", text.chars().take(60).collect::<String>())
        }
        // Durations and the like read better without quotes.
        Value::String(text) if text.chars().all(|c| c.is_ascii_alphanumeric()) && !text.is_empty() => {
            text.clone()
        }
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

/// The keys that serde would have known, if its error is an unknown one.
fn known_keys(message: &str) -> Option<Vec<&str>> {
    let rest = message.strip_prefix("unknown field ")?;
    let (_, known) = rest.rsplit_once("expected ")?;
    Some(known.split('`').skip(1).step_by(2).collect())
}

/// The end of serde's message where the value should have been a section, as `raw` words it.
const EXPECTED_MAP: &str = "expected a map of keys";
