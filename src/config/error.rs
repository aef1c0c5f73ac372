//! What is wrong with a configuration, all of it at once.
//!
//! A [`Problem`] says where (file, line and column, variable or flag), which key, what was found and what
//! is allowed. Text that came out of a secret is never part of one: problems show what the user wrote.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use super::place::{Path, Place, Places};

/// One thing to correct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written; `None` if nobody wrote it.
    pub place: Option<Place>,
    /// The keys that lead to it; empty for the file as a whole.
    pub path: Path,
    /// What was found and what is allowed, lower case, no full stop.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", dotted(&self.path))?;
        }
        f.write_str(&self.message)
    }
}

/// Every problem of a configuration, in the order of the file; at least one.
///
/// `Display` is one line a problem and a last one that says what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    pub all: Vec<Problem>,
    /// The configuration file, for the advice.
    pub file: Option<PathBuf>,
    /// Every file that was read or should have been, as in [`Loaded`](super::Loaded): one that is missing
    /// may appear, and then it is time to load again.
    pub files: Vec<PathBuf>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.all {
            writeln!(f, "{problem}")?;
        }
        let count = self.all.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} problem{plural}: correct and ")?;
        match &self.file {
            Some(file) => write!(f, "run \"readygate validate {}\"", file.display())?,
            None => f.write_str("try again")?,
        }
        f.write_str("; \"readygate schema\" describes every key")
    }
}

impl std::error::Error for Problems {}

/// Collects problems while a configuration is read, at most one for a key.
#[derive(Debug)]
pub(super) struct Report {
    places: Places,
    problems: Vec<Problem>,
    blamed: BTreeSet<Path>,
}

impl Report {
    pub(super) fn new(places: Places) -> Self {
        Report { places, problems: Vec::new(), blamed: BTreeSet::new() }
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// Where the keys of the file are; to be called before [`Report::set`].
    pub(super) fn set_places(&mut self, places: Places) {
        self.places = places;
    }

    /// Notes that a variable or a flag sets the key at `path`.
    pub(super) fn set(&mut self, path: Path, place: Place) {
        self.places.set(path, place);
    }

    /// Notes a problem with the value at `path`.
    pub(super) fn value(&mut self, path: &[String], message: impl Into<String>) {
        let place = self.places.of_value(path);
        self.add(place, path, &message.into());
    }

    /// Notes a problem with the key at the end of `path`.
    pub(super) fn key(&mut self, path: &[String], message: impl Into<String>) {
        let place = self.places.of_key(path);
        self.add(place, path, &message.into());
    }

    /// Notes a problem whose place is known.
    pub(super) fn add(&mut self, place: Option<Place>, path: &[String], message: &str) {
        // The second thing that is wrong with a key is mostly a consequence of the first.
        if path.is_empty() || self.blamed.insert(path.to_vec()) {
            // One line each, whatever a kind or a parser says.
            let message = message.replace(char::is_control, " ");
            self.problems.push(Problem { place, path: path.to_vec(), message });
        }
    }

    /// Whether something at `path`, above or below it was wrong: what now stands there is a default, and a
    /// rule must not blame the user for it.
    pub(super) fn is_blamed(&self, path: &[String]) -> bool {
        self.blamed.iter().any(|blamed| blamed.starts_with(path) || path.starts_with(blamed))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Everything noted, in the order of the file, then variables, then flags.
    pub(super) fn into_problems(mut self, file: Option<PathBuf>, files: Vec<PathBuf>) -> Problems {
        self.problems.sort_by(|a, b| a.place.cmp(&b.place));
        Problems { all: self.problems, file, files }
    }
}

/// The message for a name that nobody knows, e.g. `unknown key, did you mean "quiet"? allowed: min, quiet`.
pub(super) fn unknown(what: &str, found: &str, known: &[&str]) -> String {
    if known.is_empty() {
        return what.to_owned();
    }
    let allowed = known.join(", ");
    match nearest(found, known) {
        Some(name) => format!("{what}, did you mean \"{name}\"? allowed: {allowed}"),
        None => format!("{what}, allowed: {allowed}"),
    }
}

/// The known name that `found` is probably a slip of.
pub fn nearest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let slips = |name: &str| strsim::damerau_levenshtein(&found.to_lowercase(), name);
    let best = known.iter().min_by_key(|name| slips(name))?;
    (slips(best) <= 1 + best.len() / 4).then_some(best)
}

/// A key path as people write it: `checks.db.timeout`. Odd keys are quoted.
pub fn dotted(path: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-/".contains(c);
    let segment = |key: &String| {
        if !key.is_empty() && key.chars().all(plain) { key.clone() } else { format!("{key:?}") }
    };
    path.iter().map(segment).collect::<Vec<_>>().join(".")
}
