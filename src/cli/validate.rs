//! `readygate validate`: every error of a configuration file, or the effective configuration.

use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

use crate::config::{self, Environment, Flags, Kind, Sources};

/// Writes the effective configuration as YAML to `out`, or every problem to `err`; the exit code is 0 or 78.
///
/// The environment counts as it does for `run`: overrides apply and named secrets must be there. None of
/// them is shown.
///
/// # Errors
///
/// If `out` or `err` cannot be written.
pub fn validate(
    file: &Path,
    environment: Environment,
    kinds: &[Kind],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let sources = Sources {
        file: Some(file.to_owned()),
        environment,
        flags: Flags::default(),
        cpus: config::available_cpus(),
    };
    match config::load(&sources, kinds) {
        Ok(loaded) => {
            let mut yaml = String::new();
            map(&loaded.effective, 0, &mut yaml);
            out.write_all(yaml.as_bytes())?;
            Ok(0)
        }
        Err(problems) => {
            writeln!(err, "{problems}")?;
            Ok(EXIT_CONFIGURATION)
        }
    }
}

/// A map in block style. Emitters of YAML leave text unquoted that YAML 1.1 takes for something else.
fn map(value: &Value, indent: usize, yaml: &mut String) {
    for (key, value) in value.as_object().into_iter().flatten() {
        *yaml += &" ".repeat(indent);
        *yaml += &text(key);
        *yaml += ":";
        node(value, indent, yaml);
    }
}

/// What stands behind `key:` or `-`.
fn node(value: &Value, indent: usize, yaml: &mut String) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            *yaml += "\n";
            map(value, indent + 2, yaml);
        }
        Value::Array(items) if !items.is_empty() => {
            *yaml += "\n";
            for item in items {
                *yaml += &" ".repeat(indent + 2);
                *yaml += "-";
                node(item, indent + 2, yaml);
            }
        }
        Value::String(string) => *yaml += &format!(" {}\n", text(string)),
        other => *yaml += &format!(" {other}\n"),
    }
}

/// Text without quotes if nobody can take it for anything else.
fn text(text: &str) -> String {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number_of_a_unit = unit.len() < text.len() && ["s", "ms", "KiB", "MiB", "GiB"].contains(&unit);
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'/';
    let plain = text.bytes().next().is_some_and(first)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./:".contains(&b))
        && !text.ends_with(':');
    let reserved =
        ["true", "false", "yes", "no", "on", "y", "n", "null"].contains(&text.to_lowercase().as_str());
    if (plain && !reserved) || number_of_a_unit { text.to_owned() } else { Value::from(text).to_string() }
}

const EXIT_CONFIGURATION: u8 = 78;
