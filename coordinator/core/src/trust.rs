//! Which worker is not to be trusted: one that fails everything it gets in a run in which others pass.
//!
//! A broken commit fails everywhere, and a broken file fails wherever it runs; so failures of tests count only when they
//! come from several files in a row, while nearly everything that ran elsewhere passed.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::WorkerId;
use crate::model::Outcome;
use crate::units::file_of;

/// Failures in a row by the farm's fault.
const INFRA_STREAK: u32 = 5;
/// Attempts in a row that did not pass, by whosever fault …
const BAD_STREAK: u32 = 20;
/// … from so many files …
const FILES_MIN: usize = 3;
/// … while of ten attempts elsewhere so many passed.
const TENTHS_ELSEWHERE: u32 = 8;

/// How the workers of one run have fared.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    passed: u32,
    not_passed: u32,
    streaks: BTreeMap<WorkerId, Streak>,
}

/// Attempts in a row that did not pass on one worker.
#[derive(Debug)]
struct Streak {
    bad: u32,
    infra: u32,
    files: BTreeSet<String>,
    /// The run's counts when it began.
    passed_before: u32,
    not_passed_before: u32,
}

impl Trust {
    /// Takes an ended attempt. Answers with the reason where its worker is not to be trusted any more.
    pub(crate) fn judge(&mut self, worker: &WorkerId, test: &str, outcome: Outcome) -> Option<String> {
        match outcome {
            Outcome::Passed | Outcome::Skipped => {
                self.passed += 1;
                self.streaks.remove(worker);
                return None;
            }
            Outcome::Cancelled => return None,
            Outcome::Failed | Outcome::TimedOut | Outcome::Infrastructure => {}
        }
        let (passed_before, not_passed_before) = (self.passed, self.not_passed);
        self.not_passed += 1;
        let streak = self.streaks.entry(worker.clone()).or_insert_with(|| Streak {
            bad: 0,
            infra: 0,
            files: BTreeSet::new(),
            passed_before,
            not_passed_before,
        });
        streak.bad += 1;
        streak.infra = if outcome == Outcome::Infrastructure { streak.infra + 1 } else { 0 };
        if streak.files.len() < FILES_MIN {
            streak.files.insert(file_of(test).to_owned());
        }
        let passed = self.passed - streak.passed_before;
        let failed = (self.not_passed - streak.not_passed_before).saturating_sub(streak.bad);
        let reason = if streak.infra >= INFRA_STREAK && passed >= INFRA_STREAK {
            format!("{} attempts in a row came to nothing here", streak.infra)
        } else if streak.bad >= BAD_STREAK
            && streak.files.len() >= FILES_MIN
            && passed >= BAD_STREAK
            && passed * 10 >= (passed + failed) * TENTHS_ELSEWHERE
        {
            format!("{} attempts in a row, from several files, did not pass here", streak.bad)
        } else {
            return None;
        };
        self.streaks.remove(worker);
        Some(format!("in quarantine: {reason}, while {passed} passed elsewhere"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(name: &str) -> WorkerId {
        WorkerId(name.to_owned())
    }

    /// Attempts on `w1` that all end so, each followed by one elsewhere; which of them is one too many.
    fn one_too_many(of: impl Fn(u32) -> String, here: Outcome, elsewhere: Outcome) -> Option<u32> {
        let mut trust = Trust::default();
        (1..200).find(|n| {
            let found = trust.judge(&worker("w1"), &of(*n), here).is_some();
            assert_eq!(trust.judge(&worker("w2"), &of(*n), elsewhere), None);
            found
        })
    }

    #[test]
    fn who_fails_everything_while_others_pass_is_found() {
        let files = |n: u32| format!("{}.py::x", n % 7);
        assert_eq!(one_too_many(files, Outcome::Infrastructure, Outcome::Passed), Some(INFRA_STREAK + 1));
        assert_eq!(one_too_many(files, Outcome::Failed, Outcome::Passed), Some(BAD_STREAK + 1));
        assert_eq!(one_too_many(files, Outcome::TimedOut, Outcome::Skipped), Some(BAD_STREAK + 1));
    }

    #[test]
    fn a_broken_commit_or_a_broken_file_is_no_workers_fault() {
        let files = |n: u32| format!("{n}.py::x");
        assert_eq!(one_too_many(files, Outcome::Failed, Outcome::Failed), None);
        assert_eq!(one_too_many(|n| format!("a.py::{n}"), Outcome::Failed, Outcome::Passed), None);
        assert_eq!(one_too_many(files, Outcome::Cancelled, Outcome::Passed), None);
    }

    #[test]
    fn one_pass_ends_a_streak() {
        let mut trust = Trust::default();
        for n in 0..300 {
            let outcome = if n % 15 == 0 { Outcome::Passed } else { Outcome::Failed };
            assert_eq!(trust.judge(&worker("w1"), &format!("{n}.py"), outcome), None);
            trust.judge(&worker("w2"), "a.py", Outcome::Passed);
        }
    }
}
