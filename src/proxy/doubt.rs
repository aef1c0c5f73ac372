//! Whose answer is it? hyper refuses some heads by itself, with an answer that does not say so and has no words.
//!
//! It has no hook for it, but says what it did: right after the answer the connection ends with an error of parsing.
//! So bytes that look like such an answer wait, until the same look at the connection is over, and then go out as
//! they are (the app answered the same), or are replaced by ours.

use std::cell::Cell;

use crate::traffic::ErrorKind;

/// What a connection knows of the bytes that wait.
#[derive(Debug, Default)]
pub struct Doubt(Cell<Option<ErrorKind>>);

impl Doubt {
    /// Whether these bytes are to wait.
    pub fn has(&self, bytes: &[u8]) -> bool {
        let found = ANSWERS.iter().find(|(answer, _)| answer.as_bytes() == bytes);
        if let Some((_, kind)) = found {
            self.0.set(Some(*kind));
        }
        found.is_some()
    }

    /// Whether bytes wait; the error that they stand for if they are hyper's.
    pub fn open(&self) -> Option<ErrorKind> {
        self.0.get()
    }

    /// They are not hyper's, and may go.
    pub fn settle(&self) {
        self.0.set(None);
    }
}

/// What hyper says, as long as it is told to send no date.
const ANSWERS: [(&str, ErrorKind); 2] = [
    ("HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", ErrorKind::BadRequest),
    (
        "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        ErrorKind::TooManyFields,
    ),
];
