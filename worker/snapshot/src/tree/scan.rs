//! Reads a tree: what is there, and what each entry is.
//!
//! Must not know: pools. Symbolic links are never followed. The caller sees to it that nothing writes to the tree
//! meanwhile; a tree that changes is met as an error or a difference, never as a way out of the tree.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};

use super::{Entry, Kind, Listing, mtime_of, xattr};
use crate::PoolError;
use crate::error::Context as _;

/// The most entries that one tree may have: a listing is held in memory.
const ENTRIES_MAX: usize = 4_000_000;

/// An entry as the file system shows it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Relative to the tree's root; empty for the root.
    pub(crate) path: PathBuf,
    pub(crate) stat: Stat,
}

impl Found {
    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Which file this is a name of.
    pub(crate) fn inode(&self) -> (u64, u64) {
        (self.stat.st_dev, self.stat.st_ino)
    }
}

/// All entries below `root`, sorted as a listing is, sockets left out.
pub(crate) fn walk(root: &Path) -> Result<Vec<Found>, PoolError> {
    let root_fd = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .ctx("open", root)?;
    let stat = rustix::fs::fstat(&root_fd).ctx("read", root)?;
    let mut found = vec![Found { path: PathBuf::new(), stat }];
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        read_folder(root, root_fd.as_fd(), &folder, &mut found, &mut folders)?;
    }
    found.sort_unstable_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
    Ok(found)
}

fn read_folder(
    root: &Path,
    root_fd: impl AsFd,
    folder: &Path,
    found: &mut Vec<Found>,
    folders: &mut Vec<PathBuf>,
) -> Result<(), PoolError> {
    let name = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(root_fd, name, flags, Mode::empty()).ctx("open", &root.join(folder))?;
    for entry in Dir::read_from(&fd).ctx("list", &root.join(folder))? {
        let entry = entry.ctx("list", &root.join(folder))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let path = folder.join(name);
        let stat = statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW).ctx("read", &root.join(&path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket => continue,
            FileType::Directory => folders.push(path.clone()),
            _ => {}
        }
        if found.len() >= ENTRIES_MAX {
            let why = format!("the tree has more than {ENTRIES_MAX} entries");
            return Err(PoolError::Unsupported { path: root.to_owned(), why });
        }
        found.push(Found { path, stat });
    }
    Ok(())
}

/// The listing of the tree at `root`, attributes included.
pub(crate) fn listing(root: &Path) -> Result<Listing, PoolError> {
    let found = walk(root)?;
    let mut first_names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut entries = Vec::with_capacity(found.len());
    for one in &found {
        let linked = one.stat.st_nlink > 1 && one.file_type() != FileType::Directory;
        let first = linked.then(|| first_names.entry(one.inode()).or_insert_with(|| one.path.clone()));
        let kind = match first {
            Some(first) if *first != one.path => Kind::HardLink { to: first.clone() },
            _ => kind_of(root, one)?,
        };
        let xattrs = match kind {
            Kind::HardLink { .. } => Vec::new(),
            _ => xattr::read(&at(root, &one.path))?,
        };
        let mode = if one.file_type() == FileType::Symlink { 0 } else { one.stat.st_mode & 0o7777 };
        let (uid, gid) = (one.stat.st_uid, one.stat.st_gid);
        let mtime = mtime_of(&one.stat);
        entries.push(Entry { path: one.path.clone(), kind, mode, uid, gid, mtime, xattrs });
    }
    Ok(Listing { entries })
}

/// What a found entry is, hard links aside.
pub(crate) fn kind_of(root: &Path, found: &Found) -> Result<Kind, PoolError> {
    let rdev = found.stat.st_rdev;
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    Ok(match found.file_type() {
        FileType::Directory => Kind::Dir,
        FileType::RegularFile => Kind::File { size: found.stat.st_size as u64 },
        FileType::Symlink => Kind::Symlink { target: read_link(&at(root, &found.path))? },
        FileType::Fifo => Kind::Fifo,
        FileType::BlockDevice => Kind::Device { block: true, major, minor },
        FileType::CharacterDevice => Kind::Device { block: false, major, minor },
        _ => {
            let why = "it is of a kind that is not known".to_owned();
            return Err(PoolError::Unsupported { path: at(root, &found.path), why });
        }
    })
}

/// The path of an entry: `root` itself for the empty path, without a slash at its end.
pub(crate) fn at(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

fn read_link(path: &Path) -> Result<PathBuf, PoolError> {
    let target = readlinkat(CWD, path, Vec::new()).ctx("read the link", path)?;
    Ok(OsStr::from_bytes(target.to_bytes()).into())
}
