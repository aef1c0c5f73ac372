//! What an answer is worth: status, pattern and JSON values as configured. Pure.

use std::collections::BTreeMap;

use regex_lite::Regex;
use serde_json::{Value, json};

use crate::check::own::one_line;
use crate::check::values::Expect;
use crate::check::{CheckError, CheckResult, Evidence};

/// What is expected of the last answer.
#[derive(Debug)]
pub(super) struct Judge {
    pub expect: Expect,
    pub body_matches: Option<Regex>,
    /// By JSON pointer.
    pub json: Option<BTreeMap<String, Value>>,
}

/// The answer that counts.
pub(super) struct Answer {
    /// `GET http://127.0.0.1:8080/healthz`, for people.
    pub place: String,
    pub status: u16,
    pub body: Vec<u8>,
    pub redirects: usize,
    /// It is a redirect that was not followed, for this reason.
    pub stopped: Option<&'static str>,
}

impl Judge {
    /// Whether the body decides too.
    pub(super) fn looks_inside(&self) -> bool {
        self.body_matches.is_some() || self.json.is_some()
    }

    /// Takes time in proportion to the body.
    pub(super) fn verdict(&self, answer: &Answer) -> CheckResult {
        let figures = json!({ "status": answer.status, "redirects": answer.redirects });
        match self.complaint(answer) {
            Some(what) => {
                let message = one_line(&format!("{} {what}", answer.place), 600);
                Err(CheckError::Unexpected { message, figures: Some(figures) })
            }
            None => Ok(Evidence { summary: summary(answer), figures: Some(figures), ..Evidence::default() }),
        }
    }

    fn complaint(&self, answer: &Answer) -> Option<String> {
        let status = answer.status;
        // An unfollowed redirect passes by its own status, as it does for the kubelet.
        if !self.expect.accepts(status) {
            let body = one_line(&String::from_utf8_lossy(&answer.body), 120);
            let said = if body.is_empty() { String::new() } else { format!(": {body}") };
            return Some(format!("answered {status:03}, expected {}{said}", self.expect));
        }
        if let Some(pattern) = &self.body_matches
            && !pattern.is_match(&String::from_utf8_lossy(&answer.body))
        {
            return Some(format!("answered {status} with a body that does not match {pattern}"));
        }
        let wanted = self.json.as_ref()?;
        let found: Value = match serde_json::from_slice(&answer.body) {
            Ok(found) => found,
            Err(_) if answer.body.len() >= LONGEST_LOOK => {
                return Some(format!(
                    "answered {status} with a body that is too long to look into, expected less than 1 MiB"
                ));
            }
            Err(error) => return Some(format!("answered {status} with a body that is not JSON: {error}")),
        };
        wanted.iter().find_map(|(pointer, wanted)| match found.pointer(pointer) {
            Some(value) if value == wanted => None,
            Some(value) => Some(format!("has {value} at {pointer}, expected {wanted}")),
            None => Some(format!("has nothing at {pointer}, expected {wanted}")),
        })
    }
}

fn summary(answer: &Answer) -> String {
    let status = answer.status;
    match (answer.stopped, answer.redirects) {
        (Some(reason), _) => format!("{status}, a redirect {reason}, not followed"),
        (None, 0) => status.to_string(),
        (None, 1) => format!("{status} after 1 redirect"),
        (None, many) => format!("{status} after {many} redirects"),
    }
}

/// What is read of a body that is looked into, in bytes.
pub(super) const LONGEST_LOOK: usize = 1 << 20;
