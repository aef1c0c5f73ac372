//! TLS on both sides, on rustls with ring: who a listener is, whom clients trust, and files that are replaced.
//!
//! ```text
//!  files ─► pem ─► identity (a listener's) ─┐
//!             └──► trust (a client's) ──────┴─► rotation ─► in force: read by workers for each connection
//! ```
//!
//! Knows files and bytes, no configuration: callers hand in plain paths.

mod identity;
mod pem;
mod rotation;
mod trust;
mod validity;

pub use self::identity::{H2, HTTP_1_1, Identity, IdentityFiles};
pub use self::pem::FileError;
pub use self::rotation::{INTERVAL, InForce, Look, Made, Rotation};
pub use self::trust::{Client, ClientFiles, Trust};
pub use self::validity::not_after;
