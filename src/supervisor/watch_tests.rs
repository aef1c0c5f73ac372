//! The watch against real ports.

use std::cell::Cell;

use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::*;
use crate::config::Upstream;
use crate::gate::{Beats, Report};

fn listener(name: &str, upstream: SocketAddr) -> Listener {
    Listener { name: name.to_owned(), upstream: Upstream::http(upstream), ..Listener::default() }
}

struct House {
    gate: Gate,
    pokes: Pokes,
    addresses: Addresses,
}

impl House {
    /// Waits until the gate's report is as asked for; says how long it took.
    async fn until(&self, holds: impl Fn(&Report) -> bool) -> Duration {
        let began = Instant::now();
        let view = self.gate.view();
        let wait = async {
            while !holds(&view.report()) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(20), wait).await.expect("the gate heard of it within 20 s");
        began.elapsed()
    }
}

async fn watched(
    listeners: &[Listener],
    last_answer: Option<LastAnswer>,
    body: impl AsyncFnOnce(&House) -> (),
) {
    let beats = Beats::new(0, Duration::from_secs(3), Instant::now());
    let names = listeners.iter().map(|l| l.upstream.address.to_string().into());
    let gate = Gate::new(Vec::new(), names, beats, Box::new(|_, _, _| ()), Instant::now());
    let house = House { gate, pokes: Pokes::new(listeners), addresses: Addresses::default() };
    let watches = watches(&house.gate, listeners, &house.pokes, last_answer, &house.addresses);
    let local = LocalSet::new();
    for watch in watches {
        local.spawn_local(watch);
    }
    local.run_until(body(&house)).await;
}

async fn free_port() -> SocketAddr {
    let bound = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    bound.local_addr().expect("bound")
}

#[tokio::test]
async fn app_is_seen_lost_and_seen_again() {
    let address = free_port().await;
    watched(&[listener("http", address)], None, async |house| {
        house.until(|report| report.apps[0].refusing && !report.apps[0].seen).await;
        let app = TcpListener::bind(address).await.expect("the port is free");
        house.until(|report| report.apps[0].seen && !report.apps[0].refusing).await;
        assert_eq!(house.gate.view().report().restarts, 0, "its first start is not a restart");
        drop(app);
        house.until(|report| report.apps[0].refusing).await;
        let _app = TcpListener::bind(address).await.expect("the port is free");
        house.until(|report| report.restarts == 1 && report.arm == 2).await;
        assert_eq!(house.addresses.apps_at(address), [0]);
    })
    .await;
}

#[tokio::test]
async fn poke_makes_it_look_at_once() {
    let address = free_port().await;
    let app = TcpListener::bind(address).await.expect("the port is free");
    // Traffic that always claims a fresh answer: without a poke the watch never looks.
    let fresh: LastAnswer = Box::new(|_| Some(Instant::now()));
    watched(&[listener("http", address)], Some(fresh), async |house| {
        house.until(|report| report.apps[0].seen).await;
        drop(app);
        sleep(Duration::from_millis(1200)).await;
        assert!(!house.gate.view().report().apps[0].refusing, "traffic was proof enough");
        house.pokes.poke(0);
        house.until(|report| report.apps[0].refusing).await;
        let _app = TcpListener::bind(address).await.expect("the port is free");
        house.until(|report| report.restarts == 1).await;
    })
    .await;
}

#[tokio::test]
async fn listeners_with_one_upstream_share_one_watch() {
    let (shared, own) = (free_port().await, free_port().await);
    let app = TcpListener::bind(shared).await.expect("the port is free");
    let listeners = [listener("a", shared), listener("b", own), listener("c", shared)];
    watched(&listeners, None, async |house| {
        house.until(|report| report.apps[0].seen && report.apps[2].seen && report.apps[1].refusing).await;
        // Both numbers hear of it from one look.
        let looks = async {
            let mut looks = 0;
            while let Ok(Ok(_)) = timeout(Duration::from_millis(750), app.accept()).await {
                looks += 1;
                if looks == 4 {
                    break;
                }
            }
            looks
        };
        let began = Instant::now();
        assert_eq!(looks.await, 4);
        assert!(began.elapsed() > Duration::from_millis(900), "two watches would look four times a second");
    })
    .await;
}

#[tokio::test]
async fn look_leaves_no_connection_open() {
    let app = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = app.local_addr().expect("bound");
    watched(&[listener("http", address)], None, async |_| {
        for _ in 0..2 {
            let (mut stream, _) = app.accept().await.expect("a look");
            let mut byte = [0];
            let read =
                timeout(Duration::from_secs(10), tokio::io::AsyncReadExt::read(&mut stream, &mut byte));
            assert_eq!(read.await.expect("it closed").ok(), Some(0));
        }
    })
    .await;
}

#[test]
fn refusal_at_another_loopback_address_of_the_port_is_near_and_no_proof() {
    let addresses = Addresses::default();
    let at = |address: &str| address.parse::<SocketAddr>().expect("an address");
    addresses.learn(&[0], &[at("127.0.0.1:8080")]);
    addresses.learn(&[1], &[at("10.0.0.1:8080")]);
    assert_eq!(
        (addresses.apps_at(at("127.0.0.1:8080")), addresses.apps_near(at("127.0.0.1:8080"))),
        (vec![0], vec![])
    );
    assert_eq!(
        (addresses.apps_at(at("[::1]:8080")), addresses.apps_near(at("[::1]:8080"))),
        (vec![], vec![0])
    );
    assert_eq!(addresses.apps_near(at("[::1]:8081")), Vec::<usize>::new());
}

#[tokio::test]
async fn what_the_data_plane_saw_first_is_looked_at_at_once() {
    let app = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = app.local_addr().expect("bound");
    let looks = Rc::new(Cell::new(0));
    watched(&[listener("http", address)], None, async |house| {
        house.until(|report| report.apps[0].seen).await;
        let counted = Rc::clone(&looks);
        tokio::task::spawn_local(async move {
            while app.accept().await.is_ok() {
                counted.set(counted.get() + 1);
            }
        });
        house.gate.app_refused(0);
        house.until(|report| report.restarts == 1).await;
        assert!(looks.get() >= 1);
    })
    .await;
}
