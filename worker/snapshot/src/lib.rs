//! The copy-on-write pool of file trees: baselines that never change, and lanes that are cloned from them.
//!
//! Blocking code: call it from `spawn_blocking`. Must not know: Docker, gRPC, the wire, runs.
//!
//! ```text
//!   stage(key) ── capture / import ──> publish ──> Baseline ──> clone_lane ──> LaneClone ── reset ──> Retired
//!                                                    │                         (verify)              (footprint, discard)
//!                                                    └── export, restore_into, footprint_of
//! ```
//!
//! Invariants: a published baseline is never written again; what is not published leaves nothing behind; a lane's
//! paths stay the same over resets; names from outside never choose a path (`names.rs`).
#![forbid(unsafe_code)]

mod archive;
mod baseline;
mod changes;
mod driver;
mod error;
mod footprint;
mod full;
mod image;
mod lane;
mod mounts;
mod names;
mod pool;
mod probe;
mod staging;
mod store;
mod tools;
mod tree;
mod usage;
mod verify;

use std::path::Path;

pub use archive::{ImportLimits, ImportRefusal};
pub use baseline::{Baseline, TreeInfo};
pub use changes::{ChangeKind, Changes, FileChange, TreeChanges};
pub use error::PoolError;
pub use footprint::Footprint;
pub use full::FullFs;
pub use lane::{LaneClone, Retired};
pub use pool::{ImageSpace, LoopFs, Pool, PoolKind, PoolOptions, Space};
pub use staging::Staging;
pub use usage::{file_bytes, used_bytes};
pub use verify::{Change, Difference};

/// The digest that a folder would have as a tree of a baseline (`TreeInfo::tree_digest`).
pub fn digest_of(dir: &Path) -> Result<String, PoolError> {
    tree::digest::of_dir(dir)
}
