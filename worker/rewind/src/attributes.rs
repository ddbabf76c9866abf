//! What a file or folder has besides its bytes, owner, rights and times: extended attributes (access lists among them) and the flags of chattr(1).
//!
//! They are compared, not put back: a server that changes them while it runs is none that we know. What an overlay notes for itself is left out.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::IFlags;
use rustix::io::Errno;

/// The kernel's limit for one value, and for the list of names.
const BYTES_MAX: usize = 64 * 1024;
const OVERLAY: &[u8] = b"trusted.overlay.";
/// Flags that say how a file may be used, and not how its file system laid it out.
const FLAGS: IFlags = IFlags::APPEND
    .union(IFlags::IMMUTABLE)
    .union(IFlags::NODUMP)
    .union(IFlags::NOATIME)
    .union(IFlags::SYNC)
    .union(IFlags::DIRSYNC)
    .union(IFlags::NOCOW)
    .union(IFlags::COMPRESSED);

/// Of one file or folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    extended: BTreeMap<CString, Vec<u8>>,
    flags: u32,
}

impl Attributes {
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Ok(Self { extended: extended(path)?, flags: flags(path)? })
    }

    /// As a new file has them.
    pub(crate) fn are_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// Almost nothing has any, so the list's size is asked for first: not by an empty buffer, to which rustix says 0.
fn extended(path: &Path) -> Result<BTreeMap<CString, Vec<u8>>, Errno> {
    match rustix::fs::llistxattr_query(path) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    let mut names = vec![0; BYTES_MAX];
    let bytes = rustix::fs::llistxattr(path, &mut names[..])?;
    let mut value = vec![0; BYTES_MAX];
    let mut found = BTreeMap::new();
    for name in names[..bytes].split_inclusive(|byte| *byte == 0).filter(|name| !name.starts_with(OVERLAY)) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let bytes = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        found.insert(name.to_owned(), value[..bytes].to_vec());
    }
    Ok(found)
}

fn flags(path: &Path) -> io::Result<u32> {
    match rustix::fs::ioctl_getflags(File::open(path)?) {
        Ok(flags) => Ok(flags.intersection(FLAGS).bits()),
        Err(Errno::NOTTY | Errno::OPNOTSUPP) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_and_flags_are_seen() {
        // Not all file systems in memory have both.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "bytes").unwrap();
        assert!(Attributes::read(&path).unwrap().are_plain());
        rustix::fs::setxattr(&path, "user.vandal", b"x", rustix::fs::XattrFlags::empty()).unwrap();
        let marked = Attributes::read(&path).unwrap();
        assert_eq!(marked.extended.keys().map(|name| name.to_bytes()).collect::<Vec<_>>(), [b"user.vandal"]);
        let file = File::open(&path).unwrap();
        let flags = rustix::fs::ioctl_getflags(&file).unwrap();
        rustix::fs::ioctl_setflags(&file, flags | IFlags::NODUMP).unwrap();
        assert_ne!(Attributes::read(&path).unwrap(), marked);
        assert!(Attributes::read(folder.path()).unwrap().are_plain());
    }
}
