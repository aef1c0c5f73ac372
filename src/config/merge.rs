//! Reads file, environment and flags and lays them over each other, later over earlier.
//!
//! The crate `config` reads and merges. Its own deserialiser is not used, since it converts silently
//! (`off` to false, 1 to true): the merged tree leaves here as JSON, and what does not fit is an error.

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use config::{FileFormat, Format, Map, Source, ValueKind};
use serde_json::Value;

use super::error::Report;
use super::place::{Path, Place, Places};
use super::{Environment, error};

/// The merged tree, its order that of the file.
#[derive(Debug)]
pub(super) struct Merger {
    sources: Map<String, config::Value>,
}

impl Merger {
    pub(super) fn new() -> Self {
        Merger { sources: Map::new() }
    }

    /// Lays the configuration file over what is there. False if nothing in it could be used.
    pub(super) fn file(&mut self, path: &FilePath, report: &mut Report) -> bool {
        let name = path.display().to_string();
        let whole = Some(Place::File(name.clone()));
        let format = match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") => FileFormat::Yaml,
            Some("toml") => FileFormat::Toml,
            Some("json") => FileFormat::Json,
            _ => {
                report.add(
                    whole,
                    &[],
                    "unknown format, expected a name that ends in .yaml, .yml, .toml or .json".to_owned(),
                );
                return false;
            }
        };
        let text = match std::fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => {
                let at = error.utf8_error().valid_up_to();
                report.add(whole, &[], format!("byte {at} is not UTF-8, expected text"));
                return false;
            }
            Err(error) => {
                report.add(whole, &[], format!("cannot read the configuration: {error}"));
                return false;
            }
        };
        self.text(&text, format, &name, report)
    }

    /// Lays a text over what is there.
    pub(super) fn text(&mut self, text: &str, format: FileFormat, name: &str, report: &mut Report) -> bool {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut places = Places::of_file(name);
        let (slips, end) = match format {
            FileFormat::Toml => (Vec::new(), places.walk_toml(text)),
            FileFormat::Yaml if is_without_keys(text) => return true,
            FileFormat::Yaml => places.walk_yaml(text),
            // JSON is YAML but for its tabs. What else stops the walk is left to the reader of JSON.
            _ => (places.walk_yaml(&text.replace('\t', " ")).0, Ok(())),
        };
        report.set_places(places);
        let at = |(line, column)| Some(Place::Position { file: name.to_owned(), line, column });
        let slipped = !slips.is_empty();
        for (position, path, message) in slips {
            report.add(at(position), &path, message);
        }
        if let Err((position, path, message)) = end {
            report.add(at(position), &path, message);
            return false;
        }
        let parsed = match format.parse(Some(&name.to_owned()), text) {
            Ok(parsed) => parsed,
            // What the walk found says it better.
            Err(_) if slipped => return false,
            Err(error) => {
                let place = error
                    .downcast_ref::<serde_json::Error>()
                    .filter(|error| error.line() > 0)
                    .map_or(Some(Place::File(name.to_owned())), |error| {
                        at((error.line(), error.column().max(1)))
                    });
                let message = error.to_string().replace('\n', ", ");
                report.add(place, &[], format!("cannot read the configuration: {message}"));
                return false;
            }
        };
        // The names of the top level would be taken for path expressions (`a.b`, `a[9]`).
        for (key, value) in parsed {
            if key.bytes().all(is_of_a_name) && !key.is_empty() {
                self.sources.insert(key, value);
            } else {
                report.key(std::slice::from_ref(&key), error::unknown("unknown key", &key, SECTIONS));
            }
        }
        true
    }

    /// Lays the environment over what is there: `READYGATE__DRAIN__QUIET` is `drain.quiet`.
    pub(super) fn environment(&mut self, environment: &Environment, report: &mut Report) {
        let mut set: BTreeMap<Path, &String> = BTreeMap::new();
        let mut usable = Map::new();
        for (name, value) in environment {
            let Some(keys) = name.strip_prefix(PREFIX) else { continue };
            let path: Path = keys.to_lowercase().split(SEPARATOR).map(str::to_owned).collect();
            let place = Place::Variable(name.clone());
            if path.iter().any(|key| key.is_empty() || !key.bytes().all(is_of_a_name)) {
                let message = "not a key path, expected names joined by __, such as READYGATE__DRAIN__QUIET";
                report.add(Some(place), &path, message.to_owned());
            } else if let Some(other) =
                set.iter().find(|(key, _)| path.starts_with(key)).map(|(_, name)| *name)
            {
                report.add(Some(place), &path, format!("{other} sets this key too, expected one of the two"));
            } else {
                report.set(path.clone(), place);
                set.insert(path, name);
                usable.insert(name.clone(), value.clone());
            }
        }
        let source = config::Environment::with_prefix("READYGATE")
            .prefix_separator(SEPARATOR)
            .separator(SEPARATOR)
            .try_parsing(false)
            .source(Some(usable));
        self.lay(&[Box::new(Keys(self.sources.clone())), Box::new(source)]);
    }

    /// Lays one value over what is there.
    pub(super) fn set(&mut self, path: &[&str], value: &Value) {
        let over = path.iter().rev().fold(from_json(value), |value, key| {
            config::Value::from(Map::from([((*key).to_owned(), value)]))
        });
        if let ValueKind::Table(over) = over.kind {
            self.lay(&[Box::new(Keys(self.sources.clone())), Box::new(Keys(over))]);
        }
    }

    /// The tree as JSON, each map in the order of `places`.
    pub(super) fn tree(&self, places: &Places) -> Value {
        to_json(&config::Value::from(self.sources.clone()), &mut Vec::new(), places)
    }

    fn lay(&mut self, sources: &[Box<dyn Source + Send + Sync>]) {
        let built = config::Config::builder().add_source(sources.to_vec()).build();
        let built = built.expect("the sources are in memory and were read before");
        if let ValueKind::Table(table) = built.cache.kind {
            self.sources = table;
        }
    }
}

/// Keys that were read already.
#[derive(Clone, Debug)]
struct Keys(Map<String, config::Value>);

impl Source for Keys {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, config::Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

fn to_json(value: &config::Value, path: &mut Path, places: &Places) -> Value {
    match &value.kind {
        ValueKind::Nil => Value::Null,
        ValueKind::Boolean(value) => Value::from(*value),
        ValueKind::I64(value) => Value::from(*value),
        ValueKind::U64(value) => Value::from(*value),
        // Text, so that it is refused with what was written instead of becoming null.
        ValueKind::Float(value) => {
            serde_json::Number::from_f64(*value).map_or_else(|| Value::from(value.to_string()), Value::Number)
        }
        ValueKind::I128(value) => Value::from(value.to_string()),
        ValueKind::U128(value) => Value::from(value.to_string()),
        ValueKind::String(value) => Value::from(value.as_str()),
        ValueKind::Array(items) => {
            let item = |(index, item): (usize, &config::Value)| {
                path.push(index.to_string());
                let item = to_json(item, path, places);
                path.pop();
                item
            };
            items.iter().enumerate().map(item).collect()
        }
        ValueKind::Table(table) => {
            let mut entries = Vec::with_capacity(table.len());
            for (key, value) in table {
                path.push(key.clone());
                entries.push((places.order(path), key.clone(), to_json(value, path, places)));
                path.pop();
            }
            entries.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
            entries.into_iter().map(|(_, key, value)| (key, value)).collect()
        }
    }
}

fn from_json(value: &Value) -> config::Value {
    let kind = match value {
        Value::Null => ValueKind::Nil,
        Value::Bool(value) => ValueKind::Boolean(*value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => ValueKind::I64(number),
            None => ValueKind::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => ValueKind::String(text.clone()),
        Value::Array(items) => ValueKind::Array(items.iter().map(from_json).collect()),
        Value::Object(entries) => {
            ValueKind::Table(entries.iter().map(|(key, value)| (key.clone(), from_json(value))).collect())
        }
    };
    config::Value::new(None, kind)
}

/// Whether a YAML text holds nothing but comments: an empty file is a valid one, and means the defaults.
fn is_without_keys(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#') || line == "---")
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

const PREFIX: &str = "READYGATE__";
const SEPARATOR: &str = "__";
const SECTIONS: &[&str] = &["listeners", "admin", "drain", "checks", "workers", "log"];
