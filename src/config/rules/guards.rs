//! Rules of guards.

use super::super::Gates;
use super::super::checks::Draft;
use super::super::raw::RawConfig;
use super::{Judge, path};

impl Judge<'_> {
    /// A guard belongs to a check that can close the gate at any time, and peers answer on their admin port.
    pub(super) fn guard(&mut self, raw: &RawConfig, check: &Draft) {
        let (Some(guard), Some(gates)) = (&check.raw.guard, check.gates) else { return };
        let at = |keys: &[&str]| path(&[&["checks", &check.name, "guard"], keys].concat());
        if gates != Gates::Always && !self.report.is_blamed(&path(&["checks", &check.name, "gates"])) {
            let gates = if gates == Gates::Startup { "startup" } else { "never" };
            let rule = format!(
                "is not allowed where gates is {gates}: only a check that may close the gate at any time can be kept \
                 from it, expected gates: always"
            );
            // Whatever else is wrong with the keys of the guard.
            self.report.value(&at(&[]), format!("a map of keys {rule}"));
        }
        let (admin, listeners) = (raw.admin.listen.0.port(), &raw.listeners);
        for (index, peer) in guard.peers.0.iter().enumerate().filter(|(_, peer)| peer.port != admin) {
            let Some((name, _)) = listeners.iter().find(|(_, other)| other.listen.0.port() == peer.port)
            else {
                continue;
            };
            let rule = format!(
                "has the port of listener {name}, which carries traffic, expected the port of admin.listen ({admin})"
            );
            // One name is text, several are a list.
            let item = at(&["peers", &index.to_string()]);
            let at = if self.tree.written(&item).is_some() { item } else { at(&["peers"]) };
            self.breach(&at, peer, &rule);
        }
    }
}
