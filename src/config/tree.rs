//! The merged configuration as a tree of values, each with what the user wrote for it.
//!
//! A variable of the environment is text whatever it means: where text does not fit, it is read as YAML
//! (`3`, `true`, `[a, b]`) before it becomes a problem.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use yaml_rust2::{Yaml, YamlLoader};

use super::error::Report;
use super::place::{Path, Places};
use super::secret::Secrets;
use super::walk::{is_doubtful, walk};

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

    /// Puts an empty map at `path`.
    pub(super) fn empty(&mut self, path: &[String]) {
        if let Some(value) = find_mut(&mut self.value, path) {
            *value = Value::Object(Map::new());
        }
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
        // What is shown of a secret stays the text that names it.
        if !self.secret.contains(&path)
            && let (Some(read), Some(written)) =
                (find(&self.value, &path), find_mut(&mut self.written, &path))
        {
            *written = read.clone();
        }
        changed
    }
}

/// Text as YAML would read it: a scalar, or a list or map in flow style.
fn yaml(text: &str) -> Option<Value> {
    let text = text.trim();
    if !text.starts_with(['[', '{']) {
        return if is_doubtful(text) { None } else { from_yaml(&Yaml::from_str(text)) };
    }
    // The walk refuses what the loader would not survive.
    let (slips, end) = walk(&format!("value: {text}"), &mut Places::default());
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
