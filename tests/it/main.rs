//! Promises of the product, one module each, held on real processes and sockets.

mod check_cli;
mod check_dns;
mod check_exec;
mod check_file;
mod check_http;
mod check_memcached;
mod check_mqtt;
mod check_mysql;
mod check_nats;
mod check_postgres;
mod check_redis;
mod check_tls;
mod check_warmup;
mod commands;
mod config;
mod layers;
mod leaving;
mod manifests;
mod readme;
mod refusing;
mod reload;
mod restarting;
mod rolling;
mod support;
mod truth;
