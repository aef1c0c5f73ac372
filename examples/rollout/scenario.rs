//! One rolling deploy under traffic: warm replicas, a quiet span, the rollout, a span to settle.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::app::WARM_AFTER;
use crate::client::{self, Habits};
use crate::deployment::Deployment;
use crate::pod::Pod;
use crate::probe;
use crate::progress::Progress;
use crate::report::{Outcome, Recorder};
use crate::service::{LONGEST_PROPAGATION, Service};

/// What tells the kubelet that a pod is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    A,
    B,
    C,
}

impl Scenario {
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    pub fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::A => "no probe",
            Self::B => "probe of /healthz",
            Self::C => "readygate",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::A => "(a) no probe: a pod counts as ready when its process was started",
            Self::B => "(b) a liveness probe for readiness: a pod counts as ready when /healthz answers",
            Self::C => "(c) readygate as a native sidecar: a pod is ready when warm-up requests say so",
        }
    }
}

/// What one run of a scenario needs to know.
#[derive(Clone, Debug)]
pub struct Setting {
    pub scenario: Scenario,
    pub seed: u64,
    /// One app is killed in the middle.
    pub crash: bool,
    /// For configuration and logs.
    pub directory: PathBuf,
}

/// Runs the scenario.
///
/// # Errors
///
/// When it could not be played to its end; failed requests are no error.
pub async fn run(setting: Setting) -> anyhow::Result<Outcome> {
    let progress = Progress::start(setting.scenario.title());
    let service = Rc::new(Service::new(setting.seed, NODES));
    let recorder = Rc::new(Recorder::default());
    progress.step("first start");
    let deployment = Deployment::create(&setting, &service, &progress)?;
    deployment.until_ready().await?;
    if setting.scenario != Scenario::C {
        // These pods stand for some that have been up for days. Those of (c) have warmed up by themselves.
        let pods = deployment.pods.borrow().clone();
        let mut warm_ups = JoinSet::new();
        for pod in pods {
            warm_ups.spawn_local(async move { warm_up(&pod).await });
        }
        warm_ups.join_all().await;
    }
    sleep(LONGEST_PROPAGATION).await;
    let habits = Habits {
        // A POST at the app in the instant of its crash is lost whatever anyone does: nobody may send it again.
        posts: !setting.crash,
        complain: setting.scenario == Scenario::C,
    };
    client::start_all(setting.seed, habits, &service, &recorder, &progress);
    let outcome = async {
        progress.step("before the rollout");
        let start = Instant::now();
        sleep(BEFORE).await;
        let rollout = Instant::now();
        let before = recorder.figures(start, rollout);
        let (times_to_ready, ()) =
            tokio::try_join!(deployment.roll(), crash(&setting, &deployment, &progress))?;
        progress.step("settling");
        sleep(SETTLE).await;
        let end = Instant::now();
        until_answered(&recorder, end).await?;
        let during = recorder.figures(rollout, end);
        anyhow::Ok(Outcome { scenario: setting.scenario, before, during, times_to_ready })
    };
    tokio::select! {
        outcome = outcome => outcome,
        () = progress.watch(&deployment, &recorder) => bail!("the display ended"),
    }
}

/// Sends requests until the app is warm.
async fn warm_up(pod: &Pod) {
    let mut served = 0;
    while served < WARM_AFTER + 20 {
        let mut burst = JoinSet::new();
        for _ in 0..8 {
            let address = pod.traffic();
            burst.spawn_local(async move { probe::get(address, "/api/items", "warm-up").await });
        }
        let answered = |answer: &anyhow::Result<(http::StatusCode, String)>| {
            answer.as_ref().is_ok_and(|(status, _)| *status != http::StatusCode::SERVICE_UNAVAILABLE)
        };
        match burst.join_all().await.into_iter().filter(answered).count() {
            0 => sleep(Duration::from_millis(50)).await,
            count => served += count as u32,
        }
    }
}

/// Kills the app of the old pod that is deleted last, a second after the first one was.
async fn crash(setting: &Setting, deployment: &Deployment, progress: &Progress) -> anyhow::Result<()> {
    if !setting.crash {
        return Ok(());
    }
    let first = deployment.first_name();
    while deployment.first_name() == first {
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_secs(1)).await;
    let pod = deployment.last_old().ok_or_else(|| anyhow::anyhow!("no old pod is left to crash"))?;
    progress.event(&format!("{}: app killed with SIGKILL", pod.name));
    pod.crash_app();
    Ok(())
}

/// Waits for the answers of requests that began before `end`; clients give up after 5 s.
async fn until_answered(recorder: &Recorder, end: Instant) -> anyhow::Result<()> {
    while recorder.waits_since_before(end) {
        if end.elapsed() > Duration::from_secs(10) {
            bail!("a request is neither answered nor given up");
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

const NODES: usize = 3;
const BEFORE: Duration = Duration::from_secs(6);
/// The last changes reach the last node, and cold pods have a chance to warm up under traffic.
const SETTLE: Duration = Duration::from_secs(5);
