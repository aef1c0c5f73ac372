//! Where problems are said to be: in every format, in variables, in flags.

use super::*;

#[test]
fn all_problems_of_a_file_come_at_once_and_in_its_order() {
    let text = "drain:\n  quite: 3s\n  min: 0s\nchecks:\n  db:\n    tpc: { address: db }\n    timeout: 9s\nwokers: 1\n";
    let problems = problems_of("app.yaml", text, &[("READYGATE__LOG__FORMAT", "xml")]);
    let starts: Vec<&str> =
        problems.lines().filter_map(|line| line.split_once(": ").map(|(place, _)| place)).collect();
    assert_eq!(
        starts,
        [
            "app.yaml:2:3",
            "app.yaml:3:8",
            "app.yaml:6:5",
            "app.yaml:7:14",
            "app.yaml:8:1",
            "READYGATE__LOG__FORMAT"
        ],
        "{problems}"
    );
}

#[test]
fn the_last_line_says_what_to_do_next() {
    let problems = load(&sources(Some("/not/there.yaml".into()), &[]), &kinds()).expect_err("no file");
    let expected = "/not/there.yaml: cannot read the configuration: No such file or directory (os error 2)\n\
        1 problem: correct and run \"readygate validate /not/there.yaml\"; \"readygate schema\" describes every key";
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn toml_and_json_have_places_too() {
    let cases = [
        (
            "app.toml",
            "[drain]\nmin = \"1s\"\nquite = 1\n",
            "app.toml:3:1: drain.quite: unknown key, did you mean \"quiet\"? allowed: min, quiet, deadline, ready, restart_window",
        ),
        (
            "app.toml",
            "[checks.a]\ntcp = { address = \"x\" }\nafter = [\n  \"b\",\n]\n",
            "app.toml:4:3: checks.a.after.0: b is not a check",
        ),
        ("app.toml", "[drain\n", "app.toml:1:7: not valid TOML: unclosed table, expected `]`"),
        (
            "app.json",
            "{\n\t\"drain\": {\n\t\t\"min\": 5\n\t}\n}\n",
            "app.json:3:10: drain.min: 5 is not allowed, expected a duration such as 250ms, 10s or 2m",
        ),
        (
            "app.json",
            "{ \"drain\": {}, }\n",
            "app.json:1:16: cannot read the configuration: trailing comma at line 1 column 16",
        ),
        (
            "app.json",
            "{ \"workers\": 1, \"workers\": 2 }\n",
            "app.json:1:17: workers: the key is there twice, expected once",
        ),
        ("app.ini", "", "app.ini: unknown format, expected a name that ends in .yaml, .yml, .toml or .json"),
    ];
    for (name, text, expected) in cases {
        assert_eq!(problems_of(name, text, &[]), expected, "{text}");
    }
}

#[test]
fn problems_of_variables_name_the_variable() {
    let cases = [
        (
            "READYGATE__DRAIN__QUITE",
            "3s",
            "READYGATE__DRAIN__QUITE: drain.quite: unknown key, did you mean \"quiet\"? allowed: min, quiet, deadline, ready, restart_window",
        ),
        (
            "READYGATE__WORKERS",
            "many",
            "READYGATE__WORKERS: workers: many is not allowed, expected auto or a number from 1 to 256",
        ),
        (
            "READYGATE__CHECKS__DB__TIMEOUT",
            "1s",
            "READYGATE__CHECKS__DB__TIMEOUT: checks.db: no kind of check, expected one key of: tcp, http",
        ),
        (
            "READYGATE__",
            "1",
            "READYGATE__: \"\": not a key path, expected names joined by __, such as READYGATE__DRAIN__QUIET",
        ),
        (
            "READYGATE__A[1]",
            "1",
            "READYGATE__A[1]: \"a[1]\": not a key path, expected names joined by __, such as READYGATE__DRAIN__QUIET",
        ),
    ];
    for (name, value, expected) in cases {
        assert_eq!(problems_of("app.yaml", "", &[(name, value)]), expected);
    }
    let both = [("READYGATE__CHECKS", "{}"), ("READYGATE__CHECKS__DB__TIMEOUT", "1s")];
    assert_eq!(
        problems_of("app.yaml", "", &both),
        "READYGATE__CHECKS__DB__TIMEOUT: checks.db.timeout: READYGATE__CHECKS sets this key too, expected one of the two"
    );
}

#[test]
fn flags_say_which_flag_is_wrong() {
    let mut sources = sources(None, &[]);
    sources.flags.listen = Some("8800".to_owned());
    sources.flags.checks =
        ["tcp://db:5432", "tcp://db:5432", "tcp://db", "tpc://db:1"].map(str::to_owned).to_vec();
    let problems = load(&sources, &kinds()).expect_err("problems");
    assert_eq!(
        problems.to_string(),
        "--check tcp://db: tcp://db: no port, expected tcp://host:port\n\
         --check tpc://db:1: unknown scheme \"tpc\" of a check, did you mean \"tcp\"? allowed: tcp, http, https\n\
         --listen: listeners.http.listen: 8800 is not allowed, expected an IP address and a port such as 0.0.0.0:8800 or [::]:8800\n\
         3 problems: correct and try again; \"readygate schema\" describes every key"
    );
}

#[test]
fn flags_for_the_only_listener_want_only_one() {
    let folder = Folder::new();
    let text = "listeners: { a: { listen: 0.0.0.0:1 }, b: { listen: 0.0.0.0:2 } }";
    let mut sources = sources(Some(folder.write("app.yaml", text)), &[]);
    sources.flags.upstream = Some("http://h:1".to_owned());
    let problems = load(&sources, &kinds()).expect_err("a problem");
    let expected = "--upstream: means the only listener, but there are 2: a, b; expected listeners.NAME.upstream in the configuration";
    assert_eq!(problems.all[0].to_string(), expected);
}
