//! The Deployment: three replicas, rolled with `maxSurge: 1`, `maxUnavailable: 0`.
//!
//! It trusts readiness and nothing else: the instant a new pod is Ready, an old one is deleted and the next
//! new one is created. Nobody waits for the old one to be gone.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::pod::Pod;
use crate::progress::Progress;
use crate::scenario::Setting;
use crate::service::Service;

pub const REPLICAS: usize = 3;

pub struct Deployment {
    setting: Setting,
    service: Rc<Service>,
    progress: Rc<Progress>,
    /// Not yet deleted ones, oldest first.
    pub pods: RefCell<Vec<Rc<Pod>>>,
}

impl Deployment {
    /// Creates the pods of the first revision, without waiting for them.
    ///
    /// # Errors
    ///
    /// When a pod cannot be created.
    pub fn create(setting: &Setting, service: &Rc<Service>, progress: &Rc<Progress>) -> anyhow::Result<Self> {
        let deployment = Self {
            setting: setting.clone(),
            service: Rc::clone(service),
            progress: Rc::clone(progress),
            pods: RefCell::default(),
        };
        for number in 1..=REPLICAS {
            deployment.add_pod(&old_name(number))?;
        }
        Ok(deployment)
    }

    pub async fn until_ready(&self) -> anyhow::Result<()> {
        let pods = self.pods.borrow().clone();
        for pod in pods {
            pod.until_ready().await?;
        }
        Ok(())
    }

    /// Replaces every pod; returns, when the last old one is gone, how long each new one took to be Ready.
    ///
    /// # Errors
    ///
    /// When a pod cannot be created or does not become ready.
    pub async fn roll(&self) -> anyhow::Result<Vec<Duration>> {
        let mut times_to_ready = Vec::new();
        let mut deletions = JoinSet::new();
        for number in 1..=REPLICAS {
            self.progress.step(&format!("rolling {number}/{REPLICAS}"));
            let new = self.add_pod(&format!("new-{number}"))?;
            times_to_ready.push(new.until_ready().await?);
            let old = self.pods.borrow_mut().remove(0);
            self.progress.event(&format!("{} deleted", old.name));
            deletions.spawn_local(old.delete());
        }
        self.progress.step("last old pod leaves");
        deletions.join_all().await;
        Ok(times_to_ready)
    }

    /// The pod that would be deleted next.
    pub fn first_name(&self) -> String {
        self.pods.borrow().first().map(|pod| pod.name.clone()).unwrap_or_default()
    }

    /// The pod of the first revision that is deleted last.
    pub fn last_old(&self) -> Option<Rc<Pod>> {
        let name = old_name(REPLICAS);
        self.pods.borrow().iter().find(|pod| pod.name == name).cloned()
    }

    fn add_pod(&self, name: &str) -> anyhow::Result<Rc<Pod>> {
        let pod = Pod::create(name, &self.setting, &self.service, &self.progress)?;
        self.pods.borrow_mut().push(Rc::clone(&pod));
        Ok(pod)
    }
}

fn old_name(number: usize) -> String {
    format!("old-{number}")
}
