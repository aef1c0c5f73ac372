//! Where each key of a configuration was written: the line and column of a file, a variable, or a flag.
//!
//! The readers of YAML and TOML that build values forget positions, so the text is walked a second time,
//! event by event. That walk also refuses what the readers accept silently and users do not mean: numbers
//! with a leading zero, keys given twice, aliases that multiply, nesting without end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use toml::de::{DeTable, DeValue};
use yaml_rust2::parser::{Event, Parser, Tag};
use yaml_rust2::scanner::{Marker, TScalarStyle};

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

    /// Walks a YAML (or JSON) text. The result is what is wrong here and there; the error, what makes the
    /// text as a whole unusable.
    pub(super) fn walk_yaml(&mut self, text: &str) -> (Vec<Slip>, Result<(), Slip>) {
        let mut walk =
            Walk { places: self, stack: Vec::new(), slips: Vec::new(), anchors: BTreeMap::new(), nodes: 0 };
        let end = walk.run(text);
        (walk.slips, end)
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

/// The walk over the events of a YAML text: a stack of open maps and lists instead of recursion, so that
/// no nesting can overflow it.
struct Walk<'a> {
    places: &'a mut Places,
    stack: Vec<Open>,
    slips: Vec<Slip>,
    /// Nodes below each anchor, aliases followed: what an alias costs.
    anchors: BTreeMap<usize, usize>,
    /// Nodes so far, aliases followed.
    nodes: usize,
}

struct Open {
    anchor: usize,
    /// `nodes` when it was opened.
    since: usize,
    inside: Inside,
}

enum Inside {
    Map { key: Option<(String, Position)>, seen: BTreeSet<String> },
    List { next: usize },
}

impl Walk<'_> {
    fn run(&mut self, text: &str) -> Result<(), Slip> {
        let mut parser = Parser::new_from_str(text);
        let mut documents = 0;
        loop {
            let (event, marker) = parser.next_token().map_err(|error| {
                (position(*error.marker()), Vec::new(), format!("not valid YAML: {}", error.info()))
            })?;
            let at = position(marker);
            if self.stack.is_empty()
                && matches!(event, Event::SequenceStart(..) | Event::Scalar(..) | Event::Alias(_))
            {
                return Err((
                    at,
                    Vec::new(),
                    "expected a map of keys such as listeners and checks".to_owned(),
                ));
            }
            match event {
                Event::StreamEnd => return Ok(()),
                Event::DocumentStart => {
                    documents += 1;
                    if documents > 1 {
                        return Err((at, Vec::new(), "a second document, expected one".to_owned()));
                    }
                }
                Event::MappingStart(anchor, tag) => {
                    self.tag(tag.as_ref(), at)?;
                    self.open(at, anchor, Inside::Map { key: None, seen: BTreeSet::new() })?;
                }
                Event::SequenceStart(anchor, tag) => {
                    self.tag(tag.as_ref(), at)?;
                    self.open(at, anchor, Inside::List { next: 0 })?;
                }
                Event::MappingEnd | Event::SequenceEnd => self.close(),
                Event::Scalar(text, style, anchor, tag) => {
                    self.tag(tag.as_ref(), at)?;
                    self.scalar(text, style == TScalarStyle::Plain && tag.is_none(), at)?;
                    self.anchors.insert(anchor, 1);
                }
                Event::Alias(anchor) => {
                    self.enter(at)?;
                    self.count(at, self.anchors.get(&anchor).copied().unwrap_or(1))?;
                    self.leave();
                }
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
            }
        }
    }

    fn open(&mut self, at: Position, anchor: usize, inside: Inside) -> Result<(), Slip> {
        self.enter(at)?;
        let since = self.nodes;
        self.count(at, 1)?;
        if self.stack.len() == DEEPEST {
            return Err((at, Vec::new(), format!("nested too deeply, expected at most {DEEPEST} levels")));
        }
        self.stack.push(Open { anchor, since, inside });
        Ok(())
    }

    fn close(&mut self) {
        if let Some(open) = self.stack.pop() {
            self.anchors.insert(open.anchor, self.nodes - open.since);
        }
        self.leave();
    }

    fn scalar(&mut self, text: String, plain: bool, at: Position) -> Result<(), Slip> {
        if let Some(Open { inside: Inside::Map { key: key @ None, seen }, .. }) = self.stack.last_mut() {
            *key = Some((text.clone(), at));
            if !seen.insert(text) {
                let path = self.path();
                self.slips.push((at, path, "the key is there twice, expected once".to_owned()));
            }
            return Ok(());
        }
        self.enter(at)?;
        self.count(at, 1)?;
        if plain && is_doubtful(&text) {
            let message = format!(
                "{text} is doubtful, expected a decimal number without leading zeros, or text in quotes"
            );
            let path = self.path();
            self.slips.push((at, path, message));
        }
        self.leave();
        Ok(())
    }

    /// Notes the position of a value that begins; the stack then leads to it.
    fn enter(&mut self, at: Position) -> Result<(), Slip> {
        let key_at = match self.stack.last() {
            None => return Ok(()),
            Some(Open { inside: Inside::Map { key: None, .. }, .. }) => {
                return Err((at, self.path(), "a key must be plain text".to_owned()));
            }
            Some(Open { inside: Inside::Map { key: Some((_, key_at)), .. }, .. }) => *key_at,
            Some(Open { inside: Inside::List { .. }, .. }) => at,
        };
        self.places.positions.insert(self.path(), (key_at, at));
        Ok(())
    }

    /// Forgets the key of a value that ended.
    fn leave(&mut self) {
        match self.stack.last_mut().map(|open| &mut open.inside) {
            Some(Inside::Map { key, .. }) => *key = None,
            Some(Inside::List { next }) => *next += 1,
            None => {}
        }
    }

    fn path(&self) -> Path {
        let segment = |open: &Open| match &open.inside {
            Inside::Map { key, .. } => key.as_ref().map(|(key, _)| key.clone()),
            Inside::List { next } => Some(next.to_string()),
        };
        self.stack.iter().filter_map(segment).collect()
    }

    fn count(&mut self, at: Position, nodes: usize) -> Result<(), Slip> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MOST_NODES {
            return Err((at, Vec::new(), format!("too large, expected at most {MOST_NODES} values")));
        }
        Ok(())
    }

    fn tag(&self, tag: Option<&Tag>, at: Position) -> Result<(), Slip> {
        match tag {
            Some(tag) if tag.suffix != "str" => {
                Err((at, self.path(), format!("tag {:?} is not allowed, expected none", tag.suffix)))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a plain scalar is one that YAML 1.1, YAML 1.2 and people read differently.
pub(super) fn is_doubtful(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let lower = digits.to_ascii_lowercase();
    let zero = digits.len() > 1
        && digits.starts_with('0')
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let radix = lower
        .strip_prefix("0x")
        .or_else(|| lower.strip_prefix("0o"))
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    zero || radix || lower == ".inf" || lower == ".nan"
}

fn position(marker: Marker) -> Position {
    (marker.line(), marker.col() + 1)
}

/// Line and column, both from 1, of a byte of a text; columns count characters.
pub(super) fn line_and_column(text: &str, byte: usize) -> Position {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// A file deeper than this was not written by a person.
const DEEPEST: usize = 64;
/// Far more than any configuration needs; keeps a few aliases from becoming gigabytes.
const MOST_NODES: usize = 100_000;
