//! The digest of a tree: BLAKE3 over its sorted entries and the contents of its files.
//!
//! Must not know: pools. Invariants: what the digest covers is path, kind, mode, owner, size, link target,
//! attributes and contents; times, inode numbers and holes are not in it, so that a tree has one digest on every
//! file system and after every export and import.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{Kind, Listing, data, scan};
use crate::PoolError;
use crate::error::Context as _;

/// The digest's first bytes: a change of what follows changes this line.
const DOMAIN: &[u8] = b"andon tree 1\n";

/// The digest of the tree at `root`, whose listing is known.
pub(crate) fn of(root: &Path, listing: &Listing) -> Result<String, PoolError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(DOMAIN);
    for entry in &listing.entries {
        field(&mut hasher, b"path", entry.path.as_os_str().as_bytes());
        for number in [entry.mode, entry.uid, entry.gid] {
            hasher.update(&number.to_le_bytes());
        }
        for (name, value) in &entry.xattrs {
            field(&mut hasher, b"xattr", name);
            field(&mut hasher, b"value", value);
        }
        match &entry.kind {
            Kind::Dir => field(&mut hasher, b"dir", b""),
            Kind::File { size } => {
                field(&mut hasher, b"file", &size.to_le_bytes());
                contents(&mut hasher, &root.join(&entry.path), *size)?;
            }
            Kind::HardLink { to } => field(&mut hasher, b"link", to.as_os_str().as_bytes()),
            Kind::Symlink { target } => field(&mut hasher, b"symlink", target.as_os_str().as_bytes()),
            Kind::Fifo => field(&mut hasher, b"fifo", b""),
            Kind::Device { block, major, minor } => {
                let what: &[u8] = if *block { b"block" } else { b"char" };
                field(&mut hasher, what, &[major.to_le_bytes(), minor.to_le_bytes()].concat());
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The digest of a folder's tree, whoever owns it.
pub(crate) fn of_dir(root: &Path) -> Result<String, PoolError> {
    of(root, &scan::listing(root)?)
}

/// Every field carries its name and its length, so that no two trees write the same bytes.
fn field(hasher: &mut blake3::Hasher, name: &[u8], value: &[u8]) {
    hasher.update(name);
    hasher.update(b"\n");
    hasher.update(&(value.len() as u64).to_le_bytes());
    hasher.update(value);
}

/// Pieces that are not zeros, each behind its offset; `u64::MAX` ends them.
fn contents(hasher: &mut blake3::Hasher, path: &Path, size: u64) -> Result<(), PoolError> {
    if size > 0 {
        let file = open(path)?;
        let each = |offset: u64, piece: &[u8]| {
            hasher.update(&offset.to_le_bytes());
            hasher.update(piece);
        };
        data::each_piece(&file, size, each).ctx("read", path)?;
    }
    hasher.update(&u64::MAX.to_le_bytes());
    Ok(())
}

/// Opens a regular file for reading, never through a link.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, PoolError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).ctx("open", path)
}
