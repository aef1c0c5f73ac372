//! Messages of HTTP/1 (RFC 9112), as both sides of the proxy read and write them.

pub mod chunked;
pub mod content;
pub mod grammar;
mod lines;
mod list;
mod name;
pub mod outgoing;
pub mod request;

pub use self::chunked::Chunked;
pub use self::content::Framing;
pub use self::lines::{Lines, matters, names_others};
pub use self::list::names;
pub use self::name::name;
pub use self::outgoing::Outgoing;

/// Fields, in this order.
#[cfg(test)]
pub fn map(fields: &[(&'static str, &'static str)]) -> http::HeaderMap {
    let mut map = http::HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, http::HeaderValue::from_static(value));
    }
    map
}
