//! Refuses what was found faulty (see `stack`), below the layers that count it and above all that could hold it.

use std::task::{Context, Poll};

use http::{HeaderValue, Response, header};
use tower::Service;

use crate::traffic::ErrorKind;

use super::super::body::Body;
use super::super::error::ProxyError;
use super::super::notable::Notable;
use super::super::stack::Inbound;
use super::Passage;

#[derive(Clone, Debug)]
pub struct Strict<S>(pub S);

impl<S: Service<Inbound, Response = Response<Body>, Error = ProxyError>> Service<Inbound> for Strict<S> {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = Passage<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut inbound: Inbound) -> Self::Future {
        if let Some(fault) = inbound.fault {
            return Passage::refused(ProxyError::fault(ErrorKind::BadRequest, fault));
        }
        if inbound.notable.has(Notable::CONTENT_LENGTH)
            && let Some(length) = inbound.request.headers_mut().get_mut(header::CONTENT_LENGTH)
        {
            shorten(length);
        }
        Passage::straight(self.0.call(inbound))
    }
}

/// `010` is ten by the letter and eight to some: zeros in front do not pass.
fn shorten(length: &mut HeaderValue) {
    let digits = length.as_bytes();
    if digits.len() > 1 && digits[0] == b'0' {
        let zeros = digits[..digits.len() - 1].iter().take_while(|digit| **digit == b'0').count();
        if let Ok(short) = HeaderValue::from_bytes(&digits[zeros..]) {
            *length = short;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_no_zeros_in_front() {
        for (long, short) in [("0", "0"), ("00", "0"), ("010", "10"), ("7", "7"), ("100", "100")] {
            let mut length = HeaderValue::from_static(long);
            shorten(&mut length);
            assert_eq!(length, short);
        }
    }
}
