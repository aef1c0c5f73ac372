//! What waits in memory for as long as a connection or a request lives must not grow unnoticed.
//!
//! The bounds stand a little above what was measured. Who needs more says why here; a part that few need goes into a
//! box (see `upstream`, `terminate`).

use std::mem::size_of;

use super::registry::ConnectionState;
use super::{connection, forward};

/// Bytes of the future that such a function gives.
fn of<A, F: Future>(_: impl Fn(A) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn connection_at_rest_waits_in_little_memory() {
    let size = of(|(stream, peer, entrance, lane)| connection::serve(stream, peer, entrance, lane));
    println!("a connection's task: {size} bytes");
    assert!(size <= 512, "{size} bytes");
    let size = size_of::<ConnectionState>();
    println!("what others see of it: {size} bytes");
    assert!(size <= 192, "{size} bytes");
}

/// A block of up to 1 KiB is what malloc keeps at hand for the next request.
#[test]
fn request_at_the_app_waits_in_less_than_a_kib() {
    let size = of(forward::forward);
    println!("a request at the app: {size} bytes");
    assert!(size <= 1024, "{size} bytes");
}
