//! The names below a folder and what they lead to, as one pass over it shows them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::path::Arg;

/// More names in one tree are refused.
const NAMES_MAX: usize = 1_000_000;

/// What can be made again under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Link(PathBuf),
    /// A socket, a pipe, a device: only its name counts, and it cannot be made again.
    Other,
}

/// What a name leads to. Of two that are equal nothing was written meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    size: u64,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) modified: (i64, i64),
    pub(crate) changed: (i64, i64),
}

impl Entry {
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Self::read_at(CWD, path)
    }

    fn read_at(folder: BorrowedFd<'_>, name: impl Arg + Copy) -> io::Result<Self> {
        let status = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Folder,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new())?;
                Kind::Link(OsStr::from_bytes(target.as_bytes()).into())
            }
            _ => Kind::Other,
        };
        Ok(Self {
            kind,
            device: status.st_dev,
            inode: status.st_ino,
            size: u64::try_from(status.st_size).unwrap_or_default(),
            mode: status.st_mode & 0o7777,
            owner: (status.st_uid, status.st_gid),
            modified: (status.st_mtime, status.st_mtime_nsec.cast_signed()),
            changed: (status.st_ctime, status.st_ctime_nsec.cast_signed()),
        })
    }

    /// Nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Gives a path this entry's owner, rights and time of modification.
    pub(crate) fn dress(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::lchown(path, Some(self.owner.0), Some(self.owner.1))?;
        if !matches!(self.kind, Kind::Link(_)) {
            fs::set_permissions(path, fs::Permissions::from_mode(self.mode))?;
        }
        let time = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
        let times = Timestamps { last_access: time(self.modified), last_modification: time(self.modified) };
        Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// By path, relative to its root, which has the empty one: a folder comes before what is in it. In the order of their bytes, which are
/// compared more quickly than a path's parts.
pub(crate) type Listing = BTreeMap<OsString, Entry>;

/// Everything below a folder, and the folder itself, but for what is mounted there.
pub(crate) fn list(root: &Path) -> io::Result<Listing> {
    let top = Entry::read(root)?;
    let device = top.device;
    let mut listing = Listing::from([(OsString::new(), top)]);
    let mut folders = vec![OsString::new()];
    while let Some(folder) = folders.pop() {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(root.join(&folder), flags, Mode::empty())?;
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            let name = entry.file_name();
            if [&b"."[..], b".."].contains(&name.to_bytes()) {
                continue;
            }
            let mut path = folder.clone();
            if !path.is_empty() {
                path.push("/");
            }
            path.push(OsStr::from_bytes(name.to_bytes()));
            let entry = Entry::read_at(opened.as_fd(), name)?;
            if entry.device != device {
                continue;
            }
            if entry.kind == Kind::Folder {
                folders.push(path.clone());
            }
            listing.insert(path, entry);
            if listing.len() > NAMES_MAX {
                return Err(io::Error::other(format!("more than {NAMES_MAX} names in {}", root.display())));
            }
        }
    }
    Ok(listing)
}
