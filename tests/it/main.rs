//! Promises of the product, one module each, held on real processes and sockets.

mod layers;
mod config;
//! One integration binary, one module a promise.

mod check_cli;
mod check_file;
mod check_http;
mod check_warmup;
mod support;
