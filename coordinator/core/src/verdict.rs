//! A verdict is a function of attempts, and of whether a failure was excused before; of nothing else.

use crate::asked::Repeat;
use crate::model::{Outcome, Verdict};

/// How often the farm may fail a test before it gives up: the first attempt and three retries.
pub const INFRASTRUCTURE_ATTEMPTS_MAX: usize = 4;

/// What to do about a test, given how its attempts ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It has its verdict.
    Final(Verdict),
    /// It must run (again).
    RunAgain,
}

/// Decides a test from its ended attempts, oldest first. `retries` is what its suite allows for real failures.
///
/// A pass after a failure is *flaky*, never passed: a retry does not hide what it saw. Infrastructure attempts count
/// only against their own limit, and a real failure seen before the farm gave up stays a failure.
#[must_use]
pub fn decide(ended: &[Outcome], retries: u32) -> Decision {
    let count = |wanted: Outcome| ended.iter().filter(|o| **o == wanted).count();
    let failures = count(Outcome::Failed) + count(Outcome::TimedOut);
    if count(Outcome::Passed) > 0 {
        return Decision::Final(if failures > 0 { Verdict::Flaky } else { Verdict::Passed });
    }
    if failures == 0 && count(Outcome::Skipped) > 0 {
        return Decision::Final(Verdict::Skipped);
    }
    let exhausted = count(Outcome::Infrastructure) >= INFRASTRUCTURE_ATTEMPTS_MAX;
    let last_failure = ended.iter().rev().find(|o| matches!(o, Outcome::Failed | Outcome::TimedOut));
    match last_failure {
        Some(last) if failures > retries as usize || exhausted || count(Outcome::Skipped) > 0 => {
            Decision::Final(if *last == Outcome::TimedOut { Verdict::TimedOut } else { Verdict::Failed })
        }
        None if exhausted => Decision::Final(Verdict::Infrastructure),
        _ => Decision::RunAgain,
    }
}

/// What a verdict comes to for a test whose failure was excused before, or was not.
#[must_use]
pub const fn weighed(verdict: Verdict, is_excused: bool) -> Verdict {
    match verdict {
        Verdict::Failed | Verdict::TimedOut if is_excused => Verdict::Quarantined,
        Verdict::Quarantined if !is_excused => Verdict::Failed,
        other => other,
    }
}

impl Decision {
    /// The same of a decision: an attempt more is one whoever excuses it.
    #[must_use]
    pub const fn weighed(self, is_excused: bool) -> Self {
        match self {
            Self::Final(verdict) => Self::Final(weighed(verdict, is_excused)),
            Self::RunAgain => Self::RunAgain,
        }
    }
}

/// Decides a test that is run several times on purpose. Each failure counts, whatever came before or after it: a test that
/// both passed and failed is *flaky*. One that skips itself is not asked again.
#[must_use]
pub fn decide_repeated(ended: &[Outcome], repeat: Repeat) -> Decision {
    let count = |wanted: Outcome| ended.iter().filter(|o| **o == wanted).count();
    let (passed, skipped) = (count(Outcome::Passed), count(Outcome::Skipped));
    let failures = count(Outcome::Failed) + count(Outcome::TimedOut);
    let is_complete = passed + failures >= repeat.times as usize;
    let exhausted = count(Outcome::Infrastructure) >= INFRASTRUCTURE_ATTEMPTS_MAX;
    if !(is_complete || exhausted || skipped > 0 || (repeat.until_fail && failures > 0)) {
        return Decision::RunAgain;
    }
    let last_failure = ended.iter().rev().find(|o| matches!(o, Outcome::Failed | Outcome::TimedOut));
    Decision::Final(match last_failure {
        Some(_) if passed > 0 => Verdict::Flaky,
        Some(Outcome::TimedOut) => Verdict::TimedOut,
        Some(_) => Verdict::Failed,
        None if is_complete => Verdict::Passed,
        None if skipped > 0 && passed == 0 => Verdict::Skipped,
        None if skipped > 0 => Verdict::Passed,
        None => Verdict::Infrastructure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{Cancelled, Failed, Infrastructure, Passed, Skipped, TimedOut};

    #[test]
    fn every_history_of_attempts_has_its_verdict() {
        let cases: &[(&[Outcome], u32, Decision)] = &[
            (&[], 0, Decision::RunAgain),
            (&[Passed], 0, Decision::Final(Verdict::Passed)),
            (&[Failed], 0, Decision::Final(Verdict::Failed)),
            (&[Failed], 1, Decision::RunAgain),
            (&[Failed, Failed], 1, Decision::Final(Verdict::Failed)),
            (&[Failed, TimedOut], 1, Decision::Final(Verdict::TimedOut)),
            (&[Failed, Passed], 1, Decision::Final(Verdict::Flaky)),
            (&[TimedOut, Passed], 2, Decision::Final(Verdict::Flaky)),
            (&[Skipped], 3, Decision::Final(Verdict::Skipped)),
            (&[Failed, Skipped], 1, Decision::Final(Verdict::Failed)),
            (&[Cancelled], 0, Decision::RunAgain),
            (&[Cancelled, Passed], 0, Decision::Final(Verdict::Passed)),
            (&[Infrastructure; 3], 0, Decision::RunAgain),
            (&[Infrastructure; 4], 9, Decision::Final(Verdict::Infrastructure)),
            (&[Infrastructure, Infrastructure, Infrastructure, Passed], 0, Decision::Final(Verdict::Passed)),
            (
                &[Failed, Infrastructure, Infrastructure, Infrastructure, Infrastructure],
                5,
                Decision::Final(Verdict::Failed),
            ),
        ];
        for (ended, retries, expected) in cases {
            assert_eq!(decide(ended, *retries), *expected, "{ended:?} with {retries} retries");
        }
    }

    #[test]
    fn only_a_failure_is_excused_and_only_where_it_was_before() {
        use Verdict::{Flaky, Infrastructure, NotRun, Quarantined};
        for verdict in [Verdict::Failed, Verdict::TimedOut, Quarantined] {
            assert_eq!(Decision::Final(verdict).weighed(true), Decision::Final(Quarantined));
        }
        assert_eq!(Decision::Final(Quarantined).weighed(false), Decision::Final(Verdict::Failed));
        for verdict in [Verdict::Passed, Flaky, Verdict::Skipped, Infrastructure, NotRun] {
            assert_eq!(Decision::Final(verdict).weighed(true), Decision::Final(verdict));
        }
        assert_eq!(Decision::RunAgain.weighed(true), Decision::RunAgain);
    }

    #[test]
    fn every_history_of_repeats_has_its_verdict() {
        let thrice = Repeat { times: 3, until_fail: false };
        let until = Repeat { times: 3, until_fail: true };
        let cases: &[(&[Outcome], Repeat, Decision)] = &[
            (&[], thrice, Decision::RunAgain),
            (&[Passed, Passed], thrice, Decision::RunAgain),
            (&[Passed; 3], thrice, Decision::Final(Verdict::Passed)),
            (&[Failed, Failed], thrice, Decision::RunAgain),
            (&[Failed; 3], thrice, Decision::Final(Verdict::Failed)),
            (&[Failed, Failed, TimedOut], thrice, Decision::Final(Verdict::TimedOut)),
            (&[Failed, Passed, Passed], thrice, Decision::Final(Verdict::Flaky)),
            (&[Passed, Passed, Failed], thrice, Decision::Final(Verdict::Flaky)),
            (&[Passed, Cancelled, Infrastructure, Passed], thrice, Decision::RunAgain),
            (&[Passed, Failed], until, Decision::Final(Verdict::Flaky)),
            (&[Failed], until, Decision::Final(Verdict::Failed)),
            (&[Passed], until, Decision::RunAgain),
            (&[Skipped], thrice, Decision::Final(Verdict::Skipped)),
            (&[Infrastructure; 4], thrice, Decision::Final(Verdict::Infrastructure)),
            (
                &[Passed, Infrastructure, Infrastructure, Infrastructure, Infrastructure],
                thrice,
                Decision::Final(Verdict::Infrastructure),
            ),
            (
                &[Failed, Infrastructure, Infrastructure, Infrastructure, Infrastructure],
                thrice,
                Decision::Final(Verdict::Failed),
            ),
        ];
        for (ended, repeat, expected) in cases {
            assert_eq!(decide_repeated(ended, *repeat), *expected, "{ended:?} {repeat:?}");
        }
    }
}
