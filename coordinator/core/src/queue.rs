//! What of a run waits for a lane, in the order in which it is served.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{TestIx, WorkId, WorkerId};

/// Work that waits for a lane.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) kind: PendingKind,
    /// How often infrastructure failed it; tests count for themselves.
    pub(crate) infra_failures: usize,
    /// How long it is expected to take.
    pub(crate) expected_ms: u64,
    /// Who failed it; tests remember for themselves.
    pub(crate) failed_on: BTreeSet<WorkerId>,
    /// Until then it goes to a worker that has not failed it, where there is one.
    pub(crate) choosy_until_mono_ms: u64,
    /// Not to be packed together with others: it may have taken a worker down.
    pub(crate) alone: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PendingKind {
    Baseline,
    Discover(usize),
    Unit { suite: usize, tests: Vec<TestIx> },
}

/// The order of service within a run: baseline, then discovery, then units: failed ones first, then longest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    stage: u8,
    passed_before: bool,
    shorter_than: u64,
    work: WorkId,
}

/// How a unit compares with others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Urgency {
    /// One of its tests failed before, here or in an earlier run.
    pub(crate) failed_before: bool,
    /// Longer goes first. New tests may claim more than they are expected to take: what they bring is not known.
    pub(crate) claim_ms: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<Rank, Pending>,
    expected_ms: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, work: WorkId, pending: Pending, urgency: Urgency) {
        let stage = match pending.kind {
            PendingKind::Baseline => 0,
            PendingKind::Discover(_) => 1,
            PendingKind::Unit { .. } => 2,
        };
        let rank = Rank {
            stage,
            passed_before: !urgency.failed_before,
            shorter_than: u64::MAX - urgency.claim_ms,
            work,
        };
        self.expected_ms += pending.expected_ms;
        self.waiting.insert(rank, pending);
    }

    pub(crate) fn take(&mut self, rank: Rank) -> Option<(WorkId, Pending)> {
        let pending = self.waiting.remove(&rank)?;
        self.expected_ms -= pending.expected_ms;
        Some((rank.work, pending))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Rank, &Pending)> {
        self.waiting.iter().map(|(rank, pending)| (*rank, pending))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The time that all of it is expected to take on one lane.
    pub(crate) fn expected_ms(&self) -> u64 {
        self.expected_ms
    }
}
