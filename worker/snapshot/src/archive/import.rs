//! A tree from a tar.zst that nobody vouches for.
//!
//! Must not know: pools. Invariants: an entry is made only below a folder that the same archive made before it, so
//! no path leads through a link; every path is made of plain names; nothing is made twice; what is read is bounded
//! before it is held; whatever is not known is refused by name rather than skipped.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::ftruncate;
use tar::{EntryType, Header};

use super::{Below, ImportLimits, ImportRefusal, XATTR_RECORD, patch, pax};
use crate::PoolError;
use crate::tree::write::TreeWriter;
use crate::tree::{Entry, Kind, Stamp, digest, text, xattr};

/// The most that a decompressor may hold: 128 MiB, zstd's own default for readers.
const WINDOW_LOG_MAX: u32 = 27;
/// The most bytes of records before one entry: a few attributes of 64 KiB each.
const RECORDS_BYTES_MAX: u64 = 1 << 20;
/// PATH_MAX, without its NUL.
const PATH_BYTES_MAX: usize = 4095;

/// Why it ended: the archive, or the disk.
enum Stop {
    Refused(ImportRefusal),
    Pool(PoolError),
}

impl From<ImportRefusal> for Stop {
    fn from(refusal: ImportRefusal) -> Self {
        Stop::Refused(refusal)
    }
}

impl From<PoolError> for Stop {
    fn from(error: PoolError) -> Self {
        Stop::Pool(error)
    }
}

/// Fills the empty folder `into`. An archive that tells changes needs the tree below.
pub(crate) fn import(
    tree: &str,
    from: impl Read,
    into: &Path,
    below: Option<Below<'_>>,
    limits: ImportLimits,
) -> Result<(), PoolError> {
    let over = Cell::new(false);
    read_archive(from, into, below, limits, &over).map_err(|stop| match stop {
        // The limit is met inside of a read, as that read's error: its own name is the better one.
        _ if over.get() => ImportRefusal::TooManyBytes { limit: limits.bytes_max }.into_error(tree),
        Stop::Refused(refusal) => refusal.into_error(tree),
        Stop::Pool(error) => error,
    })
}

impl ImportRefusal {
    fn into_error(self, tree: &str) -> PoolError {
        PoolError::Import { tree: tree.to_owned(), source: self }
    }
}

fn read_archive(
    from: impl Read,
    into: &Path,
    below: Option<Below<'_>>,
    limits: ImportLimits,
    over: &Cell<bool>,
) -> Result<(), Stop> {
    let mut decoder = zstd::stream::read::Decoder::new(from).map_err(ImportRefusal::Unreadable)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(ImportRefusal::Unreadable)?;
    let bounded = Bounded { from: decoder, left: limits.bytes_max, over };
    // `raw`: records are read here, because the library holds them unbounded and takes their values for text.
    let mut archive = tar::Archive::new(bounded);
    let writer = TreeWriter::new(into)?;
    let mut taking = Taking { writer, made: HashMap::new(), below, patched: 0, limits };
    let mut records: Option<Vec<u8>> = None;
    for entry in archive.entries().map_err(ImportRefusal::Unreadable)?.raw(true) {
        let mut entry = entry.map_err(ImportRefusal::Unreadable)?;
        let header = entry.header().clone();
        if header.entry_type() == EntryType::XHeader {
            let bad = |what| ImportRefusal::Header { path: name_in(&header), what };
            if records.is_some() || entry.size() > RECORDS_BYTES_MAX {
                return Err(bad("extended header").into());
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(ImportRefusal::Unreadable)?;
            records = Some(bytes);
            continue;
        }
        let records = records.take().unwrap_or_default();
        taking.take(&header, &records, entry)?;
    }
    if taking.made.is_empty() {
        return Err(ImportRefusal::NoRoot.into());
    }
    taking.writer.finish()?;
    // What stands behind the archive's end is read too: it is there that zstd's checksum is compared.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(ImportRefusal::Unreadable)?;
    Ok(())
}

struct Taking<'a> {
    writer: TreeWriter<'a>,
    /// What the archive has made so far, and whether it is a folder.
    made: HashMap<PathBuf, bool>,
    below: Option<Below<'a>>,
    /// Sum of the sizes of patched files: they are not in the archive, and count like what is.
    patched: u64,
    limits: ImportLimits,
}

impl Taking<'_> {
    fn take(&mut self, header: &Header, records: &[u8], contents: impl Read) -> Result<(), Stop> {
        if self.made.len() as u64 >= self.limits.entries_max {
            return Err(ImportRefusal::TooManyEntries { limit: self.limits.entries_max }.into());
        }
        let (entry, patch_len) = self.entry(header, records)?;
        self.check_place(&entry)?;
        self.made.insert(entry.path.clone(), entry.kind == Kind::Dir);
        let Kind::File { size } = entry.kind else {
            return Ok(self.writer.add(&entry)?);
        };
        let failed = Cell::new(None);
        let contents = Tracked { from: contents, failed: &failed };
        let wrote = match patch_len {
            Some(_) => self.patch(&entry, size, contents),
            None => self.writer.add_file(&entry, contents).map_err(Stop::from),
        };
        if let Some(error) = failed.take() {
            return Err(ImportRefusal::Unreadable(error).into());
        }
        if wrote? != size {
            let cut = io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within a file");
            return Err(ImportRefusal::Unreadable(cut).into());
        }
        Ok(())
    }

    /// Makes a file from the one at the same path below. Only a path of the listing below is opened: none of those leads
    /// through a link.
    fn patch(&mut self, entry: &Entry, size: u64, contents: impl Read) -> Result<u64, Stop> {
        let bad = || ImportRefusal::Header { path: text::escape_path(&entry.path), what: "patch" };
        let below = self.below.ok_or_else(bad)?;
        let Some(Kind::File { size: old }) = below.listing.get(&entry.path).map(|entry| &entry.kind) else {
            return Err(bad().into());
        };
        self.patched = self.patched.saturating_add(size);
        if self.patched > self.limits.bytes_max {
            return Err(ImportRefusal::TooManyBytes { limit: self.limits.bytes_max }.into());
        }
        let under = digest::open(&below.root.join(&entry.path))?;
        let fits = self.writer.add_filled(entry, |file| {
            below.filling.fill(&under, file, *old)?;
            ftruncate(file, size)?;
            patch::apply(contents, file, size)
        })?;
        if fits { Ok(size) } else { Err(bad().into()) }
    }

    /// The entry's place must be free, and lie in a folder that the archive made.
    fn check_place(&self, entry: &Entry) -> Result<(), ImportRefusal> {
        let path = || text::escape_path(&entry.path);
        if self.made.contains_key(&entry.path) {
            return Err(ImportRefusal::Duplicate { path: path() });
        }
        match entry.path.parent() {
            None if entry.kind != Kind::Dir => return Err(ImportRefusal::NoRoot),
            None => {}
            Some(_) if self.made.is_empty() => return Err(ImportRefusal::NoRoot),
            Some(parent) if self.made.get(parent) == Some(&true) => {}
            Some(parent) => {
                let parent = text::escape_path(parent);
                return Err(ImportRefusal::ParentNotFolder { path: path(), parent });
            }
        }
        match &entry.kind {
            Kind::HardLink { to } if self.made.get(to) != Some(&false) => {
                Err(ImportRefusal::LinkTarget { path: path(), target: text::escape_path(to) })
            }
            _ => Ok(()),
        }
    }

    /// The entry, and how long its patch is where its contents are one.
    fn entry(&self, header: &Header, records: &[u8]) -> Result<(Entry, Option<u64>), ImportRefusal> {
        let name = header.path_bytes().into_owned();
        let bad = |what| ImportRefusal::Header { path: name_in(header), what };
        let mut fields = Fields {
            path: name,
            target: header.link_name_bytes().map(Cow::into_owned),
            mtime: Stamp(
                header.mtime().ok().and_then(|secs| i64::try_from(secs).ok()).ok_or(bad("time"))?,
                0,
            ),
            xattrs: Vec::new(),
            patched: None,
        };
        for (key, value) in pax::parse(records).ok_or(bad("extended header"))? {
            fields.apply(key, value).map_err(bad)?;
        }
        let path = plain_path(&fields.path)?;
        if let Some((name, _)) = fields.xattrs.iter().find(|(name, _)| !xattr::is_kept(name)) {
            return Err(ImportRefusal::Attribute {
                path: text::escape_path(&path),
                name: text::escape(name),
            });
        }
        fields.xattrs.sort();
        let id = |id: io::Result<u64>| id.ok().and_then(|id| u32::try_from(id).ok()).ok_or(bad("owner"));
        let kind = kind_of(header, &path, fields.target.as_deref())?;
        let (kind, patch_len) = match (kind, fields.patched) {
            (Kind::File { size: len }, Some(size)) => (Kind::File { size }, Some(len)),
            (_, Some(_)) => return Err(bad("patch")),
            (kind, None) => (kind, None),
        };
        let mode = match kind {
            Kind::Symlink { .. } => 0,
            _ => header.mode().map_err(|_| bad("mode"))? & 0o7777,
        };
        let (uid, gid) = (id(header.uid())?, id(header.gid())?);
        Ok((Entry { path, kind, mode, uid, gid, mtime: fields.mtime, xattrs: fields.xattrs }, patch_len))
    }
}

/// What pax records may replace.
struct Fields {
    path: Vec<u8>,
    target: Option<Vec<u8>>,
    mtime: Stamp,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The size of a file whose contents are a patch.
    patched: Option<u64>,
}

impl Fields {
    fn apply(&mut self, key: &str, value: &[u8]) -> Result<(), &'static str> {
        match key {
            "path" => self.path = value.to_vec(),
            "linkpath" => self.target = Some(value.to_vec()),
            patch::RECORD => {
                let size = std::str::from_utf8(value).ok().and_then(|size| size.parse().ok());
                self.patched = Some(size.ok_or("patch")?);
            }
            "mtime" => {
                let time = std::str::from_utf8(value).ok().and_then(pax::parse_time);
                self.mtime = time.ok_or("time")?;
            }
            _ => {
                let name =
                    key.strip_prefix(XATTR_RECORD).ok_or("extended header: it has an unknown record")?;
                self.xattrs.push((text::unescape(name).ok_or("attribute name")?, value.to_vec()));
            }
        }
        Ok(())
    }
}

fn kind_of(header: &Header, path: &Path, target: Option<&[u8]>) -> Result<Kind, ImportRefusal> {
    let shown = || text::escape_path(path);
    let bad = |what| ImportRefusal::Header { path: shown(), what };
    let kind = header.entry_type();
    Ok(match kind {
        EntryType::Directory => Kind::Dir,
        EntryType::Regular => Kind::File { size: header.entry_size().map_err(|_| bad("size"))? },
        EntryType::Fifo => Kind::Fifo,
        EntryType::Link => Kind::HardLink { to: plain_path(target.ok_or(bad("link target"))?)? },
        EntryType::Symlink => match target {
            Some(target) if (1..=PATH_BYTES_MAX).contains(&target.len()) && !target.contains(&0) => {
                Kind::Symlink { target: OsStr::from_bytes(target).into() }
            }
            _ => return Err(bad("link target")),
        },
        EntryType::Char | EntryType::Block => {
            let number = |number: io::Result<Option<u32>>| number.ok().flatten().ok_or(bad("device number"));
            let (major, minor) = (number(header.device_major())?, number(header.device_minor())?);
            let device = Kind::Device { block: kind == EntryType::Block, major, minor };
            if !device.is_whiteout() {
                return Err(ImportRefusal::Device { path: shown(), major, minor });
            }
            device
        }
        other => {
            return Err(ImportRefusal::EntryType { path: shown(), kind: char::from(other.as_byte()) });
        }
    })
}

/// A relative path of plain names; `.` and `./` are the tree's root.
fn plain_path(bytes: &[u8]) -> Result<PathBuf, ImportRefusal> {
    let shown = || text::escape(&bytes[..bytes.len().min(200)]);
    if bytes.len() > PATH_BYTES_MAX {
        return Err(ImportRefusal::PathTooLong { path: shown() });
    }
    let escapes = || ImportRefusal::PathEscapes { path: shown() };
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(escapes());
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(bytes)).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            _ => return Err(escapes()),
        }
    }
    Ok(path)
}

fn name_in(header: &Header) -> String {
    text::escape(&header.path_bytes())
}

/// Ends with an error after so many bytes, and notes that it did.
struct Bounded<'a, R> {
    from: R,
    left: u64,
    over: &'a Cell<bool>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.from.read(buffer)?;
        match self.left.checked_sub(got as u64) {
            Some(left) => {
                self.left = left;
                Ok(got)
            }
            None => {
                self.over.set(true);
                Err(io::Error::other("the archive is beyond its limit"))
            }
        }
    }
}

/// Notes a failed read, so that it is told from a failed write.
struct Tracked<'a, R> {
    from: R,
    failed: &'a Cell<Option<io::Error>>,
}

impl<R: Read> Read for Tracked<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.from.read(buffer).map_err(|error| {
            let kind = error.kind();
            self.failed.set(Some(error));
            kind.into()
        })
    }
}
