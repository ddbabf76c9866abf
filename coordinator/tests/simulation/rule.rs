//! What attempts amount to: the rule of the user guide, written a second time and not taken from the core.

use andon_core::asked::Repeat;
use andon_core::model::{Outcome, Verdict};

/// So often the farm may fail a test.
const FARM_FAILURES: u32 = 4;

/// A test's ended attempts, counted as they end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) failures: u32,
    timed_out_last: bool,
    by_the_farm: u32,
    passes: u32,
    verdict: Option<Verdict>,
}

/// What a run's budget of retries says to one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Budget {
    Left,
    Spent,
    /// It depends on how a restart counted.
    Unsure,
}

/// What must follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// This verdict, now.
    Verdict(Verdict),
    /// Another attempt.
    Attempt,
    /// Either.
    Unsure(Verdict),
}

impl Tally {
    /// Counts one more ended attempt and says what must follow.
    pub(crate) fn count(&mut self, outcome: Outcome, retries: u32, budget: Budget) -> Due {
        let failed = |late| if late { Verdict::TimedOut } else { Verdict::Failed };
        let verdict = match outcome {
            Outcome::Cancelled => None,
            Outcome::Passed if self.failures > 0 => Some(Verdict::Flaky),
            Outcome::Passed => Some(Verdict::Passed),
            Outcome::Skipped if self.failures > 0 => Some(failed(self.timed_out_last)),
            Outcome::Skipped => Some(Verdict::Skipped),
            Outcome::Failed | Outcome::TimedOut => {
                self.failures += 1;
                self.timed_out_last = outcome == Outcome::TimedOut;
                let verdict = failed(self.timed_out_last);
                match budget {
                    _ if self.failures > retries => Some(verdict),
                    Budget::Spent => Some(verdict),
                    Budget::Unsure => return Due::Unsure(verdict),
                    Budget::Left => None,
                }
            }
            Outcome::Infrastructure => {
                self.by_the_farm += 1;
                let real =
                    if self.failures > 0 { failed(self.timed_out_last) } else { Verdict::Infrastructure };
                (self.by_the_farm >= FARM_FAILURES).then_some(real)
            }
        };
        // What was due once stays due, whatever comes after.
        self.verdict = self.verdict.or(verdict);
        self.verdict.map_or(Due::Attempt, Due::Verdict)
    }

    /// Counts one more of a test that is run several times on purpose.
    pub(crate) fn count_repeat(&mut self, outcome: Outcome, repeat: Repeat) -> Due {
        let mut skipped = false;
        match outcome {
            Outcome::Cancelled => {}
            Outcome::Passed => self.passes += 1,
            Outcome::Skipped => skipped = true,
            Outcome::Infrastructure => self.by_the_farm += 1,
            Outcome::Failed | Outcome::TimedOut => {
                self.failures += 1;
                self.timed_out_last = outcome == Outcome::TimedOut;
            }
        }
        let all = self.passes + self.failures == repeat.times;
        let enough = all || skipped || (repeat.until_fail && self.failures > 0);
        if enough || self.by_the_farm >= FARM_FAILURES {
            let verdict = match (self.failures, self.passes) {
                (0, 0) if skipped => Verdict::Skipped,
                (0, _) if enough => Verdict::Passed,
                (0, _) => Verdict::Infrastructure,
                (_, 0) if self.timed_out_last => Verdict::TimedOut,
                (_, 0) => Verdict::Failed,
                _ => Verdict::Flaky,
            };
            self.verdict = self.verdict.or(Some(verdict));
        }
        self.verdict.map_or(Due::Attempt, Due::Verdict)
    }

    /// Counts an attempt that ran in another run. They come all at once, with the verdict that the other gave.
    pub(crate) fn count_shared(&mut self, outcome: Outcome, retries: u32) -> Due {
        self.verdict = None;
        let due = self.count(outcome, retries, Budget::Unsure);
        self.verdict = None;
        due
    }
}
