//! What a suite would amount to if it were run now: units, leases, time. The same rules as placement's, and no more than
//! history knows; discovery has the last word.

use std::collections::VecDeque;

use crate::asked::Repeat;
use crate::estimate::Estimates;
use crate::model::{Candidate, Grain, SuitePlan};
use crate::place::{BATCH_TESTS_MAX, batch_target_ms};
use crate::units;

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Tests that share a rebase, counted once for each repeat.
    pub units: u64,
    /// How often a lane would be given work.
    pub leases: u64,
    /// All of it on one lane.
    pub expected_ms: u64,
    /// No run is shorter.
    pub longest_unit_ms: u64,
}

impl Forecast {
    /// Of these tests of a suite, on so many lanes.
    #[must_use]
    pub fn of(suite: &SuitePlan, tests: &[Candidate], repeat: Repeat, lanes: u64) -> Self {
        let estimates = Estimates::of(tests);
        let ids: Vec<&str> = tests.iter().map(|test| test.id.as_str()).collect();
        let times = u64::from(repeat.times.max(1));
        let mut units: Vec<u64> = units::group(&ids, suite.grain)
            .into_iter()
            .map(|unit| unit.into_iter().map(|place| estimates.expected_ms(&tests[place])).sum())
            .collect();
        units.sort_unstable_by_key(|ms| std::cmp::Reverse(*ms));
        let once: u64 = units.iter().sum();
        let is_packed = suite.grain == Grain::Batch && !repeat.is_wanted();
        let longest_unit_ms = units.first().copied().unwrap_or(0);
        let count = units.len() as u64;
        Self {
            units: count * times,
            leases: if is_packed { batches(units.into(), once, lanes) } else { count * times },
            expected_ms: once.saturating_mul(times),
            longest_unit_ms,
        }
    }
}

/// How long so much takes on so many lanes at best.
#[must_use]
pub fn at_best_ms(expected_ms: u64, longest_unit_ms: u64, lanes: u64) -> u64 {
    expected_ms.div_ceil(lanes.max(1)).max(longest_unit_ms)
}

/// How many batches tests make, packed as placement does: longest first.
fn batches(mut waiting: VecDeque<u64>, mut waiting_ms: u64, lanes: u64) -> u64 {
    let mut batches = 0;
    while let Some(first) = waiting.pop_front() {
        let target = batch_target_ms(waiting_ms, lanes);
        let (mut taken_ms, mut tests) = (first, 1);
        while tests < BATCH_TESTS_MAX
            && let Some(next) = waiting.front().filter(|next| taken_ms + **next <= target).copied()
        {
            waiting.pop_front();
            taken_ms += next;
            tests += 1;
        }
        waiting_ms -= taken_ms;
        batches += 1;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests(ids: &[(&str, Option<u64>)]) -> Vec<Candidate> {
        let candidate = |(id, ms): &(&str, Option<u64>)| Candidate {
            id: (*id).into(),
            expected_ms: *ms,
            failed_last: false,
            excused: false,
        };
        ids.iter().map(candidate).collect()
    }

    fn suite(grain: Grain) -> SuitePlan {
        SuitePlan { name: "it".into(), retries: 0, grain }
    }

    #[test]
    fn units_are_counted_as_they_are_leased() {
        let tests = tests(&[("a.py::A::x", Some(300)), ("a.py::A::y", Some(200)), ("a.py::B::x", Some(700))]);
        let of = |grain, times| Forecast::of(&suite(grain), &tests, Repeat { times, until_fail: false }, 2);
        let by_class = Forecast { units: 2, leases: 2, expected_ms: 1_200, longest_unit_ms: 700 };
        assert_eq!(of(Grain::Class, 1), by_class);
        assert_eq!(of(Grain::Test, 1), Forecast { units: 3, leases: 3, ..by_class });
        assert_eq!(
            of(Grain::Never, 3),
            Forecast { units: 3, leases: 3, expected_ms: 3_600, longest_unit_ms: 1_200 }
        );
        assert_eq!(Forecast::of(&suite(Grain::Never), &[], Repeat::default(), 2), Forecast::default());
    }

    #[test]
    fn short_tests_share_a_lease_and_repeated_ones_do_not() {
        let names: Vec<String> = (0..200).map(|n| format!("t{n}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), Some(10))).collect();
        let many = tests(&many);
        let once = Forecast::of(&suite(Grain::Batch), &many, Repeat::default(), 1);
        assert!((3..=30).contains(&once.leases), "{once:?}");
        assert_eq!((once.units, once.expected_ms), (200, 2_000));
        let twice = Forecast::of(&suite(Grain::Batch), &many, Repeat { times: 2, until_fail: false }, 1);
        assert_eq!((twice.leases, twice.expected_ms), (400, 4_000));
    }

    #[test]
    fn no_run_is_shorter_than_its_longest_unit_or_its_share() {
        assert_eq!(at_best_ms(10_000, 700, 4), 2_500);
        assert_eq!(at_best_ms(10_000, 4_000, 4), 4_000);
        assert_eq!(at_best_ms(10, 0, 0), 10);
    }
}
