//! A tree as a deterministic tar.zst: the same tree gives the same bytes, on every file system.
//!
//! Must not know: pools. Entries go out in the listing's order, with numeric owners and no names; zstd at a fixed
//! level with its checksum. Holes go out as zeros (which zstd makes nothing of) and come back as holes.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use tar::{EntryType, Header};

use super::patch::{self, Patch};
use super::{Below, XATTR_RECORD, pax};
use crate::PoolError;
use crate::error::Context as _;
use crate::tree::{Entry, Kind, Listing, Stamp, digest, text};

/// Fast: an archive is made once and read by every worker of the farm within seconds.
const ZSTD_LEVEL: i32 = 1;
/// The room for a name or a link's target in a ustar header.
const HEADER_NAME_BYTES: usize = 100;

/// Writes the tree at `root`, whose listing is known.
pub(crate) fn export(listing: &Listing, root: &Path, to: impl Write) -> Result<(), PoolError> {
    write(listing, root, None, to)
}

/// The same, as changes of the tree below.
pub(crate) fn export_on(
    listing: &Listing,
    root: &Path,
    below: Below<'_>,
    to: impl Write,
) -> Result<(), PoolError> {
    write(listing, root, Some(below), to)
}

fn write(listing: &Listing, root: &Path, below: Option<Below<'_>>, to: impl Write) -> Result<(), PoolError> {
    let mut encoder = zstd::stream::write::Encoder::new(to, ZSTD_LEVEL).ctx("compress", root)?;
    encoder.include_checksum(true).ctx("compress", root)?;
    let mut archive = tar::Builder::new(encoder);
    for entry in &listing.entries {
        append(&mut archive, entry, root, below)?;
    }
    let encoder = archive.into_inner().ctx("write the archive of", root)?;
    encoder.finish().ctx("write the archive of", root)?.flush().ctx("write the archive of", root)
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    entry: &Entry,
    root: &Path,
    below: Option<Below<'_>>,
) -> Result<(), PoolError> {
    let path = root.join(&entry.path);
    let (mut header, mut records) = header_of(entry).ctx("describe", &path)?;
    let patch = patch_of(entry, &path, below)?;
    if let (Some(patch), Kind::File { size }) = (&patch, &entry.kind) {
        pax::push(&mut records, patch::RECORD, size.to_string().as_bytes());
        header.set_size(patch.len);
        header.set_cksum();
    }
    if !records.is_empty() {
        let mut extension = Header::new_ustar();
        extension.set_entry_type(EntryType::XHeader);
        extension.set_size(records.len() as u64);
        extension.set_cksum();
        archive.append(&extension, &records[..]).ctx("write the archive of", root)?;
    }
    match (patch, &entry.kind) {
        (Some(patch), _) => {
            let contents = patch.reader(digest::open(&path)?);
            archive.append(&header, contents).ctx("archive", &path)
        }
        (None, Kind::File { size }) if *size > 0 => {
            let file = std::fs::File::from(digest::open(&path)?);
            let contents = Exactly { file, left: *size };
            archive.append(&header, contents).ctx("archive", &path)
        }
        _ => archive.append(&header, io::empty()).ctx("write the archive of", root),
    }
}

/// What differs from the file at the same path below, if there is one and it is worth it.
fn patch_of(entry: &Entry, path: &Path, below: Option<Below<'_>>) -> Result<Option<Patch>, PoolError> {
    let (Some(below), Kind::File { size: size @ 1.. }) = (below, &entry.kind) else { return Ok(None) };
    let Some(Kind::File { size: old }) = below.listing.get(&entry.path).map(|entry| &entry.kind) else {
        return Ok(None);
    };
    let under = digest::open(&below.root.join(&entry.path))?;
    Patch::between((&under, *old), (&digest::open(path)?, *size)).ctx("compare", path)
}

fn header_of(entry: &Entry) -> io::Result<(Header, Vec<u8>)> {
    let mut header = Header::new_ustar();
    let mut records = Vec::new();
    let mut name = entry.path.as_os_str().as_bytes().to_vec();
    if name.is_empty() {
        name.push(b'.');
    }
    let (kind, target, size) = match &entry.kind {
        Kind::Dir => (EntryType::Directory, None, 0),
        Kind::File { size } => (EntryType::Regular, None, *size),
        Kind::HardLink { to } => (EntryType::Link, Some(to), 0),
        Kind::Symlink { target } => (EntryType::Symlink, Some(target), 0),
        Kind::Fifo => (EntryType::Fifo, None, 0),
        Kind::Device { block: true, .. } => (EntryType::Block, None, 0),
        Kind::Device { block: false, .. } => (EntryType::Char, None, 0),
    };
    if kind == EntryType::Directory {
        name.push(b'/');
    }
    put_name(&mut header.as_old_mut().name, &mut records, "path", &name);
    if let Some(target) = target {
        put_name(&mut header.as_old_mut().linkname, &mut records, "linkpath", target.as_os_str().as_bytes());
    }
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(u64::try_from(entry.mtime.0).unwrap_or(0));
    if let Kind::Device { major, minor, .. } = entry.kind {
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
    }
    if !matches!(entry.mtime, Stamp(0.., 0)) {
        pax::push(&mut records, "mtime", pax::time(entry.mtime).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        // A key ends at its first `=`.
        let key = format!("{XATTR_RECORD}{}", text::escape(name).replace('=', "%3D"));
        pax::push(&mut records, &key, value);
    }
    header.set_cksum();
    Ok((header, records))
}

fn put_name(field: &mut [u8; HEADER_NAME_BYTES], records: &mut Vec<u8>, key: &str, name: &[u8]) {
    let kept = name.len().min(field.len());
    field[..kept].copy_from_slice(&name[..kept]);
    if name.len() > field.len() || !name.is_ascii() {
        pax::push(records, key, name);
    }
}

/// Gives exactly so many bytes, or an error: a header that lies about its size would shift all that follows.
struct Exactly {
    file: std::fs::File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.file.read(&mut buffer[..wanted])?;
        if got == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was"));
        }
        self.left -= got as u64;
        Ok(got)
    }
}
