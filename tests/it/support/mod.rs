//! What several promises need.

pub mod checks;
