//! Linux: `/proc` and the memory limits of this process's cgroups, versions 1 and 2.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that can be had without swapping: the machine's, or less where a cgroup allows less. Cached file
/// pages count as available, so a model that is already in the page cache is not counted against itself.
pub(crate) fn available_memory() -> Option<u64> {
    available_under(Path::new("/"))
}

/// The most memory this process has held, in bytes.
pub(crate) fn peak_memory() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// The same with `root` in place of `/`.
fn available_under(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok();
    let machine = meminfo.and_then(|text| kilobytes(&text, "MemAvailable:"));
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    groups.lines().filter_map(|line| free_in_group(root, line)).chain(machine).min()
}

/// The value of `key` in a text of lines `key  N kB`.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Names of a version's files and of the counter of cached file pages.
struct Names {
    limit: &'static str,
    usage: &'static str,
    cached: [&'static str; 2],
}

const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cached: ["total_active_file", "total_inactive_file"],
};
const V2: Names = Names {
    limit: "memory.max",
    usage: "memory.current",
    cached: ["active_file", "inactive_file"],
};

/// What is left under one line of `/proc/self/cgroup` (`id:controllers:path`): the least over the group
/// and those that contain it. Inside a container the path may name folders that are not visible there;
/// the walk upwards then finds the container's own limit at the mount point.
fn free_in_group(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let (mount, names) = match controllers {
        "" => (root.join("sys/fs/cgroup"), V2),
        c if c.split(',').any(|c| c == "memory") => (root.join("sys/fs/cgroup/memory"), V1),
        _ => return None,
    };
    let folder = mount.join(path.trim_start_matches('/'));
    folder
        .ancestors()
        .take_while(|f| f.starts_with(&mount))
        .filter_map(|f| free_in_folder(f.to_path_buf(), &names))
        .min()
}

fn free_in_folder(folder: PathBuf, names: &Names) -> Option<u64> {
    let number = |name| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    // "max" does not parse: no limit here.
    let limit = number(names.limit)?;
    let usage = number(names.usage)?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let cached: u64 = stat
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(key, _)| names.cached.contains(key))
        .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
        .sum();
    Some(limit.saturating_sub(usage.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lays out `files` under a new folder and asks what is available there.
    fn check(files: &[(&str, &str)], expected: Option<u64>) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(available_under(root.path()), expected, "{files:?}");
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:       8000 kB\nMemAvailable:   4000 kB\n");

    #[test]
    fn the_tightest_limit_counts() {
        check(&[], None);
        check(&[MEMINFO], Some(4_096_000));
        let v2 = |group, max| {
            vec![
                MEMINFO,
                ("proc/self/cgroup", group),
                ("sys/fs/cgroup/a/memory.max", max),
                ("sys/fs/cgroup/a/memory.current", "1000000\n"),
                ("sys/fs/cgroup/a/memory.stat", "anon 5\nactive_file 100\ninactive_file 200\n"),
            ]
        };
        check(&v2("0::/a\n", "3000000\n"), Some(2_000_300));
        check(&v2("0::/a/b/c\n", "3000000\n"), Some(2_000_300));
        check(&v2("0::/a\n", "max\n"), Some(4_096_000));
        check(&v2("0::/a\n", "500\n"), Some(0));
        check(&v2("0::/elsewhere\n", "3000000\n"), Some(4_096_000));
        let v1 = [
            MEMINFO,
            ("proc/self/cgroup", "9:cpu,cpuacct:/x\n4:memory:/x\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "500000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "total_active_file 7\n"),
        ];
        check(&v1, Some(1_500_007));
    }

    #[test]
    fn this_machine_answers() {
        assert!(available_memory().is_some_and(|n| n > 0));
        assert!(peak_memory().is_some_and(|n| n > 0));
    }
}
