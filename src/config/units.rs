//! Values that are more than text or a number: durations, sizes, shares, numbers of threads, and `off`.
//!
//! Each reads and writes itself the way a user writes it and has a schema. Its error is `expected …`: the
//! loader puts before that what the user wrote, so that no error can carry a secret. The kinds of checks read
//! their own keys with them too.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A duration above zero: `250ms`, `10s`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);

impl Period {
    pub const fn seconds(seconds: u64) -> Self {
        Period(Duration::from_secs(seconds))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Period(duration) = *self;
        if duration.subsec_nanos() == 0 {
            write!(f, "{}s", duration.as_secs())
        } else if duration.subsec_nanos().is_multiple_of(1_000_000) {
            write!(f, "{}ms", duration.as_millis())
        } else {
            write!(f, "{}", humantime::format_duration(duration))
        }
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "expected a duration such as 250ms, 10s or 2m";
        let text = text(deserializer, EXPECTED)?;
        let duration = humantime::parse_duration(&text).map_err(|_| D::Error::custom(EXPECTED))?;
        if duration.is_zero() {
            return Err(D::Error::custom("expected more than 0s"));
        }
        // A bound, so that no sum of an instant and a duration can overflow later.
        if duration > Duration::from_secs(365 * 86_400) {
            return Err(D::Error::custom("expected at most 365d"));
        }
        Ok(Period(duration))
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Period {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A duration above zero with its unit.",
            "type": "string",
            "pattern": r"^\s*([0-9]+\s*[a-zµ]+\s*)+$|\$\{",
            "examples": ["250ms", "10s", "2m"],
        })
    }
}

/// A number of bytes above zero: `64KiB`, `10MB`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit =
            UNITS.iter().rev().find(|(name, size)| name.ends_with("iB") && self.0.is_multiple_of(*size));
        match unit {
            Some((name, size)) => write!(f, "{}{name}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = match Value::deserialize(deserializer)? {
            Value::Number(number) => number.as_u64().and_then(|bytes| usize::try_from(bytes).ok()),
            Value::String(text) => bytes(&text),
            _ => None,
        };
        match bytes {
            Some(0) => Err(D::Error::custom("expected more than 0")),
            Some(bytes) => Ok(Bytes(bytes)),
            None => Err(D::Error::custom("expected a size such as 64KiB, 10MB or 4096 (bytes)")),
        }
    }
}

/// Reads `64KiB`, `64 KiB`, `10MB`, `4096`, `4096B`.
fn bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim();
    let (_, size) = UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .or((unit.is_empty()).then_some(&("", 1)))?;
    number.parse::<usize>().ok()?.checked_mul(*size)
}

const UNITS: &[(&str, usize)] = &[
    ("B", 1),
    ("kB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of bytes above zero, with or without a unit.",
            "type": ["string", "integer"],
            "pattern": r"^\s*[0-9]+\s*([kKmMgG]i?)?[bB]?\s*$|\$\{",
            "minimum": 1,
            "examples": ["64KiB", "10MB", 4096],
        })
    }
}

/// A share above nothing, written `10%`, kept as 0.1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(pub f64);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "expected more than 0% and at most 100%, e.g. 10%";
        let text = text(deserializer, EXPECTED)?;
        let number = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        match number {
            Some(number) if number > 0.0 && number <= 100.0 => Ok(Percent(number / 100.0)),
            _ => Err(D::Error::custom(EXPECTED)),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Two decimals are more than a share needs; what is read as 10% is shown as 10%.
        write!(f, "{}%", (self.0 * 10_000.0).round() / 100.0)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A share, above 0% and at most 100%.",
            "type": "string",
            "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*%\s*$|\$\{",
            "examples": ["10%"],
        })
    }
}

/// A value, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrOff<T>(pub Option<T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for OrOff<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) if text == "off" => Ok(OrOff(None)),
            value => match T::deserialize(value) {
                Ok(value) => Ok(OrOff(Some(value))),
                Err(error) => Err(D::Error::custom(format_args!("{error}, or off"))),
            },
        }
    }
}

impl<T: Serialize> Serialize for OrOff<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_str("off"),
        }
    }
}

impl<T: JsonSchema> JsonSchema for OrOff<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}OrOff", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "const": "off" }, value] })
    }
}

/// A map of keys, or `off`. Unlike [`OrOff`], errors keep the path of the key that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapOrOff<T>(pub Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for MapOrOff<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = MapOrOff<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of keys, or off")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                match text {
                    "off" => Ok(MapOrOff(None)),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|value| MapOrOff(Some(value)))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T: Serialize> Serialize for MapOrOff<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_str("off"),
        }
    }
}

impl<T: JsonSchema> JsonSchema for MapOrOff<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}OrOff", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        OrOff::<T>::json_schema(generator)
    }
}

/// A number of threads, or `auto`: as many as the container has CPUs, at most 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers(pub Option<NonZeroUsize>);

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = match Value::deserialize(deserializer)? {
            Value::String(text) if text == "auto" => return Ok(Workers(None)),
            Value::Number(number) => number.as_u64(),
            _ => None,
        };
        let number =
            number.filter(|number| *number <= MOST_WORKERS).and_then(|n| NonZeroUsize::new(n as usize));
        let expected =
            || D::Error::custom(format_args!("expected auto or a number from 1 to {MOST_WORKERS}"));
        Ok(Workers(Some(number.ok_or_else(expected)?)))
    }
}

impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(number) => serializer.serialize_u64(number.get() as u64),
            None => serializer.serialize_str("auto"),
        }
    }
}

impl JsonSchema for Workers {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Workers".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": MOST_WORKERS }] })
    }
}

const MOST_WORKERS: u64 = 256;

/// Text; anything else is the error `expected`, which does not repeat what it found.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D, expected: &str) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        _ => Err(D::Error::custom(expected)),
    }
}
