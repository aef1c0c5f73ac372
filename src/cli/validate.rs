//! `readygate validate`: every error of a configuration file, or the effective configuration.

use std::io::{self, Write};
use std::net::SocketAddrV4;
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
                item_of_a_list(item, indent + 2, yaml);
            }
        }
        Value::String(string) => *yaml += &format!(" {}\n", text(string)),
        other => *yaml += &format!(" {other}\n"),
    }
}

/// The first key of a map stands on the line of its `-`.
fn item_of_a_list(item: &Value, indent: usize, yaml: &mut String) {
    let start = yaml.len() + indent;
    if item.as_object().is_some_and(|entries| !entries.is_empty()) {
        map(item, indent + 2, yaml);
        yaml.replace_range(start..start + 1, "-");
    } else {
        *yaml += &format!("{}-", " ".repeat(indent));
        node(item, indent, yaml);
    }
}

/// Text without quotes if no version of YAML takes it for anything else.
fn text(text: &str) -> String {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number_with_unit = unit.len() < text.len() && UNITS.contains(&unit);
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'/';
    let plain = text.bytes().next().is_some_and(first)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./:".contains(&b))
        && !text.ends_with(':')
        && !RESERVED.contains(&text.to_lowercase().as_str());
    let address = text.parse::<SocketAddrV4>().is_ok();
    if plain || number_with_unit || address { text.to_owned() } else { Value::from(text).to_string() }
}

const UNITS: &[&str] = &["ms", "s", "m", "h", "d", "KiB", "MiB", "GiB", "%"];
/// Not `off`, which is a word of this configuration and reads better as it is.
const RESERVED: &[&str] = &["true", "false", "yes", "no", "on", "y", "n", "null"];
const EXIT_CONFIGURATION: u8 = 78;
