//! Where time went.

use schemars::JsonSchema;
use serde::Serialize;

use super::AttemptRow;

/// What attempts took together, phase by phase: milliseconds, and microseconds where a phase may be much shorter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Spent {
    /// From queued to leased.
    pub queue_ms: u64,
    /// Before their runners: baselines, images, source.
    pub set_up_ms: u64,
    /// Before their units.
    pub rebase_us: u64,
    /// Their runners' starts.
    pub start_ms: u64,
    /// The tests themselves.
    pub test_ms: u64,
    /// From their ends until their results were on the way.
    pub report_us: u64,
}

impl Spent {
    /// By one attempt.
    #[must_use]
    pub fn by(attempt: &AttemptRow) -> Self {
        Self {
            queue_ms: attempt.queue_ms,
            set_up_ms: attempt.prepare_ms.saturating_sub(attempt.start_ms),
            rebase_us: attempt.rebase_us,
            start_ms: attempt.start_ms.min(attempt.prepare_ms),
            test_ms: attempt.run_ms,
            report_us: attempt.report_us,
        }
    }

    /// Takes all that another one has.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.parts_mut().into_iter().zip(other.parts()) {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// For how long lanes were busy.
    #[must_use]
    pub fn lane_ms(&self) -> u64 {
        let lane = [self.set_up_ms, self.rebase_us / 1_000, self.start_ms, self.test_ms];
        lane.into_iter().fold(0, u64::saturating_add)
    }

    pub(super) const fn parts(&self) -> [u64; 6] {
        let Self { queue_ms, set_up_ms, rebase_us, start_ms, test_ms, report_us } = *self;
        [queue_ms, set_up_ms, rebase_us, start_ms, test_ms, report_us]
    }

    pub(super) const fn parts_mut(&mut self) -> [&mut u64; 6] {
        let Self { queue_ms, set_up_ms, rebase_us, start_ms, test_ms, report_us } = self;
        [queue_ms, set_up_ms, rebase_us, start_ms, test_ms, report_us]
    }
}

impl<'a> FromIterator<&'a AttemptRow> for Spent {
    fn from_iter<I: IntoIterator<Item = &'a AttemptRow>>(attempts: I) -> Self {
        let mut sum = Self::default();
        attempts.into_iter().for_each(|attempt| sum.merge(&Self::by(attempt)));
        sum
    }
}
