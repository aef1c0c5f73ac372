//! readygate: a sidecar that makes a pod's readiness probe true.

pub mod admin;
pub mod app;
pub mod check;
pub mod cli;
pub mod config;
pub mod drain;
pub mod gate;
pub mod metrics;
pub mod proxy;
pub mod signals;
pub mod supervisor;
pub mod telemetry;
pub mod traffic;
