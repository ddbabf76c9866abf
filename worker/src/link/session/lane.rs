//! One lane as the session sees it.

use std::collections::BTreeSet;
use std::time::Duration;

use andon_proto::{BaselineReady, Discovered, Lease, WorkFailed, assign};

use andon_snapshot::Changes;

use crate::hands::Unfit;
use crate::runner::UnitNews;

/// What comes from a lane's task. A lane has one task at a time, which ends with `Ended` or `Settled`.
#[derive(Debug)]
pub(crate) enum LaneEvent {
    /// A line for a person.
    Notice(String),
    /// One attempt has ended, or something was printed.
    News(UnitNews),
    /// The work is over, whole or failed.
    Ended(Result<Fruit, WorkFailed>),
    /// The lane was put back, or cannot be.
    Settled(Result<PutBack, Unfit>),
    /// What had been dirtied before it was put back; `None` where that could not be measured.
    Measured { id: u64, footprint: Option<Changes> },
}

/// A lane that was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PutBack {
    /// What it is a pristine clone of; empty for nothing.
    pub(crate) baseline_key: String,
    /// A `Measured` with this number is to come.
    pub(crate) measuring: Option<u64>,
}

/// What work brings forth at its end.
#[derive(Debug)]
pub(crate) enum Fruit {
    /// Of `PrepareBaseline`.
    Baseline(Box<BaselineReady>),
    /// Of `Discover`.
    Tests(Discovered),
    /// Of `Execute`: its results came before.
    Unit,
}

/// What kind of work a lane does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Does not touch the lane.
    Prepare,
    Discover,
    /// With so many tests.
    Unit(usize),
}

impl Kind {
    pub(super) fn of(work: &assign::Work) -> Self {
        match work {
            assign::Work::PrepareBaseline(_) => Self::Prepare,
            assign::Work::Discover(_) => Self::Discover,
            assign::Work::Execute(execute) => Self::Unit(execute.tests.len()),
        }
    }
}

/// Work in progress under a lease.
#[derive(Debug)]
pub(super) struct Working {
    pub(super) lease: Lease,
    /// When it came.
    pub(super) since: Duration,
    pub(super) kind: Kind,
    /// Attempts with a result.
    pub(super) reported: Vec<u64>,
    /// Those of them whose dirt was told already, by a rebase within the unit.
    pub(super) told: BTreeSet<u64>,
    /// The baseline the lane was a clone of when the work came.
    pub(super) baseline: String,
}

/// The attempts that the next rebase measures.
pub(super) type Measured = Option<(Lease, Vec<u64>)>;

impl Working {
    /// Whose dirt the rebase after this unit finds.
    pub(super) fn measured(&self) -> Measured {
        let open: Vec<u64> =
            self.reported.iter().filter(|attempt| !self.told.contains(attempt)).copied().collect();
        (!open.is_empty()).then_some((self.lease, open))
    }

    /// The same where a stopped unit had nothing left to run: then no test's dirt is anybody else's.
    pub(super) fn measured_if_whole(&self) -> Measured {
        self.measured().filter(|_| self.kind == Kind::Unit(self.reported.len()))
    }
}

/// ```text
///            Assign              ended                  settled
///   Idle ─────────────> Working ───────> Settling ─────────────────> Idle
///                          │ cancelled      ^  │ cannot be put back
///                          v        ended   │  └───────────────────> Unfit
///                       Stopping ───────────┘
///        any, while the daemon is away: ──> Waiting ──(daemon back)──> Settling
/// ```
#[derive(Debug)]
pub(super) enum Lane {
    /// Ready for a lease; `offered` is the credit of this session.
    Idle { baseline: String, offered: bool },
    /// Under a lease.
    Working(Working),
    /// Cancelled; its task still runs. `baseline` where the lane need not be put back.
    Stopping { measured: Measured, untouched: Option<String> },
    /// Being put back; once more where the daemon broke meanwhile.
    Settling { measured: Measured, again: bool },
    /// Nothing can be done until the daemon is back (or ever, when the worker is shutting down).
    Waiting,
    /// Cannot be made pristine.
    Unfit { reason: String },
}
