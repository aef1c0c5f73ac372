//! Bytes and header fields of a request, which may come from files.
//!
//! Unlike `${file:…}`, which is filled in when the configuration is read and must be UTF-8, these files are read as
//! bytes at the beginning of each run; one that is missing fails the run and not the sidecar.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::check::values::field_problem;
use crate::config::KeyError;

/// Gives the content of a file, or says why not.
pub(super) type Read<'a> = &'a dyn Fn(&Path) -> Result<Vec<u8>, String>;

/// For looking at keys without looking at files.
pub(super) fn nothing(_: &Path) -> Result<Vec<u8>, String> {
    Ok(Vec::new())
}

/// The whole content of a regular file. Blocks.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unusable = |why: &dyn fmt::Display| format!("cannot read {}: {why}", path.display());
    let file = std::fs::metadata(path).map_err(|error| unusable(&error))?;
    if !file.is_file() || file.len() > LARGEST_BYTES {
        return Err(unusable(&format_args!("expected a file of at most {} MiB", LARGEST_BYTES >> 20)));
    }
    std::fs::read(path).map_err(|error| unusable(&error))
}

/// `"text"`, `{ base64: … }` or `{ file: /path }`.
#[derive(Clone, JsonSchema)]
#[schemars(inline, with = "Notation")]
pub(super) enum Octets {
    Text(String),
    Other(OtherKeys),
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[allow(dead_code)]
enum Notation {
    Text(String),
    Other(OtherKeys),
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline, extend("oneOf" = [{ "required": ["base64"] }, { "required": ["file"] }]))]
pub(super) struct OtherKeys {
    base64: Option<String>,
    /// Read as bytes at the beginning of each run.
    file: Option<PathBuf>,
}

impl Octets {
    /// The bytes, text as it stands.
    ///
    /// # Errors
    ///
    /// Not base64, or a file that cannot be read.
    pub(super) fn bytes(&self, read: Read<'_>) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::Other(other) => other.bytes(read),
        }
    }

    /// The bytes, where text is base64.
    ///
    /// # Errors
    ///
    /// As of [`Self::bytes`].
    pub(super) fn decoded(&self, read: Read<'_>) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => decode(text),
            Self::Other(other) => other.bytes(read),
        }
    }
}

impl OtherKeys {
    fn bytes(&self, read: Read<'_>) -> Result<Vec<u8>, String> {
        match (&self.base64, &self.file) {
            (Some(text), None) => decode(text),
            (None, Some(path)) => read(path),
            _ => Err("expected either base64 or file".to_owned()),
        }
    }
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    // Lines of it may be folded.
    let text: String = text.split_whitespace().collect();
    BASE64.decode(text).map_err(|_| "not base64, expected e.g. CgVoZWxsbw== (the message's bytes)".to_owned())
}

impl fmt::Debug for Octets {
    /// Without the bytes: they may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::Other(OtherKeys { file, .. }) => {
                f.debug_struct("Other").field("file", file).finish_non_exhaustive()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = Octets;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a map with base64 or file")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Octets, E> {
                Ok(Octets::Text(text.to_owned()))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Octets, A::Error> {
                OtherKeys::deserialize(de::value::MapAccessDeserializer::new(map)).map(Octets::Other)
            }
        }
        // Not an untagged enum: that would lose the path of an error.
        deserializer.deserialize_any(Either)
    }
}

/// Header fields: a name with one value, with several, or with that in a file.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub(super) struct Fields(BTreeMap<String, Values>);

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "not a header value, expected a text, a list of texts or a map with file")]
#[schemars(inline)]
enum Values {
    One(String),
    Many(Vec<String>),
    InFile(InFile),
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct InFile {
    /// Read at the beginning of each run, without the end of its last line.
    file: PathBuf,
}

impl Fields {
    /// What cannot be sent, as far as no file is concerned. Values are not repeated: they may hold secrets.
    pub(super) fn problems(&self, path: &str) -> Vec<KeyError> {
        let values = |values: &Values| values.bytes(&nothing).unwrap_or_default();
        let each =
            self.0.iter().flat_map(|(name, given)| values(given).into_iter().map(move |value| (name, value)));
        each.filter_map(|(name, value)| field_problem(path, name, &String::from_utf8_lossy(&value))).collect()
    }

    /// Name and value of each field, values of one name in their order.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub(super) fn all(&self, read: Read<'_>) -> Result<Vec<(&str, Vec<u8>)>, String> {
        let mut all = Vec::new();
        for (name, values) in &self.0 {
            all.extend(values.bytes(read)?.into_iter().map(|value| (name.as_str(), value)));
        }
        Ok(all)
    }
}

impl Values {
    fn bytes(&self, read: Read<'_>) -> Result<Vec<Vec<u8>>, String> {
        match self {
            Self::One(value) => Ok(vec![value.clone().into_bytes()]),
            Self::Many(values) => Ok(values.iter().map(|value| value.clone().into_bytes()).collect()),
            Self::InFile(InFile { file }) => read(file).map(|mut value| {
                while value.last().is_some_and(u8::is_ascii_whitespace) {
                    value.pop();
                }
                vec![value]
            }),
        }
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What is larger warms no app; a wrong path may be.
const LARGEST_BYTES: u64 = 64 << 20;

/// With its padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn octets(value: Value) -> Octets {
        serde_json::from_value(value).expect("octets")
    }

    #[test]
    fn bytes_come_as_text_base64_or_a_file_and_are_not_shown() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("LICENSE-MIT");
        let cases = [
            (json!("a\u{ff}"), "a\u{ff}".as_bytes().to_vec()),
            (json!({ "base64": "/wAN\nCg" }), b"\xff\0\r\n".to_vec()),
            (json!({ "file": here }), std::fs::read(&here).expect("it is there")),
        ];
        for (value, expected) in cases {
            let octets = octets(value.clone());
            assert_eq!(octets.bytes(&read).as_ref(), Ok(&expected), "{value}");
            let shown = format!("{octets:?}");
            assert!(!shown.contains("/wAN") && !shown.contains('\u{ff}'), "{shown}");
        }
        assert_eq!(octets(json!("/wA=")).decoded(&read), Ok(vec![0xff, 0]));
    }

    #[test]
    fn what_is_no_file_or_neither_form_is_told() {
        let why = |value| octets(value).bytes(&read).expect_err("refused");
        assert_eq!(why(json!({ "file": "/" })), "cannot read /: expected a file of at most 64 MiB");
        assert!(why(json!({ "file": "/nonexistent" })).starts_with("cannot read /nonexistent: No such file"));
        assert_eq!(why(json!({})), "expected either base64 or file");
        assert_eq!(why(json!({ "file": "/", "base64": "" })), "expected either base64 or file");
        assert!(serde_json::from_value::<Octets>(json!(5)).is_err());
    }
}
