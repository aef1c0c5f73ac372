//! A password among a kind's keys: used, and shown nowhere.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use super::own::problem;
use crate::config::KeyError;

/// Text that no message, log or `Debug` shows.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub(super) struct Secret(String);

impl Secret {
    /// For what is sent to the server, and for nothing else.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// What is wrong with the value of `key`. An empty one is a variable or a file that nobody filled.
    pub(super) fn problems(&self, key: &str) -> Vec<KeyError> {
        if self.0.is_empty() || self.0.len() > LONGEST || self.0.contains('\0') {
            let message = format!("not a password, expected 1 to {LONGEST} bytes and no zero among them");
            return vec![problem(key, message)];
        }
        Vec::new()
    }

    /// `bytes` with `***` wherever the secret stands in them.
    pub(super) fn hide_in(&self, bytes: &[u8]) -> Vec<u8> {
        let secret = self.0.as_bytes();
        let (mut shown, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
        while let Some((&first, behind)) = rest.split_first() {
            match rest.strip_prefix(secret).filter(|_| !secret.is_empty()) {
                Some(after) => {
                    shown.extend_from_slice(b"***");
                    rest = after;
                }
                None => {
                    shown.push(first);
                    rest = behind;
                }
            }
        }
        shown
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Bytes of a password; PLAIN of AMQP and the messages of PostgreSQL hold more.
const LONGEST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_wherever_it_stands() {
        let secret = Secret("hunter2".to_owned());
        for (said, shown) in [
            ("unknown command 'hunter2'", "unknown command '***'"),
            ("hunter2hunter2 hunter", "****** hunter"),
            ("", ""),
        ] {
            assert_eq!(secret.hide_in(said.as_bytes()), shown.as_bytes());
        }
        assert_eq!(Secret(String::new()).hide_in(b"ab"), b"ab");
        assert_eq!(format!("{secret:?}"), "***");
    }

    #[test]
    fn what_cannot_be_a_password_is_refused() {
        for bad in [String::new(), "x".repeat(LONGEST + 1), "a\0".to_owned()] {
            let problems = Secret(bad).problems("password");
            assert_eq!(problems[0].path, ["password"]);
        }
        assert_eq!(Secret("x".repeat(LONGEST)).problems("password"), []);
    }
}
