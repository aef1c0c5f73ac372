//! Live traffic as the data plane counts it: rolling figures that others read.

/// Request header that marks warm-up requests. Its value is a secret of this process; the data plane
/// compares and removes it.
pub const WARMUP_HEADER: &str = "x-readygate-warmup";
