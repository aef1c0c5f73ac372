//! Fills in `${env:NAME}` and `${file:/path}` inside text.
//!
//! What the user wrote and what it became are kept apart by the caller, so that only the first is ever
//! printed. `$${` stands for a literal `${`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Environment;

/// Where secrets come from, and which files they came from.
#[derive(Debug)]
pub(super) struct Secrets<'a> {
    pub(super) environment: &'a Environment,
    /// Every file that was named, there or not: a watcher wants to see it change.
    pub(super) files: BTreeSet<PathBuf>,
}

impl Secrets<'_> {
    /// The text with everything filled in.
    ///
    /// # Errors
    ///
    /// Says which variable or file is missing or what is not a reference; never shows a value.
    pub(super) fn fill(&mut self, text: &str) -> Result<String, String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let (before, reference) = rest.split_at(start);
            if let Some(escaped) = before.strip_suffix('$') {
                filled.push_str(escaped);
                filled.push_str("${");
                rest = &reference[2..];
                continue;
            }
            filled.push_str(before);
            let end = reference
                .find('}')
                .ok_or("${ without }, expected ${env:NAME} or ${file:/path}; write $${ for a plain ${")?;
            filled.push_str(&self.resolve(&reference[2..end])?);
            rest = &reference[end + 1..];
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn resolve(&mut self, name: &str) -> Result<String, String> {
        if let Some(variable) = name.strip_prefix("env:") {
            return self.environment.get(variable).cloned().ok_or_else(|| {
                format!("variable {variable} is not set, expected the value for ${{{name}}}")
            });
        }
        let Some(path) = name.strip_prefix("file:") else {
            return Err(format!(
                "${{{name}}} is not allowed, expected ${{env:NAME}} or ${{file:/path}}; write $${{ for a plain ${{"
            ));
        };
        self.files.insert(PathBuf::from(path));
        let unusable = |why: &dyn std::fmt::Display| format!("cannot read {path} for ${{{name}}}: {why}");
        let size = std::fs::metadata(path).map_err(|error| unusable(&error))?;
        if !size.is_file() || size.len() > LARGEST_BYTES {
            return Err(unusable(&format_args!("expected a file of at most {LARGEST_BYTES} bytes")));
        }
        let bytes = std::fs::read(path).map_err(|error| unusable(&error))?;
        let mut secret = String::from_utf8(bytes).map_err(|_| unusable(&"not UTF-8"))?;
        if secret.ends_with('\n') {
            secret.pop();
            if secret.ends_with('\r') {
                secret.pop();
            }
        }
        Ok(secret)
    }
}

/// No secret is larger; a wrong path may be.
const LARGEST_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Result<String, String> {
        let environment = Environment::from([("NAME".to_owned(), "value".to_owned())]);
        Secrets { environment: &environment, files: BTreeSet::new() }.fill(text)
    }

    #[test]
    fn references_are_filled_in_and_escapes_are_not() {
        let cases = [
            ("", ""),
            ("plain $5 {}", "plain $5 {}"),
            ("a${env:NAME}b${env:NAME}", "avaluebvalue"),
            ("$${env:NAME}", "${env:NAME}"),
            ("$$${env:NAME}", "$${env:NAME}"),
        ];
        for (written, expected) in cases {
            assert_eq!(fill(written).as_deref(), Ok(expected), "{written}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let cases = [
            ("${env:GONE}", "variable GONE is not set, expected the value for ${env:GONE}"),
            (
                "${NAME}",
                "${NAME} is not allowed, expected ${env:NAME} or ${file:/path}; write $${ for a plain ${",
            ),
            ("${env:NAME", "${ without }, expected ${env:NAME} or ${file:/path}; write $${ for a plain ${"),
            ("${file:/}", "cannot read / for ${file:/}: expected a file of at most 1048576 bytes"),
        ];
        for (written, expected) in cases {
            assert_eq!(fill(written), Err(expected.to_owned()), "{written}");
        }
    }
}
