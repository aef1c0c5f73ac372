//! One pod, and what a kubelet does with it: start order, probes, readiness, the order of a deletion.
//!
//! ```text
//!  create   sidecar ─ startupProbe passes ─▶ app ─▶ readiness probes ─▶ Ready = all running and all ready
//!  delete   ┌ app's preStop: sidecar /wait-for-drain ─▶ SIGTERM app ┐
//!           └ sidecar's preStop: its own /drain ────────────────────┴─▶ SIGTERM sidecar ─▶ gone
//! ```
//!
//! A pod has an IP address of its own (127.x.y.z), as in a cluster. Probes go on while the pod terminates.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::container::{Container, Life, Program};
use crate::ports::Ports;
use crate::probe::{Probe, hook};
use crate::progress::Progress;
use crate::rng::Rng;
use crate::scenario::{Scenario, Setting};
use crate::service::{Endpoint, Service};
use crate::sidecar;

/// A pod. Its tasks live in the current `LocalSet` and end with it.
pub struct Pod {
    pub name: String,
    scenario: Scenario,
    ports: Ports,
    created: Instant,
    seed: u64,
    app_program: Program,
    sidecar_program: Program,
    app: RefCell<Option<Rc<Container>>>,
    sidecar: RefCell<Option<Rc<Container>>>,
    status: watch::Sender<Status>,
    changes: Cell<u32>,
    last_refusal: RefCell<String>,
    service: Rc<Service>,
    progress: Rc<Progress>,
}

/// What the control plane sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    app_ready: bool,
    /// Also true where there is no sidecar.
    sidecar_ready: bool,
    terminating: bool,
    gone: bool,
}

impl Status {
    pub fn ready(self) -> bool {
        self.app_ready && self.sidecar_ready
    }
}

impl Pod {
    /// Starts a pod of this name.
    ///
    /// # Errors
    ///
    /// When there is no free port, or no configuration can be written.
    pub fn create(
        name: &str,
        setting: &Setting,
        service: &Rc<Service>,
        progress: &Rc<Progress>,
    ) -> anyhow::Result<Rc<Self>> {
        let ports = Ports::reserve()?;
        let log = |container: &str| setting.directory.join(format!("{name}-{container}.log"));
        let seed = Rng::stream(setting.seed, name).below(1 << 30).to_string();
        let app_words = ["__app".to_owned(), ports.app.to_string(), seed];
        let sidecar_words = sidecar_words(&setting.directory, name, &ports)?;
        let pod = Rc::new(Self {
            name: name.to_owned(),
            scenario: setting.scenario,
            ports,
            created: Instant::now(),
            seed: setting.seed,
            app_program: Program { words: app_words.map(Into::into).into(), log: log("app") },
            sidecar_program: Program { words: sidecar_words, log: log("sidecar") },
            app: RefCell::default(),
            sidecar: RefCell::default(),
            status: watch::Sender::new(Status::default()),
            changes: Cell::new(0),
            last_refusal: RefCell::default(),
            service: Rc::clone(service),
            progress: Rc::clone(progress),
        });
        tokio::task::spawn_local(Rc::clone(&pod).start());
        Ok(pod)
    }

    /// From creation until it is Ready.
    ///
    /// # Errors
    ///
    /// When that takes longer than [`READY_DEADLINE`]; says what the probe last saw.
    pub async fn until_ready(&self) -> anyhow::Result<Duration> {
        let mut status = self.status.subscribe();
        let wait = status.wait_for(|status| status.ready());
        if timeout_at(self.created + READY_DEADLINE, wait).await.is_err() {
            let why = self.last_refusal.borrow();
            anyhow::bail!("pod {} is not ready after {READY_DEADLINE:?}: {}", self.name, why.trim_end());
        }
        Ok(self.created.elapsed())
    }

    pub fn ready(&self) -> bool {
        self.status.borrow().ready()
    }

    /// Kills the app without a word; the kubelet will start it again.
    pub fn crash_app(&self) {
        if let Some(app) = self.app.borrow().as_ref() {
            app.crash();
        }
    }

    /// Where the Service sends the pod's traffic: its targetPort.
    pub fn traffic(&self) -> SocketAddr {
        if self.scenario == Scenario::C { self.ports.traffic } else { self.ports.app }
    }

    async fn start(self: Rc<Self>) {
        if self.scenario == Scenario::C {
            let sidecar = Container::start(self.sidecar_program.clone(), self.rng("sidecar"));
            let life = sidecar.life();
            *self.sidecar.borrow_mut() = Some(Rc::new(sidecar));
            let admin =
                |path| Probe { address: self.ports.admin, path, period: PERIOD, failure_threshold: 1 };
            self.startup(&admin("/startup")).await;
            let report = |status: &mut Status, ready| status.sidecar_ready = ready;
            let readiness = Rc::clone(&self).readiness(life, Some(admin("/ready")), "sidecar", report);
            tokio::task::spawn_local(readiness);
        } else {
            self.update(|status| status.sidecar_ready = true);
        }
        let app = Container::start(self.app_program.clone(), self.rng("app"));
        let life = app.life();
        *self.app.borrow_mut() = Some(Rc::new(app));
        let probe = (self.scenario == Scenario::B).then_some(Probe {
            address: self.ports.app,
            path: "/healthz",
            period: PERIOD,
            failure_threshold: 3,
        });
        self.readiness(life, probe, "app", |status, ready| status.app_ready = ready).await;
    }

    /// A container that fails its startupProbe for long would be killed and started again; here the wait for
    /// readiness then ends the run.
    async fn startup(&self, probe: &Probe) {
        sleep(self.rng("startup phase").between(Duration::ZERO, probe.period)).await;
        while let Err(why) = probe.ask().await {
            *self.last_refusal.borrow_mut() = why;
            sleep(probe.period).await;
        }
    }

    /// Keeps one container's part of the readiness, until it stops for good.
    async fn readiness(
        self: Rc<Self>,
        mut life: watch::Receiver<Life>,
        probe: Option<Probe>,
        container: &str,
        report: impl Fn(&mut Status, bool),
    ) {
        loop {
            let Ok(now) = life.wait_for(|life| *life != Life::Waiting).await.map(|life| *life) else {
                return;
            };
            if now == Life::Stopped {
                return;
            }
            if let Some(probe) = probe {
                tokio::select! {
                    () = self.keep_asking(&probe, container, &report) => {}
                    _ = life.wait_for(|life| *life != now) => {}
                }
            } else {
                self.update(|status| report(status, true));
                let _ = life.wait_for(|life| *life != now).await;
            }
            // The status of a terminating pod hides that a container has ended.
            if !self.status.borrow().terminating {
                self.update(|status| report(status, false));
            }
        }
    }

    /// Probes at a fixed phase, which differs between containers.
    async fn keep_asking(&self, probe: &Probe, container: &str, report: &impl Fn(&mut Status, bool)) {
        let phase = self.rng(&format!("{container} phase")).between(Duration::ZERO, probe.period);
        let mut ticks = tokio::time::interval_at(Instant::now() + phase, probe.period);
        let mut failures = 0;
        loop {
            ticks.tick().await;
            match probe.ask().await {
                Ok(()) => {
                    failures = 0;
                    self.update(|status| report(status, true));
                }
                Err(why) => {
                    failures += 1;
                    *self.last_refusal.borrow_mut() = why;
                    if failures >= probe.failure_threshold {
                        self.update(|status| report(status, false));
                    }
                }
            }
        }
    }

    /// Deletes the pod; returns when it is gone.
    pub async fn delete(self: Rc<Self>) {
        self.update(|status| status.terminating = true);
        let mut rng = self.rng("deletion");
        let kill_at = Instant::now() + GRACE;
        let app = self.app.borrow().clone();
        let sidecar = self.sidecar.borrow().clone();
        sleep(rng.between(NOTICED.0, NOTICED.1)).await;
        if sidecar.is_some() {
            let app_leaves = async {
                self.call_hook("/wait-for-drain", kill_at).await;
                if let Some(app) = &app {
                    app.stop(kill_at).await;
                }
            };
            tokio::join!(app_leaves, self.call_hook("/drain", kill_at));
            sleep(rng.between(NOTICED.0, NOTICED.1)).await;
        } else if let Some(app) = &app {
            app.stop(kill_at).await;
        }
        if let Some(sidecar) = &sidecar {
            sidecar.stop(kill_at).await;
        }
        // The endpoint leaves the Service a little after the last container has ended.
        sleep(rng.between(CLEAN_UP.0, CLEAN_UP.1)).await;
        self.update(|status| status.gone = true);
    }

    /// A hook that fails or is cut by the end of the grace period counts as over.
    async fn call_hook(&self, path: &str, kill_at: Instant) {
        let why = match timeout_at(kill_at, hook(self.ports.admin, path)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer in the grace period of {GRACE:?}"),
        };
        self.progress.event(&format!("{}: preStop {path} failed: {why}", self.name));
    }

    /// Changes the status, and tells the Service if the endpoint changed with it.
    fn update(&self, change: impl FnOnce(&mut Status)) {
        let before = *self.status.borrow();
        self.status.send_modify(change);
        let after = *self.status.borrow();
        if self.endpoint(before) != self.endpoint(after) {
            self.changes.set(self.changes.get() + 1);
            self.service.publish(&self.name, self.changes.get(), self.endpoint(after));
        }
        if before.ready() != after.ready() && !after.terminating {
            let age = self.created.elapsed().as_secs_f64();
            let what = if after.ready() { "Ready" } else { "not Ready" };
            self.progress.event(&format!("{} {what} ({age:.1} s after its creation)", self.name));
        }
    }

    fn endpoint(&self, status: Status) -> Option<Endpoint> {
        let Status { terminating, gone, .. } = status;
        (!gone).then(|| Endpoint { address: self.traffic(), serving: status.ready(), terminating })
    }

    fn rng(&self, purpose: &str) -> Rng {
        Rng::stream(self.seed, &format!("{} {purpose}", self.name))
    }
}

fn sidecar_words(directory: &Path, pod: &str, ports: &Ports) -> anyhow::Result<Vec<std::ffi::OsString>> {
    let config = sidecar::write_config(directory, pod, ports)?;
    Ok(vec!["__sidecar".into(), "run".into(), "--config".into(), config.into()])
}

const PERIOD: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(30);
const READY_DEADLINE: Duration = Duration::from_secs(30);
const NOTICED: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(50));
const CLEAN_UP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
