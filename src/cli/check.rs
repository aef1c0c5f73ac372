//! `readygate check`: runs each check once and prints what it saw.
//!
//! Checks run one after the other, each after those it names in `after`. One whose prerequisite did not pass
//! is skipped, as is one that needs a running sidecar. Also here: the table of kinds for the README, since
//! it is printed from the same rows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::check::{CheckError, CheckResult, Context, KINDS};
use crate::config::{CheckSpec, Config, Gates, Own};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}

/// Runs each check once; returns the exit code: 0 if none failed, else 1.
///
/// # Errors
///
/// Only if `out` cannot be written to.
pub async fn check(config: &Config, output: Output, out: &mut dyn Write) -> anyhow::Result<u8> {
    let mut done: BTreeMap<&str, Row<'_>> = BTreeMap::new();
    for spec in in_order(&config.checks) {
        let began = Instant::now();
        let unmet = spec
            .after
            .iter()
            .find(|name| done.get(name.as_str()).is_none_or(|row| row.verdict != Verdict::Pass));
        let result = match unmet {
            Some(name) => {
                Err(CheckError::Skipped { reason: format!("it runs after {name}, which did not pass") })
            }
            None => run(spec).await,
        };
        done.insert(&spec.name, Row::new(spec, result, began.elapsed()));
    }
    // Printed in the order of the file.
    let rows: Vec<_> = config.checks.iter().filter_map(|spec| done.remove(spec.name.as_str())).collect();
    let failed = rows.iter().any(|row| row.verdict == Verdict::Fail);
    match output {
        Output::Text => out.write_all(table(&rows).as_bytes())?,
        Output::Json => {
            let checks: Vec<_> = rows.iter().map(Row::to_json).collect();
            writeln!(out, "{:#}", json!({ "passed": !failed, "checks": checks }))?;
        }
    }
    out.flush()?;
    Ok(u8::from(failed))
}

/// The table of kinds for the README, in Markdown, from the rows that the program itself uses.
pub fn reference_table() -> String {
    let mut table = "| kind | gates | own keys | passes when |\n|---|---|---|---|\n".to_owned();
    for kind in KINDS {
        let gates = match (kind.config.gates)(&Own(Value::Null), &[]) {
            Gates::Startup => "startup",
            Gates::Always => "always",
            Gates::Never => "never",
        };
        let schema = (kind.config.schema)(&mut schemars::SchemaGenerator::default());
        let required = schema.get("required").and_then(Value::as_array);
        let is_required =
            |key: &str| required.is_some_and(|keys| keys.iter().any(|required| required == key));
        let keys: Vec<_> =
            schema.get("properties").and_then(Value::as_object).into_iter().flatten().collect();
        let keys: Vec<_> = keys
            .iter()
            .map(|(key, _)| if is_required(key) { format!("**`{key}`**") } else { format!("`{key}`") })
            .collect();
        let (name, keys, passes) = (kind.config.name, keys.join(", "), kind.config.passes_when);
        let _ = writeln!(table, "| `{name}` | {gates} | {keys} | {passes} |");
    }
    table
}

async fn run(spec: &CheckSpec) -> CheckResult {
    let kind =
        KINDS.iter().find(|kind| kind.config.name == spec.kind).expect("configuration knows the same kinds");
    let context =
        Context { targets: Rc::new([]), warmup_token: "".into(), traffic: None, report: Rc::new(|_| ()) };
    let check = (kind.build)(spec, context);
    let deadline = check.deadline(spec.timeout);
    match tokio::time::timeout(deadline, check.run()).await {
        Ok(result) => result,
        Err(_) => Err(CheckError::Timeout { after: deadline }),
    }
}

/// Each check after those it names; the order of the file otherwise.
fn in_order(checks: &[CheckSpec]) -> Vec<&CheckSpec> {
    let mut waiting: Vec<_> = checks.iter().collect();
    let mut ordered: Vec<&CheckSpec> = Vec::new();
    while !waiting.is_empty() {
        let is_due =
            |spec: &&CheckSpec| spec.after.iter().all(|name| ordered.iter().any(|done| done.name == *name));
        // A valid configuration has no cycle, so one is always due.
        let next = waiting.iter().position(is_due).unwrap_or(0);
        ordered.push(waiting.remove(next));
    }
    ordered
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Fail,
    Skip,
}

struct Row<'a> {
    spec: &'a CheckSpec,
    verdict: Verdict,
    why: String,
    figures: Option<Value>,
    took: Duration,
}

impl<'a> Row<'a> {
    fn new(spec: &'a CheckSpec, result: CheckResult, took: Duration) -> Self {
        let (verdict, why, figures) = match result {
            Ok(evidence) => (Verdict::Pass, evidence.summary, evidence.figures),
            Err(CheckError::Skipped { reason }) => (Verdict::Skip, reason, None),
            Err(CheckError::Unexpected { message, figures }) => (Verdict::Fail, message, figures),
            Err(error) => (Verdict::Fail, error.to_string(), None),
        };
        Self { spec, verdict, why, figures, took }
    }

    fn to_json(&self) -> Value {
        let result = match self.verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Skip => "skip",
        };
        json!({
            "name": self.spec.name,
            "kind": self.spec.kind,
            "result": result,
            "why": self.why,
            "duration_ms": self.took.as_secs_f64() * 1000.0,
            "figures": self.figures,
        })
    }
}

/// Columns as wide as their longest entry; the reason comes last, since it has no bound.
fn table(rows: &[Row<'_>]) -> String {
    let width = |column: fn(&Row<'_>) -> usize| rows.iter().map(column).max().unwrap_or_default();
    let name_width = width(|row| row.spec.name.len());
    let kind_width = width(|row| row.spec.kind.len());
    let took_width = width(|row| took(row).len());
    let mut table = String::new();
    for row in rows {
        let verdict = match row.verdict {
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::Skip => "SKIP",
        };
        let (name, kind, took) = (&row.spec.name, row.spec.kind, took(row));
        let line =
            format!("{verdict}  {name:name_width$}  {kind:kind_width$}  {took:>took_width$}  {}", row.why);
        let _ = writeln!(table, "{}", line.trim_end());
    }
    table
}

fn took(row: &Row<'_>) -> String {
    match row.verdict {
        Verdict::Skip => "-".to_owned(),
        _ => match row.took.as_secs_f64() {
            seconds if seconds < 1.0 => format!("{:.0}ms", seconds * 1000.0),
            seconds => format!("{seconds:.1}s"),
        },
    }
}
