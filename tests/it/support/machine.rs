//! What this machine can do, and who may use it: scenarios that measure time run alone, the others side by side.
//!
//! A lock on a file, so that it also holds between processes (nextest runs each test in its own).

use std::fs::File;
use std::io::Write;
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

/// Notes that the calling test cannot run here, for `tests/run` to tell; in CI that is a failure.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    writeln!(file("skipped"), "{why}").expect("the build's directory is writable");
}

/// Whether others keep this machine so busy that figures of time mean nothing.
pub fn is_busy() -> bool {
    let load = std::fs::read_to_string("/proc/loadavg").expect("Linux says so");
    let minute: f64 = load.split(' ').next().and_then(|load| load.parse().ok()).expect("a number");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    minute > 2.0 * cores as f64
}

/// The most memory that a process had resident since it began, in bytes.
pub fn peak_memory(pid: u32) -> u64 {
    kilobytes(pid, "VmHWM:") << 10
}

/// The memory that a process has resident now, in bytes.
pub fn memory(pid: u32) -> u64 {
    kilobytes(pid, "VmRSS:") << 10
}

fn kilobytes(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
    let value =
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB")?.trim().parse().ok());
    value.expect("every process has it")
}

fn open() -> File {
    file("machine.lock")
}

fn file(name: &str) -> File {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    File::options().create(true).append(true).open(path).expect("the build's directory is writable")
}
