//! How taking a baseline and rewinding to it can fail, and what became of the processes then.

use std::io;

use crate::freeze::Unfreezable;
use crate::identity::{Difference, Obstacle};
use crate::steps::Step;

fn listed<T: ToString>(things: &[T]) -> String {
    things.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Why there is no baseline.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The processes did not stand still; they run on.
    #[error("the processes cannot be frozen")]
    Unfreezable(#[from] Unfreezable),
    /// They hold something that cannot be put back; they run on, untouched.
    #[error("the processes cannot be rewound: {}", listed(.0))]
    Obstacles(Vec<Obstacle>),
    /// Looking at them failed; they run on, untouched.
    #[error("the processes cannot be looked at")]
    Unreadable(#[source] io::Error),
    /// It went wrong after the tracking had begun: the processes were killed.
    #[error("the baseline could not be taken, and the processes were killed")]
    Killed(#[source] io::Error),
}

impl Refused {
    /// Whether it may be otherwise in a moment: something was just ending, a signal or a word to a server was under way, a name was gone before it was
    /// looked at (who is not rewound, as a health check, stands not still).
    pub fn passes(&self) -> bool {
        match self {
            Self::Unfreezable(cause) => matches!(cause, Unfreezable::Ended(_) | Unfreezable::Stuck(_)),
            Self::Obstacles(obstacles) => obstacles.iter().all(Obstacle::passes),
            Self::Unreadable(_) => true,
            Self::Killed(_) => false,
        }
    }
}

/// Why a rewind did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The processes did not stand still. They run on unless the caller wanted them killed.
    #[error("the processes cannot be frozen")]
    Unfreezable(#[from] Unfreezable),
    /// They are no longer what the baseline can be laid over. Nothing was touched; they run on unless the caller wanted them killed (where one of them has
    /// ended before it was asked: those of the baseline).
    #[error("the processes are not those of the baseline: {}", listed(.0))]
    Differs(Vec<Difference>),
    /// Looking at them failed. Nothing was touched; they run on unless the caller wanted them killed.
    #[error("the processes cannot be looked at")]
    Unreadable(#[source] io::Error),
    /// A step failed: the processes were killed.
    #[error("the rewind failed at {step}, and the processes were killed")]
    Killed {
        /// Which step.
        step: Step,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// All steps were done and the comparison still found differences: the processes were killed.
    #[error("the rewind was not exact, and the processes were killed: {}", listed(.0))]
    Inexact(Vec<Difference>),
    /// The thread of this baseline is gone, and the processes with it if it was at work on them.
    #[error("the baseline's thread is gone")]
    Gone,
}
