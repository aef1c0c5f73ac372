//! Guards at work: whole supervisors with real gates, on paused time, over a network with delays and losses.

mod names;

use std::net::SocketAddr;

use super::*;
use crate::admin::guard_answer;
use crate::config::{Guard, MinReady, PeerAddress, Peers as Addresses};
use crate::gate::{GateView, Report};
use crate::guard::Answer;
use crate::supervisor::guard::Local;
use crate::supervisor::jitter::Jitter;

/// A Service's pods, the network between them, and the dependency that they share.
struct Cluster {
    pods: RefCell<Vec<Pod>>,
    dice: RefCell<Jitter>,
    /// Whether the dependency is up.
    up: Cell<bool>,
    /// One way of a question or an answer takes at most this.
    delay: Cell<Duration>,
    /// The share of questions, and of answers, that are lost.
    loss: Cell<f64>,
    directory: Cell<Directory>,
    /// `failure_threshold` of the pods that start from now on.
    threshold: Cell<u32>,
    ready: Arc<Mutex<Ready>>,
}

struct Pod {
    view: GateView,
    gate: Gate,
    configs: tokio_watch::Sender<Arc<Config>>,
    /// Whether its own way to the dependency works.
    path: Rc<Cell<bool>>,
    /// Whether peers reach it.
    reachable: Cell<bool>,
}

/// Whom the name of the peers lists.
#[derive(Clone, Copy, PartialEq)]
enum Directory {
    All,
    Ready,
    /// It does not resolve.
    Broken,
}

/// Kept by the gates' observers, at each event.
#[derive(Default)]
struct Ready {
    now: std::collections::BTreeSet<usize>,
    least: usize,
}

thread_local! {
    static CLUSTER: RefCell<Option<Rc<Cluster>>> = const { RefCell::new(None) };
}

fn cluster() -> Rc<Cluster> {
    CLUSTER.with_borrow(|cluster| Rc::clone(cluster.as_ref().expect("a cluster")))
}

/// The network of one pod.
#[derive(Debug)]
struct Net;

impl Network for Net {
    fn find<'a>(&'a self, _: &'a PeerAddress) -> Local<'a, std::io::Result<Vec<SocketAddr>>> {
        Box::pin(async {
            let cluster = cluster();
            let directory = cluster.directory.get();
            if directory == Directory::Broken {
                return Err(std::io::Error::other("no such name"));
            }
            let pods = 0..cluster.pods.borrow().len();
            let listed = pods.filter(|pod| directory == Directory::All || cluster.is_ready(*pod));
            Ok(listed.map(|pod| ([10, 0, 0, 1], 1000 + pod as u16).into()).collect())
        })
    }

    fn ask<'a>(&'a self, address: SocketAddr, check: &'a str) -> Local<'a, Option<Answer>> {
        Box::pin(async move {
            let cluster = cluster();
            let pod = usize::from(address.port() - 1000);
            cluster.travel().await;
            let answer = {
                let pods = cluster.pods.borrow();
                let pod_is = pods.get(pod).filter(|pod| pod.reachable.get());
                pod_is.map(|is| guard_answer(&is.view, &pod.to_string(), check, now()))
            };
            cluster.travel().await;
            match answer {
                Some(answer) => Some(answer),
                None => std::future::pending().await,
            }
        })
    }
}

impl Cluster {
    /// One way through the network; what is lost never arrives.
    async fn travel(&self) {
        let (delay, lost) = {
            let mut dice = self.dice.borrow_mut();
            (dice.below(self.delay.get()), dice.below(secs(1)) < secs(1).mul_f64(self.loss.get()))
        };
        if lost {
            std::future::pending::<()>().await;
        }
        sleep(delay).await;
    }

    fn ready(&self) -> usize {
        self.ready.lock().expect("no panic under the lock").now.len()
    }

    fn is_ready(&self, pod: usize) -> bool {
        self.pods.borrow()[pod].view.word().is_ready()
    }

    /// The fewest that were ready at any moment since the last call.
    fn least(&self) -> usize {
        let mut ready = self.ready.lock().expect("no panic under the lock");
        let now = ready.now.len();
        std::mem::replace(&mut ready.least, now)
    }

    fn guarded(&self) -> usize {
        let excused = |report: &Report| {
            report.checks.iter().any(|check| check.excuse.as_ref().is_some_and(|excuse| excuse.guarded))
        };
        self.pods.borrow().iter().filter(|pod| excused(&pod.view.report())).count()
    }

    fn path(&self, pod: usize, works: bool) {
        self.pods.borrow()[pod].path.set(works);
    }

    async fn until(&self, what: &str, longest: Duration, holds: impl Fn(&Self) -> bool) {
        let before = now();
        while !holds(self) {
            assert!(now() - before < longest, "not within {longest:?}: {what}; {} ready", self.ready());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts a pod with a guarded check `db`; its supervisor is a task of this thread.
    fn start(self: &Rc<Self>, seed: u64, min_ready: MinReady) -> usize {
        let number = self.pods.borrow().len();
        let path = Rc::new(Cell::new(true));
        let name = "db";
        let peers = vec![PeerAddress { host: "pods".to_owned(), port: 8801 }];
        let guard = Some(Guard { peers: Addresses(peers), min_ready });
        let failure_threshold = self.threshold.get();
        let db =
            CheckSpec { guard, own: Own(json!(number)), kind: "shared", failure_threshold, ..spec(name) };
        let ready = Arc::clone(&self.ready);
        let observer = move |_: &Event, _: Option<&crate::gate::Transition>, report: &Report| {
            let mut ready = ready.lock().expect("no panic under the lock");
            if report.ready {
                ready.now.insert(number);
            } else {
                ready.now.remove(&number);
            }
            ready.least = ready.least.min(ready.now.len());
        };
        let start = now();
        let beats = Beats::new(0, secs(3), start);
        let checks = vec![db];
        let gate = Gate::new(rules(&checks), ["app".into()], beats, Box::new(observer), start);
        gate.apply(Event::AppAccepted { app: 0 }, start);
        let (configs, receiver) = tokio_watch::channel(config(checks));
        let setup = Setup {
            kinds: SHARED,
            gate: gate.clone(),
            targets: Vec::new(),
            warmup_token: "secret".into(),
            traffic: None,
            pokes: Pokes::new(&[]),
            last_answer: None,
            network: Box::new(Net),
            instance: number.to_string().into(),
            figures: Figures::default(),
            looks: Figures::default(),
            observer: Box::new(|_, _| ()),
            seed: seed ^ (number as u64) << 32,
        };
        self.pods.borrow_mut().push(Pod {
            view: gate.view(),
            gate,
            configs,
            path,
            reachable: Cell::new(true),
        });
        spawn_local(run(setup, receiver, std::future::pending()));
        number
    }
}

/// Passes while the dependency is up and the pod's path to it works; the pod's number is its only key.
struct Database(usize);

impl Check for Database {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(async {
            let cluster = cluster();
            let works = cluster.up.get() && cluster.pods.borrow()[self.0].path.get();
            // A connect that is refused, or an answer.
            sleep(Duration::from_millis(2)).await;
            if works { pass().await } else { fail().await }
        })
    }

    fn tests(&self) -> String {
        "asks the dependency".to_owned()
    }
}

const SHARED: &[Kind] =
    &[kind("shared", |spec, _| Box::new(Database(spec.own.0.as_u64().expect("a pod's number") as usize)))];

/// Runs `body` in a cluster of that many ready pods.
fn clustered<T>(seed: u64, pods: usize, min_ready: MinReady, body: impl AsyncFnOnce(&Rc<Cluster>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let local = LocalSet::new();
    let result = local.block_on(&runtime.expect("a runtime"), async {
        let cluster = Rc::new(Cluster {
            pods: RefCell::default(),
            dice: RefCell::new(Jitter::new(seed, "network")),
            up: Cell::new(true),
            delay: Cell::new(Duration::from_millis(50)),
            loss: Cell::new(0.0),
            directory: Cell::new(Directory::All),
            threshold: Cell::new(3),
            ready: Arc::default(),
        });
        CLUSTER.set(Some(Rc::clone(&cluster)));
        for _ in 0..pods {
            cluster.start(seed, min_ready);
        }
        cluster.until("all pods are ready", secs(30), |cluster| cluster.ready() == pods).await;
        cluster.least();
        body(&cluster).await
    });
    CLUSTER.take();
    result
}

const HALF: MinReady = MinReady::Share(0.5);

/// 50 pods, half of them wanted: the shared dependency dies and comes back 20 times, after spans of all lengths.
/// Answers are delayed and lost. Returns the fewest that were ever ready.
fn twenty_deaths(seed: u64) -> usize {
    clustered(seed, 50, HALF, async |cluster| {
        let mut dice = Jitter::new(seed, "deaths");
        for death in 0..20 {
            cluster.loss.set([0.0, 0.02, 0.1, 0.3][death % 4]);
            cluster.delay.set(Duration::from_millis([5, 50, 400][death % 3]));
            // Now and then a pod's own path breaks, too.
            let broken = dice.index(50);
            cluster.path(broken, death % 3 == 0);
            sleep(dice.below(secs(20))).await;
            cluster.up.set(false);
            // Some spans end while pods decide, some long after.
            sleep(secs(3) + dice.below(secs(if death % 2 == 0 { 60 } else { 15 }))).await;
            cluster.up.set(true);
            sleep(dice.below(secs(12))).await;
            cluster.path(broken, true);
        }
        cluster.loss.set(0.0);
        let whole = |cluster: &Cluster| cluster.ready() == 50 && cluster.guarded() == 0;
        cluster.until("all are back", secs(60), whole).await;
        cluster.least()
    })
}

#[test]
fn ready_pods_never_fall_below_the_floor_while_a_shared_dependency_dies_and_comes_back() {
    let fewest: Vec<usize> = (1..=seeds()).map(twenty_deaths).collect();
    println!("the fewest ready of 50, by seed: {fewest:?}");
    assert!(fewest.iter().all(|fewest| *fewest >= 25), "{fewest:?}");
    // Pods do leave: a guard that keeps everybody would hold the floor, too.
    assert!(fewest.iter().all(|fewest| *fewest < 40), "{fewest:?}");
}

/// `GUARD_SEEDS=100 cargo test --lib guard` takes longer and shows more.
fn seeds() -> u64 {
    std::env::var("GUARD_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3)
}

#[test]
fn pod_whose_own_path_breaks_leaves_and_comes_back() {
    clustered(7, 50, HALF, async |cluster| {
        cluster.path(13, false);
        // Three intervals to the threshold, a random second, two looks.
        cluster.until("it has left", secs(18), |cluster| !cluster.is_ready(13)).await;
        sleep(secs(60)).await;
        assert_eq!((cluster.least(), cluster.guarded()), (49, 0), "it alone");
        cluster.path(13, true);
        cluster.until("it is back", secs(3), |cluster| cluster.is_ready(13)).await;
    });
}

#[test]
fn pod_with_a_fault_of_its_own_leaves_once_its_peers_have_recovered() {
    clustered(8, 10, HALF, async |cluster| {
        cluster.up.set(false);
        cluster.until("the floor is reached", secs(60), |cluster| cluster.ready() == 5).await;
        let guarded = (0..10).find(|pod| cluster.is_ready(*pod)).expect("five are ready");
        cluster.path(guarded, false);
        sleep(secs(30)).await;
        assert!(cluster.is_ready(guarded) && cluster.guarded() == 5);
        cluster.up.set(true);
        cluster
            .until("the nine others are ready", secs(30), |cluster| {
                !cluster.is_ready(guarded) && cluster.ready() == 9
            })
            .await;
        assert_eq!((cluster.least(), cluster.guarded()), (5, 0));
    });
}

#[test]
fn fresh_pods_wait_for_the_dependency() {
    clustered(9, 10, HALF, async |cluster| {
        cluster.up.set(false);
        let fresh = cluster.start(9, HALF);
        sleep(secs(120)).await;
        assert!(!cluster.is_ready(fresh));
        // So does a pod whose app comes back meanwhile.
        let guarded = (0..10).find(|pod| cluster.is_ready(*pod)).expect("some are ready");
        for event in [Event::AppRefused { app: 0 }, Event::AppAccepted { app: 0 }] {
            cluster.pods.borrow()[guarded].gate.apply(event, now());
        }
        sleep(secs(60)).await;
        assert!(!cluster.is_ready(guarded));
        cluster.up.set(true);
        cluster.until("all are ready", secs(10), |cluster| cluster.ready() == 11).await;
    });
}

#[test]
fn pods_that_start_count_for_nothing_and_one_with_its_own_fault_leaves_below_the_floor() {
    // 4 of 6 are ready, and 4 are wanted: without one of them there are 3.
    clustered(10, 6, MinReady::Pods(std::num::NonZeroU32::MIN.saturating_add(3)), async |cluster| {
        for pod in [4, 5] {
            cluster.path(pod, false);
        }
        cluster.until("two have left", secs(20), |cluster| cluster.ready() == 4).await;
        for pod in [4, 5] {
            cluster.path(pod, true);
            // Alive, ready for the dependency, and not ready for another reason.
            cluster.pods.borrow()[pod].gate.apply(Event::AppStopping, now());
        }
        sleep(secs(10)).await;
        cluster.path(0, false);
        // Not before each of the others has run the check again: that may take an interval.
        cluster.until("it has left", secs(40), |cluster| !cluster.is_ready(0)).await;
        cluster.least();
        // The dependency dies: nobody else may go.
        cluster.up.set(false);
        sleep(secs(120)).await;
        assert_eq!(cluster.least(), 3);
    });
}

#[test]
fn shared_fault_is_not_taken_for_ones_own_by_those_that_notice_it_first() {
    for seed in 0..20 {
        clustered(seed, 0, HALF, async |cluster| {
            // One failure is enough: the first pod asks seconds before the last one runs its check.
            cluster.threshold.set(1);
            for _ in 0..6 {
                cluster.start(seed, MinReady::Share(1.0));
            }
            cluster.until("all are ready", secs(5), |cluster| cluster.ready() == 6).await;
            cluster.least();
            cluster.up.set(false);
            sleep(secs(60)).await;
            assert_eq!(cluster.least(), 6, "seed {seed}");
        });
    }
}

#[test]
fn peers_that_do_not_answer_keep_a_pod_and_are_asked_again() {
    clustered(11, 4, HALF, async |cluster| {
        let reach = |reachable| {
            for pod in 0..3 {
                cluster.pods.borrow()[pod].reachable.set(reachable);
            }
        };
        reach(false);
        cluster.path(3, false);
        sleep(secs(60)).await;
        assert!(cluster.is_ready(3) && cluster.guarded() == 1);
        let report = cluster.pods.borrow()[3].view.report();
        let line = &report.checks[0].excuse.as_ref().expect("an excuse").line;
        assert_eq!(line, "0 of 3 peers would remain ready; 3 silent; at least 2 of 4 pods wanted");
        reach(true);
        cluster.until("it has left", secs(15), |cluster| !cluster.is_ready(3)).await;
    });
}

#[test]
fn drain_and_an_app_that_refuses_win_over_the_guard() {
    clustered(12, 4, MinReady::Share(1.0), async |cluster| {
        cluster.up.set(false);
        cluster.until("all are guarded", secs(30), |cluster| cluster.guarded() == 4).await;
        let apply = |pod: usize, event| cluster.pods.borrow()[pod].gate.apply(event, now());
        apply(0, Event::AppRefused { app: 0 });
        apply(1, Event::DrainStarted { hold_ready: false });
        assert_eq!([0, 1, 2].map(|pod| cluster.is_ready(pod)), [false, false, true]);
        sleep(secs(60)).await;
        assert_eq!(cluster.ready(), 2);
    });
}

#[test]
fn reload_takes_a_guard_and_gives_it() {
    clustered(13, 4, MinReady::Share(1.0), async |cluster| {
        cluster.up.set(false);
        cluster.until("all are guarded", secs(30), |cluster| cluster.guarded() == 4).await;
        let configure = |guard| {
            let pods = cluster.pods.borrow();
            let db = CheckSpec { guard, own: Own(json!(0)), kind: "shared", ..spec("db") };
            pods[0].configs.send_replace(config(vec![db]));
        };
        let peers = Addresses(vec![PeerAddress { host: "pods".to_owned(), port: 8801 }]);
        configure(Some(Guard { peers, min_ready: MinReady::Share(0.5) }));
        cluster.until("it may go now", secs(30), |cluster| !cluster.is_ready(0)).await;
        cluster.up.set(true);
        cluster.until("all are back", secs(10), |cluster| cluster.ready() == 4).await;
        configure(None);
        cluster.up.set(false);
        cluster.until("nobody asks any more", secs(10), |cluster| !cluster.is_ready(0)).await;
        assert_eq!(cluster.ready(), 3);
    });
}
