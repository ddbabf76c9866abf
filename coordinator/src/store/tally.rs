//! The numbers of some tests over some time, and their bytes in the store.
//!
//! As bytes: a version, counts, sketches (`andon_figures::sketch`), each with its length before it; all numbers are little-endian. The
//! first version had neither starts, reports nor what was spent. Tallies merge exactly, in any order.

use andon_core::model::{Outcome, Verdict};
use andon_figures::Sketch;

use super::spent::Spent;
use super::{Result, StoreError, TestRow};

const VERSION: u8 = 2;
/// Still read: days of years ago are.
const FIRST_VERSION: u8 = 1;
const FIRST_COUNTS: usize = 7;
const FIRST_SKETCHES: usize = 5;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// Runs that were entered.
    pub runs: u64,
    /// Tests with a verdict of their own: neither not run nor spoiled.
    pub tests: u64,
    /// Ended attempts.
    pub attempts: u64,
    /// Tests that failed or ran out of time.
    pub failed: u64,
    /// Tests that passed only after they had failed.
    pub flaky: u64,
    /// Tests that the farm could not run.
    pub infrastructure: u64,
    /// Lanes were busy for so long.
    pub lane_ms: u64,
    /// Of attempts that passed or failed.
    pub test_ms: Sketch,
    /// From queued to leased.
    pub queue_ms: Sketch,
    /// From the lease to the start, without the rebase.
    pub prepare_ms: Sketch,
    /// Of each unit.
    pub rebase_us: Sketch,
    /// As far as it was measured.
    pub dirtied_bytes: Sketch,
    /// Of each unit's runner.
    pub start_ms: Sketch,
    /// From a test's end until its result was on its way.
    pub report_us: Sketch,
    /// By all attempts together.
    pub spent: Spent,
}

impl Tally {
    /// Of one run, without any test yet.
    pub(super) fn of_run() -> Self {
        Self { runs: 1, ..Self::default() }
    }

    pub(super) fn add(&mut self, test: &TestRow) {
        match test.verdict {
            None | Some(Verdict::NotRun) => {}
            Some(Verdict::Infrastructure) => self.infrastructure += 1,
            Some(verdict) => {
                self.tests += 1;
                self.failed += u64::from(matches!(verdict, Verdict::Failed | Verdict::TimedOut));
                self.flaky += u64::from(verdict == Verdict::Flaky);
            }
        }
        for attempt in test.attempts.iter().filter(|attempt| attempt.outcome.is_some()) {
            self.attempts += 1;
            self.lane_ms = self.lane_ms.saturating_add(attempt.busy_ms());
            self.spent.merge(&Spent::by(attempt));
            self.queue_ms.add(attempt.queue_ms);
            if matches!(attempt.outcome, Some(Outcome::Passed | Outcome::Failed | Outcome::TimedOut)) {
                self.test_ms.add(attempt.run_ms);
                self.prepare_ms.add(attempt.prepare_ms);
                self.report_us.add(attempt.report_us);
            }
            if attempt.start_ms > 0 {
                self.start_ms.add(attempt.start_ms);
            }
            if attempt.rebase_us > 0 {
                self.rebase_us.add(attempt.rebase_us);
            }
            if let Some(bytes) = attempt.dirtied_bytes {
                self.dirtied_bytes.add(bytes);
            }
        }
    }

    /// Takes all that another one has.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts_mut().zip(other.counts()) {
            *mine = mine.saturating_add(theirs);
        }
        for (mine, theirs) in self.sketches_mut().into_iter().zip(other.sketches()) {
            mine.merge(theirs);
        }
    }

    fn counts(&self) -> impl Iterator<Item = u64> {
        let Self { runs, tests, attempts, failed, flaky, infrastructure, lane_ms, spent, .. } = self;
        let first = [*runs, *tests, *attempts, *failed, *flaky, *infrastructure, *lane_ms];
        first.into_iter().chain(spent.parts())
    }

    fn counts_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        let Self { runs, tests, attempts, failed, flaky, infrastructure, lane_ms, spent, .. } = self;
        [runs, tests, attempts, failed, flaky, infrastructure, lane_ms].into_iter().chain(spent.parts_mut())
    }

    fn sketches(&self) -> [&Sketch; 7] {
        let Self { test_ms, queue_ms, prepare_ms, rebase_us, dirtied_bytes, start_ms, report_us, .. } = self;
        [test_ms, queue_ms, prepare_ms, rebase_us, dirtied_bytes, start_ms, report_us]
    }

    fn sketches_mut(&mut self) -> [&mut Sketch; 7] {
        let Self { test_ms, queue_ms, prepare_ms, rebase_us, dirtied_bytes, start_ms, report_us, .. } = self;
        [test_ms, queue_ms, prepare_ms, rebase_us, dirtied_bytes, start_ms, report_us]
    }

    /// As the store keeps it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        for count in self.counts() {
            bytes.extend(count.to_le_bytes());
        }
        for sketch in self.sketches() {
            let sketch = sketch.to_bytes();
            bytes.extend(u32::try_from(sketch.len()).expect("a sketch has at most 64 KiB").to_le_bytes());
            bytes.extend(sketch);
        }
        bytes
    }

    /// # Errors
    /// Where these are no bytes of a tally.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes;
        let (counts, sketches) = match take::<1>(&mut rest)? {
            [VERSION] => (usize::MAX, usize::MAX),
            [FIRST_VERSION] => (FIRST_COUNTS, FIRST_SKETCHES),
            _ => return Err(damaged()),
        };
        let mut tally = Self::default();
        for count in tally.counts_mut().take(counts) {
            *count = u64::from_le_bytes(take(&mut rest)?);
        }
        for sketch in tally.sketches_mut().into_iter().take(sketches) {
            let length = u32::from_le_bytes(take(&mut rest)?) as usize;
            let (of_sketch, after) = rest.split_at_checked(length).ok_or_else(damaged)?;
            (*sketch, rest) = (sketch_of(of_sketch)?, after);
        }
        if rest.is_empty() { Ok(tally) } else { Err(damaged()) }
    }
}

/// A sketch as the store keeps it.
pub(super) fn sketch_of(bytes: &[u8]) -> Result<Sketch> {
    Sketch::from_bytes(bytes).map_err(|_| damaged())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>().ok_or_else(damaged)?;
    *rest = after;
    Ok(*taken)
}

fn damaged() -> StoreError {
    StoreError::Figures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Tally {
        let mut tally = Tally { runs: 1, tests: 3, lane_ms: u64::MAX, ..Tally::default() };
        tally.test_ms.extend([1, 200, 30_000]);
        tally.rebase_us.add(612);
        tally.start_ms.add(300);
        tally.spent = Spent { rebase_us: 612, start_ms: 300, ..Spent::default() };
        tally
    }

    #[test]
    fn a_tally_reads_back_and_its_parts_do_not() {
        let bytes = some().to_bytes();
        assert_eq!(Tally::from_bytes(&bytes).unwrap(), some());
        for end in 0..bytes.len() {
            assert!(Tally::from_bytes(&bytes[..end]).is_err(), "{end} of {} bytes", bytes.len());
        }
        assert!(Tally::from_bytes(&[bytes, vec![0]].concat()).is_err(), "something follows");
    }

    #[test]
    fn days_of_the_first_version_are_still_read() {
        let kept = Tally { start_ms: Sketch::default(), spent: Spent::default(), ..some() };
        let mut bytes = vec![FIRST_VERSION];
        for count in kept.counts().take(FIRST_COUNTS) {
            bytes.extend(count.to_le_bytes());
        }
        for sketch in kept.sketches().into_iter().take(FIRST_SKETCHES) {
            let sketch = sketch.to_bytes();
            bytes.extend(u32::try_from(sketch.len()).unwrap().to_le_bytes());
            bytes.extend(sketch);
        }
        assert_eq!(Tally::from_bytes(&bytes).unwrap(), kept);
    }

    #[test]
    fn merging_adds_up_and_never_overflows() {
        let mut sum = some();
        sum.merge(&some());
        assert_eq!((sum.runs, sum.tests, sum.lane_ms), (2, 6, u64::MAX));
        assert_eq!((sum.test_ms.count(), sum.spent.rebase_us), (6, 1_224));
    }
}
