//! The JSON Schema of the configuration, with the kinds' own keys.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::Kind;
use super::raw::{RawCheck, RawConfig};

/// JSON Schema (2020-12) of a configuration file.
pub fn schema(kinds: &[Kind]) -> Value {
    let mut generator = generator();
    let mut root = RawConfig::json_schema(&mut generator).to_value();
    let mut check = RawCheck::json_schema(&mut generator).to_value();
    // The keys of a check are those common to all and one that names the kind.
    for kind in kinds {
        let mut own = (kind.schema)(&mut generator).to_value();
        if let Value::Object(own) = &mut own {
            own.entry("description").or_insert_with(|| format!("Passes when: {}.", kind.passes_when).into());
        }
        check["properties"][kind.name] = own;
    }
    check["oneOf"] = kinds.iter().map(|kind| json!({ "required": [kind.name] })).collect();
    if let Some(gates) = check["properties"]["gates"].as_object_mut() {
        gates.remove("default");
    }
    let name = "^[a-z0-9_]{1,63}$";
    root["properties"]["checks"]["additionalProperties"] = json!({ "$ref": "#/$defs/Check" });
    for section in ["checks", "listeners"] {
        root["properties"][section]["propertyNames"] = json!({ "pattern": name });
    }
    let mut definitions = generator.take_definitions(true);
    definitions.insert("Check".to_owned(), check);
    definitions.sort_keys();

    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".to_owned(), "readygate".into());
    if let Value::Object(root) = root {
        schema.extend(root.into_iter().filter(|(key, _)| key != "$schema" && key != "title"));
    }
    schema.insert("$defs".to_owned(), Value::Object(definitions));
    let mut schema = Value::Object(schema);
    unwrap_lines(&mut schema);
    schema
}

/// Descriptions come from comments, which are broken into lines for the width of a page.
fn unwrap_lines(schema: &mut Value) {
    match schema {
        Value::Object(entries) => {
            for (key, value) in entries {
                match value {
                    Value::String(text) if key == "description" => *text = text.replace('\n', " "),
                    value => unwrap_lines(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(unwrap_lines),
        _ => {}
    }
}

/// The defaults of a kind's own keys, as its schema says them.
pub(super) fn own_defaults(kind: &Kind) -> Vec<(String, Value)> {
    let mut generator = generator();
    let own = (kind.schema)(&mut generator).to_value();
    let definitions = generator.take_definitions(true);
    let resolved = own["$ref"].as_str().and_then(|name| definitions.get(name.rsplit('/').next()?));
    let properties = resolved.unwrap_or(&own)["properties"].as_object().cloned().unwrap_or_default();
    let default = |(key, property): (String, Value)| Some((key, property.get("default")?.clone()));
    // A default of null is what is not there.
    properties.into_iter().filter_map(default).filter(|(_, value)| !value.is_null()).collect()
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().into_generator()
}
