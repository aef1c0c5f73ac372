//! Promises of the product, one module each, held on real processes and sockets.

mod layers;
mod config;
