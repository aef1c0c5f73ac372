//! Answers that are not judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

/// Paths whose answers say nothing about the app's health. Cheap to clone; set by who judges, read for each
/// request.
#[derive(Clone, Debug, Default)]
pub struct Ignored(Arc<IgnoredShared>);

#[derive(Debug, Default)]
struct IgnoredShared {
    any: AtomicBool,
    paths: ArcSwap<Vec<String>>,
}

impl Ignored {
    /// Each a path, or the beginning of one that ends in `*`.
    pub fn set(&self, paths: Vec<String>) {
        let any = !paths.is_empty();
        self.0.paths.store(Arc::new(paths));
        self.0.any.store(any, Ordering::Relaxed);
    }

    pub fn has(&self, path: &str) -> bool {
        self.0.any.load(Ordering::Relaxed)
            && self.0.paths.load().iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => path.starts_with(beginning),
                None => path == pattern,
            })
    }
}
