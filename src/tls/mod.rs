//! TLS on both sides, on rustls with ring: whom clients trust, and what a certificate says of itself.
//!
//! Knows files and bytes, no configuration: callers hand in plain paths.

mod trust;
mod validity;

pub use self::trust::Trust;
pub use self::validity::not_after;
