//! One thread of the data plane: its runtime, its lanes, its tick.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::gate::Beat;

use super::accept;
use super::lane::{Clock, Lane, Settings};
use super::registry::Entrance;
use super::tunnel::GOODBYE;
use super::{Order, Part, Setup};

/// A worker before it runs: may be moved to its thread.
pub struct Worker {
    pub(super) number: usize,
    pub(super) sockets: Vec<Part>,
    pub(super) setup: Setup,
}

impl Worker {
    /// Serves until it is told to close and everything ended or was cut; says how many requests were cut.
    /// Blocks the thread.
    ///
    /// # Errors
    ///
    /// The runtime or a socket could not be set up.
    pub fn run(self, beat: &Beat) -> io::Result<u64> {
        // Not a LocalSet: its queue in front of the runtime's own would cost each wake of a task twice.
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build_local(LocalOptions::default())?;
        let living = beat.clone();
        let cut = runtime.block_on(async move {
            // A task of its own: what panics there is told from what the runtime does.
            tokio::task::spawn_local(async move { self.serve(&living).await }).await
        });
        beat.retire();
        // Not dropped: that would wait for a look-up of the app's name that hangs.
        runtime.shutdown_background();
        cut.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }

    async fn serve(mut self, beat: &Beat) -> io::Result<u64> {
        let clock = Rc::new(Clock::new(self.setup.traffic.origin()));
        let lanes = self.lanes(&clock);
        let tasks = TaskTracker::new();
        let mut accepting = tokio::task::JoinSet::new();
        for (part, lane) in self.sockets.iter().zip(&lanes) {
            let entrances =
                [(Some(&part.socket), Entrance::Clients), (part.inner.as_ref(), Entrance::Warmup)];
            for (socket, entrance) in entrances {
                let Some(socket) = socket else { continue };
                let listener = accept::watch(socket.try_clone()?)?;
                let (lane, tasks) = (Rc::clone(lane), tasks.clone());
                accepting.spawn_local(async move {
                    accept::accept(&listener, &lane, &tasks, entrance).await;
                });
            }
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let deadline = loop {
            tokio::select! {
                _ = tick.tick() => {
                    let now = clock.tick();
                    beat.mark(now);
                    sweep(&lanes);
                    if self.number == 0 {
                        lanes.iter().for_each(|lane| lane.shared.ramp.grow(&lane.shared, now));
                    }
                }
                Ok(()) = self.setup.config.changed() => self.configure(&lanes),
                changed = self.setup.orders.changed() => {
                    let order = *self.setup.orders.borrow_and_update();
                    match order {
                        // Who gives orders is gone: so is the process.
                        _ if changed.is_err() => break Instant::now(),
                        Order::Serve => {}
                        Order::Drain => lanes.iter().for_each(|lane| lane.connections.go_away()),
                        Order::Close { deadline } => break deadline,
                    }
                }
            }
        };
        accepting.shutdown().await;
        Ok(self.close(&lanes, &tasks, deadline, &mut tick, beat, &clock).await)
    }

    /// Serves what waits in the accept queues, lets everything end, cuts the rest at the deadline.
    async fn close(
        &mut self,
        lanes: &[Rc<Lane>],
        tasks: &TaskTracker,
        deadline: Instant,
        tick: &mut tokio::time::Interval,
        beat: &Beat,
        clock: &Clock,
    ) -> u64 {
        for (Part { socket, .. }, lane) in self.sockets.drain(..).zip(lanes) {
            lane.closing.set(true);
            accept::empty_queue(&socket, lane, tasks);
        }
        tasks.close();
        let silent_until = Instant::now() + FIRST_WORD;
        let mut cut = None;
        loop {
            let now = Instant::now();
            for lane in lanes {
                lane.connections.finish(now >= silent_until);
            }
            if now >= deadline && cut.is_none() {
                cut = Some(lanes.iter().map(|lane| lane.connections.cut()).sum());
            }
            tokio::select! {
                biased;
                () = tasks.wait() => return cut.unwrap_or_default(),
                _ = tick.tick() => {
                    beat.mark(clock.tick());
                    sweep(lanes);
                }
                () = tokio::time::sleep(FIRST_WORD / 4) => {}
            }
            if let Some(cut) = cut
                && now >= deadline + GOODBYE
            {
                return cut;
            }
        }
    }

    fn lanes(&mut self, clock: &Rc<Clock>) -> Vec<Rc<Lane>> {
        let config = Arc::clone(&self.setup.config.borrow_and_update());
        let lane = |(number, part): (usize, &Part)| {
            let shared = Arc::clone(&part.shared);
            Lane::new(number, self.number, shared, &self.setup, clock, settings(&config, number))
        };
        self.sockets.iter().enumerate().map(lane).collect()
    }

    fn configure(&mut self, lanes: &[Rc<Lane>]) {
        let config = Arc::clone(&self.setup.config.borrow_and_update());
        for lane in lanes {
            let new = settings(&config, lane.number);
            if self.number == 0 {
                // What the workers share changes once.
                lane.shared.configure(&lane.settings().listener, &new.listener);
            }
            lane.configure(new);
        }
    }
}

/// The listeners' number and order never change: those are keys that need a restart.
fn settings(config: &Config, number: usize) -> Settings {
    Settings { listener: config.listeners[number].clone(), access: config.log.access }
}

fn sweep(lanes: &[Rc<Lane>]) {
    for lane in lanes {
        let settings = lane.settings();
        let timeouts = &settings.listener.timeouts;
        lane.connections.sweep(timeouts, &lane.clock);
        lane.upstream.pool.sweep(&lane.clock, timeouts.upstream_idle);
        lane.upstream.multiplex.sweep(&lane.clock, timeouts.upstream_idle);
    }
}

/// The worker's tick: beat, coarse clock, deadlines of connections.
const TICK: Duration = Beat::INTERVAL;

/// After the listeners closed, a connection that came from the accept queue has this long to say its first word.
const FIRST_WORD: Duration = Duration::from_millis(200);

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker({})", self.number)
    }
}
