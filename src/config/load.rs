//! From file, environment and flags to a valid [`Config`], or to everything that is wrong with them.
//!
//! `merge` lays the sources over each other, `fit` types them, `checks` reads the checks, `rules` judges the
//! whole. A step goes on with defaults for what it could not use, so that one run shows every problem.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde_json::Value;

use super::checks::Draft;
use super::error::{Problems, Report};
use super::merge::Merger;
use super::place::{Path, Place, Places};
use super::raw::RawConfig;
use super::secret::Secrets;
use super::tree::{Tree, find_mut};
use super::{Address, Admin, Config, Drain, Environment, Kind, Listener, Log};

/// Where a configuration comes from; later fields win.
#[derive(Clone, Debug)]
pub struct Sources {
    /// YAML, TOML or JSON, by its extension.
    pub file: Option<PathBuf>,
    /// All of the process's: `READYGATE__…` are keys, `${env:NAME}` may name any.
    pub environment: Environment,
    pub flags: Flags,
    /// What `workers: auto` counts: [`available_cpus`](super::available_cpus).
    pub cpus: NonZeroUsize,
}

/// The flags of the command line that set a key.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Address of the only listener.
    pub listen: Option<String>,
    /// App of the only listener.
    pub upstream: Option<String>,
    /// Address of the admin port.
    pub admin: Option<String>,
    /// A check each, by URL; added to those of the file.
    pub checks: Vec<String>,
    pub log_level: Option<String>,
    pub log_format: Option<String>,
    pub log_access: Option<String>,
}

/// A valid configuration and where it came from.
#[derive(Clone)]
pub struct Loaded {
    pub config: Config,
    /// All of it with defaults, secrets not filled in: to be shown.
    pub effective: Value,
    /// The configuration file and the files of secrets: to be watched.
    pub files: Vec<PathBuf>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not `config`: it holds what secrets became.
        let Loaded { config: _, effective, files } = self;
        f.debug_struct("Loaded").field("effective", effective).field("files", files).finish_non_exhaustive()
    }
}

/// Reads a configuration.
///
/// # Errors
///
/// Every problem at once. None passes by itself, except a secret's file that is not there yet.
pub fn load(sources: &Sources, kinds: &[Kind]) -> Result<Loaded, Problems> {
    let mut report = Report::new(Places::default());
    let mut merger = Merger::new();
    if let Some(path) = &sources.file
        && !merger.file(path, &mut report)
    {
        // Without the file the rest would be judged for what it lacks.
        return Err(report.into_problems(sources.file.clone(), vec![path.clone()]));
    }
    merger.environment(&sources.environment, &mut report);
    flags(&sources.flags, kinds, &mut merger, &mut report);

    let mut secrets = Secrets { environment: &sources.environment, files: BTreeSet::new() };
    let mut tree = Tree::new(merger.tree(report.places()), &mut secrets, &mut report);
    let raw: RawConfig = tree.fit(&[], &mut report);
    let listeners: Vec<Listener> = raw.listeners.iter().map(|(name, raw)| raw.resolved(name)).collect();
    if tree.keys(&path(&["checks"])).is_empty() && kinds.iter().any(|kind| kind.name == APP_KIND) {
        app_checks(&listeners, &mut tree);
    }
    let mut drafts = Vec::new();
    for name in tree.keys(&path(&["checks"])) {
        drafts.push(Draft::read(&name, kinds, &listeners, &mut tree, &mut report));
    }
    super::rules::judge(&raw, &drafts, &tree, &mut report);

    let effective = effective(&raw, &drafts, kinds, &tree);
    let checks = drafts.iter().filter_map(|draft| draft.spec(kinds)).collect();
    let files = sources.file.iter().cloned().chain(secrets.files).collect();
    if !report.is_empty() {
        return Err(report.into_problems(sources.file.clone(), files));
    }
    let config = Config {
        admin: Admin {
            listen: raw.admin.listen.0,
            stale_after: raw.admin.stale_after.0,
            hook_token_file: raw.admin.hook_token_file,
        },
        drain: Drain {
            min: raw.drain.min.0,
            quiet: raw.drain.quiet.0,
            deadline: raw.drain.deadline.0,
            ready: raw.drain.ready,
            restart_window: raw.drain.restart_window.0,
        },
        checks,
        workers: raw.workers.0.unwrap_or(sources.cpus.min(MOST_WORKERS)),
        log: Log { level: raw.log.level, format: raw.log.format, access: raw.log.access },
        listeners,
    };
    Ok(Loaded { config, effective, files })
}

/// Lays the flags over file and environment.
fn flags(flags: &Flags, kinds: &[Kind], merger: &mut Merger, report: &mut Report) {
    let merged = merger.tree(report.places());
    let names = |section: &str| -> Vec<String> {
        let map = merged.get(section).and_then(Value::as_object);
        map.map(|map| map.keys().cloned().collect()).unwrap_or_default()
    };
    let listeners = names("listeners");
    let only = match listeners.as_slice() {
        [] => Some("http"),
        [only] => Some(only.as_str()),
        _ => None,
    };
    for (flag, key, value) in
        [("--listen", "listen", &flags.listen), ("--upstream", "upstream", &flags.upstream)]
    {
        let Some(value) = value else { continue };
        match only {
            Some(name) => set(&["listeners", name, key], flag, value, merger, report),
            None => {
                let message = format!(
                    "means the only listener, but there are {}: {}; expected listeners.NAME.{key} in the configuration",
                    listeners.len(),
                    listeners.join(", ")
                );
                report.add(Some(Place::Flag(flag.to_owned())), &[], &message);
            }
        }
    }
    let others = [
        ("--admin", ["admin", "listen"], &flags.admin),
        ("--log-level", ["log", "level"], &flags.log_level),
        ("--log-format", ["log", "format"], &flags.log_format),
        ("--log-access", ["log", "access"], &flags.log_access),
    ];
    for (flag, key, value) in others {
        if let Some(value) = value {
            set(&key, flag, value, merger, report);
        }
    }
    let mut taken = names("checks");
    for url in &flags.checks {
        match check_of(url, kinds) {
            Ok((kind, own)) => {
                let name = name_of(kind, url, &taken);
                report.set(path(&["checks", &name]), Place::Flag(format!("--check {url}")));
                merger.set(&["checks", &name, kind.name], &own);
                taken.push(name);
            }
            Err(message) => report.add(Some(Place::Flag(format!("--check {url}"))), &[], &message),
        }
    }
}

fn set(keys: &[&str], flag: &str, value: &str, merger: &mut Merger, report: &mut Report) {
    report.set(path(keys), Place::Flag(flag.to_owned()));
    merger.set(keys, &Value::from(value));
}

/// The kind that a URL's scheme means, and its keys.
fn check_of<'a>(url: &str, kinds: &'a [Kind]) -> Result<(&'a Kind, Value), String> {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    let Some(kind) = kinds.iter().find(|kind| kind.schemes.contains(&scheme)) else {
        let schemes: Vec<&str> = kinds.iter().flat_map(|kind| kind.schemes).copied().collect();
        return Err(super::error::unknown(
            &format!("unknown scheme {scheme:?} of a check"),
            scheme,
            &schemes,
        ));
    };
    (kind.from_url)(url).map(|own| (kind, own))
}

/// A name that nobody has yet: `tcp_db_5432`, `file_app_yaml`.
fn name_of(kind: &Kind, url: &str, taken: &[String]) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let part = match rest.strip_prefix('/') {
        Some(file) => file.rsplit('/').find(|part| !part.is_empty()).unwrap_or(file),
        None => rest.split('/').next().unwrap_or(rest).rsplit('@').next().unwrap_or(rest),
    };
    let words = part.to_ascii_lowercase();
    let words = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut name = std::iter::once(kind.name).chain(words).collect::<Vec<_>>().join("_");
    name.truncate(LONGEST_DERIVED_NAME);
    let free = |name: &String| !taken.contains(name);
    let numbered = (2..).map(|number: usize| format!("{name}_{number}"));
    std::iter::once(name.clone()).chain(numbered).find(free).unwrap_or(name)
}

/// What stands in for checks that nobody wrote: every app accepts connections.
fn app_checks(listeners: &[Listener], tree: &mut Tree) {
    let mut seen: Vec<&Address> = Vec::new();
    for listener in listeners {
        // A unix socket has no such check: the watch over the app sees it all the same.
        if seen.contains(&&listener.upstream.address) || matches!(listener.upstream.address, Address::Unix(_))
        {
            continue;
        }
        seen.push(&listener.upstream.address);
        let name = if listeners.len() == 1 { "app".to_owned() } else { format!("app_{}", listener.name) };
        let address = |url: &str| {
            Value::from(url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/'))
        };
        let value = Value::from(listener.upstream.address.to_string());
        let upstream_at = path(&["listeners", &listener.name, "upstream"]);
        // A secret in the upstream stays one here.
        let written = match tree.written(&upstream_at).and_then(Value::as_str) {
            Some(written) if tree.is_secret(&upstream_at) => address(written),
            _ => value.clone(),
        };
        tree.insert(&path(&["checks", &name, APP_KIND, "address"]), value, written);
    }
}

/// Every key with its value or default; where a secret was filled in, the text that names it.
fn effective(raw: &RawConfig, drafts: &[Draft], kinds: &[Kind], tree: &Tree) -> Value {
    let mut effective = serde_json::to_value(raw).unwrap_or_default();
    effective["checks"] =
        drafts.iter().map(|draft| (draft.name.clone(), draft.effective(kinds, tree))).collect();
    for path in tree.secrets() {
        if let (Some(shown), Some(written)) = (find_mut(&mut effective, path), tree.written(path)) {
            *shown = written.clone();
        }
    }
    effective
}

fn path(keys: &[&str]) -> Path {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

/// The kind of the check that is there if no other is.
const APP_KIND: &str = "tcp";
/// More threads than this gain nothing for a sidecar.
const MOST_WORKERS: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not 0");
/// Leaves room for a number.
const LONGEST_DERIVED_NAME: usize = 56;
