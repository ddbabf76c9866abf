//! What runs amount to. Values in, values out: the ledger and the dashboard call these functions with rows that they have read, and
//! show what comes back.
//!
//! ```text
//!   durations ──> sketch ──> percentiles a day, merged into months and years
//!   attempts of a test ──> flake ──> steady, flaky, settled, broken ──> quarantine: does a failure block?
//!   runs of a line ──> flow ──> lead time, time to restore, change failure rate, cost
//!   durations by commit ──> shift ──> which commit made it slower, how sure; its cause: code, baseline, farm
//!   CODEOWNERS ──> owners ──> who owns this file
//!   attempts with phases ──> trace ──> JSON that Perfetto opens
//!   a seed ──> made ──> runs with a known truth, on which the above are scored (examples/score)
//! ```
//!
//! How what comes out is written for people is here as well, so that pages and terminals agree: `text` makes names and logs from outside
//! harmless, `words` says numbers.
//!
//! It knows nothing of ours, no clock, no store, no IO, no tokio: time and seeds come in as arguments, and the same arguments give the
//! same figures. Times are UTC in milliseconds since 1970, durations say their unit in their name.
//!
//! Everything is bounded by a named constant beside the code that holds to it. `docs/figures.md` says what each figure means.

mod dice;
pub mod flake;
pub mod flow;
pub mod made;
pub mod owners;
pub mod quarantine;
pub mod rate;
pub mod shift;
pub mod sketch;
pub mod text;
pub mod trace;
pub mod words;

pub use rate::{Interval, Rate};
pub use sketch::Sketch;

/// How one attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The test passed.
    Passed,
    /// The test failed.
    Failed,
    /// The test was killed at its time limit.
    TimedOut,
    /// The test says that it does not apply.
    Skipped,
    /// The farm's fault: says nothing about the test.
    Infrastructure,
    /// It was stopped: says nothing about the test.
    Cancelled,
}

impl Outcome {
    /// Failed by the test's own doing, a time limit included.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut)
    }

    /// It says something about the test: it passed or failed.
    #[must_use]
    pub fn counts(self) -> bool {
        self == Self::Passed || self.is_failure()
    }
}
