//! Fits a tree of values into a type, and says everything that does not fit.
//!
//! serde stops at its first error. So: take the error's key path, note the problem, remove the value,
//! try again, until the rest fits. A variable of the environment is text whatever it means: where text
//! does not fit, it is read as YAML (`3`, `true`, `[a, b]`) before it becomes a problem.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;
use yaml_rust2::{Yaml, YamlLoader};

use super::error::{Report, unknown};
use super::place::{Path, Places, is_doubtful};
use super::secret::Secrets;

/// The merged configuration twice: as written, and with secrets filled in.
#[derive(Debug)]
pub(super) struct Tree {
    /// To be shown.
    written: Value,
    /// To be used.
    value: Value,
    /// `value` before anything was removed or reread.
    filled: Value,
    /// Text that may mean something else than text: from the environment, or filled in.
    loose: BTreeSet<Path>,
    /// Where a secret was filled in.
    secret: BTreeSet<Path>,
}

impl Tree {
    /// Fills in secrets; notes those that are missing.
    pub(super) fn new(written: Value, secrets: &mut Secrets<'_>, report: &mut Report) -> Self {
        let (value, filled) = (written.clone(), Value::Null);
        let mut tree = Tree { written, value, filled, loose: BTreeSet::new(), secret: BTreeSet::new() };
        let mut leaves = Vec::new();
        texts(&tree.written, &mut Vec::new(), &mut leaves);
        for (path, text) in leaves {
            match secrets.fill(&text) {
                Ok(filled) => {
                    if filled != text {
                        tree.secret.insert(path.clone());
                        tree.loose.insert(path.clone());
                        if let Some(value) = find_mut(&mut tree.value, &path) {
                            *value = Value::String(filled);
                        }
                    }
                }
                Err(message) => report.value(&path, message),
            }
            if report.places().is_variable(&path) {
                tree.loose.insert(path);
            }
        }
        tree.filled = tree.value.clone();
        tree
    }

    pub(super) fn get(&self, path: &[String]) -> Option<&Value> {
        find(&self.value, path)
    }

    /// The names of the keys below `path`, in the order of the file.
    pub(super) fn keys(&self, path: &[String]) -> Vec<String> {
        let map = self.get(path).and_then(Value::as_object);
        map.map(|map| map.keys().cloned().collect()).unwrap_or_default()
    }

    /// Adds a value that nobody wrote, and what to show for it.
    pub(super) fn insert(&mut self, path: &[String], value: Value, written: Value) {
        for (tree, value) in [(&mut self.value, value), (&mut self.written, written)] {
            let node = path.iter().fold(tree, |node, key| {
                if !node.is_object() {
                    *node = Value::Object(Map::new());
                }
                node.as_object_mut().expect("made one above").entry(key.as_str()).or_insert(Value::Null)
            });
            *node = value;
        }
    }

    /// What was written at `path`.
    pub(super) fn written(&self, path: &[String]) -> Option<&Value> {
        find(&self.written, path)
    }

    /// Whether a secret was filled in at `path`.
    pub(super) fn is_secret(&self, path: &[String]) -> bool {
        self.secret.contains(path)
    }

    /// Where secrets were filled in.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &Path> {
        self.secret.iter()
    }

    /// A message about something below `path`, without what secrets became there.
    ///
    /// Kinds promise not to repeat secrets; this holds them to it, for text as it is and as `{:?}` shows it.
    pub(super) fn without_secrets(&self, path: &[String], message: &str) -> String {
        let mut message = message.to_owned();
        for secret in self.secret.iter().filter(|secret| secret.starts_with(path)) {
            let Some(Value::String(filled)) = find(&self.filled, secret) else { continue };
            let debug = format!("{filled:?}");
            let json = Value::from(filled.as_str()).to_string();
            for text in [filled.as_str(), debug.trim_matches('"'), json.trim_matches('"')] {
                if !text.is_empty() {
                    message = message.replace(text, "…");
                }
            }
        }
        message
    }

    /// Takes a value away from what is used.
    pub(super) fn remove(&mut self, path: &[String]) -> Option<Value> {
        let (last, above) = path.split_last()?;
        match find_mut(&mut self.value, above)? {
            Value::Object(map) => map.shift_remove(last),
            Value::Array(items) => {
                let index = last.parse::<usize>().ok().filter(|index| *index < items.len())?;
                Some(items.remove(index))
            }
            _ => None,
        }
    }

    /// Reads the text at `path` as YAML, if it may mean more than text. False if there is nothing to try.
    pub(super) fn reread(&mut self, path: &[String]) -> bool {
        // The problem may lie inside or around the text: in `expect.0` if a variable gives `expect`.
        let Some(path) = self.loose.iter().find(|loose| path.starts_with(loose)).cloned() else {
            return false;
        };
        self.loose.remove(&path);
        let Some(value @ Value::String(_)) = find_mut(&mut self.value, &path) else { return false };
        let Some(read) = value.as_str().and_then(yaml) else { return false };
        // A secret may be a number. As a map it would have keys, and errors show keys.
        if self.secret.contains(&path) && (read.is_object() || read.is_array()) {
            return false;
        }
        let changed = read != *value;
        *value = read;
        changed
    }

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
                // A key without a value, as when all below it is commented out, is no key.
                self.remove(&at);
            } else if !self.reread(&at) {
                let message = self.choices::<T>(path, &at, message);
                report.value(&at, self.misfit(&at, &message));
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
    fn misfit(&self, at: &[String], message: &str) -> String {
        let found = shown(find(&self.written, at).unwrap_or(&Value::Null));
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
                let what =
                    if is_planned(&path) { "unknown key (not in this version)" } else { "unknown key" };
                report.key(&path, unknown(what, &key, known));
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

/// Keys of the contract that a later version will know.
pub(super) fn is_planned(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(
        path.as_slice(),
        ["listeners", _, "tls" | "upstream_tls" | "ramp"]
            | ["listeners", _, "timeouts", "body_progress" | "tunnel_idle"]
            | ["listeners", _, "limits", "streams" | "body_bytes"]
            | ["checks", _, "guard"]
    )
}

/// The keys that serde would have known, if its error is an unknown one.
fn known_keys(message: &str) -> Option<Vec<&str>> {
    let rest = message.strip_prefix("unknown field ")?;
    let (_, known) = rest.rsplit_once("expected ")?;
    Some(known.split('`').skip(1).step_by(2).collect())
}

/// Text as YAML would read it: a scalar, or a list or map in flow style.
fn yaml(text: &str) -> Option<Value> {
    let text = text.trim();
    if !text.starts_with(['[', '{']) {
        return if is_doubtful(text) { None } else { from_yaml(&Yaml::from_str(text)) };
    }
    // The walk refuses what the loader would not survive.
    let (slips, end) = Places::default().walk_yaml(&format!("value: {text}"));
    if !slips.is_empty() || end.is_err() {
        return None;
    }
    let mut documents = YamlLoader::load_from_str(text).ok()?;
    (documents.len() == 1).then(|| from_yaml(&documents.remove(0)))?
}

fn from_yaml(yaml: &Yaml) -> Option<Value> {
    Some(match yaml {
        Yaml::Real(_) => Value::Number(serde_json::Number::from_f64(yaml.as_f64()?)?),
        Yaml::Integer(number) => Value::from(*number),
        Yaml::String(text) => Value::from(text.as_str()),
        Yaml::Boolean(value) => Value::from(*value),
        Yaml::Array(items) => Value::Array(items.iter().map(from_yaml).collect::<Option<_>>()?),
        Yaml::Hash(map) => {
            let entry = |(key, value): (&Yaml, &Yaml)| Some((key.as_str()?.to_owned(), from_yaml(value)?));
            Value::Object(map.iter().map(entry).collect::<Option<Map<_, _>>>()?)
        }
        Yaml::Null => Value::Null,
        Yaml::Alias(_) | Yaml::BadValue => return None,
    })
}

fn texts(value: &Value, path: &mut Path, found: &mut Vec<(Path, String)>) {
    match value {
        Value::String(text) => found.push((path.clone(), text.clone())),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                texts(item, path, found);
                path.pop();
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                path.push(key.clone());
                texts(item, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

pub(super) fn find<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| match value {
        Value::Object(map) => map.get(key),
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    })
}

pub(super) fn find_mut<'a>(value: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, key| match value {
        Value::Object(map) => map.get_mut(key),
        Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        _ => None,
    })
}
