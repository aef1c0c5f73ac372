//! Promises of the product, one module each, held on real processes and sockets.

mod layers;
mod leaving;
mod refusing;
mod restarting;
mod rolling;
mod support;
mod truth;
