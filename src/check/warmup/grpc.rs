//! A gRPC call of the warm-up, and the HTTP/2 connection that it goes over, as a user's channel does.

use http::header::HeaderMap;
use http::uri::{Authority, PathAndQuery, Scheme};
use tokio::net::TcpStream;

use super::client::{Plan, Trouble, Verdict, in_words};
use crate::check::grpc::health::{self, HealthStatus};
use crate::check::grpc::link::{Body, Broken, Call, Link};
use crate::check::grpc::reply::Reply;

/// One of the calls that warm the app.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub path: PathAndQuery,
    pub metadata: HeaderMap,
    pub message: Vec<u8>,
    /// Codes of a good answer.
    pub expect: Vec<u32>,
    /// The answer is that of the health service, and must say SERVING.
    pub health: bool,
}

/// Makes the call and reads the whole answer. Gives the connection to go on with, too.
pub(super) async fn exchange(
    plan: &Plan,
    recipe: &Recipe,
    open: Option<Link>,
) -> Result<(Option<Link>, Verdict), Trouble> {
    let call = recipe.call(plan);
    let wanted = if recipe.health { Body::Short } else { Body::Forgotten };
    if let Some(mut link) = open
        && link.is_open().await
    {
        match link.call(&call, wanted).await {
            // It left in between. Channels of users connect again, too.
            Err(Broken::Unheard(_)) => {}
            answered => return recipe.verdict(link, answered),
        }
    }
    let mut link = connect(plan).await?;
    let answered = link.call(&call, wanted).await;
    recipe.verdict(link, answered)
}

async fn connect(plan: &Plan) -> Result<Link, Trouble> {
    let stream = TcpStream::connect(plan.address).await.map_err(Trouble::Unreachable)?;
    // Small requests on an idle connection: waiting for more to send would only show as latency.
    stream.set_nodelay(true).map_err(Trouble::Unreachable)?;
    Link::open(stream).await.map_err(|error| Trouble::Broken(error.to_string()))
}

impl Recipe {
    fn call(&self, plan: &Plan) -> Call {
        let authority = Authority::try_from(plan.address.to_string()).expect("an address is an authority");
        let mut metadata = self.metadata.clone();
        metadata.insert(plan.token.0.clone(), plan.token.1.clone());
        Call::new(Scheme::HTTP, authority, self.path.clone(), metadata, &self.message, plan.timeout)
    }

    fn verdict(
        &self,
        link: Link,
        answered: Result<Reply, Broken>,
    ) -> Result<(Option<Link>, Verdict), Trouble> {
        let reply = answered.map_err(|error| Trouble::Broken(error.to_string()))?;
        Ok((Some(link), self.judge(&reply)))
    }

    fn judge(&self, reply: &Reply) -> Verdict {
        let status = reply.status();
        if let Some(kind) = reply.head.get("x-readygate-error") {
            let what = status.map_or_else(|_| reply.status.as_str().to_owned(), |status| status.name());
            return Err(format!("got {what} from the sidecar: {}", in_words(kind)));
        }
        let status = status?;
        if !self.expect.contains(&status.code) {
            let expected: Vec<_> = self.expect.iter().map(u32::to_string).collect();
            return Err(format!("answered {status}, expected {}", expected.join(", ")));
        }
        if self.health && status.code == 0 {
            return match health::response(reply.message()?) {
                Some(HealthStatus::Serving) => Ok(()),
                Some(other) => Err(format!("answered {}, expected SERVING", other.name())),
                None => Err("answered with a message that is not one of the health service".to_owned()),
            };
        }
        Ok(())
    }
}
