//! `tcp`: something accepts connections at an address.
//!
//! As weak as the kubelet's `tcpSocket`: the kernel's accept queue of a hung app suffices. It says that a
//! port is there, not that work is done behind it.

use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value, json};

use super::connect::connect;
use super::own;
use super::values::Address;
use super::{Check, CheckFuture, Evidence, Kind};
use crate::config::{self, Gates, KeyError, Listener, Own};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "tcp",
        passes_when: "a connection is established; where it is the app's own port, `gates` is `always` by default",
        gates,
        accept,
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["tcp"],
        from_url,
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| Box::new(Tcp { keys: own::parse(&spec.own).expect("configuration accepted the keys") }),
};

/// The keys of `tcp`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// Where to connect to: host:port.
    address: Address,
}

#[derive(Debug)]
struct Tcp {
    keys: Keys,
}

impl Check for Tcp {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(async {
            // Dropped at once: FIN, and nothing was sent.
            let stream = connect(&self.keys.address).await?;
            let peer = stream.peer_addr().map(|peer| format!("connected to {peer}")).unwrap_or_default();
            Ok(Evidence { summary: peer, ..Evidence::default() })
        })
    }

    fn tests(&self) -> String {
        format!("connects to {}, and hangs up", self.keys.address)
    }
}

/// The app's own port counts at any time; anybody else's gates the start only.
fn gates(own: &Own, listeners: &[Listener]) -> Gates {
    match own::parse::<Keys>(own) {
        Ok(keys) if keys.address.is_upstream_of(listeners) => Gates::Always,
        _ => Gates::Startup,
    }
}

fn accept(own: &Own, _: &[Listener]) -> Result<(), Vec<KeyError>> {
    own::parse::<Keys>(own).map(|_| ())
}

fn from_url(url: &str) -> Result<Value, String> {
    let address = url.strip_prefix("tcp://").ok_or("expected tcp://host:port")?;
    let address = Address::parse(address.strip_suffix('/').unwrap_or(address))?;
    Ok(json!({ "address": address.to_string() }))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::check::CheckError;

    fn tcp(address: &str) -> Tcp {
        Tcp { keys: Keys { address: Address::parse(address).expect("address") } }
    }

    #[tokio::test]
    async fn a_listening_port_passes_without_being_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let evidence = tcp(&address.to_string()).run().await.expect("passes");
        assert_eq!(evidence.summary, format!("connected to {address}"));
    }

    #[tokio::test]
    async fn a_closed_port_is_a_refusal_with_its_address() {
        let address = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
        let error = tcp(&address.to_string()).run().await.expect_err("fails");
        assert_eq!(error, CheckError::Refused { address });
    }

    #[tokio::test]
    async fn a_name_is_tried_at_all_its_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        tcp(&format!("localhost:{port}")).run().await.expect("passes, whether or not ::1 comes first");
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_said_so() {
        let error = tcp("nothing.invalid:1").run().await.expect_err("fails");
        assert!(
            error.to_string().starts_with("cannot connect to nothing.invalid:1: the name does not resolve"),
            "{error}"
        );
    }

    #[test]
    fn urls_become_keys() {
        assert_eq!(from_url("tcp://db:5432"), Ok(json!({ "address": "db:5432" })));
        assert_eq!(from_url("tcp://[::1]:5432/"), Ok(json!({ "address": "[::1]:5432" })));
        assert!(from_url("tcp://db").is_err());
    }
}
