//! What is mounted, and how to unmount what lies below a folder.
//!
//! Must not know: pools. Invariant: nothing outside the given folder is ever unmounted.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::PoolError;
use crate::error::Context as _;

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) at: PathBuf,
    pub(crate) fs_type: String,
    /// What is mounted: a device, for file systems that have one.
    pub(crate) source: PathBuf,
}

/// All mounts of this process's namespace, oldest first.
pub(crate) fn all() -> Result<Vec<Mount>, PoolError> {
    let path = Path::new("/proc/self/mountinfo");
    Ok(parse(&std::fs::read(path).ctx("read", path)?))
}

/// proc_pid_mountinfo(5): `id parent dev root MOUNT-POINT options [optional…] - TYPE source options`.
fn parse(text: &[u8]) -> Vec<Mount> {
    let lines = text.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            let dash = fields.iter().position(|field| *field == b"-")?;
            let fs_type = String::from_utf8_lossy(fields.get(dash + 1)?).into_owned();
            let path = |field: &[u8]| PathBuf::from(OsString::from_vec(unescape(field)));
            Some(Mount { at: path(fields.get(4)?), fs_type, source: path(fields.get(dash + 2)?) })
        })
        .collect()
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                plain.push(byte);
                rest = &tail[3..];
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

/// What is mounted exactly at `dir`, if something is.
pub(crate) fn mounted_at(dir: &Path) -> Result<Option<Mount>, PoolError> {
    Ok(all()?.into_iter().rev().find(|mount| mount.at == dir))
}

/// Unmounts all that is strictly below `dir`, the newest first. What is busy is detached: it goes when its last
/// user does, and no new one can find it.
pub(crate) fn unmount_below(dir: &Path) -> Result<(), PoolError> {
    for mount in all()?.into_iter().rev().filter(|mount| mount.at != dir && mount.at.starts_with(dir)) {
        match unmount(&mount.at, UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(Errno::BUSY) => {
                unmount(&mount.at, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
                    .ctx("unmount", &mount.at)?;
            }
            Err(error) => return Err(error).ctx("unmount", &mount.at),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_escapes_and_optional_fields() {
        let text = b"36 35 98:0 /mnt1 /a\\040b rw,noatime shared:1 master:2 - xfs /dev/loop1 rw\n\
                     37 35 0:30 / /plain rw - overlay overlay rw\nbroken line\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(
            mounts[0],
            Mount { at: "/a b".into(), fs_type: "xfs".into(), source: "/dev/loop1".into() }
        );
        assert_eq!(
            mounts[1],
            Mount { at: "/plain".into(), fs_type: "overlay".into(), source: "overlay".into() }
        );
    }
}
