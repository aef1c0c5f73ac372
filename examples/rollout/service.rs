//! The Service: endpoints follow the pods, and every node hears of a change at another time.
//!
//! One set of nodes per scenario; a change of an endpoint reaches each node 0.2 to 2 s later, which is what
//! makes rolling deploys hard. A later change may overtake an earlier one, which then is dropped: a node's
//! view of a pod never goes back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::rng::Rng;

/// The conditions of an EndpointSlice, as the Service's proxy on a node uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// The pod is Ready.
    pub serving: bool,
    /// Its deletion began.
    pub terminating: bool,
}

#[derive(Debug)]
pub struct Service {
    seed: u64,
    pub nodes: Vec<Rc<Node>>,
}

impl Service {
    pub fn new(seed: u64, nodes: usize) -> Self {
        Self { seed, nodes: (0..nodes).map(|_| Rc::default()).collect() }
    }

    /// Tells every node the state of a pod's endpoint; `None` is its removal. `change` counts up per pod.
    pub fn publish(&self, pod: &str, change: u32, endpoint: Option<Endpoint>) {
        for (number, node) in self.nodes.iter().enumerate() {
            let mut rng = Rng::stream(self.seed, &format!("node {number}, {pod}, change {change}"));
            let delay = rng.between(PROPAGATION.0, PROPAGATION.1);
            let (node, pod) = (Rc::clone(node), pod.to_owned());
            tokio::task::spawn_local(async move {
                tokio::time::sleep(delay).await;
                node.hear(pod, change, endpoint);
            });
        }
    }
}

/// What one node knows.
#[derive(Debug, Default)]
pub struct Node {
    /// By pod: the last change that was heard of. Removed endpoints stay, so that an older change is known as such.
    endpoints: RefCell<BTreeMap<String, (u32, Option<Endpoint>)>>,
}

impl Node {
    /// The pod of a new connection, and its address: a random ready one; if there is none, one that is leaving but still
    /// serves; if there is none either, nothing: the connection is refused.
    pub fn pick(&self, rng: &mut Rng) -> Option<(String, SocketAddr)> {
        let endpoints = self.endpoints.borrow();
        let known = endpoints.iter().filter_map(|(pod, (_, endpoint))| Some((pod, (*endpoint)?)));
        let serving: Vec<_> = known.filter(|(_, endpoint)| endpoint.serving).collect();
        let ready: Vec<_> = serving.iter().filter(|(_, endpoint)| !endpoint.terminating).copied().collect();
        let eligible = if ready.is_empty() { serving } else { ready };
        if eligible.is_empty() {
            return None;
        }
        let (pod, endpoint) = eligible[rng.below(eligible.len())];
        Some((pod.clone(), endpoint.address))
    }

    fn hear(&self, pod: String, change: u32, endpoint: Option<Endpoint>) {
        let mut endpoints = self.endpoints.borrow_mut();
        let known = endpoints.entry(pod).or_insert((change, endpoint));
        if known.0 < change {
            *known = (change, endpoint);
        }
    }
}

/// The longest a change takes to reach every node.
pub const LONGEST_PROPAGATION: Duration = PROPAGATION.1;
const PROPAGATION: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
