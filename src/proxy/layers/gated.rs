//! What happens to a request while the gate is closed: `not_ready: forward | hold | reject`.

use std::rc::Rc;
use std::task::{Context, Poll};

use http::Response;
use tower::Service;

use crate::config::NotReady;
use crate::traffic::ErrorKind;

use super::super::body::Body;
use super::super::error::ProxyError;
use super::super::lane::Lane;
use super::super::stack::Inbound;
use super::Passage;

#[derive(Clone, Debug)]
pub struct Gated<S>(pub S);

impl<S> Service<Inbound> for Gated<S>
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
        let word = inbound.lane.view.word();
        if inbound.warmup || word.admits() {
            return Passage::straight(self.0.call(inbound));
        }
        match inbound.settings.listener.not_ready {
            NotReady::Forward => Passage::straight(self.0.call(inbound)),
            // Whatever the policy, a request waits for an app that refuses: further down, in `upstream`.
            NotReady::Reject if word.app_refuses(inbound.lane.number) => {
                Passage::straight(self.0.call(inbound))
            }
            NotReady::Reject => Passage::refused(ProxyError::new(ErrorKind::NotReady)),
            NotReady::Hold => {
                let mut service = self.0.clone();
                Passage::detour(async move {
                    hold(&inbound.lane, inbound.settings.listener.hold.longest).await?;
                    service.call(inbound).await
                })
            }
        }
    }
}

/// Waits in line until the gate admits.
///
/// # Errors
///
/// The line is full, or the wait took as long as it may.
pub async fn hold(lane: &Rc<Lane>, longest: std::time::Duration) -> Result<(), ProxyError> {
    let _waiting = lane.wait_in_line()?;
    let mut word = lane.view.subscribe();
    match tokio::time::timeout(longest, word.wait_for(|word| word.admits())).await {
        Ok(_) => Ok(()),
        Err(_) => Err(ProxyError::new(ErrorKind::HoldTimeout)),
    }
}
