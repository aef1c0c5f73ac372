//! readygate: a sidecar that makes a pod's readiness probe true.

pub mod check;
pub mod cli;
pub mod config;
pub mod traffic;
