//! Leaves no mount behind: finds and removes what a daemon mounted beneath its folders.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

/// Removes every mount strictly beneath the folder, the deepest first. Busy ones are detached, so that they go when their
/// last user does. Answers with how many there were.
pub(super) fn remove_beneath(folder: &Path) -> io::Result<usize> {
    let mountinfo = fs::read("/proc/self/mountinfo")?;
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

/// Whether something is mounted exactly at the folder.
pub(super) fn is_mount_point(folder: &Path) -> io::Result<bool> {
    let mountinfo = fs::read("/proc/self/mountinfo")?;
    Ok(beneath(&mountinfo, folder.parent().unwrap_or(folder)).iter().any(|path| path == folder))
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
    let target = |line: &[u8]| line.split(|byte| *byte == b' ').nth(4).map(unescape);
    let mut found: Vec<PathBuf> = mountinfo.split(|byte| *byte == b'\n').filter_map(target).collect();
    found.retain(|path| path.starts_with(folder) && path != folder);
    found.reverse();
    found
}

/// The kernel writes space, tab, newline and backslash as three octal digits (proc(5)).
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let octal = (first == b'\\').then(|| after.get(..3)).flatten();
        let code = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
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

    #[test]
    fn a_backslash_that_is_no_escape_stays() {
        assert_eq!(unescape(b"/a\\x"), PathBuf::from("/a\\x"));
        assert_eq!(unescape(b"/a\\134b"), PathBuf::from("/a\\b"));
    }
}
