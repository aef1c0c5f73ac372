//! The entries of `checks`: the common keys, and one key that names the kind.
//!
//! An entry becomes a [`Draft`] first, whatever is wrong with it, so that the rules that span checks can
//! see all of them; [`Draft::spec`] makes the resolved check.

use std::num::NonZeroU32;

use serde_json::{Map, Value};

use super::error::{Report, unknown};
use super::fit::{is_planned, shown};
use super::place::Path;
use super::raw::RawCheck;
use super::tree::Tree;
use super::units::Period;
use super::{CheckSpec, Defaults, KeyError, Kind, Listener, Own};

/// An entry as far as it could be read.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) raw: RawCheck,
    /// Name of the kind and its keys; `None` if there is a problem with them.
    own: Option<(usize, Own)>,
}

impl Draft {
    /// Reads the entry `name`; what is wrong with it goes to `report`.
    pub(super) fn read(
        name: &str,
        kinds: &[Kind],
        listeners: &[Listener],
        tree: &mut Tree,
        report: &mut Report,
    ) -> Self {
        let path = vec!["checks".to_owned(), name.to_owned()];
        let is_map = |tree: &Tree| tree.get(&path).is_none_or(|value| value.is_object() || value.is_null());
        if !is_map(tree) {
            tree.reread(&path);
        }
        if !is_map(tree) {
            let found = tree.written(&path).map_or_else(String::new, shown);
            report.value(&path, format!("{found} is not allowed, expected a map of keys"));
            return Draft { name: name.to_owned(), raw: RawCheck::default(), own: None };
        }
        let own = kind_of(&path, kinds, tree, report).and_then(|index| {
            let kind = &kinds[index];
            let own =
                own_keys(&[path.as_slice(), &[kind.name.to_owned()]].concat(), kind, listeners, tree, report);
            own.map(|own| (index, own))
        });
        for kind in kinds {
            tree.remove(&[path.as_slice(), &[kind.name.to_owned()]].concat());
        }
        let defaults = own.as_ref().map_or(Defaults::COMMON, |(index, _)| kinds[*index].defaults);
        let written = |key: &str| tree.get(&[path.as_slice(), &[key.to_owned()]].concat()).is_some();
        let (paced, counted) = (written("interval"), written("failure_threshold"));
        let mut raw = tree.fit::<RawCheck>(&path, report);
        if !paced {
            raw.interval = Period(defaults.interval);
        }
        if !counted {
            raw.failure_threshold = NonZeroU32::new(defaults.failure_threshold).unwrap_or(NonZeroU32::MIN);
        }
        let raw = raw.with_dependent_defaults();
        Draft { name: name.to_owned(), raw, own }
    }

    /// The check, if its kind could be read.
    pub(super) fn spec(&self, kinds: &[Kind], listeners: &[Listener]) -> Option<CheckSpec> {
        let (index, own) = self.own.as_ref()?;
        let kind = &kinds[*index];
        let raw = &self.raw;
        Some(CheckSpec {
            name: self.name.clone(),
            kind: kind.name,
            gates: raw.gates.unwrap_or_else(|| (kind.gates)(own, listeners)),
            after: raw.after.clone(),
            interval: raw.interval.0,
            interval_failing: raw.interval_failing.unwrap_or(raw.interval).0,
            timeout: raw.timeout.unwrap_or(raw.interval).0,
            success_threshold: raw.success_threshold.get(),
            failure_threshold: raw.failure_threshold.get(),
            own: own.clone(),
        })
    }

    /// The entry with every default, secrets not filled in.
    pub(super) fn effective(&self, kinds: &[Kind], listeners: &[Listener], tree: &Tree) -> Value {
        let mut entry = Map::new();
        if let Some((index, own)) = &self.own {
            let kind = &kinds[*index];
            let path = ["checks".to_owned(), self.name.clone(), kind.name.to_owned()];
            let mut keys = tree.written(&path).and_then(Value::as_object).cloned().unwrap_or_default();
            for (key, default) in super::schema::own_defaults(kind) {
                keys.entry(key).or_insert(default);
            }
            entry.insert(kind.name.to_owned(), Value::Object(keys));
            let gates = self.raw.gates.unwrap_or_else(|| (kind.gates)(own, listeners));
            entry.insert("gates".to_owned(), serde_json::to_value(gates).unwrap_or_default());
        }
        if let Ok(Value::Object(common)) = serde_json::to_value(&self.raw) {
            entry.extend(common);
        }
        Value::Object(entry)
    }
}

/// Finds the one key that names the kind; other keys that are none of a check's own go to `report`.
fn kind_of(path: &Path, kinds: &[Kind], tree: &mut Tree, report: &mut Report) -> Option<usize> {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    let allowed: Vec<&str> = RawCheck::KEYS.iter().chain(&names).copied().collect();
    let index_of = |key: &str| names.iter().position(|name| *name == key);
    let others: Vec<String> =
        tree.keys(path).into_iter().filter(|key| !RawCheck::KEYS.contains(&key.as_str())).collect();
    let known: Vec<usize> = others.iter().filter_map(|key| index_of(key)).collect();
    let mut meant_a_kind = false;
    for key in others.iter().filter(|key| index_of(key).is_none()) {
        let at = [path.as_slice(), std::slice::from_ref(key)].concat();
        tree.remove(&at);
        let is_common =
            super::error::nearest(key, &allowed).is_some_and(|name| RawCheck::KEYS.contains(&name));
        let message = if is_planned(&at) {
            unknown("unknown key (not in this version)", key, RawCheck::KEYS)
        } else if !known.is_empty() || is_common {
            unknown("unknown key", key, RawCheck::KEYS)
        } else {
            meant_a_kind = true;
            unknown("unknown kind of check", key, &names)
        };
        report.key(&at, message);
    }
    match known.as_slice() {
        [only] => Some(*only),
        [] => {
            if !meant_a_kind {
                report.key(path, format!("no kind of check, expected one key of: {}", names.join(", ")));
            }
            None
        }
        [first, rest @ ..] => {
            for other in rest {
                let at = [path.as_slice(), &[names[*other].to_owned()]].concat();
                report.key(
                    &at,
                    format!("second kind beside {}, expected exactly one in a check", names[*first]),
                );
            }
            None
        }
    }
}

/// The keys of the kind, if the kind accepts them.
///
/// A kind may stop at its first error. So what it refuses is taken away and the rest shown to it again; what
/// it then says of the gap is no news.
fn own_keys(
    path: &Path,
    kind: &Kind,
    listeners: &[Listener],
    tree: &mut Tree,
    report: &mut Report,
) -> Option<Own> {
    let mut gaps: Vec<Path> = Vec::new();
    loop {
        let own = match tree.get(path).cloned() {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(keys @ Value::Object(_)) => keys,
            Some(_) if tree.reread(path) => continue,
            Some(_) => {
                let found = tree.written(path).map_or_else(String::new, shown);
                report.value(path, format!("{found} is not allowed, expected a map of keys"));
                return None;
            }
        };
        let own = Own(own);
        let Err(errors) = (kind.accept)(&own, listeners) else {
            return gaps.is_empty().then_some(own);
        };
        let place = |error: &KeyError| [path.as_slice(), error.path.as_slice()].concat();
        // A variable or a secret that is more than text. (No short cut: every one of them is tried.)
        if gaps.is_empty() && errors.iter().filter(|error| tree.reread(&place(error))).count() > 0 {
            continue;
        }
        // The last of a list first, so that the places of the others stay.
        let mut refused: Vec<Path> = Vec::new();
        for error in &errors {
            let at = place(error);
            let as_written = before(&gaps, &at);
            // What was missing is not wrong as well.
            let is_news =
                !gaps.iter().any(|gap| gap.starts_with(&as_written)) && !report.is_blamed(&as_written);
            if is_news || (error.path.is_empty() && gaps.is_empty()) {
                refuse(&as_written, error, tree, report);
            }
            refused.push(at);
        }
        refused.sort_by_key(|at| std::cmp::Reverse(at.last().and_then(|index| index.parse::<usize>().ok())));
        refused.dedup();
        for at in refused {
            // What is missing, or wrong with the whole, is in the way of the rest.
            if at.len() == path.len() || tree.remove(&at).is_none() {
                return None;
            }
            let gap = before(&gaps, &at);
            gaps.push(gap);
        }
    }
}

/// Where the value that is now at `at` was before the items among `gaps` were taken out of their lists.
fn before(gaps: &[Path], at: &[String]) -> Path {
    let mut path = Path::new();
    for key in at {
        let Ok(mut index) = key.parse::<usize>() else {
            path.push(key.clone());
            continue;
        };
        let mut taken: Vec<usize> = gaps
            .iter()
            .filter(|gap| gap.len() == path.len() + 1 && gap.starts_with(&path))
            .filter_map(|gap| gap.last()?.parse().ok())
            .collect();
        taken.sort_unstable();
        for gap in taken {
            index += usize::from(gap <= index);
        }
        path.push(index.to_string());
    }
    path
}

/// Notes what a kind said of the key at `at`.
fn refuse(at: &[String], error: &KeyError, tree: &Tree, report: &mut Report) {
    let known: Vec<&str> = error.known.iter().map(String::as_str).collect();
    let message = tree.without_secrets(&at[..at.len() - error.path.len()], &error.message);
    let begins = |starts: &[&str]| starts.iter().any(|start| message.starts_with(start));
    match error.path.last() {
        Some(key) if begins(&["unknown field", "unknown key"]) && !known.is_empty() => {
            report.key(at, unknown("unknown key", key, &known));
        }
        // Known names of a value, such as the listeners.
        Some(_) if !known.is_empty() => {
            let written = tree.written(at).and_then(Value::as_str).unwrap_or_default();
            match super::error::nearest(written, &known) {
                Some(name) => report.value(at, format!("{message}, did you mean \"{name}\"?")),
                None => report.value(at, message),
            }
        }
        // What is missing was not found either.
        Some(_)
            if begins(&["invalid type: ", "invalid value: ", "expected "]) && tree.written(at).is_some() =>
        {
            report.value(at, tree.misfit(at, &message));
        }
        _ => report.value(at, message),
    }
}
