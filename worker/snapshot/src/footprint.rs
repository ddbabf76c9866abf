//! What a used tree has that its baseline has not: how many entries, how many bytes, and which.
//!
//! Must not know: pools, lanes, which changes are kept for a list (changes.rs). Candidates are found by stat where the caller knows when the clone was made (`since`);
//! what is counted is then exact: contents are compared in blocks of 4 KiB, so a file that was written with what it
//! held already counts nothing.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::io;
use std::ops::AddAssign;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::FileType;
use serde::Serialize;

use crate::PoolError;
use crate::changes::{ChangeKind, Collector};
use crate::error::Context as _;
use crate::tree::scan::{self, Found, at};
use crate::tree::{Entry, Kind, Listing, Stamp, ctime_of, data, digest, mtime_of, xattr};

/// What was changed relative to a baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Footprint {
    /// Entries (files, folders, links…) that were added, removed or changed.
    pub files: u64,
    /// Bytes of the 4 KiB blocks that differ; a file's last block counts what it holds. Beyond the baseline's end
    /// only blocks that are not zeros count.
    pub bytes: u64,
}

impl AddAssign for Footprint {
    fn add_assign(&mut self, other: Footprint) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

/// Compares `used` with the baseline's tree at `base`. With `since`, files whose stat says that nothing happened to
/// them after that instant of the file system's clock are not read.
pub(crate) fn measure(
    listing: &Listing,
    base: &Path,
    used: &Path,
    since: Option<Stamp>,
) -> Result<Footprint, PoolError> {
    Ok(collect(listing, base, used, since, 0)?.footprint())
}

/// The same, with the largest `limit` changes by name.
pub(crate) fn collect(
    listing: &Listing,
    base: &Path,
    used: &Path,
    since: Option<Stamp>,
    limit: usize,
) -> Result<Collector, PoolError> {
    let found = scan::walk(used)?;
    let mut measure =
        Measure { listing, base, used, since, counted: HashSet::new(), changes: Collector::new(limit) };
    let (mut was, mut is) = (listing.entries.iter().peekable(), found.iter().peekable());
    loop {
        let order = match (was.peek(), is.peek()) {
            (None, None) => return Ok(measure.changes),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(entry), Some(one)) => {
                entry.path.as_os_str().as_bytes().cmp(one.path.as_os_str().as_bytes())
            }
        };
        let (entry, one) = (was.next_if(|_| order.is_le()), is.next_if(|_| order.is_ge()));
        match (entry, one) {
            (Some(entry), Some(one)) => measure.both(entry, one)?,
            (None, Some(one)) => measure.new_one(one, ChangeKind::Added)?,
            (Some(entry), None) => measure.changes.add(&entry.path, ChangeKind::Removed, 0),
            (None, None) => {}
        }
    }
}

struct Measure<'a> {
    listing: &'a Listing,
    base: &'a Path,
    used: &'a Path,
    since: Option<Stamp>,
    /// Files with several names whose bytes were counted.
    counted: HashSet<(u64, u64)>,
    changes: Collector,
}

impl Measure<'_> {
    /// An entry whose bytes all count.
    fn new_one(&mut self, one: &Found, change: ChangeKind) -> Result<(), PoolError> {
        let bytes = self.bytes(None, one)?;
        self.changes.add(&one.path, change, bytes);
        Ok(())
    }

    fn both(&mut self, entry: &Entry, one: &Found) -> Result<(), PoolError> {
        let was = self.listing.target(entry);
        if let (Kind::File { size }, FileType::RegularFile) = (&was.kind, one.file_type()) {
            return self.file(was, *size, one);
        }
        let is = scan::kind_of(self.used, one)?;
        if is != was.kind {
            return self.new_one(one, ChangeKind::Kind);
        }
        if self.is_candidate(was, one)
            && let Some(change) = self.other_dress(was, one)?
        {
            self.changes.add(&one.path, change, 0);
        }
        Ok(())
    }

    fn file(&mut self, was: &Entry, size: u64, one: &Found) -> Result<(), PoolError> {
        if !self.is_candidate(was, one) {
            return Ok(());
        }
        let bytes = self.bytes(Some((was, size)), one)?;
        let resized = one.stat.st_size as u64 != size;
        let change =
            if bytes > 0 || resized { Some(ChangeKind::Content) } else { self.other_dress(was, one)? };
        if let Some(change) = change {
            self.changes.add(&one.path, change, bytes);
        }
        Ok(())
    }

    /// False only where stat proves that nothing happened since the clone was made.
    fn is_candidate(&self, was: &Entry, one: &Found) -> bool {
        let Some(since) = self.since else { return true };
        let same_size = match was.kind {
            Kind::File { size } => size == one.stat.st_size as u64,
            _ => true,
        };
        !same_size
            || mtime_of(&one.stat) != was.mtime
            || ctime_of(&one.stat) > since
            || other_mode_or_owner(was, one).is_some()
    }

    fn other_dress(&self, was: &Entry, one: &Found) -> Result<Option<ChangeKind>, PoolError> {
        if let Some(change) = other_mode_or_owner(was, one) {
            return Ok(Some(change));
        }
        let differs = xattr::read(&at(self.used, &one.path))? != was.xattrs;
        Ok(differs.then_some(ChangeKind::Attributes))
    }

    fn bytes(&mut self, was: Option<(&Entry, u64)>, one: &Found) -> Result<u64, PoolError> {
        let size = one.stat.st_size as u64;
        let several_names = one.stat.st_nlink > 1;
        if one.file_type() != FileType::RegularFile || size == 0 {
            return Ok(0);
        }
        if several_names && !self.counted.insert(one.inode()) {
            return Ok(0);
        }
        let path = at(self.used, &one.path);
        let file = digest::open(&path)?;
        let old = match was {
            Some((entry, size)) => Some((digest::open(&at(self.base, &entry.path))?, size)),
            None => None,
        };
        let old = old.as_ref().map(|(file, size)| (file, *size));
        let bytes: io::Result<u64> = data::differing_bytes(old, (&file, size));
        bytes.ctx("compare", &path)
    }
}

fn other_mode_or_owner(was: &Entry, one: &Found) -> Option<ChangeKind> {
    let mode = if one.file_type() == FileType::Symlink { 0 } else { one.stat.st_mode & 0o7777 };
    if mode != was.mode {
        return Some(ChangeKind::Mode);
    }
    ((one.stat.st_uid, one.stat.st_gid) != (was.uid, was.gid)).then_some(ChangeKind::Owner)
}
