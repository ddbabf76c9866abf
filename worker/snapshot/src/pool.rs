//! signatures
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Baseline, Footprint, ImportLimits, LaneClone, PoolError, Staging};

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
    /// Size of `pool.img` when one must be made; default min(64 GiB, 80% of what is free).
    pub image_bytes: Option<u64>,
    /// File system inside `pool.img` when one must be made.
    pub loop_fs: LoopFs,
    /// What an imported archive may hold.
    pub import: ImportLimits,
}

/// The pool. Cheap to clone; all methods take `&self` and may be called from several threads.
#[derive(Debug, Clone)]
pub struct Pool {}

impl Pool {
    /// Opens the pool in `root`.
    pub fn open(root: &Path, options: PoolOptions) -> Result<Pool, PoolError> {
        let _ = (root, options);
        unimplemented!()
    }
    /// How it clones.
    pub fn kind(&self) -> PoolKind {
        unimplemented!()
    }
    /// Why faster kinds were not chosen, a line each.
    pub fn notes(&self) -> &[String] {
        unimplemented!()
    }
    /// The folder on the copy-on-write file system; others may live beside the pool's own folders in it.
    pub fn dir(&self) -> &Path {
        unimplemented!()
    }
    /// Free bytes where the pool writes.
    pub fn free_bytes(&self) -> Result<u64, PoolError> {
        unimplemented!()
    }
    /// Starts a baseline.
    pub fn stage(&self, key: &str) -> Result<Staging, PoolError> {
        let _ = key;
        unimplemented!()
    }
    /// The published baseline of that key.
    pub fn baseline(&self, key: &str) -> Result<Option<Baseline>, PoolError> {
        let _ = key;
        unimplemented!()
    }
    /// All published baselines, by key.
    pub fn baselines(&self) -> Result<Vec<Baseline>, PoolError> {
        unimplemented!()
    }
    /// Removes a baseline; false if there was none.
    pub fn remove(&self, key: &str) -> Result<bool, PoolError> {
        let _ = key;
        unimplemented!()
    }
    /// A clone of all trees for a lane.
    pub fn clone_lane(&self, lane: &str, baseline: &Baseline) -> Result<LaneClone, PoolError> {
        let _ = (lane, baseline);
        unimplemented!()
    }
    /// A clone of the trees that `wanted` accepts (container layers are often restored elsewhere).
    pub fn clone_lane_of(
        &self,
        lane: &str,
        baseline: &Baseline,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<LaneClone, PoolError> {
        let _ = (lane, baseline, wanted);
        unimplemented!()
    }
    /// Empties `dest` (keeping it) and fills it from the tree.
    pub fn restore_into(&self, baseline: &Baseline, tree: &str, dest: &Path) -> Result<(), PoolError> {
        let _ = (baseline, tree, dest);
        unimplemented!()
    }
    /// How `dir` differs from the tree.
    pub fn footprint_of(&self, baseline: &Baseline, tree: &str, dir: &Path) -> Result<Footprint, PoolError> {
        let _ = (baseline, tree, dir);
        unimplemented!()
    }
    /// How `dir` differs from the tree, by stat alone; the first difference is named.
    pub fn verify_in(&self, baseline: &Baseline, tree: &str, dir: &Path) -> Result<(), crate::Difference> {
        let _ = (baseline, tree, dir);
        unimplemented!()
    }
    /// Unmounts what the pool mounted. Lanes must be idle.
    pub fn close(&self) -> Result<(), PoolError> {
        unimplemented!()
    }
}
