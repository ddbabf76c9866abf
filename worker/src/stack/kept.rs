//! A small file of the engine's that is put back as it was: bytes, owner, mode, and nothing besides.
//!
//! Must not know what it is for. Invariant: what is put back is a new file in the old one's place, so that attributes, links
//! and whoever still holds the old one open do not matter; it was compared after.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::rig::RigFault;

/// Engines write some hundred bytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// A file, remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptFile {
    path: PathBuf,
    bytes: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
}

impl KeptFile {
    /// Blocking.
    pub(super) fn read(path: &Path) -> Result<Self, RigFault> {
        let failed = |source| RigFault::File { what: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(failed(io::Error::from(io::ErrorKind::FileTooLarge)));
        }
        let (mode, owner) = (about.mode() & 0o7777, (about.uid(), about.gid()));
        Ok(Self { path: path.to_owned(), bytes, mode, owner })
    }

    /// `hosts`, `resolv.conf`, `hostname`.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.path.file_name().is_some_and(|own| own == name)
    }

    /// Begins with this text from now on. Written in place, for whoever has it mounted already. Blocking.
    pub(super) fn prepend(&mut self, text: &str) -> Result<(), RigFault> {
        self.bytes.splice(0..0, text.bytes());
        fs::write(&self.path, &self.bytes).map_err(|source| RigFault::File {
            what: "write",
            path: self.path.clone(),
            source,
        })
    }

    /// Blocking.
    pub(super) fn put_back(&self) -> Result<(), RigFault> {
        let failed = |source| RigFault::File { what: "put back", path: self.path.clone(), source };
        self.write().map_err(failed)?;
        self.check()
    }

    /// Fails where the file is not as it was. Blocking.
    pub(super) fn check(&self) -> Result<(), RigFault> {
        if Self::read(&self.path)? == *self {
            return Ok(());
        }
        let source = io::Error::other("it is not what it was");
        Err(RigFault::File { what: "find unchanged", path: self.path.clone(), source })
    }

    fn write(&self) -> io::Result<()> {
        let mut name = self.path.clone().into_os_string();
        name.push(".andon");
        let fresh = PathBuf::from(name);
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(&self.bytes)?;
        fchown(&file, Some(self.owner.0), Some(self.owner.1))?;
        file.set_permissions(Permissions::from_mode(self.mode))?;
        fs::rename(&fresh, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_mode_come_back_and_an_open_old_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        fs::write(&path, "127.0.0.1 localhost\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let kept = KeptFile::read(&path).unwrap();
        let mut open = OpenOptions::new().append(true).open(&path).unwrap();
        fs::write(&path, "10.0.0.1 vandal\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        kept.put_back().unwrap();
        open.write_all(b"too late").unwrap();
        assert_eq!(KeptFile::read(&path).unwrap(), kept);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
