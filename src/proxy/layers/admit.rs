//! Places at the app: `limits.in_flight`, or those of the ramp, with a bounded line in front.
//!
//! The place rides in the answer's body: a request takes it until its last byte went out, not only until
//! the head of its answer.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;

use crate::traffic::ErrorKind;

use super::super::body::Body;
use super::super::error::ProxyError;
use super::super::stack::Inbound;
use super::Passage;

#[derive(Clone, Debug)]
pub struct Admit<S>(pub S);

impl<S> Service<Inbound> for Admit<S>
where
    S: Service<Inbound, Response = Response<Body>, Error = ProxyError> + Clone + 'static,
{
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Passage<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let Some(places) = inbound.lane.shared.places().filter(|_| !inbound.warmup) else {
            return Passage::straight(self.0.call(inbound));
        };
        let mut service = self.0.clone();
        Passage::detour(async move {
            let place = place(&inbound, places).await?;
            let mut response = service.call(inbound).await?;
            response.body_mut().carry_permit(place);
            Ok(response)
        })
    }
}

/// Takes a place, after a wait in line if there is none free.
///
/// # Errors
///
/// The line is full, or the wait took as long as a request may be held.
async fn place(inbound: &Inbound, places: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ProxyError> {
    if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
        return Ok(place);
    }
    let lane = Rc::clone(&inbound.lane);
    let _waiting = lane.wait_in_line()?;
    let mut longest = inbound.settings.listener.hold.longest;
    if lane.shared.ramp.is_under_way() {
        // Other pods are warm: who waits here waits in vain.
        longest = longest.min(BRIEFLY);
    }
    match tokio::time::timeout(longest, places.acquire_owned()).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(_)) | Err(_) => Err(ProxyError::new(ErrorKind::QueueFull)),
    }
}

/// How long a request waits for a place while the ramp has fewer than it will.
const BRIEFLY: Duration = Duration::from_secs(1);
