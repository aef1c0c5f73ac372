//! `readygate status`: what `/status` says, as a table for people.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use http::{Method, Uri};
use serde_json::Value;
use tokio::time::sleep;

use crate::admin::span;

use super::client::{self, Call, url};

/// Show the state of the running sidecar.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  readygate status
  readygate status --watch
  kubectl port-forward my-pod 8801 & readygate status --url http://127.0.0.1:8801/status")]
pub struct StatusArgs {
    /// Where to read it.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8801/status", value_parser = url)]
    pub url: Uri,
    /// Go on, once a second.
    #[arg(long)]
    pub watch: bool,
}

/// Prints the state. Returns the exit code: 0 if the pod is ready, else 1.
pub async fn run(args: StatusArgs) -> anyhow::Result<u8> {
    let (terminal, paint) = (io::stdout().is_terminal(), Paint::of_stdout());
    loop {
        let (text, code) = match (fetch(&args.url).await, args.watch) {
            (Ok(status), _) => (table(&status, paint), u8::from(status["ready"] != Value::Bool(true))),
            (Err(error), true) => (format!("{error:#}\n"), 1),
            (Err(error), false) => {
                eprintln!("{error:#}");
                return Ok(1);
            }
        };
        let mut out = io::stdout().lock();
        if terminal && args.watch {
            write!(out, "{CLEAR}")?;
        }
        writeln!(out, "{}", text.trim_end())?;
        if !args.watch {
            return Ok(code);
        }
        if !terminal {
            writeln!(out)?;
        }
        out.flush()?;
        drop(out);
        sleep(WATCH_INTERVAL).await;
    }
}

/// What a running sidecar says of itself.
pub(super) async fn fetch(url: &Uri) -> anyhow::Result<Value> {
    let reply = client::call(Call { method: Method::GET, url, token: None, deadline: DEADLINE }).await?;
    ensure!(reply.status == 200, "{url} answers {}, expected 200", reply.status);
    serde_json::from_str(&reply.body).with_context(|| format!("{url} does not answer with a status"))
}

/// Cursor home, then erase to the end: no flicker, unlike erase first.
const CLEAR: &str = "\x1b[H\x1b[J";
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(5);
const SHOWN_TRANSITIONS: usize = 8;

/// The whole page.
fn table(status: &Value, paint: Paint) -> String {
    let mut page = String::new();
    let ready = status["ready"] == Value::Bool(true);
    let word = if ready { paint.green("READY") } else { paint.red("NOT READY") };
    let _ = writeln!(
        page,
        "{word}  {} for {}  (arm {}, {} app restarts, readygate {})",
        text(&status["phase"]),
        time(&status["for_seconds"]),
        status["arm"],
        status["app_restarts"],
        text(&status["build"]["version"]),
    );
    for reason in list(&status["reasons"]) {
        let _ = writeln!(page, "  {}", text(reason));
    }
    checks(&mut page, &status["checks"], paint);
    for app in list(&status["apps"]) {
        let state = match (app["refusing"].as_bool(), app["seen"].as_bool()) {
            (Some(true), _) => paint.red("refuses connections"),
            (_, Some(false)) => paint.red("not seen yet"),
            _ => "accepts connections".to_owned(),
        };
        let _ = writeln!(page, "\napp {}  {state}", text(&app["address"]));
    }
    traffic(&mut page, &status["traffic"]);
    drain(&mut page, &status["drain"]);
    let transitions = list(&status["transitions"]);
    if !transitions.is_empty() {
        page.push_str("\nLAST CHANGES\n");
    }
    for change in transitions.iter().skip(transitions.len().saturating_sub(SHOWN_TRANSITIONS)) {
        let (from, to) = (text(&change["from"]), text(&change["to"]));
        let _ = writeln!(page, "  {}  {from} → {to}  {}", text(&change["at"]), text(&change["detail"]));
    }
    page
}

fn checks(page: &mut String, checks: &Value, paint: Paint) {
    let mut rows = vec![["CHECK", "KIND", "GATES", "STATE", "TOOK", "SAID"].map(str::to_owned)];
    for check in list(checks) {
        rows.push([
            text(&check["name"]),
            text(&check["kind"]),
            text(&check["gates"]),
            text(&check["state"]),
            time(&check["last_duration_seconds"]),
            text(&check["last"]),
        ]);
    }
    if rows.len() == 1 {
        return;
    }
    page.push('\n');
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let padding = widths.get(at).map_or(0, |width| width - cell.chars().count());
            // Padded before it is painted: a terminal counts no escape sequence.
            let cell = match (at, &**cell) {
                (3, "passing") => paint.green(cell),
                (3, "failing") => paint.red(cell),
                _ => cell.clone(),
            };
            let _ = write!(page, "{cell}{:padding$}  ", "");
        }
        page.truncate(page.trim_end().len());
        page.push('\n');
    }
}

fn traffic(page: &mut String, traffic: &Value) {
    for (listener, figures) in traffic.as_object().into_iter().flatten() {
        let _ = write!(page, "\ntraffic on {listener}: ");
        for (code, count) in figures["requests"].as_object().into_iter().flatten() {
            if count.as_u64() != Some(0) {
                let _ = write!(page, "{count} × {code}, ");
            }
        }
        let _ = writeln!(
            page,
            "{} in flight, {} held, {} connections",
            figures["in_flight"], figures["held"], figures["connections"]
        );
        for (kind, count) in figures["errors"].as_object().into_iter().flatten() {
            if count.as_u64() != Some(0) {
                let _ = writeln!(page, "  {count} × {kind}");
            }
        }
    }
}

/// How the pod leaves, if it does.
pub(super) fn drain(page: &mut String, drain: &Value) {
    let state = text(&drain["state"]);
    let _ = match &*state {
        "idle" => Ok(()),
        "drained" => writeln!(
            page,
            "\ndrain: drained after {}, {} requests cut",
            time(&drain["outcome"]["took_seconds"]),
            drain["outcome"]["left"]
        ),
        _ => {
            let (by, since) = (text(&drain["by"]), time(&drain["for_seconds"]));
            writeln!(page, "\ndrain: {state} for {since}, by {by}")
        }
    };
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn text(value: &Value) -> String {
    client::printable(value.as_str().unwrap_or("-")).replace('\n', " ")
}

pub(super) fn time(value: &Value) -> String {
    let seconds = value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.map_or_else(|| "-".to_owned(), span)
}

/// Colour, where there is a terminal that wants it.
#[derive(Clone, Copy)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    pub(super) fn of_stdout() -> Self {
        Self(io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()))
    }

    pub(super) fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(super) fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Value {
        json!({
            "ready": false, "phase": "starting", "for_seconds": 12.0, "arm": 2, "app_restarts": 1,
            "build": { "version": "0.1.0" },
            "reasons": ["warm: 41/50 ok\u{1b}[2J"],
            "checks": [
                { "name": "db", "kind": "tcp", "gates": "startup", "state": "passing",
                  "last": "ok", "last_duration_seconds": 0.002 },
                { "name": "warm", "kind": "warmup", "gates": "startup", "state": "unknown",
                  "last": "41/50 ok", "last_duration_seconds": null },
            ],
            "apps": [{ "address": "127.0.0.1:8080", "refusing": false, "seen": true }],
            "traffic": { "http": { "requests": { "2xx": 7, "5xx": 0 }, "errors": { "not_ready": 2 },
                "in_flight": 1, "held": 0, "connections": 3 } },
            "drain": { "state": "draining", "for_seconds": 3.0, "by": "SIGTERM" },
            "transitions": [{ "at": "2026-11-01T00:00:00.000Z", "from": "ready", "to": "starting",
                "detail": "the app restarted" }],
        })
    }

    #[test]
    fn page_tells_what_is_wrong_first() {
        let page = table(&status(), Paint(false));
        assert_eq!(
            page,
            "NOT READY  starting for 12s  (arm 2, 1 app restarts, readygate 0.1.0)\n  \
             warm: 41/50 ok [2J\n\n\
             CHECK  KIND    GATES    STATE    TOOK  SAID\n\
             db     tcp     startup  passing  2ms   ok\n\
             warm   warmup  startup  unknown  -     41/50 ok\n\n\
             app 127.0.0.1:8080  accepts connections\n\n\
             traffic on http: 7 × 2xx, 1 in flight, 0 held, 3 connections\n  \
             2 × not_ready\n\n\
             drain: draining for 3.0s, by SIGTERM\n\n\
             LAST CHANGES\n  \
             2026-11-01T00:00:00.000Z  ready → starting  the app restarted\n"
        );
    }

    #[test]
    fn colour_is_asked_for_and_the_columns_stay() {
        let page = table(&status(), Paint(true));
        assert!(page.starts_with("\x1b[31mNOT READY\x1b[0m"), "{page:?}");
        assert!(page.contains("startup  \x1b[32mpassing\x1b[0m  2ms"), "{page:?}");
    }

    #[test]
    fn anything_but_a_status_is_no_panic() {
        for value in [json!(null), json!({ "checks": [1, {}], "traffic": [], "transitions": "x" })] {
            assert!(table(&value, Paint(false)).starts_with("NOT READY"));
        }
    }
}
