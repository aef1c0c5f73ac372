//! Subcommands, one a file.

pub mod check;
