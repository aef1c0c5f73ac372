//! A malformed request, and what may become of it.

/// What the app is to see of one attack, and whether the connection is closed with a refusal.
#[derive(Clone)]
pub struct Expected {
    pub forwarded: Vec<Form>,
    pub refused: bool,
}

/// A request line, a body, and fields that must be there with this value, or must not.
#[derive(Clone)]
pub struct Form {
    pub line: &'static str,
    pub body: &'static str,
    pub fields: Vec<(&'static str, Option<&'static str>)>,
}

#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub expected: Expected,
}

/// What no app must ever see.
pub const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";

pub const HOST: &str = "Host: app.test\r\n";

pub fn refused() -> Expected {
    Expected { forwarded: Vec::new(), refused: true }
}

pub fn forwarded(
    line: &'static str,
    body: &'static str,
    fields: &[(&'static str, Option<&'static str>)],
) -> Expected {
    Expected { forwarded: vec![Form { line, body, fields: fields.to_vec() }], refused: false }
}

pub fn case(name: &'static str, bytes: impl AsRef<[u8]>, expected: Expected) -> Case {
    Case { name, bytes: bytes.as_ref().to_vec(), expected }
}

/// Bytes that are refused as a head, with a request smuggled behind.
pub fn head(name: &'static str, bytes: impl AsRef<[u8]>) -> Case {
    case(name, [bytes.as_ref(), SMUGGLED.as_bytes()].concat(), refused())
}

/// The same for fields besides Host.
pub fn fields(name: &'static str, fields: impl AsRef<[u8]>) -> Case {
    head(name, [b"POST /a HTTP/1.1\r\n", HOST.as_bytes(), fields.as_ref(), b"\r\n"].concat())
}

/// A chunked body that is refused.
pub fn chunks(name: &'static str, chunks: impl AsRef<[u8]>) -> Case {
    fields(name, [b"Transfer-Encoding: chunked\r\n\r\n", chunks.as_ref()].concat())
}
