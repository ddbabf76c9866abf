//! How each kind of pool makes, seals and removes a set of trees. The only place that tells the kinds apart.
//!
//! A set is a folder: `t/` holds the trees, a folder each; `o/` holds what overlay mounts write. A set can be renamed
//! while its trees are mounted, which is what makes a reset two renames for every kind.
//!
//! ```text
//!               stage              publish         clone                         remove
//!   btrfs       t = subvolume      t read-only     t = snapshot                  subvolume delete
//!   reflink     folders            –               FICLONE per file              unlink
//!   overlay     folders            –               mount lower=tree, upper=o/…   umount, unlink
//!   copy        folders            –               copy per file                 unlink
//! ```
//!
//! Must not know: lanes, stagings, archives. Invariant: `clone_set` leaves nothing behind when it fails.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use crate::error::Context as _;
use crate::tree::data::Filling;
use crate::tree::{Listing, remove, write};
use crate::{PoolError, PoolKind, mounts, tools};

/// The folder of a set that holds its trees.
pub(crate) const TREES: &str = "t";
/// The folder of a set that holds what its overlay mounts write.
const OVER: &str = "o";

/// Looks at the free space until it stays the same, at most so many, so far apart; and how many in a row are enough.
const SETTLE_LOOKS_MAX: u32 = 200;
const SETTLE_PAUSE_NS: i64 = 5_000_000;
const SETTLE_LOOKS_SAME: u32 = 4;
/// How long btrfs may take to free what was deleted before nobody waits for it any more.
const RECLAIM_SECS_MAX: &str = "60";

/// A tree to clone: where it is, what it is.
pub(crate) struct Source<'a> {
    pub(crate) folder: &'a str,
    pub(crate) listing: &'a Listing,
}

/// Makes an empty set.
pub(crate) fn new_set(kind: PoolKind, set: &Path) -> Result<(), PoolError> {
    fs::create_dir(set).ctx("make", set)?;
    let trees = set.join(TREES);
    match kind {
        PoolKind::Btrfs => btrfs(&["subvolume", "create"], &[&trees]),
        PoolKind::Reflink | PoolKind::Overlay | PoolKind::Copy => fs::create_dir(&trees).ctx("make", &trees),
    }
}

/// Makes a set immutable as far as the kind can.
pub(crate) fn seal_set(kind: PoolKind, set: &Path) -> Result<(), PoolError> {
    match kind {
        PoolKind::Btrfs => {
            let trees = set.join(TREES);
            let args = ["property", "set", "-ts"].map(OsStr::new);
            let args = [&args[..], &[trees.as_os_str(), OsStr::new("ro"), OsStr::new("true")]].concat();
            tools::run(tools::BTRFS, &args, &trees)
        }
        PoolKind::Reflink | PoolKind::Overlay | PoolKind::Copy => Ok(()),
    }
}

/// How captured files get into the pool.
pub(crate) fn capture_filling(kind: PoolKind) -> Filling {
    match kind {
        PoolKind::Btrfs | PoolKind::Reflink => Filling::clone_or_copy(),
        PoolKind::Overlay | PoolKind::Copy => Filling::Copy,
    }
}

/// Clones trees of the set `from` as the new set `into`.
pub(crate) fn clone_set(
    kind: PoolKind,
    from: &Path,
    sources: &[Source<'_>],
    into: &Path,
) -> Result<(), PoolError> {
    let made = try_clone_set(kind, from, sources, into);
    if made.is_err() {
        // The first failure is the one to tell; a set that cannot be removed now is cleared at the next open.
        let _ = remove_set(kind, into);
    }
    made
}

fn try_clone_set(kind: PoolKind, from: &Path, sources: &[Source<'_>], into: &Path) -> Result<(), PoolError> {
    fs::create_dir(into).ctx("make", into)?;
    let (theirs, ours) = (from.join(TREES), into.join(TREES));
    if kind == PoolKind::Btrfs {
        return btrfs(&["subvolume", "snapshot"], &[&theirs, &ours]);
    }
    fs::create_dir(&ours).ctx("make", &ours)?;
    for source in sources {
        let (tree, clone) = (theirs.join(source.folder), ours.join(source.folder));
        fs::create_dir(&clone).ctx("make", &clone)?;
        match kind {
            PoolKind::Overlay if !source.listing.defies_overlay() => {
                let over = into.join(OVER).join(source.folder);
                mount_overlay(source.listing, &tree, &over, &clone)?;
            }
            PoolKind::Reflink => write::clone_tree(source.listing, &tree, &clone, &Filling::Clone)?,
            _ => write::clone_tree(source.listing, &tree, &clone, &Filling::Copy)?,
        }
    }
    Ok(())
}

/// Unmounts and deletes a set; fine if it is not there.
pub(crate) fn remove_set(kind: PoolKind, set: &Path) -> Result<(), PoolError> {
    match kind {
        PoolKind::Overlay => mounts::unmount_below(set)?,
        PoolKind::Btrfs => {
            let trees = set.join(TREES);
            // A subvolume that someone made inside of it hinders this, but not the removal below.
            if trees.exists() {
                let _ = btrfs(&["subvolume", "delete"], &[&trees]);
            }
        }
        PoolKind::Reflink | PoolKind::Copy => {}
    }
    remove::tree(set)
}

/// Waits until the file system of `dir` has freed what was deleted in it: btrfs does so in the background, other file
/// systems when they commit.
pub(crate) fn reclaim(kind: PoolKind, dir: &Path) -> Result<(), PoolError> {
    if kind == PoolKind::Btrfs {
        // Its own sync wakes the cleaner, which syncfs does not.
        btrfs(&["filesystem", "sync"], &[dir])?;
        let args = [RECLAIM_SECS_MAX, "btrfs", "subvolume", "sync"].map(OsStr::new);
        // It only waits: where it cannot, or not for so long, the space is free later.
        let _ = tools::run(tools::TIMEOUT, &[&args[..], &[dir.as_os_str()]].concat(), dir);
    }
    let opened = fs::File::open(dir).ctx("open", dir)?;
    rustix::fs::syncfs(&opened).ctx("sync", dir)?;
    settled(dir)
}

/// XFS frees the blocks of deleted files in the background; each look at the free space hurries it (inodegc, Linux 5.14).
fn settled(dir: &Path) -> Result<(), PoolError> {
    let free = || Ok(rustix::fs::statvfs(dir).ctx("read the free space of", dir)?.f_bfree);
    let (mut before, mut same) = (free()?, 0);
    for _ in 0..SETTLE_LOOKS_MAX {
        // Nothing tells when it is done.
        let _ = rustix::thread::nanosleep(&rustix::thread::Timespec { tv_sec: 0, tv_nsec: SETTLE_PAUSE_NS });
        let now = free()?;
        same = if now == before { same + 1 } else { 0 };
        if same == SETTLE_LOOKS_SAME {
            break;
        }
        before = now;
    }
    Ok(())
}

/// True where the kind can use the set: btrfs clones subvolumes only (their root is always inode 256).
pub(crate) fn can_use(kind: PoolKind, set: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    const SUBVOLUME_ROOT: u64 = 256;
    let Ok(metadata) = fs::metadata(set.join(TREES)) else { return false };
    metadata.is_dir() && (kind != PoolKind::Btrfs || metadata.ino() == SUBVOLUME_ROOT)
}

fn btrfs(verb: &[&str], paths: &[&Path]) -> Result<(), PoolError> {
    let mut args = vec![OsStr::new("-q")];
    args.extend(verb.iter().map(OsStr::new));
    args.extend(paths.iter().map(|path| path.as_os_str()));
    tools::run(tools::BTRFS, &args, paths.last().expect("every verb has a path"))
}

/// Mounts `lower` with a fresh upper below `over` at `at`. The root of an overlay mount shows the upper's owner, mode
/// and time: they are set to the tree's.
fn mount_overlay(listing: &Listing, lower: &Path, over: &Path, at: &Path) -> Result<(), PoolError> {
    let (upper, work) = (over.join("upper"), over.join("work"));
    for dir in [&upper, &work] {
        fs::create_dir_all(dir).ctx("make", dir)?;
    }
    write::dress_folder(listing.root(), &upper)?;
    overlay(lower, &upper, &work, at)
}

/// Mounts an overlay. Lanes are thrown away after a crash, so what they sync need not reach the disk (`volatile`), and
/// services may rename folders (`redirect_dir`); a kernel that lacks either gets the plain mount.
pub(crate) fn overlay(lower: &Path, upper: &Path, work: &Path, at: &Path) -> Result<(), PoolError> {
    let dirs = [("lowerdir=", lower), (",upperdir=", upper), (",workdir=", work)];
    let plain: Vec<u8> =
        dirs.iter().flat_map(|(key, dir)| [key.as_bytes(), &option_value(dir)].concat()).collect();
    let mut result = Err(Errno::INVAL);
    for extra in [&b",redirect_dir=on,volatile"[..], b",redirect_dir=on", b""] {
        let options = std::ffi::CString::new([&plain, extra].concat()).expect("a path has no NUL");
        result = mount("overlay", at, "overlay", MountFlags::empty(), Some(options.as_c_str()));
        if result != Err(Errno::INVAL) {
            break;
        }
    }
    result.ctx("mount an overlay at", at)
}

/// A path as the value of a mount option: overlay takes `:` and `,` for separators.
fn option_value(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = path.as_os_str().as_bytes();
    bytes
        .iter()
        .flat_map(|byte| if b"\\:,".contains(byte) { vec![b'\\', *byte] } else { vec![*byte] })
        .collect()
}

/// Moves a set, its mounts included.
pub(crate) fn move_set(from: &Path, to: &Path) -> Result<(), PoolError> {
    rustix::fs::renameat_with(CWD, from, CWD, to, rustix::fs::RenameFlags::NOREPLACE).ctx("move", from)
}

/// Where a tree of a set is.
pub(crate) fn tree_in(set: &Path, folder: &str) -> PathBuf {
    set.join(TREES).join(folder)
}
