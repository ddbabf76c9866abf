//! The pool's public face: open, look, stage, clone, restore, close.
//!
//! Must not know: how trees are cloned (driver.rs), where things lie on disk (store.rs).

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::statvfs;
use serde::{Deserialize, Serialize};

use crate::error::Context as _;
use crate::store::{self, Store};
use crate::tree::{remove, write, xattr};
use crate::{Baseline, Changes, Difference, Footprint, ImportLimits, LaneClone, PoolError, Staging};
use crate::{driver, footprint, image, probe, verify};

/// How the pool clones trees, fast to slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolKind {
    /// Subvolume snapshots.
    Btrfs,
    /// FICLONE per file (XFS, bcachefs, …).
    Reflink,
    /// A kernel overlay mount per tree over the baseline.
    Overlay,
    /// Plain copies.
    Copy,
}

impl fmt::Display for PoolKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PoolKind::Btrfs => "btrfs",
            PoolKind::Reflink => "reflink",
            PoolKind::Overlay => "overlay",
            PoolKind::Copy => "copy",
        })
    }
}

/// The file system made inside `pool.img` where the host's own cannot clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoopFs {
    /// XFS with reflink.
    #[default]
    Xfs,
    /// btrfs.
    Btrfs,
}

/// How to open a pool. `PoolOptions::default()` probes for the best.
#[derive(Debug, Clone, Default)]
pub struct PoolOptions {
    /// Force this kind, or fail naming what is missing.
    pub kind: Option<PoolKind>,
    /// Size of `pool.img` when one must be made; default min(8 GiB, 80% of what is free). The file is sparse.
    pub image_bytes: Option<u64>,
    /// How far `pool.img` may grow; default 256 GiB. It grows by itself when little is free in it, never beyond what the
    /// host could hold if all of it were written.
    pub image_bytes_max: Option<u64>,
    /// A `pool.img` that is damaged is renamed to `pool.img.broken-N` (two are kept) and made anew, with a note. Without
    /// it `open` fails and names it.
    pub set_aside_damaged: bool,
    /// File system inside `pool.img` when one must be made. A forced `Btrfs` always makes btrfs.
    pub loop_fs: LoopFs,
    /// What an imported archive may hold.
    pub import: ImportLimits,
}

/// How full a pool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// What can be written to it, growth included.
    pub free_bytes: u64,
    /// How large it is, or can become now.
    pub total_bytes: u64,
    /// How many files can be made; `None` where the file system does not count them (btrfs).
    pub inodes_free: Option<u64>,
    /// Its image, where it lives in one.
    pub image: Option<ImageSpace>,
}

/// The pool's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpace {
    /// Its length.
    pub bytes: u64,
    /// What it takes of the host by now.
    pub allocated: u64,
    /// How often it grew since the pool was opened.
    pub grown: u64,
    /// Why it could not grow the last time, if it could not.
    pub failure: Option<String>,
}

/// The pool. Cheap to clone; all methods may be called from several threads.
///
/// One process at a time has a pool open. Dropping the last handle leaves mounts in place, as a crash does: the next
/// `open` takes them over, `close` takes them down.
#[derive(Debug, Clone)]
pub struct Pool {
    store: Arc<Store>,
}

impl Pool {
    /// Opens the pool in `root`, a folder on a real file system (in a container: a volume), making what is missing.
    /// Lanes, stagings and used clones of an earlier life are cleared, baselines are kept.
    ///
    /// Without a forced kind: btrfs or reflink in place; else a file system in `root/pool.img`; else overlay; else copy.
    #[allow(clippy::needless_pass_by_value)] // Options are made for this one call.
    pub fn open(root: &Path, options: PoolOptions) -> Result<Pool, PoolError> {
        fs::create_dir_all(root).ctx("make", root)?;
        // As mountinfo will show it.
        let root = root.canonicalize().ctx("find", root)?;
        let lock = store::lock(&root)?;
        let choice = probe::choose(&root, &options)?;
        let mounted = choice.image.as_ref().map(|_| (root.join("pool.img"), choice.dir.clone()));
        match Store::open(&root, choice, &options, lock) {
            Ok(store) => {
                store.grow_for(0);
                Ok(Pool { store: Arc::new(store) })
            }
            Err(error) => {
                if let Some((file, dir)) = mounted {
                    // The first failure is the one to tell; a mount that stays is taken over by the next open.
                    let _ = image::unmount_image(&file, &dir);
                }
                Err(error)
            }
        }
    }

    /// How it clones.
    pub fn kind(&self) -> PoolKind {
        self.store.kind()
    }

    /// True where the pool lives in a file system of its own in `pool.img`.
    pub fn in_image(&self) -> bool {
        self.store.choice.image.is_some()
    }

    /// Why faster kinds were not chosen and which baselines cannot be used, a line each.
    pub fn notes(&self) -> &[String] {
        &self.store.choice.notes
    }

    /// The folder on the copy-on-write file system. Others may live beside the pool's own `baselines`, `staging`,
    /// `lanes` and `trash` in it, and get reflinks from `restore_into` there.
    pub fn dir(&self) -> &Path {
        self.store.dir()
    }

    /// Bytes that can be written to the pool: what is free where it lives, and what its image can still grow by, but no
    /// more than the host has.
    pub fn free_bytes(&self) -> Result<u64, PoolError> {
        Ok(self.space()?.free_bytes)
    }

    /// How full it is.
    pub fn space(&self) -> Result<Space, PoolError> {
        let dir = self.store.dir();
        let stat = statvfs(dir).ctx("read the free space of", dir)?;
        let inodes_free = (stat.f_files > 0).then_some(stat.f_favail);
        let (free, total) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
        Ok(match &self.store.choice.image {
            None => Space { free_bytes: free, total_bytes: total, inodes_free, image: None },
            Some(image) => {
                let room = image.room()?;
                let (grown, failure) = (image.grown(), image.failure());
                let image = ImageSpace { bytes: room.size, allocated: room.allocated, grown, failure };
                let (free_bytes, total_bytes) = (room.usable(), room.reachable());
                Space { free_bytes, total_bytes, inodes_free, image: Some(image) }
            }
        })
    }

    /// Lets the pool's image grow if little of it would be free beside `bytes`; its sizes before and after. What writes
    /// to the pool through this crate does that by itself; who lets others write to `dir()` calls it from time to time.
    pub fn grow_for(&self, bytes: u64) -> Option<(u64, u64)> {
        self.store.grow_for(bytes)
    }

    /// Starts a baseline.
    pub fn stage(&self, key: &str) -> Result<Staging, PoolError> {
        Staging::new(&self.store, key)
    }

    /// The published baseline of that key.
    pub fn baseline(&self, key: &str) -> Option<Baseline> {
        self.store.baseline(key)
    }

    /// All published baselines, by key.
    pub fn baselines(&self) -> Vec<Baseline> {
        self.store.baselines()
    }

    /// Removes a baseline; false if there was none, an error if a lane or an undiscarded clone stands on it.
    pub fn remove(&self, key: &str) -> Result<bool, PoolError> {
        self.store.remove(key)
    }

    /// How many lanes and undiscarded clones stand on the baseline of that key.
    pub fn users(&self, key: &str) -> usize {
        self.store.users(key)
    }

    /// Deletes used clones and baselines that could not be deleted when they should have been; how many there were.
    pub fn sweep_trash(&self) -> Result<u64, PoolError> {
        self.store.sweep_trash()
    }

    /// Waits until nobody has the lane, but no longer than this: whoever let go of its clone may have left work to a thread
    /// that still holds it, a spare being made. Blocks its thread.
    pub fn wait_for_lane(&self, lane: &str, limit: Duration) {
        self.store.wait_for_lane(lane, limit);
    }

    /// A clone of all trees for a lane.
    pub fn clone_lane(&self, lane: &str, baseline: &Baseline) -> Result<LaneClone, PoolError> {
        self.clone_lane_of(lane, baseline, &|_| true)
    }

    /// A clone of the trees that `wanted` accepts: container layers are restored where Docker keeps them.
    pub fn clone_lane_of(
        &self,
        lane: &str,
        baseline: &Baseline,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<LaneClone, PoolError> {
        LaneClone::new(&self.store, lane, baseline, wanted)
    }

    /// Empties `dest` (keeping it) and fills it from the tree: reflinks where `dest` is on the pool's file system,
    /// copies elsewhere. `dest` gets the owner, mode, attributes and time of the tree's root. Nobody may use it meanwhile.
    pub fn restore_into(&self, baseline: &Baseline, tree: &str, dest: &Path) -> Result<(), PoolError> {
        let used = self.store.hold(baseline)?;
        let tree = used.baseline.tree(tree)?;
        remove::contents(dest)?;
        xattr::replace(dest, &tree.listing.root().xattrs)?;
        write::clone_tree(tree.listing, &tree.path, dest, &driver::capture_filling(self.kind()))
    }

    /// How `dir` differs from the tree, every file compared.
    pub fn footprint_of(&self, baseline: &Baseline, tree: &str, dir: &Path) -> Result<Footprint, PoolError> {
        let used = self.store.hold(baseline)?;
        let tree = used.baseline.tree(tree)?;
        footprint::measure(tree.listing, &tree.path, dir, None)
    }

    /// The same with up to `limit` changed paths.
    pub fn changes_of(
        &self,
        baseline: &Baseline,
        tree: &str,
        dir: &Path,
        limit: usize,
    ) -> Result<Changes, PoolError> {
        let used = self.store.hold(baseline)?;
        let tree = used.baseline.tree(tree)?;
        let collected = footprint::collect(tree.listing, &tree.path, dir, None, limit)?;
        Ok(Changes::of(vec![collected.finish(tree.name)]))
    }

    /// `LaneClone::verify` for a tree that was restored elsewhere.
    pub fn verify_in(&self, baseline: &Baseline, tree: &str, dir: &Path) -> Result<(), Difference> {
        let found = baseline.tree(tree).map_err(|_| verify::no_such_tree(tree))?;
        verify::compare(tree, found.listing, dir)
    }

    /// `LaneClone::verify_deep` for a tree that was restored elsewhere.
    pub fn verify_deep_in(&self, baseline: &Baseline, tree: &str, dir: &Path) -> Result<(), Difference> {
        let index = baseline.index(tree).map_err(|_| verify::no_such_tree(tree))?;
        let (found, digest) = (baseline.at(index), &baseline.trees()[index].tree_digest);
        verify::compare_deep(tree, found.listing, digest, &found.path, dir)
    }

    /// Unmounts what the pool mounted. Lanes must be idle, and nobody may use `dir()`.
    pub fn close(self) -> Result<(), PoolError> {
        self.store.unmount()
    }
}
