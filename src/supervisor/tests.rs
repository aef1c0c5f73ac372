//! The schedule on paused time, with scripted checks and a real gate.

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
    Ok(Evidence { summary: "fine".to_owned(), figures: Some(json!({ "answers": 1 })) })
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

#[tokio::test(start_paused = true)]
async fn passing_check_runs_every_interval_within_jitter() {
    script("db", |_| pass());
    supervised(vec![spec("db")], async |house| {
        sleep(secs(300)).await;
        let runs = house.runs_of("db");
        assert!((54..=67).contains(&runs.len()), "{} runs", runs.len());
        assert_eq!(runs[0].0, Duration::ZERO, "the first run waits for nothing");
        for gap in gaps(&runs) {
            assert!((4500..=5502).contains(&gap.as_millis()), "{gap:?}");
        }
        assert_eq!(house.phase(), Phase::Ready);
        assert_eq!(house.figures.of("db"), Some(json!({ "answers": 1 })));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn check_that_does_not_pass_runs_every_failing_interval() {
    script("db", |_| fail());
    supervised(vec![spec("db")], async |house| {
        sleep(secs(60)).await;
        let runs = house.runs_of("db");
        assert!(runs.len() > 50, "{} runs", runs.len());
        for gap in gaps(&runs) {
            assert!((900..=1102).contains(&gap.as_millis()), "{gap:?}");
        }
        let check = house.check("db");
        assert_eq!((check.standing, check.line.as_str()), (Standing::Failing, "not today"));
        assert_eq!(house.gate.view().report().reasons, ["db: not today"]);
        assert_eq!(house.figures.of("db"), None);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn always_check_that_breaks_closes_the_gate_within_interval_times_threshold() {
    let broken = Rc::new(Cell::new(false));
    let seen = Rc::clone(&broken);
    script("health", move |_| {
        let broken = seen.get();
        async move { if broken { fail().await } else { pass().await } }
    });
    supervised(vec![spec("health")], async |house| {
        sleep(secs(12)).await;
        assert_eq!(house.phase(), Phase::Ready);
        broken.set(true);
        let mut words = house.gate.view().subscribe();
        let before = now();
        words.wait_for(|word| !word.is_ready()).await.expect("the gate lives");
        let took = now() - before;
        assert!(took <= Duration::from_millis(16_500), "{took:?}");
        assert_eq!(house.check("health").row, (false, 3));
        broken.set(false);
        let before = now();
        words.wait_for(|word| word.is_ready()).await.expect("the gate lives");
        assert!(now() - before <= Duration::from_millis(1_102));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn check_waits_until_those_it_comes_after_have_passed() {
    let runs = Rc::new(Cell::new(0));
    let seen = Rc::clone(&runs);
    script("db", move |_| {
        seen.set(seen.get() + 1);
        let passes = seen.get() > 5;
        async move { if passes { pass().await } else { fail().await } }
    });
    script("file", |_| async {
        sleep(Duration::from_millis(700)).await;
        pass().await
    });
    script("warm", |_| pass());
    let warm = CheckSpec { after: vec!["db".to_owned(), "file".to_owned()], kind: "warmup", ..spec("warm") };
    supervised(vec![warm, spec("db"), spec("file")], async |house| {
        sleep(secs(2)).await;
        assert_eq!(house.runs_of("warm"), []);
        sleep(secs(10)).await;
        let passed = house.runs_of("db").iter().find(|run| run.1 == RunResult::Passed).copied();
        let warmed = house.runs_of("warm")[0];
        assert_eq!(Some(warmed.0), passed.map(|run| run.0), "at once, not at the next tick");
        assert_eq!(house.phase(), Phase::Ready);
        house.restart_app();
        sleep(Duration::from_millis(600)).await;
        assert_eq!(house.runs_of("warm").len(), 1, "a pass of the arm before does not count");
        sleep(Duration::from_millis(200)).await;
        assert_eq!(house.runs_of("warm").len(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn check_after_one_that_never_passes_never_runs() {
    script("db", |_| fail());
    script("warm", |_| pass());
    let warm = CheckSpec { after: vec!["db".to_owned()], ..spec("warm") };
    // Configuration refuses cycles; were one to come through, nothing runs, and nothing spins.
    script("loop", |_| pass());
    let cycle = CheckSpec { after: vec!["loop".to_owned()], ..spec("loop") };
    supervised(vec![spec("db"), warm, cycle], async |house| {
        sleep(secs(60)).await;
        assert_eq!((house.runs_of("warm"), house.runs_of("loop")), (Vec::new(), Vec::new()));
        assert!(house.gate.view().report().reasons.contains(&"warm: has not run yet".to_owned()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn hung_check_times_out_and_delays_no_other() {
    let sockets = Rc::new(Cell::new((0, 0)));
    let seen = Rc::clone(&sockets);
    script("hung", move |_| {
        let seen = Rc::clone(&seen);
        async move {
            let _open = Open::new(&seen);
            std::future::pending().await
        }
    });
    script("other", |_| pass());
    let hung = CheckSpec { failure_threshold: 1, ..spec("hung") };
    supervised(vec![hung, spec("other")], async |house| {
        sleep(secs(61)).await;
        let runs = house.runs_of("hung");
        assert!(runs.iter().all(|run| run.1 == RunResult::TimedOut));
        for gap in gaps(&runs) {
            assert!((1900..=2103).contains(&gap.as_millis()), "timeout and interval_failing, not {gap:?}");
        }
        assert_eq!(house.check("hung").line, "no answer within 1s");
        for gap in gaps(&house.runs_of("other")) {
            assert!((4500..=5502).contains(&gap.as_millis()), "{gap:?}");
        }
        assert_eq!(sockets.get().1, 1, "never more than one probe at once");
    })
    .await;
}

/// S8: an app that accepts and never answers is not ready within timeout + interval.
#[tokio::test(start_paused = true)]
async fn app_that_stops_answering_is_out_within_timeout_and_interval() {
    let hangs = Rc::new(Cell::new(false));
    let seen = Rc::clone(&hangs);
    script("health", move |_| {
        let hangs = seen.get();
        async move { if hangs { std::future::pending().await } else { pass().await } }
    });
    let health = CheckSpec { failure_threshold: 1, interval: secs(2), ..spec("health") };
    supervised(vec![health], async |house| {
        sleep(secs(7)).await;
        hangs.set(true);
        let before = now();
        let mut words = house.gate.view().subscribe();
        words.wait_for(|word| !word.is_ready()).await.expect("the gate lives");
        assert!(now() - before <= Duration::from_millis(3_202), "{:?}", now() - before);
    })
    .await;
}

/// S7: a dependency that flaps faster than the threshold's window moves the gate at most once a window.
#[tokio::test(start_paused = true)]
async fn flapping_dependency_moves_the_gate_at_most_once_a_threshold_window() {
    let mut left = 0;
    for seed in 0..100 {
        let start = now();
        script("db", move |_| async move {
            // 5 Hz: a tenth of a second up, a tenth down.
            let up = ((now() - start).as_millis() / 100).is_multiple_of(2);
            if up { pass().await } else { fail().await }
        });
        let db = CheckSpec { interval: secs(1), interval_failing: Duration::from_millis(500), ..spec("db") };
        supervised_with(seed, vec![db], async |house| {
            sleep(secs(30)).await;
            let results = house.runs_of("db");
            assert!(results.iter().any(|run| run.1 == RunResult::Passed));
            assert!(results.iter().any(|run| run.1 == RunResult::Failed));
            let report = house.gate.view().report();
            let closings: Vec<_> = report
                .transitions
                .iter()
                .filter(|(_, t)| t.to == Phase::Failing)
                .map(|(_, t)| t.at)
                .collect();
            left += closings.len();
            for pair in closings.windows(2) {
                // Three failures in a row while passing: two pauses between them, and the pass before.
                assert!(pair[1] - pair[0] >= Duration::from_millis(2_700), "{:?}", pair[1] - pair[0]);
            }
        })
        .await;
    }
    assert!(left > 0, "no seed ever closed the gate: the test shows nothing");
}

#[tokio::test(start_paused = true)]
async fn new_arm_drops_the_run_that_goes_on_and_starts_all_again() {
    let sockets = Rc::new(Cell::new((0, 0)));
    let begun = Rc::new(Cell::new(0));
    let (seen, count) = (Rc::clone(&sockets), Rc::clone(&begun));
    script("warm", move |context| {
        let seen = Rc::clone(&seen);
        count.set(count.get() + 1);
        async move {
            let _open = Open::new(&seen);
            sleep(secs(3)).await;
            (context.report)(Report::Progress("half of it".to_owned()));
            sleep(secs(3)).await;
            pass().await
        }
    });
    script("db", |_| pass());
    let warm = CheckSpec { kind: "warmup", gates: Gates::Startup, ..spec("warm") };
    supervised(vec![warm, spec("db")], async |house| {
        sleep(secs(4)).await;
        assert_eq!(house.check("warm").line, "half of it");
        let asked = house.runs_of("db").len();
        house.restart_app();
        sleep(Duration::from_millis(1)).await;
        assert_eq!((begun.get(), sockets.get()), (2, (1, 1)), "one run, and it is a new one");
        assert_eq!(house.runs_of("db").len(), asked + 1, "the others start again, too");
        sleep(secs(4)).await;
        assert_ne!(house.phase(), Phase::Ready, "the run before the restart would have passed by now");
        sleep(secs(3)).await;
        assert_eq!(house.phase(), Phase::Ready);
        sleep(secs(600)).await;
        assert_eq!(begun.get(), 2, "a warm-up that passed rests until the next arm");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn checks_that_only_report_and_passed_startup_checks_go_on_running() {
    script("start", |_| pass());
    script("look", |_| fail());
    let specs = vec![
        CheckSpec { gates: Gates::Startup, ..spec("start") },
        CheckSpec { gates: Gates::Never, ..spec("look") },
    ];
    supervised(specs, async |house| {
        sleep(secs(60)).await;
        assert_eq!(house.phase(), Phase::Ready);
        assert!(house.runs_of("start").len() > 9);
        assert!(house.runs_of("look").len() > 50);
    })
    .await;
}

/// S38.
#[tokio::test(start_paused = true)]
async fn panic_in_a_check_is_a_failed_run_and_nothing_more() {
    script("bad", |_| async { panic!("index\nout of bounds") });
    script("good", |_| pass());
    supervised(vec![spec("bad"), spec("good")], async |house| {
        sleep(secs(30)).await;
        assert!(house.runs_of("bad").len() > 20);
        assert!(house.runs_of("bad").iter().all(|run| run.1 == RunResult::Panicked));
        let check = house.check("bad");
        assert_eq!(
            (check.standing, check.line.as_str()),
            (Standing::Failing, "the check panicked: index out of bounds")
        );
        assert!(house.runs_of("good").len() > 4);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn line_of_a_result_is_one_short_line() {
    script("loud", |_| async {
        let message = format!("\x1b[31mred\r\n{}\u{85}end", "é".repeat(2000));
        Err(CheckError::Unexpected { message, figures: None })
    });
    supervised(vec![spec("loud")], async |house| {
        sleep(Duration::from_millis(1)).await;
        let line = house.check("loud").line;
        assert!(line.starts_with("[31mred  éé") && line.ends_with("é…"), "{line}");
        assert!(line.len() <= 1024 && !line.chars().any(char::is_control));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn skipped_run_counts_neither_way() {
    script("warm", |_| async { Err(CheckError::Skipped { reason: "no listener".to_owned() }) });
    supervised(vec![spec("warm")], async |house| {
        sleep(secs(10)).await;
        let check = house.check("warm");
        assert_eq!((check.standing, check.runs), (Standing::Unknown, 0));
        assert_eq!(check.line, "not run: no listener");
        assert_eq!(house.runs_of("warm")[0].1, RunResult::Skipped);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn reload_starts_ends_and_restarts_only_what_changed() {
    let begun: Rc<RefCell<HashMap<String, u32>>> = Rc::default();
    let sockets = Rc::new(Cell::new((0, 0)));
    for name in ["kept", "changed", "gone", "new"] {
        let (begun, sockets) = (Rc::clone(&begun), Rc::clone(&sockets));
        script(name, move |_| {
            *begun.borrow_mut().entry(name.to_owned()).or_default() += 1;
            let sockets = Rc::clone(&sockets);
            async move {
                let _open = Open::new(&sockets);
                sleep(secs(20)).await;
                pass().await
            }
        });
    }
    let long = |name| CheckSpec { kind: "warmup", timeout: secs(10), ..spec(name) };
    supervised(vec![long("kept"), long("changed"), long("gone")], async |house| {
        sleep(secs(10)).await;
        let changed = CheckSpec { own: Own(json!("other")), ..long("changed") };
        house.configs.send_replace(config(vec![long("kept"), changed, long("new")]));
        sleep(secs(1)).await;
        let count = |name: &str| begun.borrow().get(name).copied();
        assert_eq!(
            (count("kept"), count("changed"), count("gone"), count("new")),
            (Some(1), Some(2), Some(1), Some(1))
        );
        assert_eq!(sockets.get().0, 3, "the run of the check that is gone was dropped");
        let report = house.gate.view().report();
        let names: Vec<_> = report.checks.iter().map(|check| check.name.to_string()).collect();
        assert_eq!(names, ["kept", "changed", "new"]);
        sleep(secs(10)).await;
        assert!(house.check("kept").passed && !house.check("changed").passed);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn reload_of_a_schedule_keeps_the_evidence() {
    script("db", |_| fail());
    supervised(vec![spec("db")], async |house| {
        sleep(secs(10)).await;
        assert_eq!(house.check("db").standing, Standing::Failing);
        house.configs.send_replace(config(vec![CheckSpec { interval_failing: secs(3), ..spec("db") }]));
        sleep(Duration::from_millis(1)).await;
        assert_eq!(house.check("db").standing, Standing::Failing, "what it saw is still true");
        let before = house.runs_of("db").len();
        sleep(secs(9)).await;
        let runs = house.runs_of("db").len() - before;
        assert!((2..=3).contains(&runs), "{runs} runs");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn stop_drops_every_run() {
    let sockets = Rc::new(Cell::new((0, 0)));
    let seen = Rc::clone(&sockets);
    script("hung", move |_| {
        let seen = Rc::clone(&seen);
        async move {
            let _open = Open::new(&seen);
            std::future::pending().await
        }
    });
    supervised(vec![spec("hung")], async |_| {
        sleep(Duration::from_millis(500)).await;
        assert_eq!(sockets.get().0, 1);
    })
    .await;
    assert_eq!(sockets.get().0, 0);
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
