//! Is a tree in place what the baseline says? By stat alone: about a millisecond for a few hundred files. Or deep: every
//! byte read.
//!
//! Must not know: pools, lanes. What `compare` compares: the set of paths, kinds, modes, owners, sizes, times of the last
//! write, targets of links. It reads no contents: a clone is made by the kernel from a baseline that nobody writes,
//! and whoever writes to a file moves its time. `compare_deep` adds attributes and contents, against the digest that
//! the baseline was published with, so that it also finds a baseline that rotted.

use std::cmp::Ordering;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::FileType;

use crate::changes::{ChangeKind, FileChange};
use crate::error::line;
use crate::tree::scan::{self, Found};
use crate::tree::text::escape_path;
use crate::tree::{Entry, Kind, Listing, digest, mtime_of};
use crate::{PoolError, footprint};

/// The first thing that is not as the baseline says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The tree.
    pub tree: String,
    /// The path in it, escaped; empty for its root.
    pub path: String,
    /// What is different.
    pub change: Change,
}

/// How an entry differs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// In the baseline, not in the clone.
    Missing,
    /// In the clone, not in the baseline.
    Unexpected,
    /// An attribute that is not the baseline's.
    Attribute {
        /// `kind`, `mode`, `owner`, `size`, `mtime` or `target`; `attributes` or `digest` of a deep check.
        name: &'static str,
        /// The baseline's.
        expected: String,
        /// The clone's.
        found: String,
    },
    /// A file that says it is the baseline's, with other bytes in it (`LaneClone::verify_deep` alone looks for that).
    Content {
        /// Bytes of the 4 KiB blocks that differ.
        bytes: u64,
    },
    /// The clone cannot be read.
    Unreadable(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tree `{}`: `/{}` ", self.tree, self.path)?;
        match &self.change {
            Change::Missing => f.write_str("is missing"),
            Change::Unexpected => f.write_str("is not in the baseline"),
            Change::Attribute { name, expected, found } => {
                write!(f, "has another {name}: {found}, the baseline has {expected}")
            }
            Change::Content { bytes } => write!(f, "has other contents in blocks of {bytes} bytes in all"),
            Change::Unreadable(why) => write!(f, "cannot be read: {why}"),
        }
    }
}

impl std::error::Error for Difference {}

/// Of a tree that the baseline has not.
pub(crate) fn no_such_tree(tree: &str) -> Difference {
    Difference { tree: tree.to_owned(), path: String::new(), change: Change::Unexpected }
}

/// Compares the tree at `dir` with its listing.
pub(crate) fn compare(tree: &str, listing: &Listing, dir: &Path) -> Result<(), Difference> {
    let differs = |path: &Path, change| Difference { tree: tree.to_owned(), path: escape_path(path), change };
    let unreadable = |path: &Path, error: &PoolError| differs(path, Change::Unreadable(line(error)));
    let found = scan::walk(dir).map_err(|error| unreadable(Path::new(""), &error))?;
    let mut there = found.iter();
    for entry in &listing.entries {
        let Some(one) = there.next() else { return Err(differs(&entry.path, Change::Missing)) };
        match one.path.as_os_str().as_bytes().cmp(entry.path.as_os_str().as_bytes()) {
            Ordering::Less => return Err(differs(&one.path, Change::Unexpected)),
            Ordering::Greater => return Err(differs(&entry.path, Change::Missing)),
            Ordering::Equal => {}
        }
        let change = match &entry.kind {
            Kind::HardLink { to } => other_name(&found, one, to),
            _ => attributes(entry, one, dir).map_err(|error| unreadable(&one.path, &error))?,
        };
        if let Some(change) = change {
            return Err(differs(&entry.path, change));
        }
    }
    match there.next() {
        Some(one) => Err(differs(&one.path, Change::Unexpected)),
        None => Ok(()),
    }
}

/// Compares the tree at `dir` with the baseline's to the last byte. `digest` is what the baseline was published with.
pub(crate) fn compare_deep(
    tree: &str,
    listing: &Listing,
    digest: &str,
    base: &Path,
    dir: &Path,
) -> Result<(), Difference> {
    compare(tree, listing, dir)?;
    let difference =
        |path: &Path, change| Difference { tree: tree.to_owned(), path: escape_path(path), change };
    let read = || -> Result<Option<Difference>, PoolError> {
        let is = digest::of(dir, &scan::listing(dir)?)?;
        if is == digest {
            return Ok(None);
        }
        // What it is shall be named: compare with the baseline's own files.
        let changed = footprint::collect(listing, base, dir, None, 1)?.finish(tree);
        Ok(Some(match changed.files.first() {
            Some(FileChange { path, change: ChangeKind::Attributes, .. }) => {
                let (expected, found) = ("others".to_owned(), "extended attributes".to_owned());
                difference(path, Change::Attribute { name: "attributes", expected, found })
            }
            Some(FileChange { path, bytes, .. }) => difference(path, Change::Content { bytes: *bytes }),
            // Clone and baseline are alike, and both are not what was published.
            None => {
                let expected = digest.to_owned();
                difference(Path::new(""), Change::Attribute { name: "digest", expected, found: is })
            }
        }))
    };
    match read() {
        Ok(None) => Ok(()),
        Ok(Some(difference)) => Err(difference),
        Err(error) => Err(difference(Path::new(""), Change::Unreadable(line(&error)))),
    }
}

/// A hard link has to be a name of the same file; the first name was compared already.
fn other_name(found: &[Found], one: &Found, to: &Path) -> Option<Change> {
    let wanted = to.as_os_str().as_bytes();
    let index = found.binary_search_by(|other| other.path.as_os_str().as_bytes().cmp(wanted)).ok();
    let same = index.is_some_and(|index| found[index].inode() == one.inode());
    let expected = format!("hard link to {}", escape_path(to));
    (!same).then(|| Change::Attribute { name: "kind", expected, found: "another file".to_owned() })
}

fn attributes(entry: &Entry, one: &Found, dir: &Path) -> Result<Option<Change>, PoolError> {
    let change =
        |name, expected: String, found: String| Ok(Some(Change::Attribute { name, expected, found }));
    let kind = scan::kind_of(dir, one)?;
    match (&entry.kind, &kind) {
        (Kind::File { size: expected }, Kind::File { size: found }) if expected != found => {
            return change("size", expected.to_string(), found.to_string());
        }
        (Kind::Symlink { target: expected }, Kind::Symlink { target: found }) if expected != found => {
            return change("target", escape_path(expected), escape_path(found));
        }
        (expected, found) if expected == found => {}
        (expected, found) => return change("kind", expected.word().to_owned(), found.word().to_owned()),
    }
    let mode = one.stat.st_mode & 0o7777;
    if one.file_type() != FileType::Symlink && mode != entry.mode {
        return change("mode", format!("{:04o}", entry.mode), format!("{mode:04o}"));
    }
    let (uid, gid) = (one.stat.st_uid, one.stat.st_gid);
    if (uid, gid) != (entry.uid, entry.gid) {
        return change("owner", format!("{}:{}", entry.uid, entry.gid), format!("{uid}:{gid}"));
    }
    let mtime = mtime_of(&one.stat);
    if mtime != entry.mtime {
        let show = |stamp: crate::tree::Stamp| format!("{}.{:09}", stamp.0, stamp.1);
        return change("mtime", show(entry.mtime), show(mtime));
    }
    Ok(None)
}
