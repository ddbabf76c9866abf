//! Looks at the host. Collects, does not judge; leaves nothing behind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use thiserror::Error;

use super::capabilities::Capabilities;
use super::mounts;

/// The kernel's own facts cannot be read: not a Linux, or no `/proc`.
#[derive(Debug, Error)]
#[error("cannot read {path}")]
pub struct LookError {
    /// What was to be read.
    pub path: PathBuf,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// Which generation of control groups is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hierarchies {
    /// None.
    Absent,
    /// One hierarchy for each controller.
    V1,
    /// The unified one alone.
    V2,
}

/// The control groups as this process sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    /// Which generation.
    pub hierarchies: Hierarchies,
    /// Controllers that are there.
    pub controllers: Vec<String>,
    /// Some are mounted read-only; a worker remounts them.
    pub read_only: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `6.18.1`.
    pub kernel: String,
    /// What processes here can ever have.
    pub bounding: Capabilities,
    /// What this process has.
    pub effective: Capabilities,
    /// Control groups.
    pub cgroups: Cgroups,
    /// Lines of `/proc/filesystems`.
    pub filesystems: Vec<String>,
    /// Where the data is to live, or the nearest folder above that exists.
    pub data: PathBuf,
    /// An overlay was really mounted there; the kernel's answer where it refused.
    pub overlay: Result<(), String>,
    /// Loop devices can be had: `/dev/loop-control` is there, or may be made.
    pub loop_devices: bool,
    /// Free for unprivileged users where the data lives, in bytes.
    pub free_bytes: u64,
    /// Of the whole file system there, in bytes.
    pub total_bytes: u64,
    /// Free inodes there; `None` where the file system does not count them.
    pub free_inodes: Option<u64>,
}

fn read(path: &str) -> Result<String, LookError> {
    fs::read_to_string(path).map_err(|source| LookError { path: path.into(), source })
}

/// One of this process's sets: `CapBnd`, `CapEff`.
fn capabilities(field: &str) -> Result<Capabilities, LookError> {
    let status = read("/proc/self/status")?;
    let last = read("/proc/sys/kernel/cap_last_cap")?.trim().parse().unwrap_or(0);
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("no {field} line"));
    Capabilities::parse(&status, field, last)
        .ok_or_else(|| LookError { path: "/proc/self/status".into(), source: malformed() })
}

impl Capabilities {
    /// What processes of this host can ever have.
    pub fn bounding() -> Result<Self, LookError> {
        capabilities("CapBnd")
    }
}

impl Facts {
    pub(super) fn look(data: &Path) -> Result<Self, LookError> {
        let data = nearest_existing(data);
        let space = rustix::fs::statvfs(&data)
            .map_err(|source| LookError { path: data.clone(), source: source.into() })?;
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            bounding: Capabilities::bounding()?,
            effective: capabilities("CapEff")?,
            cgroups: cgroups(&read(mounts::OWN)?),
            filesystems: filesystems(&read("/proc/filesystems")?),
            overlay: try_overlay(&data).map_err(|error| error.to_string()),
            loop_devices: Path::new("/dev/loop-control").exists() || loop_driver(),
            free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
            total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
            free_inodes: (space.f_files > 0).then_some(space.f_favail),
            data,
        })
    }
}

fn nearest_existing(path: &Path) -> PathBuf {
    path.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn filesystems(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.split('\t').next_back()).map(str::to_owned).collect()
}

/// A container's own `/dev` lacks the nodes of a driver that is there; with `MKNOD` they can be made.
fn loop_driver() -> bool {
    fs::read_to_string("/proc/misc")
        .is_ok_and(|text| text.lines().any(|line| line.split_whitespace().nth(1) == Some("loop-control")))
}

fn cgroups(mountinfo: &str) -> Cgroups {
    let mut found = Cgroups { hierarchies: Hierarchies::Absent, controllers: Vec::new(), read_only: false };
    for mount in mounts::parse(mountinfo.as_bytes()) {
        match mount.kind.as_str() {
            "cgroup" => {
                found.hierarchies = Hierarchies::V1;
                let controllers = mount.about.split(',').filter(|option| !matches!(*option, "rw" | "ro"));
                found.controllers.extend(controllers.map(str::to_owned));
            }
            "cgroup2" if found.hierarchies != Hierarchies::V1 => {
                found.hierarchies = Hierarchies::V2;
                let list = fs::read_to_string(mount.point.join("cgroup.controllers"));
                found.controllers = list.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
            }
            _ => continue,
        }
        found.read_only |= mount.is_read_only();
    }
    found.controllers.sort();
    found.controllers.dedup();
    found
}

/// Mounts an overlay whose every layer lies in the folder, as the storage driver will.
fn try_overlay(folder: &Path) -> io::Result<()> {
    let scratch = tempfile::Builder::new().prefix(".andon-overlay-").tempdir_in(folder)?;
    let layer = |name: &str| {
        let path = scratch.path().join(name);
        fs::create_dir(&path).map(|()| path)
    };
    let (lower, upper, work, merged) = (layer("lower")?, layer("upper")?, layer("work")?, layer("merged")?);
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let options = std::ffi::CString::new(options)?;
    mount("overlay", &merged, "overlay", MountFlags::empty(), options.as_c_str())?;
    // An overlay on an overlay may mount and then fail to write.
    let written = fs::write(merged.join("probe"), "x");
    unmount(&merged, UnmountFlags::DETACH)?;
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controllers_of_version_1_are_found_in_the_options_of_their_mounts() {
        let mountinfo = "\
30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct ro,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
31 25 0:27 / /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids\n\
32 25 0:28 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n";
        let found = cgroups(mountinfo);
        assert_eq!(found.hierarchies, Hierarchies::V1);
        assert_eq!(found.controllers, ["cpu", "cpuacct", "pids"]);
        assert!(found.read_only);
    }

    #[test]
    fn filesystems_are_listed_with_and_without_a_device() {
        assert_eq!(filesystems("nodev\toverlay\n\txfs\n"), ["overlay", "xfs"]);
    }

    #[test]
    fn a_folder_that_does_not_exist_is_judged_by_the_one_above() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(nearest_existing(&folder.path().join("a/b")), folder.path());
    }
}
