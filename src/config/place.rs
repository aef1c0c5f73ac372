//! Where each key of a configuration was written: the line and column of a file, a variable, or a flag.
//!
//! The readers of YAML and TOML that build values forget positions, so the text is walked a second time:
//! TOML here, YAML and JSON in `walk`.

use std::collections::BTreeMap;
use std::fmt;

use toml::de::{DeTable, DeValue};

/// Keys from the root down; list items are their index.
pub type Path = Vec<String>;

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A file as a whole.
    File(String),
    /// Line and column of a file, both from 1.
    Position { file: String, line: usize, column: usize },
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(name) | Place::Variable(name) | Place::Flag(name) => f.write_str(name),
            Place::Position { file, line, column } => write!(f, "{file}:{line}:{column}"),
        }
    }
}

/// Line and column, both from 1.
pub(super) type Position = (usize, usize);

/// A problem found while walking a text: where, at which key, what.
pub(super) type Slip = (Position, Path, String);

/// The place of every key that somebody wrote.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    file: Option<String>,
    /// Position of a key and of its value.
    positions: BTreeMap<Path, (Position, Position)>,
    /// Variables and flags by the key they set; they win over the file.
    set: BTreeMap<Path, Place>,
}

impl Places {
    /// Of a file whose text is yet to be walked.
    pub(super) fn of_file(name: &str) -> Self {
        Places { file: Some(name.to_owned()), ..Places::default() }
    }

    /// Notes that `place` (a variable or a flag) sets the key at `path`.
    pub(super) fn set(&mut self, path: Path, place: Place) {
        self.set.insert(path, place);
    }

    /// Whether the value at `path` came as text from the environment.
    pub(super) fn is_variable(&self, path: &[String]) -> bool {
        matches!(self.set.get(path), Some(Place::Variable(_)))
    }

    /// Whether somebody wrote the key at `path`.
    pub(super) fn is_written(&self, path: &[String]) -> bool {
        self.positions.contains_key(path) || self.set.keys().any(|key| path.starts_with(key))
    }

    pub(super) fn of_value(&self, path: &[String]) -> Option<Place> {
        self.find(path, |(_, value)| *value)
    }

    pub(super) fn of_key(&self, path: &[String]) -> Option<Place> {
        self.find(path, |(key, _)| *key)
    }

    /// A sort key that puts siblings in the order of the file, and those from elsewhere last.
    pub(super) fn order(&self, path: &[String]) -> Position {
        self.positions.get(path).map_or((usize::MAX, usize::MAX), |(key, _)| *key)
    }

    /// The place itself; else a variable or flag that sets something below it; else the nearest key above.
    fn find(&self, path: &[String], which: impl Fn(&(Position, Position)) -> Position) -> Option<Place> {
        let file = self.file.clone().unwrap_or_default();
        let at = |(line, column)| Place::Position { file: file.clone(), line, column };
        let above = (0..=path.len()).rev().find_map(|end| self.set.get(&path[..end]));
        if let Some(place) = above {
            return Some(place.clone());
        }
        if let Some(positions) = self.positions.get(path) {
            return Some(at(which(positions)));
        }
        let below = self.set.iter().find(|(key, _)| key.starts_with(path)).map(|(_, place)| place.clone());
        below.filter(|_| !path.is_empty()).or_else(|| {
            let nearest = (1..path.len()).rev().find_map(|end| self.positions.get(&path[..end]));
            nearest.map(|(key, _)| at(*key)).or_else(|| self.file.clone().map(Place::File))
        })
    }

    /// Notes where the key at `path` and its value begin.
    pub(super) fn note(&mut self, path: Path, key: Position, value: Position) {
        self.positions.insert(path, (key, value));
    }

    /// Walks a TOML text.
    pub(super) fn walk_toml(&mut self, text: &str) -> Result<(), Slip> {
        let table = DeTable::parse(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let message = format!("not valid TOML: {}", error.message().replace('\n', ", "));
            (line_and_column(text, start), Vec::new(), message)
        })?;
        self.toml_table(text, &mut Vec::new(), table.get_ref());
        Ok(())
    }

    fn toml_table(&mut self, text: &str, path: &mut Path, table: &DeTable<'_>) {
        for (key, value) in table {
            path.push(key.get_ref().to_string());
            let value_at = line_and_column(text, value.span().start);
            self.positions.insert(path.clone(), (line_and_column(text, key.span().start), value_at));
            self.toml_value(text, path, value.get_ref());
            path.pop();
        }
    }

    fn toml_value(&mut self, text: &str, path: &mut Path, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.toml_table(text, path, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push(index.to_string());
                    let at = line_and_column(text, item.span().start);
                    self.positions.insert(path.clone(), (at, at));
                    self.toml_value(text, path, item.get_ref());
                    path.pop();
                }
            }
            _ => {}
        }
    }
}

/// Line and column, both from 1, of a byte of a text; columns count characters.
pub(super) fn line_and_column(text: &str, byte: usize) -> Position {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
