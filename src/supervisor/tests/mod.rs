//! The schedule on paused time, with scripted checks and a real gate.

mod change;
mod pace;
mod plans;
mod runs;

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::pin::Pin;

use serde_json::json;
use tokio::time::sleep;

use super::*;
use crate::check::{Check, CheckError, CheckFuture, CheckResult, Context, Evidence};
use crate::config::{self, AccessLog, Admin, Drain, DrainReady, Log, LogFormat, Own};
use crate::gate::{Beats, Phase, Standing};

type Script = Rc<dyn Fn(Rc<Context>) -> Pin<Box<dyn Future<Output = CheckResult>>>>;

thread_local! {
    /// What the scripted checks of this test do, by name.
    static SCRIPTS: RefCell<HashMap<String, Script>> = RefCell::default();
}

struct Scripted {
    script: Script,
    context: Rc<Context>,
    warmup: bool,
}

impl Check for Scripted {
    fn run(&self) -> CheckFuture<'_> {
        (self.script)(Rc::clone(&self.context))
    }

    fn tests(&self) -> String {
        "does what the script says".to_owned()
    }

    fn deadline(&self, timeout: Duration) -> Duration {
        if self.warmup { timeout * 60 } else { timeout }
    }

    fn once_per_arm(&self) -> bool {
        self.warmup
    }
}

const fn kind(name: &'static str, build: fn(&CheckSpec, Context) -> Box<dyn Check>) -> Kind {
    Kind {
        config: config::Kind {
            name,
            passes_when: "the script says so",
            gates: |_, _| Gates::Startup,
            accept: |_, _| Ok(()),
            schema: |_| schemars::Schema::default(),
            schemes: &[],
            from_url: |_| Err("no such scheme".to_owned()),
            defaults: config::Defaults::COMMON,
        },
        build,
    }
}

fn scripted(spec: &CheckSpec, context: Context, warmup: bool) -> Box<dyn Check> {
    let script = SCRIPTS.with_borrow(|scripts| Rc::clone(&scripts[&spec.name]));
    Box::new(Scripted { script, context: Rc::new(context), warmup })
}

const KINDS: &[Kind] = &[
    kind("probe", |spec, context| scripted(spec, context, false)),
    kind("warmup", |spec, context| scripted(spec, context, true)),
];

/// Says what the check of this name does in each of its runs.
fn script<F: Future<Output = CheckResult> + 'static>(name: &str, run: impl Fn(Rc<Context>) -> F + 'static) {
    let script: Script = Rc::new(move |context| Box::pin(run(context)));
    SCRIPTS.with_borrow_mut(|scripts| scripts.insert(name.to_owned(), script));
}

async fn pass() -> CheckResult {
    Ok(Evidence { summary: "fine".to_owned(), figures: Some(json!({ "answers": 1 })), ..Evidence::default() })
}

async fn fail() -> CheckResult {
    Err(CheckError::Unexpected { message: "not today".to_owned(), figures: None })
}

fn spec(name: &str) -> CheckSpec {
    CheckSpec {
        name: name.to_owned(),
        kind: "probe",
        gates: Gates::Always,
        after: Vec::new(),
        interval: Duration::from_secs(5),
        interval_failing: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        success_threshold: 1,
        failure_threshold: 3,
        own: Own(json!(null)),
    }
}

fn config(checks: Vec<CheckSpec>) -> Arc<Config> {
    Arc::new(Config {
        listeners: Vec::new(),
        admin: Admin {
            listen: ([127, 0, 0, 1], 0).into(),
            stale_after: Duration::from_secs(3),
            hook_token_file: None::<PathBuf>,
        },
        drain: Drain {
            min: Duration::ZERO,
            quiet: Duration::ZERO,
            deadline: Duration::ZERO,
            ready: DrainReady::Fail,
            restart_window: Duration::ZERO,
        },
        checks,
        workers: NonZeroUsize::MIN,
        log: Log { level: "info".to_owned(), format: LogFormat::Auto, access: AccessLog::Off },
    })
}

/// When each run ended, and how.
type Runs = Arc<Mutex<Vec<(String, Duration, RunResult)>>>;

struct House {
    gate: Gate,
    configs: tokio_watch::Sender<Arc<Config>>,
    figures: Figures,
    runs: Runs,
}

impl House {
    fn runs_of(&self, name: &str) -> Vec<(Duration, RunResult)> {
        let runs = self.runs.lock().expect("no panic under the lock");
        runs.iter().filter(|(check, ..)| check == name).map(|(_, at, result)| (*at, *result)).collect()
    }

    fn check(&self, name: &str) -> crate::gate::CheckReport {
        let report = self.gate.view().report();
        report.checks.iter().find(|check| *check.name == *name).cloned().expect("a check of this name")
    }

    fn phase(&self) -> Phase {
        self.gate.view().word().phase()
    }

    /// The app goes away and comes back.
    fn restart_app(&self) {
        for event in [Event::AppRefused { app: 0 }, Event::AppAccepted { app: 0 }] {
            self.gate.apply(event, now());
        }
    }
}

/// Runs `body` beside a supervisor of these checks.
async fn supervised<T>(checks: Vec<CheckSpec>, body: impl AsyncFnOnce(&House) -> T) -> T {
    supervised_with(1, checks, body).await
}

async fn supervised_with<T>(seed: u64, checks: Vec<CheckSpec>, body: impl AsyncFnOnce(&House) -> T) -> T {
    let start = now();
    let beats = Beats::new(0, Duration::from_secs(3), start);
    let gate = Gate::new(rules(&checks), ["app".into()], beats, Box::new(|_, _, _| ()), start);
    gate.apply(Event::AppAccepted { app: 0 }, start);
    let (configs, receiver) = tokio_watch::channel(config(checks));
    let runs = Runs::default();
    let setup = Setup {
        kinds: KINDS,
        gate: gate.clone(),
        targets: Vec::new(),
        warmup_token: "secret".into(),
        traffic: None,
        pokes: Pokes::new(&[]),
        last_answer: None,
        figures: Figures::default(),
        observer: {
            let runs = Arc::clone(&runs);
            Box::new(move |check, news| {
                if let News::Ran(outcome) = news {
                    let at = now().saturating_duration_since(start);
                    runs.lock().expect("no panic under the lock").push((
                        check.to_owned(),
                        at,
                        outcome.result,
                    ));
                }
            })
        },
        seed,
    };
    let house = House { gate, configs, figures: setup.figures.clone(), runs };
    tokio::select! {
        result = body(&house) => result,
        () = run(setup, receiver, std::future::pending()) => unreachable!("nobody stopped it"),
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn gaps(runs: &[(Duration, RunResult)]) -> Vec<Duration> {
    runs.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
}

/// Counts what is open: (now, at most).
struct Open(Rc<Cell<(u32, u32)>>);

impl Open {
    fn new(count: &Rc<Cell<(u32, u32)>>) -> Self {
        let (open, most) = count.get();
        count.set((open + 1, most.max(open + 1)));
        Self(Rc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let (open, most) = self.0.get();
        self.0.set((open - 1, most));
    }
}
