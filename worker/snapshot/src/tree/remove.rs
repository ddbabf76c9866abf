//! Deletes trees, whatever was done to them.
//!
//! Must not know: pools. Invariants: symbolic links are never followed; a nest of folders that is deeper than the
//! process may open files is flattened while it is deleted, so nobody can make a tree that cannot be deleted.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::PoolError;
use crate::error::Context as _;

/// How deep one descent goes; each level holds one open file.
const DESCENT_MAX: usize = 64;

/// Deletes what is in `dir`, and keeps `dir`.
pub(crate) fn contents(dir: &Path) -> Result<(), PoolError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = openat(CWD, dir, flags, Mode::empty()).ctx("open", dir)?;
    let mut moved = 0u64;
    // Every round deletes all it sees; what it had to move up is there for the next one.
    loop {
        let before = moved;
        empty(top.as_fd(), top.as_fd(), 0, &mut moved).ctx("empty", dir)?;
        if moved == before {
            return Ok(());
        }
    }
}

/// Deletes `dir` and what is in it; fine if it is not there.
pub(crate) fn tree(dir: &Path) -> Result<(), PoolError> {
    match contents(dir) {
        Ok(()) => {}
        Err(PoolError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    unlinkat(CWD, dir, AtFlags::REMOVEDIR).ctx("remove", dir)
}

fn empty(top: BorrowedFd<'_>, dir: BorrowedFd<'_>, depth: usize, moved: &mut u64) -> rustix::io::Result<()> {
    let mut names: Vec<(CString, FileType)> = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push((name.to_owned(), entry.file_type()));
        }
    }
    for (name, mut file_type) in names {
        if file_type == FileType::Unknown {
            file_type = FileType::from_raw_mode(statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
        }
        if file_type != FileType::Directory {
            unlinkat(dir, &name, AtFlags::empty())?;
        } else if depth < DESCENT_MAX {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let child = openat(dir, &name, flags, Mode::empty())?;
            empty(top, child.as_fd(), depth + 1, moved)?;
            unlinkat(dir, &name, AtFlags::REMOVEDIR)?;
        } else {
            move_up(top, dir, &name, moved)?;
        }
    }
    Ok(())
}

fn move_up(
    top: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    name: &CString,
    moved: &mut u64,
) -> rustix::io::Result<()> {
    loop {
        *moved += 1;
        let free = format!(".deep-{moved}");
        match renameat(dir, name, top, OsStr::from_bytes(free.as_bytes())) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;

    #[test]
    fn a_nest_deeper_than_any_path_is_deleted_and_links_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let kept = temp.path().join("kept");
        std::fs::write(&kept, "x").unwrap();
        let dir = temp.path().join("tree");
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink(temp.path(), dir.join("out")).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut fd = openat(CWD, &dir, flags, Mode::empty()).unwrap();
        for _ in 0..3000 {
            mkdirat(&fd, "d", Mode::from_raw_mode(0o700)).unwrap();
            fd = openat(&fd, "d", flags, Mode::empty()).unwrap();
        }
        drop(fd);
        tree(&dir).unwrap();
        assert!(!dir.exists());
        assert!(kept.exists());
    }
}
