//! The control group of a container in every hierarchy: was something killed in it, and its removal.
//!
//! Sources: cgroups(7); kernel, Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

/// Where the hierarchies are mounted: each controller's in a folder (version 1), or all as one (version 2).
const HIERARCHIES: &str = "/sys/fs/cgroup";
/// Have a line `oom_kill N`: version 1, version 2.
const COUNTERS: [&str; 2] = ["memory.oom_control", "memory.events"];

/// The group in each hierarchy that has it. `group` begins with a slash.
fn folders(hierarchies: &Path, group: &str) -> Vec<PathBuf> {
    let group = group.trim_start_matches('/');
    if group.is_empty() || group.split('/').any(|part| part == "..") {
        return Vec::new();
    }
    let controllers = fs::read_dir(hierarchies).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = controllers.chain([hierarchies.to_owned()]).map(|hierarchy| hierarchy.join(group));
    all.filter(|folder| folder.is_dir()).collect()
}

/// Whether the kernel killed a process of it for want of memory since it was made.
pub(super) fn ran_out_of_memory(group: &str) -> bool {
    folders(Path::new(HIERARCHIES), group).iter().any(|folder| {
        COUNTERS.iter().any(|name| kills(&fs::read_to_string(folder.join(name)).unwrap_or_default()) > 0)
    })
}

fn kills(counters: &str) -> u64 {
    let count = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse().ok();
    counters.lines().find_map(count).unwrap_or(0)
}

/// Kills what is in it: what a start that failed may have left.
pub(super) fn kill(group: &str) {
    for folder in folders(Path::new(HIERARCHIES), group) {
        let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        for pid in processes.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            // Ended meanwhile, by the kill in another hierarchy too.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Removes a group without processes, with what is beneath it.
pub(crate) fn remove(group: &str) -> io::Result<()> {
    folders(Path::new(HIERARCHIES), group).iter().try_for_each(|folder| remove_folder(folder))
}

/// Its files are the kernel's and go with it.
fn remove_folder(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_folder(&entry.path())?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_in_both_versions() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(kills("low 0\nmax 7\noom 3\noom_kill 3\noom_group_kill 0\n"), 3);
        assert_eq!(kills("oom_kill 0\n"), 0);
        assert_eq!(kills(""), 0);
    }

    #[test]
    fn a_group_is_found_in_each_hierarchy_and_nothing_above_is() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["memory/docker/a", "pids/docker/a", "docker/a", "cpu/docker/b"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let mut found = folders(root.path(), "/docker/a");
        found.sort();
        let expected = ["docker/a", "memory/docker/a", "pids/docker/a"].map(|name| root.path().join(name));
        assert_eq!(found, expected);
        for group in ["/../x", "/", ""] {
            assert!(folders(root.path(), group).is_empty(), "{group}");
        }
        remove_folder(&root.path().join("memory/docker")).unwrap();
        assert!(!root.path().join("memory/docker").exists() && root.path().join("memory").exists());
    }
}
