//! How many CPUs this container may use.
//!
//! The standard library rounds a quota of 1.5 CPUs down to 1; a worker too many costs less than half a CPU
//! unused, so this rounds up. Reads cgroup v2 (`cpu.max`), then v1 (`cpu.cfs_quota_us`), and the set of
//! CPUs the process may run on.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

/// CPUs of this container, quota rounded up; at least 1.
pub fn available_cpus() -> NonZeroUsize {
    let allowed = fs::read_to_string("/proc/self/status").ok().and_then(|status| allowed_cpus(&status));
    let allowed = allowed.or_else(|| std::thread::available_parallelism().map(NonZeroUsize::get).ok());
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let quota = quota(Path::new("/sys/fs/cgroup"), &groups);
    let cpus = allowed.unwrap_or(1).min(quota.unwrap_or(usize::MAX));
    NonZeroUsize::new(cpus).unwrap_or(NonZeroUsize::MIN)
}

/// The smallest quota between the process's own group and the root, in whole CPUs.
///
/// Inside a container the group's own path is often that of the host and not there: its parents are tried.
fn quota(root: &Path, groups: &str) -> Option<usize> {
    let group_of = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, group) = rest.split_once(':')?;
        let unified = controllers.is_empty();
        let cpu = controllers.split(',').any(|controller| controller == "cpu");
        (unified || cpu).then(|| (unified, group.trim_start_matches('/').to_owned()))
    };
    let mut smallest: Option<usize> = None;
    for (unified, group) in
        groups.lines().filter_map(group_of).chain([(true, String::new()), (false, String::new())])
    {
        for folder in Path::new(&group).ancestors() {
            let found = if unified {
                v2(&root.join(folder))
            } else {
                ["cpu", "cpu,cpuacct"].iter().find_map(|controller| v1(&root.join(controller).join(folder)))
            };
            smallest = [smallest, found].into_iter().flatten().min();
        }
    }
    smallest
}

fn v2(folder: &Path) -> Option<usize> {
    let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    whole_cpus(quota, period)
}

fn v1(folder: &Path) -> Option<usize> {
    let read = |name| fs::read_to_string(folder.join(name)).ok();
    whole_cpus(read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim())
}

/// Quota by period, rounded up. `max` and `-1` are no quota.
fn whole_cpus(quota: &str, period: &str) -> Option<usize> {
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    let cpus = (period > 0).then(|| quota.div_ceil(period))?;
    usize::try_from(cpus.max(1)).ok()
}

/// Counts `Cpus_allowed_list:	0-3,8`.
fn allowed_cpus(status: &str) -> Option<usize> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim();
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        last.parse::<usize>().ok()?.checked_sub(first.parse::<usize>().ok()?)?.checked_add(1)
    };
    list.split(',').map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_rounded_up() {
        let cases = [
            ("150000", "100000", Some(2)),
            ("50000", "100000", Some(1)),
            ("max", "100000", None),
            ("-1", "100000", None),
        ];
        for (quota, period, expected) in cases {
            assert_eq!(whole_cpus(quota, period), expected, "{quota} / {period}");
        }
    }

    #[test]
    fn allowed_cpus_are_counted() {
        assert_eq!(allowed_cpus("Name:\tx\nCpus_allowed_list:\t0-3,8\n"), Some(5));
        assert_eq!(allowed_cpus("Cpus_allowed_list:\t\n"), None);
    }

    #[test]
    fn the_smallest_quota_on_the_way_to_the_root_counts() {
        let root = std::env::temp_dir().join(format!("readygate-cpus-{}", std::process::id()));
        fs::create_dir_all(root.join("kubepods/pod")).expect("temporary folder");
        fs::create_dir_all(root.join("cpu")).expect("temporary folder");
        fs::write(root.join("kubepods/cpu.max"), "250000 100000\n").expect("temporary file");
        fs::write(root.join("kubepods/pod/cpu.max"), "max 100000\n").expect("temporary file");
        assert_eq!(quota(&root, "0::/kubepods/pod\n"), Some(3));
        fs::write(root.join("cpu/cpu.cfs_quota_us"), "120000").expect("temporary file");
        fs::write(root.join("cpu/cpu.cfs_period_us"), "100000").expect("temporary file");
        assert_eq!(quota(&root, "4:cpu,cpuacct:/not/there\n"), Some(2));
        fs::remove_dir_all(root).expect("temporary folder");
    }
}
