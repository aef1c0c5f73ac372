//! The command line: one subcommand a file.

pub mod schema;
pub mod validate;
//! Subcommands, one a file.

pub mod check;
