//! What a reload cannot change.

use super::{Config, Listener};

/// The key paths that differ between two configurations and want a restart, in the order of the contract.
pub fn restart_needed(old: &Config, new: &Config) -> Vec<String> {
    let mut paths = Vec::new();
    let mut changed = |path: String, same: bool| {
        if !same {
            paths.push(path);
        }
    };
    for listener in &old.listeners {
        let name = &listener.name;
        match find(new, name) {
            None => changed(format!("listeners.{name}"), false),
            Some(other) => {
                changed(format!("listeners.{name}.listen"), listener.listen == other.listen);
                let (before, after) = (&listener.upstream, &other.upstream);
                let same = before.scheme == after.scheme && before.address == after.address;
                changed(format!("listeners.{name}.upstream"), same);
                changed(format!("listeners.{name}.upstream_tls"), before.tls == after.tls);
                changed(format!("listeners.{name}.tls"), listener.tls == other.tls);
            }
        }
    }
    for listener in &new.listeners {
        changed(format!("listeners.{}", listener.name), find(old, &listener.name).is_some());
    }
    changed("admin.listen".to_owned(), old.admin.listen == new.admin.listen);
    changed("admin.stale_after".to_owned(), old.admin.stale_after == new.admin.stale_after);
    changed("admin.hook_token_file".to_owned(), old.admin.hook_token_file == new.admin.hook_token_file);
    changed("workers".to_owned(), old.workers == new.workers);
    changed("log.format".to_owned(), old.log.format == new.log.format);
    paths
}

fn find<'a>(config: &'a Config, name: &str) -> Option<&'a Listener> {
    config.listeners.iter().find(|listener| listener.name == name)
}
