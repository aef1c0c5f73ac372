//! Promises of the configuration as a whole: the schema that is committed, and the examples.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use readygate::check::KINDS;
use readygate::cli;
use readygate::config::{self, Environment, Kind};
use serde_json::Value;

fn kinds() -> Vec<Kind> {
    KINDS.iter().map(|kind| kind.config).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn example(name: &str) -> PathBuf {
    root().join("examples").join(name)
}

/// What `readygate validate` prints of a file that is valid.
fn validated(file: &Path) -> String {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    // Those that the examples name.
    let secrets = ["REDIS_PASSWORD", "DB_PASSWORD", "AMQP_PASSWORD"];
    let environment: Environment = secrets.map(|name| (name.to_owned(), "hunter2".to_owned())).into();
    let code = cli::validate::validate(file, environment, &kinds(), &mut out, &mut err);
    let err = String::from_utf8(err).expect("text");
    assert_eq!(code.expect("output into memory"), 0, "{err}");
    let out = String::from_utf8(out).expect("text");
    assert!(!out.contains("hunter2"), "{out}");
    out
}

/// `UPDATE_SCHEMA=1 cargo test schema_json` writes the file anew.
#[test]
fn schema_json_is_the_schema_of_this_version() {
    let mut schema = Vec::new();
    cli::schema::schema(&kinds(), &mut schema).expect("output into memory");
    let file = root().join("schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&file, &schema).expect("schema.json");
    }
    let committed = fs::read(&file).unwrap_or_default();
    assert!(
        committed == schema,
        "schema.json is not that of this version: UPDATE_SCHEMA=1 cargo test schema_json"
    );
}

#[test]
fn the_examples_are_valid_and_mean_what_validate_prints() {
    let folder = std::env::temp_dir().join(format!("readygate-examples-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("temporary folder");
    for name in ["minimal.yaml", "full.yaml"] {
        let shown = validated(&example(name));
        let file = folder.join(name);
        fs::write(&file, &shown).expect("temporary file");
        assert_eq!(validated(&file), shown, "{name}");
    }
    fs::remove_dir_all(folder).expect("temporary folder");
}

#[test]
fn an_invalid_file_is_exit_code_78_and_every_problem_on_stderr() {
    let file = std::env::temp_dir().join(format!("readygate-invalid-{}.yaml", std::process::id()));
    fs::write(&file, "drain: { quite: 3s, min: 0s }\n").expect("temporary file");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli::validate::validate(&file, Environment::new(), &kinds(), &mut out, &mut err);
    fs::remove_file(file).expect("temporary file");
    assert_eq!(code.expect("output into memory"), 78);
    assert!(out.is_empty());
    assert_eq!(String::from_utf8(err).expect("text").lines().count(), 3);
}

#[test]
fn every_key_of_the_schema_is_in_the_full_example() {
    let schema = config::schema(&kinds());
    let mut keys = BTreeSet::new();
    walk(&schema, &schema, &mut Vec::new(), &mut keys);
    let text = fs::read_to_string(example("full.yaml")).expect("full.yaml");
    let written: BTreeSet<Vec<String>> = written(&text);
    let missing: Vec<String> =
        keys.iter().filter(|key| !written.contains(*key)).map(|key| key.join(".")).collect();
    assert!(missing.is_empty(), "not in full.yaml: {missing:#?}");
    assert!(keys.len() >= 40 + KINDS.len(), "the walk saw only {}", keys.len());
}

/// Every key path of a schema; `*` stands for a name that the user chooses and for items of a list.
fn walk(root: &Value, schema: &Value, path: &mut Vec<String>, keys: &mut BTreeSet<Vec<String>>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
        return walk(root, &root["$defs"][name], path, keys);
    }
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        path.push(key.clone());
        keys.insert(path.clone());
        walk(root, property, path, keys);
        path.pop();
    }
    for below in ["additionalProperties", "items"] {
        if schema[below].is_object() {
            path.push("*".to_owned());
            walk(root, &schema[below], path, keys);
            path.pop();
        }
    }
    for alternatives in ["anyOf", "oneOf", "allOf"] {
        for alternative in schema[alternatives].as_array().into_iter().flatten() {
            walk(root, alternative, path, keys);
        }
    }
}

/// Every key path of a YAML text, names and indices also as `*`.
fn written(text: &str) -> BTreeSet<Vec<String>> {
    fn walk(yaml: &yaml_rust2::Yaml, paths: &[Vec<String>], found: &mut BTreeSet<Vec<String>>) {
        found.extend(paths.iter().cloned());
        let below = |key: &str| -> Vec<Vec<String>> {
            let keys = [key, "*"];
            paths
                .iter()
                .flat_map(|path| keys.map(|key| [path.as_slice(), &[key.to_owned()]].concat()))
                .collect()
        };
        for (key, value) in yaml.as_hash().into_iter().flatten() {
            walk(value, &below(key.as_str().expect("a name")), found);
        }
        for value in yaml.as_vec().into_iter().flatten() {
            walk(value, &below("*"), found);
        }
    }
    let documents = yaml_rust2::YamlLoader::load_from_str(text).expect("YAML");
    let mut found = BTreeSet::new();
    walk(&documents[0], &[Vec::new()], &mut found);
    found
}
