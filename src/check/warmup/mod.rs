//! `warmup`: enough good and fast answers, through the very path that users' requests take.
//!
//! ```text
//! clients ──HTTP/1.1 keep-alive, gRPC, or bytes──▶ the listener ─▶ … ─▶ the app
//!     └── results ──▶ their routes ──▶ all enough? pass │ budget over? fail or pass │ else go on
//! ```
//!
//! It ends as soon as the evidence suffices, and never before a whole window of results of each route is there. How
//! many requests are under way at once climbs with good answers and falls with failures ([`pace`]), so that neither a
//! cold app nor a broken one is knocked over. All connections end with the run, also when it is dropped.

mod client;
mod curve;
mod grpc;
mod http;
mod keys;
mod octets;
mod pace;
mod requests;
mod route;
mod run;
mod stats;
mod tcp;
mod words;

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::{HeaderName, HeaderValue};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;
use tokio::task::JoinSet;

use self::client::{Client, Plan, Recipe};
use self::keys::{Keys, OnBudgetExhausted, accept};
pub(in crate::check) use self::requests::Listed;
use self::run::{Crew, End, Run};
use super::own;
use super::{Check, CheckError, CheckFuture, CheckResult, Context, Evidence, Kind};
use crate::config::{self, CheckSpec, Gates};
use crate::traffic::WARMUP_HEADER;

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "warmup",
        passes_when: "enough good, fast answers to each of the requests came through the listener",
        gates: |_, _| Gates::Startup,
        accept,
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &[],
        from_url: |_| Err("a warm-up needs more than a URL, expected it in a configuration file".to_owned()),
        defaults: config::Defaults::COMMON,
    },
    build: |spec, context| Box::new(Warmup::new(spec, context)),
};

/// Sends each of the requests once through the listener, one after the other.
///
/// # Errors
///
/// One line: the first that was not answered as it expects, or the listener itself.
pub(in crate::check) async fn send_once(
    context: &Context,
    listener: &str,
    requests: &[Listed],
    timeout: Duration,
) -> Result<(), String> {
    let Some(target) = context.targets.iter().find(|target| target.listener == listener) else {
        return Err(format!("there is no listener {listener}"));
    };
    let plan = plan(context, target, recipes("probes", requests).await?, timeout);
    client::send_each(Arc::new(plan)).await
}

fn plan(context: &Context, target: &super::Target, recipes: Vec<Recipe>, timeout: Duration) -> Plan {
    let token = HeaderValue::try_from(&*context.warmup_token).expect("a token is a header value");
    Plan { address: target.address, timeout, recipes, token: (HeaderName::from_static(WARMUP_HEADER), token) }
}

struct Warmup {
    name: String,
    keys: Keys,
    timeout: Duration,
    context: Context,
    /// The first run since the gate was armed.
    began: Cell<Option<Instant>>,
}

impl Check for Warmup {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.within_budget())
    }

    fn tests(&self) -> String {
        self.keys.words()
    }

    fn deadline(&self, _: Duration) -> Duration {
        self.keys.budget.0 + MARGIN
    }

    fn once_per_arm(&self) -> bool {
        true
    }

    fn armed(&self) {
        self.began.set(None);
    }
}

impl Warmup {
    fn new(spec: &CheckSpec, context: Context) -> Self {
        let keys = own::parse(&spec.own).expect("configuration accepted the keys");
        Self { name: spec.name.clone(), keys, timeout: spec.timeout, context, began: Cell::new(None) }
    }

    /// One run; where nothing but passing is wanted of the budget, also a run that cannot even begin ends with it.
    async fn within_budget(&self) -> CheckResult {
        let began = self.began.get().unwrap_or_else(Instant::now);
        self.began.set(Some(began));
        match self.warm_up().await {
            Err(CheckError::Skipped { reason }) => Err(CheckError::Skipped { reason }),
            Err(error)
                if self.keys.on_budget_exhausted == OnBudgetExhausted::Pass
                    && began.elapsed() >= self.keys.budget.0 =>
            {
                Ok(self.exhausted(error.to_string(), None))
            }
            result => result,
        }
    }

    async fn warm_up(&self) -> CheckResult {
        let wanted =
            |target: &&super::Target| self.keys.listener.as_ref().is_none_or(|name| *name == target.listener);
        let Some(target) = self.context.targets.iter().find(wanted) else {
            let reason = "a warm-up goes through a running sidecar's listener, and there is none here";
            return Err(CheckError::Skipped { reason: reason.to_owned() });
        };
        let recipes = recipes("requests", &self.keys.requests).await.map_err(unexpected)?;
        let wanted = self.keys.wanted(&recipes);
        let plan = Arc::new(plan(&self.context, target, recipes, self.timeout));
        let mut run = Run::new(wanted, self.keys.concurrency, &*self.context.report);
        let mut crew = Crew::new();
        let fresh = || Client::new(Arc::clone(&plan));
        let send = |mut client: Client, route| async move {
            let answered = client.send(route).await;
            (client, answered)
        };
        let end = run.drive(self.keys.budget.0, &mut crew, fresh, send).await;
        run.report_latency();
        farewell(crew).await;
        match end {
            End::Enough => {
                run.log(&self.name);
                let figures = Some(run.figures(false));
                Ok(Evidence { summary: run.summary(), figures, exhausted: false })
            }
            End::Unreachable(error) => {
                let target = format!("{} (listener {})", target.address, target.listener);
                Err(CheckError::Connect { target, reason: error.to_string() })
            }
            End::Exhausted => {
                let budget = humantime::format_duration(self.keys.budget.0);
                let mut message = format!("{} when the budget of {budget} was over", run.summary());
                if let Some(why) = run.last_failure() {
                    let _ = write!(message, "; last failure: {why}");
                }
                let figures = Some(run.figures(true));
                match self.keys.on_budget_exhausted {
                    OnBudgetExhausted::Fail => Err(CheckError::Unexpected { message, figures }),
                    OnBudgetExhausted::Pass => Ok(self.exhausted(message, figures)),
                }
            }
        }
    }

    fn exhausted(&self, summary: String, figures: Option<Value>) -> Evidence {
        tracing::warn!(check = %self.name, found = %summary, "warm-up budget exhausted, passing as configured");
        Evidence { summary, figures, exhausted: true }
    }
}

/// Requests in flight may end, and connections say goodbye: an app need not see them cut off.
async fn farewell(Crew { idle, mut busy }: Crew<Client>) {
    let mut leaving = JoinSet::new();
    leaving.extend(idle.into_iter().map(Client::close));
    let all = async {
        while let Some(ended) = busy.join_next().await {
            if let Ok((client, ..)) = ended {
                leaving.spawn(client.close());
            }
        }
        while leaving.join_next().await.is_some() {}
    };
    let _ = tokio::time::timeout(FAREWELL, all).await;
}

/// What the requests of the list at the key `key` become, with their files read.
///
/// # Errors
///
/// A file cannot be read, or what it holds cannot be sent: `requests.0.body: cannot read /x: …`.
async fn recipes(key: &'static str, requests: &[Listed]) -> Result<Vec<Recipe>, String> {
    let requests = requests.to_vec();
    let read = move || {
        let numbered = requests.iter().enumerate();
        numbered
            .map(|(index, request)| request.recipe().map_err(|why| format!("{key}.{index}.{why}")))
            .collect()
    };
    // A volume may hang; nothing else on this thread should.
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(error.to_string()))
}

fn unexpected(message: String) -> CheckError {
    CheckError::Unexpected { message, figures: None }
}

/// For requests in flight when the verdict is there.
const FAREWELL: Duration = Duration::from_millis(250);

/// The run ends itself at its budget; the supervisor need not hurry it.
const MARGIN: Duration = Duration::from_secs(2);
