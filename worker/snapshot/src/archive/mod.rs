//! Trees as archives: deterministic tar.zst out, untrusted tar.zst in.
//!
//! Must not know: pools, where archives go. The dialect is POSIX pax; attributes travel as `SCHILY.xattr.*`, times to
//! the nanosecond as `mtime`, long names as `path` and `linkpath`. A tree told as changes of another one below it has all
//! entries, too; a file that is there already, or nearly, is a patch (`ANDON.patch`) to the file at the same path below.

use std::io;

use thiserror::Error;

mod export;
mod import;
mod patch;
mod pax;

pub(crate) use export::{export, export_on};
pub(crate) use import::import;

use std::path::Path;

use crate::tree::Listing;
use crate::tree::data::Filling;

/// A tree that another one is told as changes of.
#[derive(Clone, Copy)]
pub(crate) struct Below<'a> {
    pub(crate) root: &'a Path,
    pub(crate) listing: &'a Listing,
    /// How what did not change gets over.
    pub(crate) filling: &'a Filling,
}

/// The prefix of an attribute among pax records.
const XATTR_RECORD: &str = "SCHILY.xattr.";

/// What an imported archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportLimits {
    /// Bytes of the archive after decompression.
    pub bytes_max: u64,
    /// Entries: files, folders, links.
    pub entries_max: u64,
}

impl Default for ImportLimits {
    fn default() -> Self {
        ImportLimits { bytes_max: 64 << 30, entries_max: 2_000_000 }
    }
}

/// Why an archive is refused. Paths are escaped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportRefusal {
    /// Not zstd, not tar, or cut short.
    #[error("the archive cannot be read")]
    Unreadable(#[source] io::Error),
    /// An absolute path, or one with `..`.
    #[error("the path `{path}` leads out of the tree")]
    PathEscapes {
        /// The path.
        path: String,
    },
    /// A path longer than the system takes.
    #[error("the path `{path}…` is too long")]
    PathTooLong {
        /// The path's beginning.
        path: String,
    },
    /// An entry below something that is not a folder, such as a symbolic link.
    #[error("`{path}` lies below `{parent}`, which is not a folder of the archive")]
    ParentNotFolder {
        /// The entry.
        path: String,
        /// What it lies below.
        parent: String,
    },
    /// Two entries of one path.
    #[error("`{path}` is in the archive twice")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// A device that is not overlay's whiteout (character device 0/0).
    #[error("`{path}` is the device {major}/{minor}; only whiteouts (character device 0/0) are taken")]
    Device {
        /// The path.
        path: String,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A hard link to what is not an earlier file of the archive.
    #[error("`{path}` is a hard link to `{target}`, which is not an earlier file of the archive")]
    LinkTarget {
        /// The link.
        path: String,
        /// What it points to.
        target: String,
    },
    /// An entry of a kind that trees do not have.
    #[error("`{path}` is an entry of type {kind:?}, which trees do not have")]
    EntryType {
        /// The path.
        path: String,
        /// tar's letter for the kind.
        kind: char,
    },
    /// A header, or a pax record, that makes no sense.
    #[error("`{path}` has a bad {what}")]
    Header {
        /// The path.
        path: String,
        /// Which field.
        what: &'static str,
    },
    /// An attribute outside the namespaces that trees keep.
    #[error("`{path}` has the attribute `{name}`; only user.*, trusted.*, capabilities and ACLs are taken")]
    Attribute {
        /// The path.
        path: String,
        /// The attribute's name.
        name: String,
    },
    /// More bytes than the limit, after decompression.
    #[error("the archive unpacks to more than {limit} bytes")]
    TooManyBytes {
        /// The limit.
        limit: u64,
    },
    /// More entries than the limit.
    #[error("the archive has more than {limit} entries")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
    /// The tree has no root entry.
    #[error("the archive has no entry `./` for the tree's root")]
    NoRoot,
}
