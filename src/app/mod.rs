//! Builds every part, puts it on its thread, and runs the shutdown in order.
//!
//! ```text
//!  thread data-0…n   proxy::Worker: clients' requests
//!  thread checks     supervisor: checks, the watch over the app's port
//!  this thread       admin server, signals, drain, reload, upkeep of metrics
//! ```
//!
//! The only module that names all the others. What one part tells another goes through the closures of
//! `wiring`.

mod certificates;
mod descriptors;
mod reload;
mod wiring;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::task::LocalSet;

use crate::admin;
use crate::check::{KINDS, Target};
use crate::config::{Loaded, Sources};
use crate::drain::{Call, Drain};
use crate::gate::{Beats, Gate};
use crate::metrics::Metrics;
use crate::proxy::{self, Order, Proxy};
use crate::signals::Signals;
use crate::supervisor::{self, Figures, Peers, Pokes};
use crate::telemetry::Telemetry;
use crate::traffic::Traffic;

use self::certificates::Certificates;
use self::descriptors::Descriptors;

/// Why the sidecar ended other than by a drain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port cannot be had.
    #[error(transparent)]
    Bind(#[from] proxy::BindError),
    #[error("admin.listen: cannot bind {address}: {source}")]
    BindAdmin { address: SocketAddr, source: io::Error },
    /// The system gave no thread, runtime or descriptor.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    /// A thread that must not end did.
    #[error("{thread} ended: {reason}")]
    Thread { thread: String, reason: String },
}

/// Runs the sidecar until it has drained and was told to end.
///
/// # Errors
///
/// A port that cannot be had, or a fault of the system or ours. None passes by itself.
pub fn run(sources: Sources, loaded: Loaded, telemetry: Telemetry) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = LocalSet::new().block_on(&runtime, serve(sources, loaded, telemetry));
    runtime.shutdown_background();
    ended
}

async fn serve(sources: Sources, loaded: Loaded, telemetry: Telemetry) -> Result<(), Error> {
    let started = Instant::now();
    let mut signals = Signals::listen()?;
    let Loaded { config, files, .. } = loaded;
    let last = Ok(config.clone());
    let descriptors = Descriptors::claim();
    let config = descriptors.fit(config);
    let workers = config.workers.get();
    let listeners = config.listeners.clone();
    let token = wiring::random_token()?;

    let proxy = Proxy::bind(&listeners, config.workers, &token)?;
    let address = config.admin.listen;
    let admin_socket = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|source| Error::BindAdmin { address, source })?;

    let metrics = wiring::new_metrics();
    wiring::register_checks(&metrics, &config.checks);
    let traffic = Traffic::new(listeners.iter().map(|listener| listener.name.as_str()), workers, started);
    let (events, _) = broadcast::channel(EVENTS);
    let beats = Beats::new(workers, config.admin.stale_after, started);
    let gate = Gate::new(
        supervisor::rules(&config.checks),
        supervisor::app_names(&listeners),
        beats.clone(),
        wiring::gate_observer(metrics.clone(), events.clone(), proxy.ramps()),
        started,
    );
    let certificates = Certificates::load(&listeners, &gate, &metrics);
    let drain_settings = wiring::drain_settings(&config);
    let (configs, config) = watch::channel(Arc::new(config));
    let (orders, ordered) = watch::channel(Order::Serve);
    let orders = Arc::new(orders);
    let drain = Drain::new(
        drain_settings,
        wiring::drain_listener(gate.clone(), Arc::clone(&orders), metrics.clone(), config.clone()),
    );
    let pokes = Pokes::new(&listeners);
    let (figures, looks) = (Figures::default(), Figures::default());
    let instance = wiring::instance()?;

    let (ended, mut endings) = mpsc::unbounded_channel();
    let suspect = {
        let pokes = pokes.clone();
        Arc::new(move |app| pokes.poke(app))
    };
    for number in 0..workers {
        let worker = proxy.worker(
            number,
            proxy::Setup {
                config: config.clone(),
                orders: ordered.clone(),
                gate: gate.clone(),
                traffic: traffic.clone(),
                tls: certificates.in_force(),
                suspect: suspect.clone(),
            },
        )?;
        let beat = beats.of(number);
        spawn(format!("data-{number}"), &ended, move || worker.run(&beat))?;
    }
    let (addresses, warmup_addresses) = (proxy.addresses()?, proxy.warmup_addresses()?);
    // The workers have sockets of their own; this one would keep the ports open after they closed theirs.
    drop(proxy);

    let targets: Vec<Target> = listeners
        .iter()
        .zip(&warmup_addresses)
        .map(|(listener, address)| Target {
            listener: listener.name.clone(),
            address: wiring::reachable(*address),
        })
        .collect();
    for Target { listener, address } in &targets {
        tracing::debug!(%listener, %address, "warm-up requests come in");
    }
    let (stop_checks, stopped) = oneshot::channel::<()>();
    let supervision = supervisor::Setup {
        kinds: KINDS,
        gate: gate.clone(),
        targets,
        warmup_token: token,
        traffic: Some(traffic.clone()),
        pokes,
        last_answer: None,
        network: Box::new(Peers),
        instance: Arc::clone(&instance),
        figures: figures.clone(),
        looks: looks.clone(),
        observer: wiring::check_observer(metrics.clone()),
        seed: wiring::seed(),
    };
    let checked = config.clone();
    spawn("checks".to_owned(), &ended, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = async { drop(stopped.await) };
        runtime.block_on(supervisor::run(supervision, checked, stop));
        // A name or a file that hangs holds a thread of the runtime: it must not hold the process.
        runtime.shutdown_background();
        Ok(0)
    })?;

    let quit = Arc::new(Notify::new());
    let (stop_admin, admin_stopped) = oneshot::channel::<()>();
    let state = admin::State {
        view: gate.view(),
        drain: drain.clone(),
        metrics: metrics.clone(),
        traffic: traffic.clone(),
        started: Arc::new(AtomicBool::new(true)),
        events,
        hook_token_file: config.borrow().admin.hook_token_file.clone(),
        quit: Arc::clone(&quit),
        instance,
        evidence: Arc::new(move |check| figures.of(check)),
        looks: Arc::new(move |check| looks.of(check)),
        scrape: wiring::scrape(metrics.clone(), &telemetry),
        build: admin::Build { version: wiring::VERSION, revision: wiring::REVISION },
    };
    for (listener, address) in listeners.iter().zip(&addresses) {
        let upstream = &listener.upstream.address;
        tracing::info!(listener = %listener.name, %address, %upstream, "listening");
    }
    tracing::info!(listener = "admin", address = %admin_socket.local_addr()?, "listening");
    let admin =
        tokio::task::spawn_local(admin::serve(admin_socket, state, async { drop(admin_stopped.await) }));
    let reload = reload::Reload {
        sources,
        configs,
        metrics: metrics.clone(),
        drain: drain.clone(),
        telemetry,
        descriptors,
        last,
    };
    let reload = tokio::task::spawn_local(reload.run(files));
    let certificates = tokio::task::spawn_local(certificates.run());
    let upkeep = tokio::task::spawn_local(upkeep(metrics));
    let driven = {
        let (drain, traffic) = (drain.clone(), traffic.clone());
        tokio::task::spawn_local(async move { drain.drive(|| wiring::activity(&traffic)).await })
    };

    until_left(&mut signals, &drain, &quit, &mut endings).await?;

    let deadline = wiring::close_deadline(&drain, &config.borrow());
    // Fails only where no worker is left to hear it.
    let _ = orders.send(Order::Close { deadline });
    let cut = join(workers, &mut signals, &mut endings).await?;
    tracing::info!(cut, "connections closed");
    let _ = stop_checks.send(());
    let _ = stop_admin.send(());
    // Answers that hooks wait for go out; who does not read them is not waited for.
    let _ = tokio::time::timeout(ADMIN_LEAVES, admin).await;
    for task in [reload, certificates, upkeep] {
        task.abort();
    }
    driven.abort();
    tracing::info!("bye");
    Ok(())
}

/// Waits until the drain is over and something other than a hook wants the process to end.
async fn until_left(
    signals: &mut Signals,
    drain: &Drain,
    quit: &Notify,
    endings: &mut mpsc::UnboundedReceiver<Ending>,
) -> Result<(), Error> {
    let mut leaving = false;
    loop {
        let drained = drain.drained();
        tokio::select! {
            signal = signals.next() => {
                if std::mem::replace(&mut leaving, true) {
                    end_at_once(signal);
                }
                tracing::info!(signal, "leaving");
                drain.call(Call::Sigterm);
            }
            () = quit.notified() => leaving = true,
            Some(ending) = endings.recv() => return Err(ending.unexpected()),
            _ = drained, if leaving => return Ok(()),
        }
    }
}

/// Waits for the workers; says how many requests they cut.
async fn join(
    workers: usize,
    signals: &mut Signals,
    endings: &mut mpsc::UnboundedReceiver<Ending>,
) -> Result<u64, Error> {
    let mut cut = 0;
    let mut left = workers;
    while left > 0 {
        tokio::select! {
            signal = signals.next() => end_at_once(signal),
            ending = endings.recv() => match ending {
                Some(Ending { result: Ok(Ok(number)), .. }) => {
                    cut += number;
                    left -= 1;
                }
                Some(ending) => return Err(ending.unexpected()),
                None => return Ok(cut),
            },
        }
    }
    Ok(cut)
}

/// A second signal: somebody wants the process gone, whatever is lost.
fn end_at_once(signal: &'static str) -> ! {
    tracing::warn!(signal, "second signal: ending at once");
    std::process::exit(0)
}

async fn upkeep(metrics: Metrics) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        // Without it the recorder keeps every sample until a scrape.
        metrics.upkeep();
    }
}

/// How a thread ended: what it returned, or its panic.
struct Ending {
    thread: String,
    result: thread::Result<io::Result<u64>>,
}

impl Ending {
    fn unexpected(self) -> Error {
        let reason = match self.result {
            Ok(Ok(_)) => "nobody told it to".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(ToString::to_string);
                text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
            }
        };
        Error::Thread { thread: self.thread, reason }
    }
}

fn spawn(
    name: String,
    ended: &mpsc::UnboundedSender<Ending>,
    body: impl FnOnce() -> io::Result<u64> + Send + 'static,
) -> io::Result<()> {
    let ended = ended.clone();
    let thread = name.clone();
    thread::Builder::new().name(name).spawn(move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        // Nobody listens once the process ends.
        let _ = ended.send(Ending { thread, result });
    })?;
    Ok(())
}

/// Events that a slow reader of `/events` may lag behind.
const EVENTS: usize = 256;

/// How long answers on the admin port may take to go out at the end.
const ADMIN_LEAVES: Duration = Duration::from_millis(500);
