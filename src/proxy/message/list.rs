//! Fields that are lists (RFC 9110, 5.6.1).

use http::header::{HeaderMap, HeaderName};

/// Whether a list has this item, in any case of letters and in any of its lines.
pub fn names(headers: &HeaderMap, list: &HeaderName, item: &str) -> bool {
    let lines = headers.get_all(list).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|one| one.trim_ascii().eq_ignore_ascii_case(item.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderValue, TE};

    use super::*;

    #[test]
    fn item_is_found_in_any_line_and_is_a_whole_one() {
        let mut headers = HeaderMap::new();
        for line in ["gzip;q=0.5, Trailers", "a"] {
            headers.append(TE, HeaderValue::from_static(line));
        }
        assert!(names(&headers, &TE, "trailers") && names(&headers, &TE, "A"));
        assert!(!names(&headers, &TE, "gzip") && !names(&headers, &TE, "trailer"));
    }
}
