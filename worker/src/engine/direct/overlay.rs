//! A container's root file system, mounted as the daemon mounts it: what the kernel says of the daemon's own mount is said to
//! the kernel again, for another place.
//!
//! Where nothing has to outlive a crash the mount is `volatile` (kernel: Documentation/filesystems/overlayfs.rst): without it
//! each unmount writes out all that the whole pool has in memory, which is most of what killing a container costs on a slow
//! disk. Such a mount leaves a mark in its work folder, which forbids the next one; it is removed with the mount.
//!
//! Invariant: a layer is never mounted here while the daemon has it mounted.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::host::mounts;

const KIND: &str = "overlay";
/// What mount(2) takes at most, in bytes: one page of memory with its final zero.
const OPTIONS_BYTES_MAX: usize = 4095;

/// The options of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Overlay {
    options: String,
    work: PathBuf,
}

impl Overlay {
    /// Of what is mounted there now; `None` where that is no overlay that can be repeated.
    pub(super) fn at(root: &Path) -> io::Result<Option<Self>> {
        Ok(find(&fs::read_to_string(mounts::OWN)?, root))
    }

    /// Mounts it. `is_volatile` is a wish: a kernel that does not know it goes without.
    pub(super) fn mount(&self, at: &Path, is_volatile: bool) -> io::Result<()> {
        self.remove_mark()?;
        if is_volatile {
            match self.mount_with(at, ",volatile") {
                Err(Errno::INVAL) => {}
                answer => return Ok(answer?),
            }
        }
        Ok(self.mount_with(at, "")?)
    }

    fn mount_with(&self, at: &Path, more: &str) -> Result<(), Errno> {
        let options = CString::new(format!("{}{more}", self.options)).map_err(|_| Errno::INVAL)?;
        mount(KIND, at, KIND, MountFlags::empty(), options.as_c_str())
    }

    /// Unmounts it where it is mounted.
    pub(super) fn unmount(&self, at: &Path) -> io::Result<()> {
        let gone = match unmount(at, UnmountFlags::empty()) {
            // Somebody looks into it from outside: it goes with their last look.
            Err(Errno::BUSY) => unmount(at, UnmountFlags::DETACH),
            answer => answer,
        };
        match gone {
            // Not mounted, or its place is not there.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => self.remove_mark(),
            Err(error) => Err(error.into()),
        }
    }

    fn remove_mark(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.work.join("work/incompat")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Options with escapes in them are not understood.
pub(super) fn find(mountinfo: &str, root: &Path) -> Option<Overlay> {
    // Of several at one place the last one is seen.
    let found = mounts::parse(mountinfo.as_bytes()).rfind(|mount| mount.point == root)?;
    if found.kind != KIND || found.about.contains('\\') {
        return None;
    }
    let options: Vec<&str> =
        found.about.split(',').filter(|option| !matches!(*option, "rw" | "ro")).collect();
    let value = |name: &str| options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
    let (lower, upper, work) = (value("lowerdir")?, value("upperdir")?, value("workdir")?);
    let is_absolute = |path: &str| path.starts_with('/');
    let options = options.join(",");
    let is_whole = options.len() + ",volatile".len() <= OPTIONS_BYTES_MAX;
    (is_whole && lower.split(':').all(is_absolute) && is_absolute(upper) && is_absolute(work))
        .then(|| Overlay { work: PathBuf::from(work), options })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MERGED: &str = "/d/overlay2/28b9/merged";

    fn line(options: &str) -> String {
        format!("73 97 0:59 / {MERGED} rw,relatime - overlay overlay {options}\n")
    }

    #[test]
    fn the_daemons_mount_is_repeated_in_its_own_words() {
        let words = "lowerdir=/d/overlay2/l/AA:/d/overlay2/l/BB,upperdir=/d/overlay2/28b9/diff,workdir=/d/overlay2/28b9/work,index=off";
        let mounts = format!("1 0 8:1 / / rw - ext4 /dev/vda rw\n{}", line(&format!("rw,{words}")));
        let overlay = find(&mounts, Path::new(MERGED)).unwrap();
        assert_eq!(overlay, Overlay { options: words.to_owned(), work: "/d/overlay2/28b9/work".into() });
        assert_eq!(find(&mounts, Path::new("/d/overlay2/28b9")), None);
        assert_eq!(find(&mounts, Path::new("/")), None, "another kind");
    }

    #[test]
    fn a_mount_that_cannot_be_repeated_is_none() {
        let find = |options: &str| find(&line(options), Path::new(MERGED));
        assert!(find("rw,lowerdir=/a,upperdir=/b,workdir=/c").is_some());
        assert_eq!(find("rw,lowerdir=l/AA,upperdir=/b,workdir=/c"), None, "relative to where the daemon was");
        assert_eq!(find("rw,lowerdir=/a\\040b,upperdir=/b,workdir=/c"), None, "escaped");
        assert_eq!(find("ro,lowerdir=/a:/b"), None, "nothing to write to");
        let long = vec!["/layer"; 700].join(":");
        assert_eq!(find(&format!("rw,lowerdir={long},upperdir=/b,workdir=/c")), None, "longer than a page");
    }
}
