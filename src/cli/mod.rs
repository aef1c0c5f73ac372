//! The command line: one subcommand a file.

pub mod check;
pub mod schema;
pub mod validate;
//! Subcommands, one a file.

pub mod check;
pub mod client;
pub mod drain;
pub mod status;
pub mod wait;
