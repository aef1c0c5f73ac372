//! `readygate explain`: why the pod is ready or not, and what becomes of each check, in words.
//!
//! The words are those of `/status`; here they are only put in order: the verdict first, then the checks, each after
//! those that it waits for.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use clap::Args;
use http::Uri;
use serde_json::Value;

use crate::config::nearest;

use super::client::url;
use super::status::{Paint, drain, fetch, list, text, time};

/// Say in words why the pod is ready or not.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  readygate explain
  readygate explain db
  kubectl exec my-pod -c readygate -- readygate explain

The same is in GET /status, as JSON. Exit code: 0 if the pod is ready (or the check passes), 1 if not.")]
pub struct ExplainArgs {
    /// Only this check, and those that it waits for.
    pub check: Option<String>,
    /// Where to ask.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8801/status", value_parser = url)]
    pub url: Uri,
}

/// Prints the explanation. Returns the exit code.
pub async fn run(args: ExplainArgs) -> anyhow::Result<u8> {
    let status = match fetch(&args.url).await {
        Ok(status) => status,
        Err(error) => {
            eprintln!("{error:#}");
            return Ok(1);
        }
    };
    match explain(&status, args.check.as_deref(), Paint::of_stdout()) {
        Ok((page, good)) => {
            write!(io::stdout().lock(), "{page}")?;
            Ok(u8::from(!good))
        }
        Err(unknown) => {
            eprintln!("{unknown}");
            Ok(super::EXIT_USAGE)
        }
    }
}

/// The page, and whether it is good news; or that there is no such check.
fn explain(status: &Value, only: Option<&str>, paint: Paint) -> Result<(String, bool), String> {
    let checks = in_order(list(&status["checks"]));
    let ready = status["ready"] == Value::Bool(true);
    let mut page = String::new();
    let word = if ready { paint.green("READY") } else { paint.red("NOT READY") };
    let (phase, since) = (text(&status["phase"]), time(&status["for_seconds"]));
    let _ = writeln!(page, "{word}  {phase} for {since}: {}", text(&status["meaning"]));
    let Some(name) = only else {
        for reason in list(&status["reasons"]) {
            let _ = writeln!(page, "  {}", text(reason));
        }
        let _ = writeln!(page, "to do: {}", text(&status["advice"]));
        drain(&mut page, &status["drain"]);
        for check in checks {
            tell(&mut page, check, paint);
        }
        return Ok((page, ready));
    };
    let Some(wanted) = checks.iter().find(|check| check["name"] == name) else {
        return Err(unknown(name, &checks));
    };
    let mut shown = vec![*wanted];
    let mut at = 0;
    while let Some(check) = shown.get(at) {
        for other in awaited(check, &checks) {
            if other["passed_since_arm"] != Value::Bool(true) && !shown.contains(&other) {
                shown.push(other);
            }
        }
        at += 1;
    }
    for check in shown {
        tell(&mut page, check, paint);
    }
    Ok((page, passes(wanted)))
}

fn tell(page: &mut String, check: &Value, paint: Paint) {
    let state = match text(&check["state"]) {
        state if state == "passing" => paint.green(&state),
        state if state == "failing" => paint.red(&state),
        state => state,
    };
    let after: Vec<String> = list(&check["after"]).iter().map(text).collect();
    let after = if after.is_empty() { String::new() } else { format!(", after {}", after.join(", ")) };
    let (name, kind, gates) = (text(&check["name"]), text(&check["kind"]), text(&check["gates"]));
    let since = time(&check["for_seconds"]);
    let _ = writeln!(page, "\n{name}  {state} for {since}  ({kind}, gates: {gates}{after})");
    for (title, key) in [("tests", "tests"), ("saw", "saw"), ("next", "next"), ("then", "then")] {
        let _ = writeln!(page, "  {title:<5}  {}", text(&check[key]));
    }
}

/// Each check after those that it waits for, else as they are configured.
fn in_order(checks: &[Value]) -> Vec<&Value> {
    let mut left: Vec<&Value> = checks.iter().collect();
    let mut placed = Vec::new();
    while !left.is_empty() {
        let free = left.iter().position(|check| awaited(check, &left).is_empty());
        // Configuration refuses cycles; a server that was merely named on the command line may not.
        placed.push(left.remove(free.unwrap_or(0)));
    }
    placed
}

/// Those of `among` that the check comes after.
fn awaited<'a>(check: &Value, among: &[&'a Value]) -> Vec<&'a Value> {
    let after = list(&check["after"]);
    among.iter().filter(|other| after.contains(&other["name"])).copied().collect()
}

/// As far as readiness can ask.
fn passes(check: &Value) -> bool {
    match check["gates"].as_str() {
        Some("startup") => check["passed_since_arm"] == Value::Bool(true),
        _ => check["state"] == "passing",
    }
}

fn unknown(name: &str, checks: &[&Value]) -> String {
    let names: Vec<String> = checks.iter().map(|check| text(&check["name"])).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let hint = nearest(name, &names).map_or(String::new(), |name| format!(" did you mean \"{name}\"?"));
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!("no check has the name {name:?},{hint} there are: {known}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Value {
        let check = |name: &str, state: &str, after: &[&str]| {
            json!({
                "name": name, "kind": "tcp", "gates": "startup", "after": after, "state": state, "for_seconds": 12.0,
                "passed_since_arm": state == "passing",
                "tests": "connects to db:5432\u{1b}[2J", "saw": "refused", "next": "in 0.7s", "then": "nothing: …",
            })
        };
        json!({
            "ready": false, "phase": "starting", "for_seconds": 12.0, "meaning": "not all passed", "advice": "mend it",
            "reasons": ["db: refused"], "drain": { "state": "idle" },
            "checks": [
                check("warm", "unknown", &["files", "db"]), check("db", "failing", &["files"]),
                check("files", "passing", &[]), check("other", "passing", &[]),
            ],
        })
    }

    fn page(only: Option<&str>) -> (String, bool) {
        explain(&status(), only, Paint(false)).expect("a check of this name")
    }

    #[test]
    fn the_verdict_comes_first_and_each_check_after_those_it_waits_for() {
        let (page, good) = page(None);
        assert!(!good);
        assert!(
            page.starts_with(
                "NOT READY  starting for 12s: not all passed\n  db: refused\nto do: mend it\n\n\
                 files  passing for 12s  (tcp, gates: startup)\n  \
                 tests  connects to db:5432 [2J\n  saw    refused\n  next   in 0.7s\n  then   nothing: …\n"
            ),
            "{page}"
        );
        let heads: Vec<_> = page.lines().filter(|line| line.contains("gates:")).collect();
        assert_eq!(heads.iter().map(|head| &head[..4]).collect::<Vec<_>>(), ["file", "db  ", "warm", "othe"]);
        assert!(heads[2].ends_with("after files, db)"), "{page}");
    }

    #[test]
    fn one_check_comes_with_those_that_keep_it_waiting() {
        let (warm, good) = page(Some("warm"));
        assert!(
            !good && warm.contains("\nwarm  ") && warm.contains("\ndb  ") && !warm.contains("\nfiles  "),
            "{warm}"
        );
        let (files, good) = page(Some("files"));
        assert!(good && !files.contains("\ndb  "), "{files}");
    }

    #[test]
    fn an_unknown_check_is_answered_with_the_nearest_and_all_there_are() {
        let error = |name| explain(&status(), Some(name), Paint(false)).expect_err(name);
        assert_eq!(
            error("wram"),
            "no check has the name \"wram\", did you mean \"warm\"? there are: files, db, warm, other"
        );
        assert_eq!(error("zzzzzz"), "no check has the name \"zzzzzz\", there are: files, db, warm, other");
    }

    #[test]
    fn a_server_that_lies_about_the_order_ends_nothing() {
        let check = |name: &str, after: &str| json!({ "name": name, "after": [after] });
        let cycle = [check("a", "b"), check("b", "a"), json!(null)];
        assert_eq!(in_order(&cycle).len(), 3);
    }
}
