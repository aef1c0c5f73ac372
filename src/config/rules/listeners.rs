//! Rules of listeners.

use std::net::{IpAddr, SocketAddr};

use rustls_pki_types::ServerName;
use serde_json::Value;

use super::super::error::dotted;
use super::super::fit::shown;
use super::super::place::Path;
use super::super::raw::{RawConfig, RawListener};
use super::super::{Address, Scheme};
use super::{Judge, path};

impl Judge<'_> {
    /// No two sockets on one port.
    pub(super) fn sockets(&mut self, raw: &RawConfig) {
        let mut taken: Vec<(Path, SocketAddr)> = Vec::new();
        let listeners = raw.listeners.iter();
        let listeners =
            listeners.map(|(name, listener)| (path(&["listeners", name, "listen"]), listener.listen.0));
        for (at, address) in listeners.chain([(path(&["admin", "listen"]), raw.admin.listen.0)]) {
            let overlaps = |other: &SocketAddr| {
                let any = other.ip().is_unspecified() || address.ip().is_unspecified();
                other.port() == address.port() && address.port() != 0 && (any || other.ip() == address.ip())
            };
            match taken.iter().find(|(_, other)| overlaps(other)) {
                Some((other, _)) if !self.report.is_blamed(other) => {
                    let rule = format!("is taken by {}, expected another port", dotted(other));
                    self.breach(&at, &address, &rule);
                }
                _ => taken.push((at, address)),
            }
        }
    }

    /// No listener is its own app.
    pub(super) fn own_ports(&mut self, raw: &RawConfig) {
        for (name, RawListener { listen, upstream, .. }) in &raw.listeners {
            let Address::Tcp { host, port } = &upstream.address else { continue };
            let listen_ip = listen.0.ip();
            let here = match host.parse::<IpAddr>() {
                Ok(ip) if ip == listen_ip => true,
                Ok(ip) => ip.is_loopback() && listen_ip.is_unspecified(),
                Err(_) => {
                    let any = listen_ip.is_unspecified() || listen_ip.is_loopback();
                    any && host.eq_ignore_ascii_case("localhost")
                }
            };
            if here
                && listen.0.port() == *port
                && !self.report.is_blamed(&path(&["listeners", name, "listen"]))
            {
                let rule = "is the listener itself: requests would go round in circles, expected the address of the app";
                self.breach(&path(&["listeners", name, "upstream"]), &upstream, rule);
            }
        }
    }

    pub(super) fn limits(&mut self, name: &str, listener: &RawListener) {
        let limits = &listener.limits;
        let at = |key| path(&["listeners", name, "limits", key]);
        // hyper refuses a smaller buffer.
        if !(8 << 10..=16 << 20).contains(&limits.header_bytes.0) {
            self.breach(&at("header_bytes"), &limits.header_bytes, "is not allowed, expected 8KiB to 16MiB");
        }
        if limits.headers.get() > 10_000 {
            self.breach(&at("headers"), &limits.headers, "is not allowed, expected at most 10000");
        }
        // More than any kernel gives descriptors, and less than a semaphore can count.
        let in_flight = limits.in_flight.0.map(|number| ("in_flight", number.get()));
        let counts = [("connections", limits.connections.get()), ("queue", limits.queue)];
        for (key, number) in counts.into_iter().chain(in_flight) {
            if number > 100_000_000 {
                self.breach(&at(key), &number, "is not allowed, expected at most 100000000");
            }
        }
    }

    /// A `tcp://` listener carries bytes and sees no request.
    pub(super) fn bytes(&mut self, name: &str, listener: &RawListener) {
        let at = |key| path(&["listeners", name, key]);
        if let Some(ready_path) = &listener.ready_path.0
            && listener.upstream.scheme == Scheme::Tcp
            && !self.report.is_blamed(&at("upstream"))
        {
            let rule =
                format!("is not allowed for {}: it carries no requests, expected off", listener.upstream);
            self.breach(&at("ready_path"), &ready_path.0, &rule);
        }
    }

    /// `upstream_tls` belongs to `https://`.
    pub(super) fn upstream_tls(&mut self, name: &str, listener: &RawListener) {
        let Some(tls) = &listener.upstream_tls else { return };
        let at = |keys: &[&str]| path(&[&["listeners", name, "upstream_tls"], keys].concat());
        if listener.upstream.scheme != Scheme::Https
            && !self.report.is_blamed(&path(&["listeners", name, "upstream"]))
        {
            let rule = format!("is not allowed for {}, expected an upstream of https://", listener.upstream);
            self.breach(&at(&[]), &"a map of keys", &rule);
        }
        if tls.ca.is_some() && tls.insecure_skip_verify {
            let rule = "is not allowed together with ca, expected one of them";
            self.breach(&at(&["insecure_skip_verify"]), &true, rule);
        }
        if let Some(server_name) = &tls.server_name
            && ServerName::try_from(server_name.as_str()).is_err()
        {
            let shown = shown(&Value::from(server_name.as_str()));
            self.breach(&at(&["server_name"]), &shown, "is not a host name, expected e.g. app.example.com");
        }
    }
}
