//! Makes the control groups of a box usable by a container engine inside it.
//!
//! In a container the hierarchies are mounted read-only. Version 1: each controller is remounted writable. Version 2: a
//! group with processes of its own cannot hand controllers to children ("domain invalid"), so the processes move to a
//! child group first, and then every controller is enabled for children. (Kernel: Documentation/admin-guide/cgroup-v2.rst,
//! "No Internal Process Constraint".)
//!
//! Everything is safe to repeat. Outside a box, where the hierarchies are writable and ours is the root group, nothing
//! changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount_remount};
use thiserror::Error;

use crate::host::mounts::{self, Mount};

/// The child group that the box's own processes live in (version 2).
const AGENT_GROUP: &str = "andon-agent";
/// How often processes are moved before it is given up: some may fork meanwhile.
const MOVE_ROUNDS_MAX: usize = 50;

/// The control groups cannot be made usable.
#[derive(Debug, Error)]
pub(super) enum CgroupError {
    /// The list of mounts cannot be read.
    #[error("cannot read the mounts of this process")]
    Mounts(#[source] io::Error),
    /// No hierarchy at all.
    #[error("no control groups are mounted: mount them at /sys/fs/cgroup")]
    None,
    /// A hierarchy stays read-only.
    #[error(
        "cannot make {path} writable: the box needs SYS_ADMIN and unconfined system paths (privileged, or what `andon up` gives)"
    )]
    Remount {
        /// Where it is mounted.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Processes or controllers cannot be moved (version 2).
    #[error("cannot hand control groups at {path} to containers")]
    Delegate {
        /// The file that refused.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Processes keep appearing (version 2).
    #[error("processes stay in the group {path}: something outside the agent keeps starting them")]
    Busy {
        /// The group.
        path: PathBuf,
    },
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Where it is mounted.
    pub(super) path: PathBuf,
    /// Version 2.
    pub(super) unified: bool,
    /// Not writable as it is mounted.
    pub(super) read_only: bool,
}

/// The hierarchies among the lines of `/proc/self/mountinfo` (proc(5)).
#[must_use]
pub(super) fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let hierarchy = |mount: Mount| {
        let unified = match mount.kind.as_str() {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        Some(Hierarchy { unified, read_only: mount.is_read_only(), path: mount.point })
    };
    mounts::parse(mountinfo.as_bytes()).filter_map(hierarchy).collect()
}

/// Makes every hierarchy writable, and the unified one able to hold containers.
pub(super) fn prepare() -> Result<(), CgroupError> {
    let mountinfo = fs::read_to_string(mounts::OWN).map_err(CgroupError::Mounts)?;
    let hierarchies = hierarchies(&mountinfo);
    if hierarchies.is_empty() {
        return Err(CgroupError::None);
    }
    let mixed = hierarchies.iter().any(|hierarchy| !hierarchy.unified);
    for hierarchy in hierarchies {
        if hierarchy.read_only {
            remount_writable(&hierarchy.path)?;
        }
        // Beside version 1 the unified hierarchy has no controllers to hand on.
        if hierarchy.unified && !mixed && is_below_root(&hierarchy.path) {
            delegate(&hierarchy.path)?;
        }
    }
    Ok(())
}

fn remount_writable(path: &Path) -> Result<(), CgroupError> {
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_remount(path, flags, "")
        .map_err(|source| CgroupError::Remount { path: path.to_owned(), source: source.into() })
}

/// The root of the whole hierarchy has no type, and no constraint.
fn is_below_root(group: &Path) -> bool {
    group.join("cgroup.type").exists()
}

fn delegate(group: &Path) -> Result<(), CgroupError> {
    let failed = |path: PathBuf| move |source| CgroupError::Delegate { path, source };
    let home = group.join(AGENT_GROUP);
    match fs::create_dir(&home) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(home)(error)),
        _ => {}
    }
    move_processes(&group.join("cgroup.procs"), &home.join("cgroup.procs"), group)?;
    let offered = group.join("cgroup.controllers");
    let offered = fs::read_to_string(&offered).map_err(failed(offered))?;
    let wanted = group.join("cgroup.subtree_control");
    for controller in offered.split_whitespace() {
        fs::write(&wanted, format!("+{controller}")).map_err(failed(wanted.clone()))?;
    }
    Ok(())
}

fn move_processes(from: &Path, to: &Path, group: &Path) -> Result<(), CgroupError> {
    for _ in 0..MOVE_ROUNDS_MAX {
        let list = fs::read_to_string(from)
            .map_err(|source| CgroupError::Delegate { path: from.to_owned(), source })?;
        // 0 stands for a process of another pid namespace, which cannot be named from here.
        let ids: Vec<&str> = list.lines().filter(|id| *id != "0").collect();
        if ids.is_empty() {
            return Ok(());
        }
        for id in ids {
            match fs::write(to, id) {
                // It ended meanwhile.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
                Err(source) => return Err(CgroupError::Delegate { path: to.to_owned(), source }),
                Ok(()) => {}
            }
        }
    }
    Err(CgroupError::Busy { path: group.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOX_V1: &str = "\
651 650 0:29 /docker/0f /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:10 - cgroup cgroup rw,memory
652 650 0:30 / /sys/fs/cgroup/pids rw,nosuid,nodev,noexec,relatime - cgroup cgroup rw,pids
653 649 0:31 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs rw,mode=755
";

    #[test]
    fn hierarchies_are_told_from_other_mounts_and_read_only_ones_are_seen() {
        let path = |name: &str| PathBuf::from("/sys/fs/cgroup").join(name);
        let memory = Hierarchy { path: path("memory"), unified: false, read_only: true };
        let pids = Hierarchy { path: path("pids"), unified: false, read_only: false };
        assert_eq!(hierarchies(BOX_V1), [memory, pids]);
    }

    #[test]
    fn the_unified_hierarchy_is_recognised() {
        let line = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert!(matches!(hierarchies(line).as_slice(), [Hierarchy { unified: true, read_only: false, .. }]));
    }

    #[test]
    fn lines_that_make_no_sense_are_left_out() {
        assert_eq!(hierarchies("\n- cgroup\nx - cgroup\n"), []);
    }

    #[test]
    fn controllers_are_enabled_once_no_process_is_left_in_the_group() {
        let group = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str| group.path().join(name);
        fs::write(file("cgroup.procs"), "").expect("written");
        fs::write(file("cgroup.controllers"), "memory\n").expect("written");
        delegate(group.path()).expect("delegated");
        assert_eq!(fs::read_to_string(file("cgroup.subtree_control")).expect("read"), "+memory");
        assert!(file(AGENT_GROUP).is_dir());
        delegate(group.path()).expect("safe to repeat");
    }

    #[test]
    fn processes_that_cannot_be_moved_out_are_an_error_not_a_loop() {
        let group = tempfile::tempdir().expect("a temporary folder");
        // A plain file keeps its lines, as a group does whose processes keep coming back.
        fs::write(group.path().join("cgroup.procs"), "7\n").expect("written");
        let error = delegate(group.path()).expect_err("never empty");
        assert!(matches!(error, CgroupError::Busy { .. }), "{error}");
    }
}
