//! A tree of files as data: what each entry is, and the listing that a baseline keeps of it.
//!
//! Must not know: pools, baselines, lanes. Invariants: a listing is sorted by the bytes of its paths and starts with
//! the tree's own root (the empty path), so a folder always comes before what is in it, and a hard link after the
//! entry that it is another name of.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

pub(crate) mod data;
pub(crate) mod digest;
pub(crate) mod remove;
pub(crate) mod scan;
pub(crate) mod text;
pub(crate) mod write;
pub(crate) mod xattr;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Dir,
    File {
        size: u64,
    },
    /// Another name of an earlier entry.
    HardLink {
        #[serde(with = "text::path")]
        to: PathBuf,
    },
    Symlink {
        #[serde(with = "text::path")]
        target: PathBuf,
    },
    Fifo,
    /// Character device 0/0 is overlay's whiteout.
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
}

impl Kind {
    /// A word for people.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Kind::Dir => "folder",
            Kind::File { .. } => "file",
            Kind::HardLink { .. } => "hard link",
            Kind::Symlink { .. } => "symbolic link",
            Kind::Fifo => "fifo",
            Kind::Device { block: true, .. } => "block device",
            Kind::Device { major: 0, minor: 0, .. } => "whiteout",
            Kind::Device { .. } => "character device",
        }
    }

    pub(crate) fn is_whiteout(&self) -> bool {
        matches!(self, Kind::Device { block: false, major: 0, minor: 0 })
    }
}

/// Seconds and nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Stamp(pub(crate) i64, pub(crate) u32);

/// One entry of a tree. Permissions of a symbolic link mean nothing and are kept as 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    #[serde(with = "text::path")]
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Stamp,
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "text::pairs")]
    pub(crate) xattrs: xattr::Pairs,
}

/// A tree's entries, sorted, the root first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) entries: Vec<Entry>,
}

impl Listing {
    /// The tree's own root.
    pub(crate) fn root(&self) -> &Entry {
        self.entries.first().expect("a listing starts with its root")
    }

    /// The entry at a path.
    pub(crate) fn get(&self, path: &Path) -> Option<&Entry> {
        let wanted = path.as_os_str().as_bytes();
        let found = self.entries.binary_search_by(|entry| entry.path.as_os_str().as_bytes().cmp(wanted));
        found.ok().map(|index| &self.entries[index])
    }

    /// The entry itself, or what it is another name of.
    pub(crate) fn target<'a>(&'a self, entry: &'a Entry) -> &'a Entry {
        match &entry.kind {
            Kind::HardLink { to } => self.get(to).unwrap_or(entry),
            _ => entry,
        }
    }

    /// Entries that are not folders, and the bytes of regular files.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let files = self.entries.iter().filter(|entry| entry.kind != Kind::Dir).count() as u64;
        let sizes = self.entries.iter().map(|entry| match entry.kind {
            Kind::File { size } => size,
            _ => 0,
        });
        (files, sizes.sum())
    }

    /// True where a kernel overlay mount over the tree would show something else than the tree: whiteouts and
    /// overlay's own attributes are taken for its own, and a hard link is broken by the first write to it.
    pub(crate) fn defies_overlay(&self) -> bool {
        self.entries.iter().any(|entry| {
            entry.kind.is_whiteout()
                || matches!(entry.kind, Kind::HardLink { .. })
                || entry.xattrs.iter().any(|(name, _)| name.starts_with(b"trusted.overlay."))
        })
    }
}

/// When the content was last written, as the file system says.
pub(crate) fn mtime_of(stat: &Stat) -> Stamp {
    Stamp(stat.st_mtime, stat.st_mtime_nsec as u32)
}

/// When the content or the attributes were last changed, as the file system says.
pub(crate) fn ctime_of(stat: &Stat) -> Stamp {
    Stamp(stat.st_ctime, stat.st_ctime_nsec as u32)
}
