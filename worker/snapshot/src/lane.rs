//! signatures
use std::path::{Path, PathBuf};

use crate::{Baseline, Difference, Footprint, PoolError};

/// A lane's clone of a baseline. Methods take `&self`: share it by `Arc`.
#[derive(Debug)]
pub struct LaneClone {}

impl LaneClone {
    /// The lane's name.
    pub fn lane(&self) -> &str {
        unimplemented!()
    }
    /// What it is a clone of.
    pub fn baseline(&self) -> &Baseline {
        unimplemented!()
    }
    /// The lane's folder: the same inode over resets, parent of every tree's path.
    pub fn dir(&self) -> &Path {
        unimplemented!()
    }
    /// Where the tree is; the same over resets.
    pub fn path(&self, tree: &str) -> Result<PathBuf, PoolError> {
        let _ = tree;
        unimplemented!()
    }
    /// Prepares the next clone, off the hot path. Does nothing if one is ready.
    pub fn ready_spare(&self) -> Result<(), PoolError> {
        unimplemented!()
    }
    /// Puts a fresh clone in place; on an error the used one stays.
    pub fn reset(&self) -> Result<Retired, PoolError> {
        unimplemented!()
    }
    /// The clone in place matches the baseline's listing.
    pub fn verify(&self) -> Result<(), Difference> {
        unimplemented!()
    }
    /// Gives the lane up.
    pub fn retire(self) -> Result<Retired, PoolError> {
        unimplemented!()
    }
}

/// A used clone, moved aside. Dropping it discards it: do that on a blocking thread.
#[derive(Debug)]
pub struct Retired {}

impl Retired {
    /// What was changed relative to the baseline.
    pub fn footprint(&self) -> Result<Footprint, PoolError> {
        unimplemented!()
    }
    /// Deletes it; may be slow.
    pub fn discard(self) -> Result<(), PoolError> {
        unimplemented!()
    }
}
