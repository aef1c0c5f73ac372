//! Who may use the machine: scenarios that measure time run alone, the others side by side.
//!
//! A lock on a file, so that it also holds between processes (nextest runs each test in its own).

use std::fs::File;
use std::path::Path;

/// Held for as long as a scenario runs.
#[derive(Debug)]
pub struct Turn(#[allow(dead_code, reason = "dropping it unlocks")] File);

/// For scenarios whose figures mean nothing beside others.
pub fn alone() -> Turn {
    let file = open();
    file.lock().expect("the file can be locked");
    Turn(file)
}

/// For scenarios that bear company.
pub fn shared() -> Turn {
    let file = open();
    file.lock_shared().expect("the file can be locked");
    Turn(file)
}

fn open() -> File {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("machine.lock");
    File::options().create(true).append(true).open(path).expect("the build's directory is writable")
}
