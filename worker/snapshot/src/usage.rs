//! What a folder takes of its file system while others write to it.
//!
//! Must not know: pools. Invariants: symbolic links are never followed, so nobody can lead the count out of the folder; what
//! vanishes or cannot be read meanwhile counts nothing; a nest deeper than `DESCENT_MAX` is not looked into, because each
//! level holds one open file.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat};

/// How deep the count goes.
const DESCENT_MAX: usize = 128;
/// What an entry takes beside its content: about an inode (XFS: 512 bytes), so that empty files are not free.
const ENTRY_BYTES: u64 = 512;
/// What files are given by, in bytes.
const BLOCK_BYTES: u64 = 4096;

/// Bytes that the folder's content takes. Blocks that files share with a baseline count as if they were their own: compare
/// two counts to know what came in between. A folder that is not there takes nothing.
pub fn used_bytes(dir: &Path) -> u64 {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(CWD, dir, flags, Mode::empty()) {
        Ok(top) => count(top.as_fd(), 0, &mut HashSet::new()),
        Err(_) => 0,
    }
}

/// What a file takes. XFS gives a growing file more blocks than it needs, for a while: they are not counted.
pub fn file_bytes(stat: &Stat) -> u64 {
    let size = u64::try_from(stat.st_size).unwrap_or(0).next_multiple_of(BLOCK_BYTES);
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    blocks.min(size) + ENTRY_BYTES
}

fn count(dir: BorrowedFd<'_>, depth: usize, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let Ok(entries) = Dir::read_from(dir) else { return 0 };
    let mut sum = 0;
    let mut folders: Vec<CString> = Vec::new();
    for entry in entries {
        let Ok(entry) = entry else { break };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let Ok(stat) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_dir || stat.st_nlink < 2 || seen.insert((stat.st_dev, stat.st_ino)) {
            sum += file_bytes(&stat);
        }
        if is_dir && depth < DESCENT_MAX {
            folders.push(name.to_owned());
        }
    }
    for name in folders {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(child) = openat(dir, &name, flags, Mode::empty()) {
            sum += count(child.as_fd(), depth + 1, seen);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_written_is_counted_once_and_links_lead_nowhere() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, outside) = (temp.path().join("lane"), temp.path().join("outside"));
        fs::create_dir_all(dir.join("deep/er")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("large"), vec![1; 8 << 20]).unwrap();
        let before = used_bytes(&dir);
        fs::write(dir.join("deep/er/file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(dir.join("deep/er/file"), dir.join("again")).unwrap();
        std::os::unix::fs::symlink(&outside, dir.join("out")).unwrap();
        let grown = used_bytes(&dir) - before;
        assert!((1 << 20..(1 << 20) + 64 * 1024).contains(&grown), "{grown}");
    }

    #[test]
    fn holes_take_nothing_and_empty_files_take_something() {
        let temp = tempfile::tempdir().unwrap();
        let sparse = fs::File::create(temp.path().join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        assert!(used_bytes(temp.path()) < 1 << 20);
        for number in 0..1000 {
            fs::File::create(temp.path().join(number.to_string())).unwrap();
        }
        assert!(used_bytes(temp.path()) >= 1000 * ENTRY_BYTES);
        assert_eq!(used_bytes(&temp.path().join("absent")), 0);
    }
}
