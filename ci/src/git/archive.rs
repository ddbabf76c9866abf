//! A commit's files as one `tar.zst` that depends on nothing but their paths, modes and contents.
//!
//! The root, then entries in the order of their paths, owned by 0:0, dated 0, with mode 644, 755 or (links) 777. The
//! same tree gives the same bytes for one version of zstd, so a commit's archive is stored once.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use tempfile::TempPath;

use super::snapshot::is_normal;
use super::{Entry, GitError, Kind, Snapshot};

/// zstd's level: sources are small, and this one is fast.
const ZSTD_LEVEL: i32 = 3;

/// An archive in a temporary file that goes away with this value.
#[derive(Debug)]
pub struct Archive {
    /// The file.
    pub path: TempPath,
    /// BLAKE3 of the file, hex.
    pub digest: String,
    /// Bytes of the file.
    pub size: u64,
}

/// Hashes and counts what is written.
struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Snapshot<'_> {
    /// Writes the archive into a new file in `folder`.
    pub fn archive(&self, folder: &Path) -> Result<Archive, GitError> {
        let failed = |source| GitError::Archive { commit: self.commit().to_string(), source };
        let file = tempfile::Builder::new().prefix("source-").suffix(".tar.zst").tempfile_in(folder);
        let (file, path) = file.map_err(failed)?.into_parts();
        let out = Hashing { inner: BufWriter::new(file), hasher: blake3::Hasher::new(), size: 0 };
        let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL).map_err(failed)?;
        encoder.include_checksum(true).map_err(failed)?;
        let mut tar = tar::Builder::new(encoder);
        append_root(&mut tar).map_err(failed)?;
        for (name, entry) in &self.entries {
            let content = match entry.kind {
                Kind::Folder => Vec::new(),
                Kind::File { .. } | Kind::Symlink => self.content(name, entry)?,
            };
            append(&mut tar, name, entry, &content).map_err(failed)?;
        }
        let encoder = tar.into_inner().map_err(failed)?;
        let mut out = encoder.finish().map_err(failed)?;
        out.flush().map_err(failed)?;
        Ok(Archive { path, digest: out.hasher.finalize().to_hex().to_string(), size: out.size })
    }
}

/// The root itself: workers take trees whose archive says what their root is.
fn append_root(tar: &mut tar::Builder<impl Write>) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    tar.append_data(&mut header, "./", io::empty())
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, entry: &Entry, content: &[u8]) -> io::Result<()> {
    if !is_normal(name) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("the path {name:?} is not normal")));
    }
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let (kind, mode) = match entry.kind {
        Kind::Folder => (tar::EntryType::Directory, 0o755),
        Kind::File { executable: true } => (tar::EntryType::Regular, 0o755),
        Kind::File { executable: false } => (tar::EntryType::Regular, 0o644),
        Kind::Symlink => (tar::EntryType::Symlink, 0o777),
    };
    header.set_entry_type(kind);
    header.set_mode(mode);
    let mut records = Vec::new();
    put_name(&mut header.as_old_mut().name, &mut records, "path", name.as_bytes());
    let content = if entry.kind == Kind::Symlink {
        if content.is_empty() || content.contains(&0) {
            let message = format!("the symlink {name:?} has a target that no link can have");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        // Byte by byte: the library would normalise a target.
        put_name(&mut header.as_old_mut().linkname, &mut records, "linkpath", content);
        &[]
    } else {
        content
    };
    if !records.is_empty() {
        tar.append_pax_extensions(records)?;
    }
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.append(&header, content)
}

/// A name in its field, and where it is longer than that in a pax record, which goes before it.
fn put_name<'a>(
    field: &mut [u8; 100],
    records: &mut Vec<(&'static str, &'a [u8])>,
    key: &'static str,
    name: &'a [u8],
) {
    let short = name.len().min(field.len());
    field[..short].copy_from_slice(&name[..short]);
    if short < name.len() {
        records.push((key, name));
    }
}
