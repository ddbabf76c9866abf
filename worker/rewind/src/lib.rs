//! In-place rollback of live processes: frozen, put back to what they were at a baseline, and let go again, within milliseconds.
//!
//! The crate is given process ids and pairs of folders. It knows nothing of lanes, containers, engines or the farm, and it is the only one with
//! `unsafe`, each block with its argument. Linux only; [`available`] says why not elsewhere.
//!
//! ```text
//!   Baseline::take     freeze ── look (may refuse: nothing touched) ── record ── arm ── run on
//!   Baseline::rewind   freeze ── compare identities ─┬─ Differs: run on, or kill
//!                                                    └─ touch ── processes, threads, mappings, descriptors, signals, shared memory,
//!                                                              memory and registers beside files ── (compare every byte) ── run on
//! ```
//!
//! Invariants:
//! - All processes of all targets are frozen before the first is looked at, and all are put back before the first runs on.
//! - Until everything was compared nothing is touched. After the first touch there are two ends: everything is put back, or the processes are
//!   dead. An error, a panic and the death of the thread or of our whole process all lead to the second.
//! - ptrace belongs to one thread, so each baseline has a thread of its own that does all of its work.
//!
//! Where the kernel is not as one might think:
//! - What notes writes notes them for one process and goes with it, so shared memory is compared (see `segments`).
//! - A page dropped with `MADV_DONTNEED` does not count as written (see `memory`).
//! - `PAGEMAP_SCAN` says whether a range is tracked only with `WP_UNPOPULATED`, and may answer a range twice (see `kernel`).
//! - An interrupted call is restarted only from a signal stop (see `inject`).
//! - A thread that makes an injected call gets its rseq area written, so memory comes after the last such call; newer kernels kill a thread
//!   whose area is not as they left it (see `process`).
//! - Memory that its process may not write to may be written by the thread that traces alone (see `parts`).
//! - Guards below stacks count as written and cannot be read (see `kernel`).
//! - A thread that waits by giving its processor away may get it back milliseconds later (see `urgent`).
//! - Reading `/proc/locks` waits some 10 ms for all processors (see `locks`).
//!
//! It builds on Groundhog (Alzayat et al., EuroSys 2023), CRIU's injected calls, and the kernel's userfaultfd and pagemap documentation.

mod arch;
mod attributes;
mod available;
mod baseline;
mod descriptors;
mod errand;
mod error;
mod files;
mod freeze;
mod handing;
mod identity;
mod inject;
mod ipc;
mod kernel;
mod listing;
mod locks;
mod mappings;
mod maps;
mod memory;
mod parts;
mod process;
mod registers;
mod segments;
mod signals;
mod stand;
mod steps;
mod trace;
mod urgent;

#[cfg(test)]
mod proof;
#[cfg(test)]
mod proof_shared;
#[cfg(test)]
mod victim;

pub use available::{Facts, Lack, Unavailable, available};
pub use baseline::Baseline;
pub use error::{Broken, Refused};
pub use files::{FileChange, How, Names, Tree};
pub use freeze::Unfreezable;
pub use identity::{Difference, Obstacle};
pub use memory::Written;
pub use steps::{Check, Rewound, Step, Taken, Unlike};
pub use trace::Pid;

/// A tree of processes that is rewound: the root with all its descendants and all their threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The process at the top, as our own pid namespace numbers it.
    pub root: Pid,
    /// The folders that are put back with it.
    pub trees: Vec<Tree>,
}
