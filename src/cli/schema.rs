//! `readygate schema`: the JSON Schema of the configuration, for editors and for people.

use std::io::{self, Write};

use crate::config::{self, Kind};

/// Writes the schema, indented, with a newline at the end: the text of `schema.json`.
///
/// # Errors
///
/// If `out` cannot be written.
pub fn schema(kinds: &[Kind], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:#}", config::schema(kinds))
}
