//! What a worker tells of a stand that was put back and was not what its baseline says. Plain data: the core decides nothing by
//! it, because such a stand serves nobody and its worker has rebuilt the lane; the store remembers it.

use crate::ids::{LaneIx, RunId};

/// So many of one worker are remembered …
pub const INEXACT_KEPT_MAX: u64 = 100;
/// … and for so long.
pub const INEXACT_KEPT_MS: u64 = 90 * 24 * 3_600 * 1_000;

/// A stand that was not exact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inexact {
    /// Given once by the worker: what comes with the same one is the same event.
    pub id: String,
    /// On which lane.
    pub lane: LaneIx,
    /// Whose unit was on it last.
    pub run: Option<RunId>,
    /// The unit's suite; empty for none.
    pub suite: String,
    /// What it should have been.
    pub baseline_key: String,
    /// How it was put back.
    pub driver: String,
    /// Found by comparing every byte, or by proofs.
    pub deep: bool,
    /// What differed, the first few.
    pub parts: Vec<InexactPart>,
    /// How many more differed.
    pub left_out: u64,
    /// When it was found, by the worker's clock.
    pub found_unix_ms: u64,
}

/// One thing that differed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InexactPart {
    /// The tree, or `proof/<service>`.
    pub place: String,
    /// A path in the tree, or the proof's command.
    pub what: String,
    /// What is different, for a person.
    pub difference: String,
}
