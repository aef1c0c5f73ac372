//! What is refused of an app's answer, and what is made plain in it.
//!
//! Parsers of answers are generous too. An answer whose end two parsers could see in different places must neither
//! reach the client as it is nor leave a connection in the pool. Other oddities end here by themselves: answers are
//! written anew, and a connection on which more comes than was asked for is closed.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode, Version};

use super::fault::Fault;
use super::octets::{is_digits, is_name};

/// Judges the head of an answer; writes its length in one way.
///
/// # Errors
///
/// The answer has no certain end. The connection it came on must be closed.
pub fn check<B>(answer: &mut Response<B>) -> Result<(), Fault> {
    let status = answer.status();
    // Those of HTTP/1 have been read by the letter.
    if answer.version() == Version::HTTP_2 && !answer.headers().keys().all(is_name) {
        return Err(Fault::Name);
    }
    let headers = answer.headers_mut();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if headers.contains_key(header::CONTENT_LENGTH) {
            return Err(Fault::TwoLengths);
        }
        // No other coding is undone here, and the field that names it ends here.
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        return if chunked && codings.next().is_none() { Ok(()) } else { Err(Fault::TransferEncoding) };
    }
    let Some(length) = length(headers)? else { return Ok(()) };
    if status == StatusCode::NO_CONTENT {
        // RFC 9110, 8.6: must not be there.
        headers.remove(header::CONTENT_LENGTH);
    } else if let Some(plain) = length {
        headers.insert(header::CONTENT_LENGTH, plain);
    }
    Ok(())
}

/// Whether there is a length, and if it is not plain digits in one line, its plain form. Equal ones may be made one
/// (RFC 9110, 8.6).
fn length(headers: &HeaderMap) -> Result<Option<Option<HeaderValue>>, Fault> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter().map(HeaderValue::as_bytes);
    let (Some(first), second) = (lines.next(), lines.next()) else { return Ok(None) };
    let is_plain = is_digits(first) && (first.len() == 1 || !first.starts_with(b"0"));
    if second.is_none() && is_plain {
        return Ok(Some(None));
    }
    let mut lengths = headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(|length| number(length.trim_ascii()));
    let first = lengths.next().flatten().ok_or(Fault::ContentLength)?;
    if lengths.all(|length| length == Some(first)) {
        Ok(Some(Some(HeaderValue::from(first))))
    } else {
        Err(Fault::ContentLength)
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    // Not `parse` alone: that takes a sign.
    if is_digits(digits) { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn checked(status: u16, fields: &[(&'static str, &'static str)]) -> Result<Vec<(String, String)>, Fault> {
        let mut answer = Response::builder().status(status);
        for (name, value) in fields {
            answer = answer.header(*name, *value);
        }
        let mut answer = answer.body(()).expect("an answer that http takes");
        check(&mut answer)?;
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Ok(answer.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect())
    }

    #[test]
    fn length_is_one_number_in_the_end() {
        for (lines, expected) in [
            (vec!["5"], "5"),
            (vec!["0"], "0"),
            (vec!["005"], "5"),
            (vec!["5", "5"], "5"),
            (vec!["5, 05"], "5"),
        ] {
            let fields: Vec<_> = lines.iter().map(|line| ("content-length", *line)).collect();
            let expected = vec![("content-length".to_owned(), expected.to_owned())];
            assert_eq!(checked(200, &fields), Ok(expected), "{lines:?}");
            assert_eq!(checked(204, &fields), Ok(vec![]), "{lines:?}");
        }
        for lines in
            [vec!["5", "6"], vec!["5, 6"], vec!["+5"], vec![""], vec!["5,"], vec!["x"], vec!["5", "x"]]
        {
            let fields: Vec<_> = lines.iter().map(|line| ("content-length", *line)).collect();
            assert_eq!(checked(200, &fields), Err(Fault::ContentLength), "{lines:?}");
        }
        assert_eq!(checked(200, &[("content-length", "99999999999999999999")]), Err(Fault::ContentLength));
    }

    #[test]
    fn names_of_http2_are_those_of_http1() {
        let named = |name: &str, version| {
            let name = HeaderName::from_lowercase(name.as_bytes()).expect("a name for the crate");
            let answer = Response::builder().version(version).header(name, "1").body(());
            check(&mut answer.expect("an answer that http takes"))
        };
        assert_eq!(named("a\"b", Version::HTTP_2), Err(Fault::Name));
        assert_eq!(named("a'b", Version::HTTP_2), Ok(()));
    }

    #[test]
    fn coding_is_chunked_and_nothing_else() {
        assert!(checked(200, &[("transfer-encoding", "Chunked")]).is_ok());
        for coding in ["gzip, chunked", "chunked, gzip", "identity", "", "chunked,", "xchunked"] {
            assert_eq!(
                checked(200, &[("transfer-encoding", coding)]),
                Err(Fault::TransferEncoding),
                "{coding:?}"
            );
        }
        let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(checked(200, &twice), Err(Fault::TransferEncoding));
        let both = [("transfer-encoding", "chunked"), ("content-length", "5")];
        assert_eq!(checked(200, &both), Err(Fault::TwoLengths));
    }
}
