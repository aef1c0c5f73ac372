//! The command line: one subcommand a file.

pub mod client;
pub mod drain;
pub mod status;
pub mod wait;
