//! The house holds: no module imports one from its own floor or above.
//!
//! Every `crate::` path in `src/` is looked up in the table below, which repeats the floors in the
//! documentation of `src/lib.rs`. Comments do not count; test code may use whatever lies below `app`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module and what it may import.
const FLOORS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("cli", &[APP, SUPERVISOR, CHECK, PROXY, ADMIN, KUBE, BASE]),
    (APP, &[SUPERVISOR, CHECK, PROXY, ADMIN, KUBE, BASE]),
    (SUPERVISOR, &[CHECK, "gate", "guard", "config", "metrics"]),
    (CHECK, &[BASE]),
    (PROXY, &[BASE]),
    (ADMIN, &[BASE]),
    (KUBE, &[BASE]),
    ("config", &[]),
    ("gate", &[]),
    ("guard", &[]),
    ("drain", &[]),
    ("metrics", &[]),
    ("traffic", &[]),
    ("signals", &[]),
    ("telemetry", &[]),
    ("tls", &[]),
];
const APP: &str = "app";
const SUPERVISOR: &str = "supervisor";
const CHECK: &str = "check";
const PROXY: &str = "proxy";
const ADMIN: &str = "admin";
const KUBE: &str = "kube";
/// Stands for every module of the ground floor.
const BASE: &str = "the ground floor";
const GROUND: &[&str] =
    &["config", "gate", "guard", "drain", "metrics", "traffic", "signals", "telemetry", "tls"];
/// What test code, too, must leave alone.
const ABOVE_TESTS: &[&str] = &["main", "cli", APP];

#[test]
fn no_module_imports_from_its_own_floor_or_above() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = Vec::new();
    let mut seen = BTreeSet::new();
    let files = rust_files(&src);
    for file in &files {
        let text = fs::read_to_string(file).expect("a source file is readable");
        let path = file.strip_prefix(&src).expect("found below it").to_string_lossy().into_owned();
        let module = module_of(&path);
        seen.insert(module.to_owned());
        if module == "lib" {
            continue;
        }
        for (at, import, in_test) in imports(&text, is_test(&path)) {
            if let Err(why) = allowed(module, &import, in_test) {
                broken.push(format!("src/{path}:{at}: {why}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));

    let lib = fs::read_to_string(src.join("lib.rs")).expect("lib.rs is readable");
    let mut declared: BTreeSet<_> = lib.lines().filter_map(declared).map(str::to_owned).collect();
    assert!(declared.len() >= 6 && files.len() > declared.len(), "{declared:?}, {} files", files.len());
    declared.extend(["lib".to_owned(), "main".to_owned()]);
    assert_eq!(seen, declared, "the files looked at are those of the crate");
}

#[test]
fn an_import_that_breaks_the_house_is_found() {
    let text = "//! [`Gate`](crate::gate::Gate) in a comment does not count\n\
                use crate::{config::{self, Config}, proxy::Proxy,\n traffic};\n\
                fn f() { crate::cli::run() } // crate::main\n\
                #[cfg(test)]\nmod tests { use crate::supervisor::run; }\n";
    let found = imports(text, false);
    let expected = [(2, "config", false), (2, "proxy", false), (2, "traffic", false), (4, "cli", false)];
    let expected = expected.into_iter().chain([(6, "supervisor", true)]);
    assert_eq!(found, expected.map(|(at, name, test)| (at, name.to_owned(), test)).collect::<Vec<_>>());

    for (module, import) in [("check", "proxy"), ("gate", "config"), ("proxy", "cli"), ("main", "app")] {
        assert!(allowed(module, import, false).is_err(), "{module} → {import}");
    }
    for (module, import) in [("check", "check"), ("check", "traffic"), ("app", "admin"), ("cli", "kube")] {
        assert_eq!(allowed(module, import, false), Ok(()));
    }
    assert!(allowed("gate", "app", true).is_err() && allowed("gate", "check", true).is_ok());
    assert!(allowed("gate", "util", false).is_err() && allowed("util", "gate", false).is_err());
}

fn allowed(module: &str, import: &str, in_test: bool) -> Result<(), String> {
    let Some((_, may)) = FLOORS.iter().find(|(name, _)| *name == module) else {
        return Err(format!("module {module} has no floor: give it one in tests/it/layers.rs"));
    };
    if !FLOORS.iter().any(|(name, _)| *name == import) {
        return Err(format!("crate::{import} is not a module with a floor"));
    }
    let below = may.contains(&import) || (may.contains(&BASE) && GROUND.contains(&import));
    if import == module || below || (in_test && !ABOVE_TESTS.contains(&import)) {
        Ok(())
    } else {
        Err(format!("{module} must not import crate::{import}"))
    }
}

/// The first names of all `crate::` paths, with their line and whether they stand in test code.
fn imports(text: &str, all_test: bool) -> Vec<(usize, String, bool)> {
    let code: String = text.lines().map(|line| uncommented(line).to_owned() + "\n").collect();
    let tests_from = if all_test { 0 } else { code.find("#[cfg(test)]").unwrap_or(code.len()) };
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count() + 1;
        let names = first_names(&code[at + "crate::".len()..]);
        found.extend(names.into_iter().map(|name| (line, name, at >= tests_from)));
    }
    found
}

/// `a` of `a::b`, and `a`, `b` of `{a::{x, y}, b}`.
fn first_names(path: &str) -> Vec<String> {
    let identifier = |text: &str| {
        let text = text.trim_start();
        text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_owned()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![identifier(path)] };
    let (mut depth, mut names, mut from) = (0, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(identifier(&group[from..at]));
                from = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn uncommented(line: &str) -> &str {
    // A `//` in a string hides what follows on its line: no import stands there.
    line.find("//").map_or(line, |at| &line[..at])
}

/// `gate` of `pub mod gate;`.
fn declared(line: &str) -> Option<&str> {
    line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")?.strip_suffix(';')
}

fn module_of(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or(path);
    let name = first.strip_suffix(".rs").unwrap_or(first);
    name.strip_suffix("_tests").unwrap_or(name)
}

fn is_test(path: &str) -> bool {
    path.ends_with("_tests.rs") || path.split('/').any(|part| part == "tests.rs" || part == "tests")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of sources is readable") {
        let path = entry.expect("an entry is readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
