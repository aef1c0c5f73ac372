//! `file`: a file is there and is as described.
//!
//! Looks at regular files only, after following links: a FIFO, a device or a directory is refused before it
//! is opened, since opening one may block or act. The file is opened without blocking and checked again, at
//! most [`LONGEST_READ`] bytes are read, and all of it happens off the checks thread. A look that hangs (a
//! dead network file system) keeps one thread, and the next run says so instead of starting another.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use regex_lite::Regex;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use yaml_rust2::parser::{Event, Parser};

use super::own;
use super::{Check, CheckError, CheckFuture, Evidence, Kind};
use crate::config::units::{Bytes, Period};
use crate::config::{self, Gates, KeyError, Listener, Own};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "file",
        passes_when: "the file is as described",
        gates: |_, _| Gates::Startup,
        accept,
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["file"],
        from_url,
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| {
        let keys: Keys = own::parse(&spec.own).expect("configuration accepted the keys");
        Box::new(FileCheck { wanted: Arc::new(Wanted::new(keys)), looking: Arc::new(Semaphore::new(1)) })
    },
};

/// The keys of `file`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// The file; links are followed.
    path: PathBuf,
    /// What the content must parse as.
    #[serde(default)]
    format: Format,
    /// A regular expression that must match somewhere in the content.
    matches: Option<String>,
    /// At least this long, e.g. 1 or 64KiB.
    min_bytes: Option<Bytes>,
    /// Changed within this time, e.g. 24h.
    max_age: Option<Period>,
    /// Passes when there is no such file.
    #[serde(default)]
    absent: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Format {
    /// Content is not parsed.
    #[default]
    Any,
    Json,
    Yaml,
    Toml,
}

#[derive(Debug)]
struct FileCheck {
    wanted: Arc<Wanted>,
    /// One permit, held by the look that is going on.
    looking: Arc<Semaphore>,
}

impl Check for FileCheck {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(async {
            let Ok(permit) = Arc::clone(&self.looking).try_acquire_owned() else {
                return Err(self.wanted.unexpected("the look of an earlier run still hangs"));
            };
            let wanted = Arc::clone(&self.wanted);
            let look = tokio::task::spawn_blocking(move || {
                let _until_it_ends = permit;
                wanted.look()
            });
            match look.await {
                Ok(Ok(evidence)) => Ok(evidence),
                Ok(Err(reason)) => Err(self.wanted.unexpected(&reason)),
                Err(error) => Err(self.wanted.unexpected(&error.to_string())),
            }
        })
    }

    fn tests(&self) -> String {
        self.wanted.words()
    }
}

#[derive(Debug)]
struct Wanted {
    keys: Keys,
    pattern: Option<Regex>,
}

impl Wanted {
    fn new(keys: Keys) -> Self {
        let pattern = keys.matches.as_deref().and_then(|pattern| Regex::new(pattern).ok());
        Self { keys, pattern }
    }

    /// What is looked for.
    fn words(&self) -> String {
        let Keys { path, format, matches, min_bytes, max_age, absent } = &self.keys;
        let path = path.display();
        if *absent {
            return format!("looks for {path}, and expects that there is none");
        }
        let mut words = format!("looks at {path}, and expects a file");
        let mut add = |what: String| words.push_str(&what);
        if *format != Format::Any {
            add(format!(" of {}", format.name()));
        }
        if let Some(Bytes(least)) = min_bytes {
            add(format!(", at least {least} bytes long"));
        }
        if let Some(Period(most)) = max_age {
            add(format!(", changed in the last {}", humantime::format_duration(*most)));
        }
        if let Some(pattern) = matches {
            add(format!(", that matches {pattern}"));
        }
        words
    }

    fn unexpected(&self, reason: &str) -> CheckError {
        let message = own::one_line(&format!("{}: {reason}", self.keys.path.display()), 400);
        CheckError::Unexpected { message, figures: None }
    }

    /// Blocks.
    fn look(&self) -> Result<Evidence, String> {
        let path = &self.keys.path;
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.keys.absent => {
                return Ok(Evidence { summary: "absent".to_owned(), ..Evidence::default() });
            }
            Err(error) => return Err(error.to_string()),
            Ok(_) if self.keys.absent => return Err("is there, expected to be absent".to_owned()),
            Ok(metadata) => regular(&metadata)?,
        }
        // Between the look and the opening the path may have become a FIFO, hence O_NONBLOCK and the second look.
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(path)
            .map_err(|error| error.to_string())?;
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        regular(&metadata)?;
        self.check_age(&metadata)?;
        let bytes = self.check_content(&mut file, &metadata)?;
        let summary = match self.keys.format {
            Format::Any => format!("{bytes} bytes"),
            format => format!("{bytes} bytes of {}", format.name()),
        };
        Ok(Evidence { summary, figures: Some(json!({ "bytes": bytes })), ..Evidence::default() })
    }

    fn check_age(&self, metadata: &Metadata) -> Result<(), String> {
        let Some(Period(max_age)) = self.keys.max_age else { return Ok(()) };
        let changed = metadata.modified().map_err(|error| error.to_string())?;
        // A time in the future counts as now.
        let age = SystemTime::now().duration_since(changed).unwrap_or_default();
        if age > max_age {
            let age = humantime::format_duration(std::time::Duration::from_secs(age.as_secs()));
            let max_age = humantime::format_duration(max_age);
            return Err(format!("changed {age} ago, expected at most {max_age}"));
        }
        Ok(())
    }

    /// Returns the length.
    fn check_content(&self, file: &mut File, metadata: &Metadata) -> Result<u64, String> {
        // Files of /proc claim to be empty, so only reading tells.
        let needs_content = self.keys.format != Format::Any || self.pattern.is_some() || metadata.len() == 0;
        let mut content = Vec::new();
        if needs_content {
            file.take(LONGEST_READ + 1).read_to_end(&mut content).map_err(|error| error.to_string())?;
        }
        let bytes = metadata.len().max(content.len() as u64);
        if let Some(Bytes(min_bytes)) = self.keys.min_bytes
            && bytes < min_bytes as u64
        {
            return Err(format!("{bytes} bytes, expected at least {min_bytes}"));
        }
        if self.keys.format == Format::Any && self.pattern.is_none() {
            return Ok(bytes);
        }
        if content.len() as u64 > LONGEST_READ {
            return Err(format!("longer than {} MiB, expected less to look into", LONGEST_READ >> 20));
        }
        let text = std::str::from_utf8(&content).map_err(|error| format!("not UTF-8 text: {error}"))?;
        self.keys.format.check(text).map_err(|error| format!("not {}: {error}", self.keys.format.name()))?;
        match &self.pattern {
            Some(pattern) if !pattern.is_match(text) => Err(format!("does not match {pattern}")),
            _ => Ok(bytes),
        }
    }
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Any => "any format",
            Self::Json => "JSON",
            Self::Yaml => "YAML",
            Self::Toml => "TOML",
        }
    }

    /// Parses and forgets. YAML is read as events, not as a tree: aliases would let a small file grow without
    /// bound in memory.
    fn check(self, text: &str) -> Result<(), String> {
        match self {
            Self::Any => Ok(()),
            Self::Json => {
                serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| ()).map_err(|e| e.to_string())
            }
            Self::Toml => {
                toml::from_str::<serde::de::IgnoredAny>(text).map(|_| ()).map_err(|e| e.message().to_owned())
            }
            Self::Yaml => {
                let mut parser = Parser::new_from_str(text);
                loop {
                    let (event, _) = parser.next_token().map_err(|error| error.to_string())?;
                    if event == Event::StreamEnd {
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn regular(metadata: &Metadata) -> Result<(), String> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let found = if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(format!("is {found}, expected a regular file"))
}

fn accept(own: &Own, _: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = Vec::new();
    if !Path::new(&keys.path).is_absolute() {
        problems.push(own::problem("path", "not an absolute path, expected e.g. /etc/app/config.yaml"));
    }
    if let Some(Err(error)) = keys.matches.as_deref().map(Regex::new) {
        problems.push(own::problem("matches", format!("not a regular expression: {error}")));
    }
    let describes = keys.format != Format::Any
        || keys.matches.is_some()
        || keys.min_bytes.is_some()
        || keys.max_age.is_some();
    if keys.absent && describes {
        let message =
            "true is not allowed together with format, matches, min_bytes or max_age, expected path alone";
        problems.push(own::problem("absent", message));
    }
    own::all(problems)
}

fn from_url(url: &str) -> Result<Value, String> {
    match url.strip_prefix("file://") {
        Some(path) if path.starts_with('/') => Ok(json!({ "path": path })),
        _ => Err("expected file:///absolute/path".to_owned()),
    }
}

/// Longer files are not looked into.
const LONGEST_READ: u64 = 16 << 20;
