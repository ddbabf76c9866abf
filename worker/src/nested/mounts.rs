//! Leaves no mount behind: finds and removes what a daemon mounted beneath its folders.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

use crate::host::mounts::{self, is_mount_point};

/// Removes every mount strictly beneath the folder, the deepest first. Busy ones are detached, so that they go when their
/// last user does. Answers with how many there were.
pub(super) fn remove_beneath(folder: &Path) -> io::Result<usize> {
    let mountinfo = fs::read(mounts::OWN)?;
    let mounts = beneath(&mountinfo, folder);
    for mount in &mounts {
        match unmount(mount, UnmountFlags::DETACH) {
            // Gone meanwhile, with the mount above it.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(mounts.len())
}

/// Removes what is mounted exactly at the folder, if anything is.
pub(super) fn remove_at(folder: &Path) -> io::Result<()> {
    while is_mount_point(folder)? {
        unmount(folder, UnmountFlags::DETACH)?;
    }
    Ok(())
}

/// Mount points strictly beneath the folder among the lines of `/proc/self/mountinfo`, last mounted first.
fn beneath(mountinfo: &[u8], folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mounts::parse(mountinfo).map(|mount| mount.point).collect();
    found.retain(|path| path.starts_with(folder) && path != folder);
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_beneath_the_folder_are_found_and_the_last_comes_first() {
        let mountinfo = b"1 0 8:1 / / rw - ext4 x rw\n2 1 8:1 / /run/a rw - tmpfs x rw\n\
            3 2 8:1 / /run/a/net\\040ns rw - nsfs x rw\n4 2 8:1 / /run/a/b/merged rw - overlay x rw\n\
            5 1 8:1 / /run/ab rw - tmpfs x rw\n";
        let expected = [PathBuf::from("/run/a/b/merged"), PathBuf::from("/run/a/net ns")];
        assert_eq!(beneath(mountinfo, Path::new("/run/a")), expected);
    }
}
