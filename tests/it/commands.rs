//! The command line is what the README says: its commands, their help, where output goes, exit codes.

use std::collections::BTreeSet;
use std::process::{Output, Stdio};

use crate::support::Scratch;
use crate::support::sidecar::command;

fn run(arguments: &[&str]) -> Output {
    let mut command = command();
    command.args(arguments).stdout(Stdio::piped()).env("READYGATE__LOG__LEVEL", "info");
    command.output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The commands of the README's table.
fn documented() -> BTreeSet<String> {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(readme).expect("the README is there");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `readygate "));
    rows.filter_map(|row| row.split([' ', '`']).next()).map(str::to_owned).collect()
}

#[test]
fn commands_of_the_readme_are_those_of_the_binary_each_with_an_example() {
    let documented = documented();
    let help = text(&run(&["--help"]).stdout);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let listed: BTreeSet<String> = listed.filter(|name| *name != "help").map(str::to_owned).collect();
    assert_eq!(listed, documented);
    assert!(documented.len() >= 7, "saw only {documented:?}");
    for name in documented {
        let help = run(&[&name, "--help"]);
        let said = text(&help.stdout);
        assert_eq!((help.status.code(), text(&help.stderr)), (Some(0), String::new()), "{name}");
        assert!(said.contains("Example") && said.contains(&format!("  readygate {name}")), "{said}");
        assert!(said.lines().count() <= 40, "{name}: the help is long:\n{said}");
        assert!(!said.contains('\x1b'), "{name}: colour without a terminal");
    }
}

#[test]
fn results_go_to_stdout_and_everything_else_to_stderr() {
    let scratch = Scratch::new();
    let good = scratch.join("good.yaml");
    let bad = scratch.join("bad.yaml");
    std::fs::write(&good, "drain: { min: 1s }\n").expect("the directory is writable");
    std::fs::write(&bad, "drain: { mni: 1s }\n").expect("the directory is writable");
    let (good, bad) = (good.to_str().expect("text"), bad.to_str().expect("text"));
    let closed = "http://127.0.0.1:1";
    // Arguments, exit code, whether there is a result.
    for (arguments, code, result) in [
        (&["validate", good][..], 0, true),
        (&["schema"], 0, true),
        (&["--version"], 0, true),
        (&["check", "--check", "file:///nonexistent"], 1, true),
        (&["wait", "--url", closed, "--timeout", "10ms"], 1, false),
        (&["drain", "--url", closed], 1, false),
        (&["status", "--url", closed], 1, false),
        (&["explain", "--url", closed], 1, false),
        (&["explain", "--url", "nonsense"], 2, false),
        (&["frobnicate"], 2, false),
        (&["run", "--frobnicate"], 2, false),
        (&[], 2, false),
        (&["validate", bad], 78, false),
        (&["validate", "/nonexistent.yaml"], 78, false),
        (&["run", "--config", bad], 78, false),
        (&["check", "--config", bad], 78, false),
    ] {
        let output = run(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{err}");
        assert_eq!(!out.is_empty(), result, "{arguments:?} on stdout: {out}");
        assert_eq!(err.is_empty(), result, "{arguments:?} on stderr: {err}");
    }
}

#[test]
fn one_configuration_means_the_same_as_yaml_toml_and_json() {
    let scratch = Scratch::new();
    let forms = [
        (
            "a.yaml",
            "listeners: { web: { listen: 127.0.0.1:9000, hold: { for: off } } }\ndrain: { min: 1s }\n\
             checks: { db: { tcp: { address: db:5432 }, interval: 2s } }\n",
        ),
        (
            "a.toml",
            "[listeners.web]\nlisten = \"127.0.0.1:9000\"\nhold = { for = \"off\" }\n[drain]\nmin = \"1s\"\n\
             [checks.db]\ntcp = { address = \"db:5432\" }\ninterval = \"2s\"\n",
        ),
        (
            "a.json",
            r#"{ "listeners": { "web": { "listen": "127.0.0.1:9000", "hold": { "for": "off" } } },
                 "drain": { "min": "1s" },
                 "checks": { "db": { "tcp": { "address": "db:5432" }, "interval": "2s" } } }"#,
        ),
    ];
    let shown = forms.map(|(name, form)| {
        let file = scratch.join(name);
        std::fs::write(&file, form).expect("the directory is writable");
        let output = run(&["validate", file.to_str().expect("text")]);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output.stderr));
        text(&output.stdout)
    });
    assert!(shown[0].contains("db:5432") && shown[0].contains("for: off"), "{}", shown[0]);
    assert_eq!(shown[0], shown[1]);
    assert_eq!(shown[0], shown[2]);
}
