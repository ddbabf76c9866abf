//! Which file system is full, of what, and what can be done: found out when a system call says "no space".
//!
//! Must not know: what was written. Invariant: asking never fails; what cannot be found out is left out of the sentence.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

use crate::mounts;

/// A file system without room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullFs {
    /// Where it is mounted; the file's own path where that cannot be found.
    pub mount: PathBuf,
    /// The pool's image that holds it, if one does.
    pub image: Option<PathBuf>,
    /// Bytes free, of how many.
    pub bytes: Option<(u64, u64)>,
    /// Inodes free, of how many; `None` where the file system does not count them.
    pub inodes: Option<(u64, u64)>,
    /// How many bytes what was tried takes, where that is known.
    pub needed: Option<u64>,
}

/// With fewer inodes free a file system counts as out of them, if it has bytes.
const INODES_FEW: u64 = 8;
/// With at least this much free it is not for the lack of bytes that a write fails.
const BYTES_SOME: u64 = 1 << 20;

impl FullFs {
    /// Looks at the file system that `path` is on, or was to be.
    pub(crate) fn of(path: &Path) -> FullFs {
        let there = path.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(path);
        let there = there.canonicalize().unwrap_or_else(|_| there.to_owned());
        let stat = statvfs(&there).ok();
        let mounts = mounts::all().unwrap_or_default();
        let mount = mounts.into_iter().map(|mount| mount.at).filter(|at| there.starts_with(at));
        let mount = mount.max_by_key(|at| at.as_os_str().len()).unwrap_or(there);
        let image = Some(mount.with_extension("img")).filter(|image| image.is_file());
        FullFs {
            mount,
            image,
            bytes: stat.as_ref().map(|stat| (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize)),
            inodes: stat.as_ref().filter(|stat| stat.f_files > 0).map(|stat| (stat.f_favail, stat.f_files)),
            needed: None,
        }
    }

    /// True where there are bytes, but no more files can be made.
    pub fn is_out_of_inodes(&self) -> bool {
        let few = self.inodes.is_some_and(|(free, _)| free < INODES_FEW);
        few && self.bytes.is_none_or(|(free, _)| free >= BYTES_SOME)
    }
}

impl fmt::Display for FullFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_out_of_inodes() { "has no inodes left" } else { "is full" };
        write!(f, "the file system at {} {what} (", self.mount.display())?;
        match self.bytes {
            Some((free, all)) => write!(f, "{} of {} free", size(free), size(all))?,
            None => f.write_str("its free space cannot be read")?,
        }
        if let Some((free, all)) = self.inodes {
            write!(f, ", {free} of {all} inodes free")?;
        }
        if let Some(needed) = self.needed {
            write!(f, ", {} needed", size(needed))?;
        }
        f.write_str("); ")?;
        match &self.image {
            _ if self.is_out_of_inodes() => {
                f.write_str("remove files or baselines there, or give it more inodes")
            }
            Some(image) => write!(
                f,
                "remove baselines, make room on the host for {} to grow, or raise its limit",
                image.display()
            ),
            None => f.write_str("remove baselines or other files there, or give it more space"),
        }
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_says_where_how_much_and_what_to_do() {
        let full = FullFs {
            mount: "/var/lib/andon/pool/pool".into(),
            image: Some("/var/lib/andon/pool/pool.img".into()),
            bytes: Some((4096, 3 << 29)),
            inodes: Some((700, 1000)),
            needed: Some(290 << 20),
        };
        assert_eq!(
            full.to_string(),
            "the file system at /var/lib/andon/pool/pool is full (4.0 KiB of 1.5 GiB free, 700 of 1000 inodes free, \
             290.0 MiB needed); remove baselines, make room on the host for /var/lib/andon/pool/pool.img to grow, or \
             raise its limit"
        );
        let inodes = FullFs { bytes: Some((1 << 30, 2 << 30)), inodes: Some((0, 1000)), ..full };
        assert!(inodes.to_string().contains("has no inodes left"), "{inodes}");
    }
}
