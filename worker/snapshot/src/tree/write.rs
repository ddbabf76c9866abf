//! Makes trees: entry by entry, from a baseline, from a folder, from an archive.
//!
//! Must not know: pools. Invariants: entries are made below the root only, and only new ones (no link of the tree is
//! ever followed, because every parent was made here as a folder); attributes of folders come last, so that what is
//! made in a folder neither inherits from it nor changes its time.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat, fchmod, fchown,
    futimens, linkat, makedev, mkdirat, mknodat, openat, symlinkat, utimensat,
};

use super::data::{self, Filling};
use super::scan::at;
use super::{Entry, Kind, Listing, Stamp, xattr};
use crate::PoolError;
use crate::error::{Context as _, means_full};

/// Makes one tree in a folder that exists and is empty.
pub(crate) struct TreeWriter<'a> {
    root: &'a Path,
    fd: OwnedFd,
    folders: Vec<Entry>,
}

/// Clones the tree at `from`, whose listing is known, into the empty folder `into`.
pub(crate) fn clone_tree(
    listing: &Listing,
    from: &Path,
    into: &Path,
    filling: &Filling,
) -> Result<(), PoolError> {
    let from_fd = open_root(from)?;
    let mut writer = TreeWriter::new(into)?;
    for entry in &listing.entries {
        let Kind::File { size } = entry.kind else {
            writer.add(entry)?;
            continue;
        };
        let to = writer.create(entry)?;
        if size > 0 {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source =
                openat(&from_fd, &entry.path, flags, Mode::empty()).ctx("open", &from.join(&entry.path))?;
            filling.fill(&source, &to, size).map_err(|error| {
                // Where the disk is full it is the new file's.
                let whose = if means_full(&error) { into } else { from };
                PoolError::of("clone", &whose.join(&entry.path), error)
            })?;
        }
        writer.finish_file(entry, &to)?;
    }
    writer.finish()
}

fn open_root(root: &Path) -> Result<OwnedFd, PoolError> {
    openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ctx("open", root)
}

impl<'a> TreeWriter<'a> {
    pub(crate) fn new(root: &'a Path) -> Result<TreeWriter<'a>, PoolError> {
        Ok(TreeWriter { root, fd: open_root(root)?, folders: Vec::new() })
    }

    fn path(&self, entry: &Entry) -> PathBuf {
        at(self.root, &entry.path)
    }

    /// Adds an entry that has no contents.
    pub(crate) fn add(&mut self, entry: &Entry) -> Result<(), PoolError> {
        match &entry.kind {
            Kind::Dir => {
                if !entry.path.as_os_str().is_empty() {
                    mkdirat(&self.fd, &entry.path, Mode::RWXU).ctx("make", &self.path(entry))?;
                }
                self.folders.push(entry.clone());
                Ok(())
            }
            Kind::File { .. } => {
                let file = self.create(entry)?;
                self.finish_file(entry, &file)
            }
            Kind::HardLink { to } => {
                linkat(&self.fd, to, &self.fd, &entry.path, AtFlags::empty()).ctx("link", &self.path(entry))
            }
            Kind::Symlink { target } => {
                symlinkat(target, &self.fd, &entry.path).ctx("link", &self.path(entry))?;
                self.finish_node(entry)
            }
            Kind::Fifo => self.make_node(entry, FileType::Fifo, 0),
            Kind::Device { block, major, minor } => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                self.make_node(entry, kind, makedev(*major, *minor))
            }
        }
    }

    /// Adds a regular file with what `contents` gives; how many bytes that was.
    pub(crate) fn add_file(&mut self, entry: &Entry, contents: impl Read) -> Result<u64, PoolError> {
        let file = self.create(entry)?;
        let bytes = data::write_sparse(contents, &file).ctx("write", &self.path(entry))?;
        self.finish_file(entry, &file)?;
        Ok(bytes)
    }

    /// Adds a regular file that `fill` fills; what it answers.
    pub(crate) fn add_filled<T>(
        &mut self,
        entry: &Entry,
        fill: impl FnOnce(&OwnedFd) -> std::io::Result<T>,
    ) -> Result<T, PoolError> {
        let file = self.create(entry)?;
        let filled = fill(&file).ctx("write", &self.path(entry))?;
        self.finish_file(entry, &file)?;
        Ok(filled)
    }

    /// Gives the folders their attributes, the deepest first.
    pub(crate) fn finish(self) -> Result<(), PoolError> {
        for entry in self.folders.iter().rev() {
            dress_folder(entry, &at(self.root, &entry.path))?;
        }
        Ok(())
    }

    fn create(&self, entry: &Entry) -> Result<OwnedFd, PoolError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.fd, &entry.path, flags, Mode::RUSR | Mode::WUSR).ctx("create", &self.path(entry))
    }

    // The order matters: a change of owner drops set-id bits and capabilities; every change but the last moves times.
    fn finish_file(&self, entry: &Entry, file: &OwnedFd) -> Result<(), PoolError> {
        let path = || self.path(entry);
        let (uid, gid) = owner(entry);
        fchown(file, uid, gid).ctx("change the owner of", &path())?;
        if !entry.xattrs.is_empty() {
            xattr::write(&path(), &entry.xattrs)?;
        }
        fchmod(file, Mode::from_raw_mode(entry.mode)).ctx("change the mode of", &path())?;
        futimens(file, &times(entry.mtime)).ctx("set the time of", &path())
    }

    fn make_node(&self, entry: &Entry, kind: FileType, device: u64) -> Result<(), PoolError> {
        mknodat(&self.fd, &entry.path, kind, Mode::RUSR | Mode::WUSR, device)
            .ctx("make", &self.path(entry))?;
        self.finish_node(entry)
    }

    fn finish_node(&self, entry: &Entry) -> Result<(), PoolError> {
        let path = self.path(entry);
        let (uid, gid) = owner(entry);
        chownat(&self.fd, &entry.path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .ctx("change the owner of", &path)?;
        xattr::write(&path, &entry.xattrs)?;
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            let mode = Mode::from_raw_mode(entry.mode);
            chmodat(&self.fd, &entry.path, mode, AtFlags::empty()).ctx("change the mode of", &path)?;
        }
        let follow = AtFlags::SYMLINK_NOFOLLOW;
        utimensat(&self.fd, &entry.path, &times(entry.mtime), follow).ctx("set the time of", &path)
    }
}

/// Gives the folder at `path` the entry's owner, attributes, mode and time.
pub(crate) fn dress_folder(entry: &Entry, path: &Path) -> Result<(), PoolError> {
    let (uid, gid) = owner(entry);
    chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).ctx("change the owner of", path)?;
    xattr::write(path, &entry.xattrs)?;
    chmodat(CWD, path, Mode::from_raw_mode(entry.mode), AtFlags::empty()).ctx("change the mode of", path)?;
    utimensat(CWD, path, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).ctx("set the time of", path)
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

/// The time of the last read is not part of a tree; it is set to the same, so that clones are alike.
fn times(Stamp(tv_sec, nanos): Stamp) -> Timestamps {
    let time = Timespec { tv_sec, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}
