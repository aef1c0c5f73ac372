//! The walk over a YAML text, event by event: where each key is, and what no reader of values would refuse.
//!
//! The readers accept silently what users do not mean: numbers with a leading zero, keys given twice, aliases
//! that multiply, nesting without end.

use std::collections::{BTreeMap, BTreeSet};

use yaml_rust2::parser::{Event, Parser, Tag};
use yaml_rust2::scanner::{Marker, TScalarStyle};

use super::place::{Path, Places, Position, Slip};

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

/// Walks a YAML (or JSON) text and notes its places. The result is what is wrong here and there; the error, what
/// makes the text as a whole unusable.
pub(super) fn walk(text: &str, places: &mut Places) -> (Vec<Slip>, Result<(), Slip>) {
    let mut walk = Walk { places, stack: Vec::new(), slips: Vec::new(), anchors: BTreeMap::new(), nodes: 0 };
    let end = walk.run(text);
    (walk.slips, end)
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
        self.places.note(self.path(), key_at, at);
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

/// A file deeper than this was not written by a person.
const DEEPEST: usize = 64;
/// Far more than any configuration needs; keeps a few aliases from becoming gigabytes.
const MOST_NODES: usize = 100_000;
