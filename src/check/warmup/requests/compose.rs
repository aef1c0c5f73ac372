//! What the keys of a request become.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{RequestKeys, TcpKeys};
use crate::check::grpc::health;
use crate::check::warmup::client::Recipe;
use crate::check::warmup::octets::{Fields, Octets, Read};
use crate::check::warmup::{grpc, http as http1, tcp};

/// A key and what is wrong with it.
type Problem = (&'static str, String);

impl RequestKeys {
    pub(super) fn recipe(&self, read: Read<'_>) -> Result<Recipe, Problem> {
        let of_http = [
            ("method", self.method.is_some()),
            ("path", self.path.is_some()),
            ("headers", self.headers.is_some()),
            ("body", self.body.is_some()),
            ("expect", self.expect.is_some()),
        ];
        let of_grpc = [
            ("message", self.message.is_some()),
            ("metadata", self.metadata.is_some()),
            ("expect_status", self.expect_status.is_some()),
            ("service", self.service.is_some()),
        ];
        let stranger =
            |keys: &[(&'static str, bool)]| keys.iter().find(|(_, given)| *given).map(|(key, _)| *key);
        let both = [of_http.as_slice(), &[("grpc", self.grpc.is_some())], &of_grpc].concat();
        match (&self.tcp, &self.grpc, &self.path) {
            (Some(tcp), ..) => match stranger(&both) {
                Some(key) => {
                    Err((key, "not allowed with tcp, expected send and expect_bytes in it".to_owned()))
                }
                None => tcp.recipe(read).map(Recipe::Tcp),
            },
            (None, Some(grpc), _) => match stranger(&of_http) {
                Some(key) => Err((key, format!("not allowed with grpc, expected {GRPC_KEYS}"))),
                None => self.call(grpc, read).map(Recipe::Grpc),
            },
            (None, None, Some(path)) => match stranger(&of_grpc) {
                Some(key) => {
                    Err((key, "not allowed without grpc, expected /pkg.Service/Method there".to_owned()))
                }
                None => self.request(path, read).map(Recipe::Http),
            },
            (None, None, None) => {
                Err(("", "none of path, grpc and tcp is given, expected one of them".to_owned()))
            }
        }
    }

    fn request(&self, path: &str, read: Read<'_>) -> Result<http1::Recipe, Problem> {
        let method = self.method.as_deref().unwrap_or("GET").as_bytes();
        let method = http::Method::from_bytes(method).ok().filter(|method| *method != http::Method::CONNECT);
        let method =
            method.ok_or(("method", "not a request method, expected e.g. GET or POST".to_owned()))?;
        let target = Some(path).filter(|path| path.starts_with('/'));
        let target =
            target.and_then(|path| path.parse::<http::Uri>().ok()).filter(|uri| uri.host().is_none());
        let expected = "expected a path that begins with /, e.g. /api/items?limit=10";
        Ok(http1::Recipe {
            method,
            target: target.ok_or(("path", expected.to_owned()))?,
            headers: fields("headers", self.headers.as_ref(), read, &|name| HOP_BY_HOP.contains(&name))?,
            body: octets("body", self.body.as_ref(), read)?.into(),
            expect: self.expect.clone().unwrap_or_default(),
        })
    }

    fn call(&self, grpc: &str, read: Read<'_>) -> Result<grpc::Recipe, Problem> {
        let is_health = grpc == "health";
        if is_health && self.message.is_some() {
            return Err(("message", "not allowed with grpc: health, expected service at most".to_owned()));
        }
        if !is_health && self.service.is_some() {
            return Err(("service", "only allowed with grpc: health, expected message".to_owned()));
        }
        let message = match (&self.message, &self.service) {
            (Some(message), _) => message.decoded(read).map_err(|why| ("message", why))?,
            (None, service) => health::request(service.as_deref().unwrap_or_default()),
        };
        let expect = self.expect_status.clone().unwrap_or_else(|| vec![0]);
        if expect.is_empty() || expect.iter().any(|code| *code > 16) {
            return Err(("expect_status", "expected codes from 0 to 16, e.g. [0, 5]".to_owned()));
        }
        let reserved = |name: &str| {
            HOP_BY_HOP.contains(&name)
                || name.starts_with("grpc-")
                || ["content-type", "host"].contains(&name)
        };
        Ok(grpc::Recipe {
            path: method_path(if is_health { health::PATH } else { grpc })?,
            metadata: fields("metadata", self.metadata.as_ref(), read, &reserved)?,
            message,
            expect,
            health: is_health,
        })
    }
}

impl TcpKeys {
    fn recipe(&self, read: Read<'_>) -> Result<tcp::Recipe, Problem> {
        let expect: Bytes = octets("tcp.expect_bytes", self.expect_bytes.as_ref(), read)?.into();
        Ok(tcp::Recipe { send: octets("tcp.send", self.send.as_ref(), read)?.into(), expect })
    }
}

fn octets(key: &'static str, given: Option<&Octets>, read: Read<'_>) -> Result<Vec<u8>, Problem> {
    given.map_or(Ok(Vec::new()), |given| given.bytes(read)).map_err(|why| (key, why))
}

/// `/pkg.Service/Method`.
fn method_path(text: &str) -> Result<PathAndQuery, Problem> {
    let has_parts = text
        .strip_prefix('/')
        .and_then(|rest| rest.rsplit_once('/'))
        .is_some_and(|(service, method)| !service.is_empty() && !method.is_empty());
    let path = Some(text).filter(|_| has_parts && !text.contains(['?', '#']));
    let path = path.and_then(|path| PathAndQuery::try_from(path).ok());
    path.ok_or(("grpc", "expected /pkg.Service/Method, or health".to_owned()))
}

fn fields(
    key: &'static str,
    given: Option<&Fields>,
    read: Read<'_>,
    refused: &dyn Fn(&str) -> bool,
) -> Result<HeaderMap, Problem> {
    let mut fields = HeaderMap::new();
    let given = given.map_or(Ok(Vec::new()), |given| given.all(read)).map_err(|why| (key, why))?;
    for (name, value) in given {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
            return Err((key, "not a header field that can be sent".to_owned()));
        };
        if refused(name.as_str()) {
            let message = format!("{name} is not allowed, it follows from the connection and the body");
            return Err((key, message));
        }
        fields.append(name, value);
    }
    Ok(fields)
}

const GRPC_KEYS: &str = "message, metadata, expect_status or service";

/// What the connection and the body decide, not the configuration.
const HOP_BY_HOP: [&str; 6] =
    ["connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade"];
