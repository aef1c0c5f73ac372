//! No input breaks the loader.

use proptest::prelude::*;

use super::*;

#[test]
fn aliases_cannot_multiply() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    let problems = problems_of("app.yaml", &text, &[]);
    assert!(problems.contains("too large, expected at most 100000 values"), "{problems}");
}

#[test]
fn no_nesting_overflows_the_stack() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        format!("drain: {}", "[".repeat(100_000)),
    ] {
        for name in ["app.yaml", "app.toml", "app.json"] {
            assert_ne!(problems_of(name, &text, &[]), "");
        }
        problems_of("app.yaml", "", &[("READYGATE__WORKERS", &text)]);
    }
}

#[test]
fn aliases_inside_the_bounds_work() {
    let config = loaded("drain: { min: &one 1s, quiet: *one }\n", &[]).config;
    assert_eq!(config.drain.min, config.drain.quiet);
}

#[test]
fn hold_that_is_off_is_no_wait() {
    let hold = |text: &str| loaded(text, &[]).config.listeners[0].hold.longest;
    assert_eq!(hold("listeners: { a: { hold: { for: off } } }\n"), std::time::Duration::ZERO);
    assert_eq!(hold("listeners: { a: {} }\n"), std::time::Duration::from_secs(10));
    let problems = problems_of("app.yaml", "listeners: { a: { hold: { for: 0s } } }\n", &[]);
    assert!(problems.contains("expected more than 0s, or off"), "{problems}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_loader_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        name in prop_oneof![Just("app.yaml"), Just("app.toml"), Just("app.json")],
    ) {
        let folder = Folder::new();
        let file = folder.write(name, &bytes);
        let _ = load(&sources(Some(file), &[]), &kinds());
    }

    #[test]
    fn no_arrangement_of_words_makes_the_loader_panic(
        words in proptest::collection::vec(proptest::sample::select(WORDS), 0..40),
        value in proptest::sample::select(WORDS),
    ) {
        let folder = Folder::new();
        let file = folder.write("app.yaml", words.concat());
        let variables = [("READYGATE__DRAIN", value), ("READYGATE__CHECKS__A__HTTP", value), ("READYGATE__CHECKS__A__AFTER", value)];
        if let Err(problems) = load(&sources(Some(file), &variables), &kinds()) {
            prop_assert!(!problems.all.is_empty());
        }
    }
}

const WORDS: &[&str] = &[
    "listeners",
    "checks",
    "drain",
    "log",
    "workers",
    "a",
    "b",
    "http",
    "tcp",
    "after",
    "interval",
    "timeouts",
    "limits",
    "min",
    "listen",
    ": ",
    ":\n  ",
    "\n",
    "\n  ",
    "\n    ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "&a ",
    "*a",
    "!!int ",
    "'",
    "\"",
    "|\n",
    "1s",
    "0s",
    "0777",
    ".inf",
    "~",
    "true",
    "-1",
    "99999999999999999999",
    "1e400",
    "${env:A}",
    "$${",
    "${",
    "<<: ",
    "? ",
    "#",
    "\t",
];
