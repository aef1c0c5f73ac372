//! The bytes of a request, in the order and with the rules of the kubelet.
//!
//! Host and User-Agent first, then the other fields sorted by name, `Connection: close` last unless the
//! fields ask to switch protocols. An empty Host, User-Agent or Accept means: the default, none, none.
//! Content-Length and Transfer-Encoding cannot be set: they follow from the body.

use std::collections::BTreeMap;

use super::url::Url;
use crate::check::values::Headers;

/// What stays the same over redirects.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub method: String,
    pub body: Option<String>,
    /// `Host`, if it is not the one of the URL.
    host: Option<String>,
    /// `User-Agent`, if one is sent.
    user_agent: Option<String>,
    /// The configuration gives `Referer`, so redirects leave it alone.
    own_referer: bool,
    /// The rest, by canonical name.
    fields: BTreeMap<String, Vec<String>>,
}

impl Request {
    pub(super) fn new(method: &str, headers: &Headers, body: Option<String>) -> Self {
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers.iter() {
            fields.entry(canonical(name)).or_default().push(value.trim().to_owned());
        }
        let mut first = |name: &str| fields.remove(name).and_then(|values| values.into_iter().next());
        let host = first("Host").filter(|host| !host.is_empty());
        let user_agent = match first("User-Agent") {
            None => Some(concat!("readygate/", env!("CARGO_PKG_VERSION")).to_owned()),
            Some(given) => Some(given).filter(|given| !given.is_empty()),
        };
        for framing in ["Content-Length", "Transfer-Encoding", "Trailer"] {
            first(framing);
        }
        match fields.get("Accept").map(|values| values[0].is_empty()) {
            None => {
                fields.insert("Accept".to_owned(), vec!["*/*".to_owned()]);
            }
            Some(true) => {
                fields.remove("Accept");
            }
            Some(false) => {}
        }
        let own_referer = fields.contains_key("Referer");
        Self { method: method.to_owned(), body, host, user_agent, own_referer, fields }
    }

    /// The bytes for `url`.
    pub(super) fn bytes(&self, url: &Url) -> Vec<u8> {
        let host = self.host.as_deref().unwrap_or(&url.host);
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", self.method, url.target());
        let mut field = |name: &str, value: &str| text.push_str(&format!("{name}: {value}\r\n"));
        if let Some(user_agent) = &self.user_agent {
            field("User-Agent", user_agent);
        }
        match &self.body {
            Some(body) => field("Content-Length", &body.len().to_string()),
            None if matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") => field("Content-Length", "0"),
            None => {}
        }
        for (name, values) in &self.fields {
            for value in values {
                field(name, value);
            }
        }
        if !self.switches_protocols() && !self.connection_has("close") {
            field("Connection", "close");
        }
        text.push_str("\r\n");
        text.push_str(self.body.as_deref().unwrap_or_default());
        text.into_bytes()
    }

    /// Becomes the request that follows a redirect from `from` to `to`, which had this status and location.
    pub(super) fn follow(&mut self, status: u16, from: &Url, to: &Url, location: &Url) {
        if matches!(status, 301..=303) {
            // As browsers do: only 307 and 308 repeat method and body.
            if !matches!(self.method.as_str(), "GET" | "HEAD") {
                self.method = "GET".to_owned();
            }
            self.body = None;
        }
        if location.is_absolute() {
            self.host = None;
        }
        if !self.own_referer {
            self.fields.remove("Referer");
            if !(from.scheme == "https" && to.scheme == "http") {
                self.fields.insert("Referer".to_owned(), vec![from.full()]);
            }
        }
    }

    fn switches_protocols(&self) -> bool {
        self.fields.get("Upgrade").is_some_and(|values| !values[0].is_empty())
            && self.connection_has("upgrade")
    }

    fn connection_has(&self, token: &str) -> bool {
        let values = self.fields.get("Connection").into_iter().flatten();
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    }
}

/// `x-request-id` → `X-Request-Id`.
fn canonical(name: &str) -> String {
    let mut at_start = true;
    let case = |c: char| {
        let cased = if at_start { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        at_start = c == '-';
        cased
    };
    name.chars().map(case).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(method: &str, headers: serde_json::Value, body: Option<&str>) -> Request {
        let headers = serde_json::from_value(headers).expect("headers");
        Request::new(method, &headers, body.map(str::to_owned))
    }

    fn text(request: &Request, url: &str) -> String {
        String::from_utf8(request.bytes(&Url::parse(url).expect("url"))).expect("text")
    }

    #[test]
    fn a_body_brings_its_length() {
        let request =
            request("POST", json!({ "content-type": "text/plain", "content-length": "99" }), Some("äb"));
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "POST /x HTTP/1.1\r\nHost: h:1\r\nUser-Agent: readygate/{version}\r\nContent-Length: 3\r\nAccept: */*\r\n\
             Content-Type: text/plain\r\nConnection: close\r\n\r\näb"
        );
        assert_eq!(text(&request, "http://h:1/x"), expected);
    }

    #[test]
    fn a_303_turns_a_post_into_a_get_and_a_307_repeats_it() {
        let (from, to) = (Url::parse("http://h/a").expect("from"), Url::parse("http://h/b").expect("to"));
        for (status, method, body) in [(303, "GET", None), (302, "GET", None), (307, "POST", Some("b"))] {
            let mut request = request("POST", json!({}), Some("b"));
            request.follow(status, &from, &to, &to);
            assert_eq!((request.method.as_str(), request.body.as_deref()), (method, body), "{status}");
        }
    }
}
