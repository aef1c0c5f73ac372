//! One integration binary, one module a promise.

mod check_cli;
mod check_file;
mod check_http;
mod check_warmup;
mod support;
