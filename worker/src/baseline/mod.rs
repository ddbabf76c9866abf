//! Baselines: their key, their making, their metadata, and where this worker has them.
//!
//! Must not know the session, leases or lanes. See `docs/architecture.md`, invariants 6 and 7.

mod build;
mod carry;
mod depot;
mod key;
mod labels;
mod leg;
mod parent;
mod room;
mod shelf;
mod source;

pub(crate) use build::{Build, Outcome};
pub(crate) use key::steps_of;
pub use key::{Chain, FORMAT};
pub(crate) use leg::{BUILD_LANE, SeedKit, Seeder, rig_failure};
pub(crate) use room::is_short_of_room;
pub(crate) use shelf::{Found, Shelf, Shelved, farm_fault};
pub(crate) use source::{Source, Sources, TREE as SOURCE_TREE};
