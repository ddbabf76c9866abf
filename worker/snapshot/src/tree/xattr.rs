//! Extended attributes: which are part of a tree, and how to read and write them without following links.
//!
//! Must not know: pools. Invariant: only the namespaces below are read or written, so that a host's own labels
//! (SELinux, btrfs properties) neither travel nor come from an archive.

use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, llistxattr_query, lsetxattr};
use rustix::io::Errno;

use crate::PoolError;
use crate::error::Context as _;

/// The kernel's limit for one value (XATTR_SIZE_MAX) and for the list of names (XATTR_LIST_MAX).
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// Names and values, sorted.
pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// True for an attribute that belongs to a tree.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability"
        || [&b"user."[..], b"trusted.", b"system.posix_acl_"].iter().any(|space| name.starts_with(space))
}

/// The kept attributes of what is at `path`, by name.
pub(crate) fn read(path: &Path) -> Result<Pairs, PoolError> {
    // Almost nothing has attributes: ask for the size of the list first. Not by an empty buffer: rustix says 0 to that.
    match llistxattr_query(path) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(_) => {}
        Err(error) => return Err(error).ctx("list the attributes of", path),
    }
    let mut names = vec![0u8; XATTR_BYTES_MAX];
    let used = llistxattr(path, &mut names[..]).ctx("list the attributes of", path)?;
    let mut pairs = Vec::new();
    let mut value = vec![0u8; XATTR_BYTES_MAX];
    for name in names[..used].split(|byte| *byte == 0).filter(|name| is_kept(name)) {
        match lgetxattr(path, name, &mut value[..]) {
            Ok(length) => pairs.push((name.to_vec(), value[..length].to_vec())),
            // Gone since the list was read: it is not there.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error).ctx("read an attribute of", path),
        }
    }
    pairs.sort();
    Ok(pairs)
}

/// Sets attributes on what is at `path`.
pub(crate) fn write(path: &Path, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), PoolError> {
    for (name, value) in pairs {
        lsetxattr(path, &name[..], value, XattrFlags::empty()).ctx("set an attribute of", path)?;
    }
    Ok(())
}

/// Makes the attributes of what is at `path` exactly these.
pub(crate) fn replace(path: &Path, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), PoolError> {
    for (name, _) in read(path)? {
        if !pairs.iter().any(|(wanted, _)| *wanted == name) {
            rustix::fs::lremovexattr(path, &name[..]).ctx("remove an attribute of", path)?;
        }
    }
    write(path, pairs)
}
