//! Names of fields, as they come.

use http::header::{self, HeaderName};

use super::super::fault::Fault;

/// The name that these bytes are. Those that most messages have are found at once, as they are usually written: the
/// crate's own way takes ten times as long.
///
/// # Errors
///
/// It is none.
pub fn name(bytes: &[u8]) -> Result<HeaderName, Fault> {
    Ok(match bytes {
        b"host" | b"Host" => header::HOST,
        b"accept" | b"Accept" => header::ACCEPT,
        b"accept-encoding" | b"Accept-Encoding" => header::ACCEPT_ENCODING,
        b"accept-language" | b"Accept-Language" => header::ACCEPT_LANGUAGE,
        b"authorization" | b"Authorization" => header::AUTHORIZATION,
        b"cache-control" | b"Cache-Control" => header::CACHE_CONTROL,
        b"connection" | b"Connection" => header::CONNECTION,
        b"content-encoding" | b"Content-Encoding" => header::CONTENT_ENCODING,
        b"content-length" | b"Content-Length" => header::CONTENT_LENGTH,
        b"content-type" | b"Content-Type" => header::CONTENT_TYPE,
        b"cookie" | b"Cookie" => header::COOKIE,
        b"date" | b"Date" => header::DATE,
        b"etag" | b"ETag" => header::ETAG,
        b"last-modified" | b"Last-Modified" => header::LAST_MODIFIED,
        b"origin" | b"Origin" => header::ORIGIN,
        b"referer" | b"Referer" => header::REFERER,
        b"server" | b"Server" => header::SERVER,
        b"set-cookie" | b"Set-Cookie" => header::SET_COOKIE,
        b"transfer-encoding" | b"Transfer-Encoding" => header::TRANSFER_ENCODING,
        b"user-agent" | b"User-Agent" => header::USER_AGENT,
        b"vary" | b"Vary" => header::VARY,
        _ => HeaderName::from_bytes(bytes).map_err(|_| Fault::Name)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_what_the_crate_makes_of_it() {
        let (source, _) = include_str!("name.rs").split_once("mod tests").expect("this");
        let known = source.split("b\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0));
        let known: Vec<&str> = known.collect();
        assert!(known.len() > 40);
        for name in known.iter().chain(&["HOST", "hOST", "x-host", "X-Request-Id", "accept-"]) {
            let expected = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            assert_eq!(super::name(name.as_bytes()), Ok(expected), "{name}");
        }
        assert_eq!(super::name(b"a b"), Err(Fault::Name));
        assert_eq!(super::name(b""), Err(Fault::Name));
    }
}
