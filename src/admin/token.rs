//! The bearer token of the hooks, read from its file at each hook: a hook is rare, and a rotated token
//! counts at once.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use http::HeaderMap;
use http::header::AUTHORIZATION;

/// Whether a request may call a hook.
///
/// # Errors
///
/// Says why not. A file that cannot be read lets nobody in.
pub fn check(file: Option<&Path>, headers: &HeaderMap) -> Result<(), String> {
    let Some(file) = file else { return Ok(()) };
    let token = read(file).map_err(|reason| {
        tracing::warn!(file = %file.display(), %reason, "hook token cannot be read: hooks are refused");
        format!("the hook token cannot be read ({reason}): see admin.hook_token_file")
    })?;
    let sent = headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let (scheme, credentials) = sent.split_at_checked("bearer ".len()).unwrap_or_default();
    if scheme.eq_ignore_ascii_case(b"bearer ") && same(credentials.trim_ascii(), token.trim_ascii()) {
        Ok(())
    } else {
        Err("this hook wants `authorization: Bearer …` with the token of admin.hook_token_file".to_owned())
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    // Opening a FIFO would block the thread that answers the probes.
    let metadata = fs::metadata(file).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut token = Vec::new();
    let file = fs::File::open(file).map_err(|error| error.to_string())?;
    file.take(MAX_TOKEN_BYTES).read_to_end(&mut token).map_err(|error| error.to_string())?;
    if token.trim_ascii().is_empty() {
        return Err("the file is empty".to_owned());
    }
    Ok(token)
}

const MAX_TOKEN_BYTES: u64 = 4096;

/// Compares in a time that tells at most the length.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().expect("a header"))])
    }

    #[test]
    fn only_the_token_of_the_file_opens_and_a_rotated_one_counts_at_once() {
        let file = std::env::temp_dir().join(format!("readygate-token-{}", std::process::id()));
        fs::write(&file, "first\n").expect("write");
        for (value, allowed) in [
            ("Bearer first", true),
            ("bearer first", true),
            ("Bearer firs", false),
            ("Bearer", false),
            ("Basic first", false),
            ("", false),
        ] {
            assert_eq!(check(Some(&file), &sent(value)).is_ok(), allowed, "{value:?}");
        }
        fs::write(&file, "second").expect("write");
        assert!(check(Some(&file), &sent("Bearer first")).is_err());
        assert!(check(Some(&file), &sent("Bearer second")).is_ok());
        fs::write(&file, "\n").expect("write");
        assert!(check(Some(&file), &sent("Bearer ")).is_err(), "an empty token lets nobody in");
        fs::remove_file(&file).expect("remove");
        assert!(check(Some(&file), &sent("Bearer second")).is_err(), "a missing file lets nobody in");
        assert!(check(Some(Path::new("/dev/null")), &sent("Bearer ")).is_err());
        assert!(check(None, &HeaderMap::new()).is_ok());
    }
}
