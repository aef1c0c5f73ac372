//! URLs as Go's `net/url` reads, joins and writes them, since that is what the kubelet does with them.
//!
//! A path is kept in the form in which it is sent: unchanged if every byte may stand there, else decoded
//! and encoded anew. A query is sent as it was written.

/// A URL, or a reference to one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Url {
    /// Lower case; empty in a relative reference.
    pub scheme: String,
    /// `host`, `host:port` or `[::1]:port`.
    pub host: String,
    /// Encoded; may be empty.
    path: String,
    /// After the question mark.
    query: Option<String>,
    /// The rest of a URL like `mailto:x`, which has no host.
    opaque: bool,
}

impl Url {
    /// Reads a URL or a reference (`url.Parse`). The fragment is dropped.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
        if text.bytes().chain(fragment.bytes()).any(|byte| byte < b' ' || byte == 0x7f) {
            return Err("a control character");
        }
        decode(fragment).ok_or("an invalid escape")?;
        let (scheme, rest) = split_scheme(text)?;
        let mut url = Self { scheme: scheme.to_ascii_lowercase(), ..Self::default() };
        let (mut rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query.to_owned())),
            None => (rest, None),
        };
        url.query = query;
        if !rest.starts_with('/') {
            if !url.scheme.is_empty() {
                url.opaque = true;
                return Ok(url);
            }
            if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
                return Err("a colon in the first segment of the path");
            }
        }
        if (!url.scheme.is_empty() || !rest.starts_with("///"))
            && let Some(authority) = rest.strip_prefix("//")
        {
            let end = authority.find('/').unwrap_or(authority.len());
            url.host = host(&authority[..end])?;
            rest = &authority[end..];
        }
        url.path = encoded_path(rest).ok_or("an invalid escape")?;
        Ok(url)
    }

    /// A URL from what the configuration splits it into; `path` is empty or begins with `/` or `?`. As for the
    /// `path` of a kubelet's probe, one that does not parse is taken literally.
    pub(super) fn of_parts(scheme: &str, host: &str, path: &str) -> Self {
        let literal = |_| Self { path: encode(path.as_bytes()), ..Self::default() };
        let url = Self::parse(&format!("http://host{path}")).unwrap_or_else(literal);
        Self { scheme: scheme.to_owned(), host: host.to_owned(), ..url }
    }

    /// The URL that `reference` means on the page at `self` (`URL.ResolveReference`).
    pub(super) fn join(&self, reference: Self) -> Self {
        let scheme = if reference.scheme.is_empty() { self.scheme.clone() } else { reference.scheme.clone() };
        if reference.opaque {
            return Self { scheme, ..reference };
        }
        if !reference.scheme.is_empty() || !reference.host.is_empty() {
            return Self { scheme, path: without_dots("", &reference.path), ..reference };
        }
        let query = match reference.query {
            None if reference.path.is_empty() => self.query.clone(),
            query => query,
        };
        let path = without_dots(&self.path, &reference.path);
        Self { scheme, host: self.host.clone(), path, query, opaque: false }
    }

    pub(super) fn is_absolute(&self) -> bool {
        !self.scheme.is_empty()
    }

    /// The host without port and brackets.
    pub(super) fn host_name(&self) -> &str {
        let name = match self.host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => &self.host,
        };
        // `[::1]` without a port ends in a bracket, so its last group is not taken for one.
        name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(name)
    }

    /// The port, given or meant by the scheme. None if it is no port.
    pub(super) fn port(&self) -> Option<u16> {
        let given = self.host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        match (given, self.scheme.as_str()) {
            (None | Some(""), "https") => Some(443),
            (None | Some(""), _) => Some(80),
            (Some(port), _) => port.parse().ok(),
        }
    }

    /// The request target: path and query.
    pub(super) fn target(&self) -> String {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        match &self.query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        }
    }

    /// The whole URL as written in `Referer`.
    pub(super) fn full(&self) -> String {
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}://{}{}{query}", self.scheme, self.host, self.path)
    }

    /// The URL for people: without the query, which may hold a secret.
    pub(super) fn shown(&self) -> String {
        format!("{}://{}{}", self.scheme, self.host, self.path)
    }
}

fn split_scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if index > 0 => {}
            b':' if index == 0 => return Err("no scheme before the colon"),
            b':' => return Ok((&text[..index], &text[index + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

/// Userinfo is dropped: credentials of a URL are not sent.
fn host(authority: &str) -> Result<String, &'static str> {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = match host.rfind('[') {
        Some(_) => match host.rfind(']') {
            Some(end) => &host[end + 1..],
            None => return Err("no ] after the address"),
        },
        None => host.rfind(':').map_or("", |colon| &host[colon..]),
    };
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return Err("an invalid port");
    }
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || byte >= 0x80 || b"-_.~!$&'()*+,;=:[]<>\"".contains(&byte);
    // `%` would have to be decoded: only zones of IPv6 addresses and names outside ASCII need it.
    if host.bytes().all(plain) { Ok(host.to_owned()) } else { Err("an invalid character in the host name") }
}

/// A path as it is sent; None if an escape is broken.
fn encoded_path(path: &str) -> Option<String> {
    let decoded = decode(path)?;
    let allowed = |byte: u8| byte == b'%' || b"!'()*[]".contains(&byte) || may_stand(byte);
    Some(if path.bytes().all(allowed) { path.to_owned() } else { encode(&decoded) })
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
            decoded.push(u8::try_from(value).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

fn encode(path: &[u8]) -> String {
    let mut encoded = String::with_capacity(path.len());
    for &byte in path {
        if may_stand(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn may_stand(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte)
}

/// The path of `reference` seen from `base`, without `.` and `..` (`resolvePath`).
fn without_dots(base: &str, reference: &str) -> String {
    let full = match reference {
        "" => base.to_owned(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("{}{relative}", &base[..base.rfind('/').map_or(0, |slash| slash + 1)]),
    };
    if full.is_empty() {
        return full;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut last = "";
    for segment in full.strip_prefix('/').unwrap_or(&full).split('/') {
        last = segment;
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let slash = if matches!(last, "." | "..") && !kept.is_empty() { "/" } else { "" };
    format!("/{}{slash}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn probe(path: &str) -> String {
        Url::of_parts("http", "h:1", path).target()
    }

    /// The `path-*` cases measured on a live kubelet, but for `//double/x`: in a whole URL it is a path.
    #[test]
    fn probe_paths_are_sent_as_the_kubelet_sends_them() {
        for (path, sent) in [
            ("/q?a=1&b=%20x", "/q?a=1&b=%20x"),
            ("/p%2Fq%20r", "/p%2Fq%20r"),
            ("/p%zz", "/p%25zz"),
            ("//double/x", "//double/x"),
            ("/a/../b/./c", "/a/../b/./c"),
            ("/ü", "/%C3%BC"),
            ("/a b", "/a%20b"),
            ("?only=1", "/?only=1"),
            ("/a#frag", "/a"),
            ("", "/"),
            ("/a+b;c=d|e\"<>", "/a+b;c=d%7Ce%22%3C%3E"),
        ] {
            assert_eq!(probe(path), sent, "{path}");
        }
    }

    #[test]
    fn references_are_resolved_as_rfc_3986_section_5_4_says() {
        let base = Url::parse("http://a/b/c/d;p?q").expect("base");
        for (reference, expected) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("https://x:8443/ok", "https://x:8443/ok"),
        ] {
            let joined = base.join(Url::parse(reference).expect(reference));
            assert_eq!(joined.full(), expected, "{reference}");
        }
    }

    #[test]
    fn broken_references_are_errors() {
        for bad in
            ["http://[::1", "http://h:port/", "/a%zz", "a:b:c/%zz#%", ":x", "/a\nb", "http://a b/", "#%z"]
        {
            let parsed = Url::parse(bad);
            assert!(parsed.is_err() || parsed.is_ok_and(|url| url.opaque), "{bad}");
        }
        assert!(Url::parse("mailto:x").expect("opaque").host.is_empty());
    }

    #[test]
    fn host_names_lose_port_and_brackets() {
        for (url, name, port) in [
            ("http://h:80/", "h", 80),
            ("https://h", "h", 443),
            ("http://[::1]:8080/", "::1", 8080),
            ("http://[::1]", "::1", 80),
        ] {
            let url = Url::parse(url).expect(url);
            assert_eq!((url.host_name(), url.port()), (name, Some(port)));
        }
    }

    proptest! {
        #[test]
        fn no_location_makes_a_target_that_could_split_a_request(location in "[a-z:/?#\\[\\]@%. \\x00-\\x1fäß]{0,30}") {
            let base = Url::parse("http://h:80/a/b?c").expect("base");
            if let Ok(reference) = Url::parse(&location) {
                let joined = base.join(reference);
                let _ = (joined.host_name().len(), joined.port());
                let sent = format!("{}{}{}", joined.target(), joined.host, joined.full());
                prop_assert!(!sent.bytes().any(|byte| byte < b' ' || byte == 0x7f), "{sent:?}");
            }
        }
    }
}
