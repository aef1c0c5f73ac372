//! `exec` judges a command by its exit, and nothing of it outlives the run.

use std::path::Path;
use std::time::Duration;

use readygate::check::CheckError;
use serde_json::{Value, json};

use crate::support::checks::{accept, run};
use crate::support::{Scratch, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

async fn said(own: Value) -> Result<String, String> {
    let result = run("exec", own, PATIENCE).await;
    result.map(|evidence| evidence.summary).map_err(|error| error.to_string())
}

fn shell(script: &str) -> Value {
    json!({ "command": ["/bin/sh", "-c", script] })
}

#[tokio::test]
async fn only_exit_0_passes() {
    assert_eq!(said(shell("echo all; echo good >&2")).await, Ok("all good".to_owned()));
    let error = said(shell("echo no table >&2; exit 3")).await.expect_err("exits with 3");
    assert_eq!(error, "/bin/sh exited with 3, expected 0: no table");
    let error = said(shell("kill -9 $$")).await.expect_err("is killed");
    assert_eq!(error, "/bin/sh was killed by signal 9, expected 0");
    let error = said(json!({ "command": ["/no/such/program"] })).await.expect_err("is not there");
    assert!(error.starts_with("/no/such/program cannot start: No such file"), "{error}");
}

#[tokio::test]
async fn words_are_not_read_by_a_shell_and_names_are_looked_up_in_path() {
    assert_eq!(said(json!({ "command": ["echo", "$HOME; *", "a  b"] })).await, Ok("$HOME; * a b".to_owned()));
}

#[tokio::test]
async fn the_environment_is_path_and_what_is_configured() {
    let mut own = shell("env | grep -v '^PATH=\\|^PWD=\\|^_=\\|^SHLVL=\\|^OLDPWD=' | sort; cat");
    own["env"] = json!({ "PGUSER": "app", "EMPTY": "" });
    assert_eq!(said(own).await, Ok("EMPTY= PGUSER=app".to_owned()), "nothing inherited, no input");
}

#[tokio::test]
async fn long_output_is_read_and_cut() {
    let error =
        said(shell("head -c 3000000 /dev/zero | tr '\\0' x; echo the end; exit 1")).await.expect_err("1");
    assert!(error.contains("expected 0: …xxx") && error.ends_with("xthe end"), "{error}");
    assert!(error.chars().count() < 1200, "{error}");
}

/// The name of each process whose command line holds this text.
fn alive(text: &Path) -> Vec<String> {
    let text = text.display().to_string();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&text)).collect()
}

/// Waits on this path, in the foreground and in the background, and says so by the files `path.1` and `path.2`.
fn lingers(path: &Path, then: &str) -> Value {
    let wait = "sh -c ': > $0.1; sleep 1000; :' PATH & sh -c ': > $0.2; sleep 1000; :' PATH & ";
    let ready = "while ! [ -e PATH.1 ] || ! [ -e PATH.2 ]; do sleep 0.01; done; ";
    shell(&format!("{wait}{ready}{then}").replace("PATH", &path.display().to_string()))
}

#[tokio::test]
async fn at_the_deadline_the_whole_group_is_killed() {
    let scratch = Scratch::new();
    let mark = scratch.join("deadline");
    let own = lingers(&mark, "wait");
    let watch = async {
        eventually("both run", PATIENCE, async || scratch.join("deadline.2").exists()).await;
        assert!(alive(&mark).len() >= 2);
    };
    let (ended, ()) = tokio::join!(run("exec", own, Duration::from_secs(2)), watch);
    assert!(matches!(ended, Err(CheckError::Timeout { .. })), "{ended:?}");
    eventually("none is left", PATIENCE, async || alive(&mark).is_empty()).await;
}

#[tokio::test]
async fn what_a_command_leaves_behind_is_killed_and_does_not_hold_it_up() {
    let scratch = Scratch::new();
    let mark = scratch.join("background");
    assert_eq!(said(lingers(&mark, "echo done")).await, Ok("done".to_owned()));
    eventually("none is left", PATIENCE, async || alive(&mark).is_empty()).await;
}

#[tokio::test]
async fn no_descriptor_and_no_zombie_is_left_after_300_runs() {
    said(json!({ "command": ["true"] })).await.expect("exits with 0");
    for _ in 0..300 {
        said(json!({ "command": ["true"] })).await.expect("exits with 0");
    }
    let ours = std::process::id();
    let zombies = || {
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let states =
            processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
        states.filter(|stat| stat.contains(&format!("(true) Z {ours} "))).count()
    };
    eventually("all are reaped", PATIENCE, async || zombies() == 0).await;
}

#[test]
fn keys_that_cannot_work_are_refused() {
    for (own, path) in [
        (json!({ "command": [] }), "command"),
        (json!({ "command": [""] }), "command"),
        (json!({ "command": "true" }), "command"),
        (json!({ "command": ["a", "b\u{0}"] }), "command.1"),
        (json!({ "command": ["a"], "env": { "A=B": "1" } }), "env.A=B"),
        (json!({ "command": ["a"], "env": { "A": "\u{0}" } }), "env.A"),
        (json!({ "command": ["a"], "shell": true }), "shell"),
    ] {
        let errors = accept("exec", own.clone(), &[]).expect_err(path);
        assert_eq!(errors[0].path.join("."), path, "{own}: {errors:?}");
    }
}
