//! Baselines: their key, their making, their metadata, and where this worker has them.
//!
//! Must not know the session, leases or lanes. See `docs/architecture.md`, invariants 6 and 7.

mod build;
mod key;
mod labels;
mod room;
mod shelf;
mod source;

pub(crate) use build::{BUILD_LANE, Build, SeedKit, Seeder, rig_failure};
pub use key::{FORMAT, key_of};
pub(crate) use labels::{BuildFacts, labels_of};
pub(crate) use shelf::{Shelf, Shelved, farm_fault};
pub(crate) use source::{Source, Sources, TREE as SOURCE_TREE};
