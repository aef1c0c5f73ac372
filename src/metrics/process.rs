//! Figures of this process from `/proc`, under the names that every Prometheus client uses.

use std::fs;

use super::families::{
    Family, PROCESS_CPU, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT_MEMORY, PROCESS_START_TIME,
    PROCESS_THREADS, PROCESS_VIRTUAL_MEMORY,
};

/// Unit of the times in `/proc/self/stat`: `USER_HZ`, which is 100 on every architecture that runs Kubernetes.
const TICKS_PER_SECOND: f64 = 100.0;

/// What can be read right now; empty where there is no `/proc`.
pub fn figures() -> Vec<(Family, f64)> {
    let mut figures = Vec::new();
    let mut add = |family, value: Option<f64>| figures.extend(value.map(|value| (family, value)));
    if let Some(stat) = read("/proc/self/stat") {
        let cpu = stat_field(&stat, 14).zip(stat_field(&stat, 15));
        add(PROCESS_CPU, cpu.map(|(user, system)| (user + system) / TICKS_PER_SECOND));
        let started = stat_field(&stat, 22).zip(read("/proc/stat").and_then(|stat| keyed(&stat, "btime")));
        add(PROCESS_START_TIME, started.map(|(ticks, boot)| boot + ticks / TICKS_PER_SECOND));
    }
    // The directory's own descriptor, open while it is read, is among them.
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1));
    add(PROCESS_OPEN_FDS, descriptors.map(|count| count as f64));
    if let Some(limits) = read("/proc/self/limits") {
        add(PROCESS_MAX_FDS, keyed(&limits, "Max open files"));
    }
    if let Some(status) = read("/proc/self/status") {
        add(PROCESS_VIRTUAL_MEMORY, keyed(&status, "VmSize:").map(|kilobytes| kilobytes * 1024.0));
        add(PROCESS_RESIDENT_MEMORY, keyed(&status, "VmRSS:").map(|kilobytes| kilobytes * 1024.0));
        add(PROCESS_THREADS, keyed(&status, "Threads:"));
    }
    figures
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// A field of `/proc/self/stat`, counted from 1 as in proc(5). The second one, the name of the program in
/// parentheses, may hold anything, so counting starts after its end.
fn stat_field(stat: &str, field: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(field - 3)?.parse().ok()
}

/// The first number after `key` at the start of a line.
fn keyed(text: &str, key: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_the_program_may_hold_anything() {
        let stat = "7 (a) b ) S 1 7 7 0 -1 4194304 1 2 3 4 250 150 0 0 20 0 3 0 900 1 1";
        assert_eq!(stat_field(stat, 14), Some(250.0));
        assert_eq!(stat_field(stat, 22), Some(900.0));
    }

    #[test]
    fn every_figure_is_there_and_plausible() {
        let figures = figures();
        assert_eq!(figures.len(), 7, "{figures:?}");
        let of = |family: Family| figures.iter().find(|(f, _)| *f == family).expect("figure").1;
        assert!(of(PROCESS_RESIDENT_MEMORY) > 100_000.0 && of(PROCESS_THREADS) >= 1.0);
        assert!(of(PROCESS_OPEN_FDS) >= 1.0 && of(PROCESS_START_TIME) > 1.6e9);
    }
}
