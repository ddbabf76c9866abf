//! What experiments amount to. One function from tallies to a finding; no test is run, no name is needed.

use std::collections::BTreeMap;

use super::tally::Tally;

/// Fewer tries under a condition say nothing of it.
pub const TRIES_MIN: u32 = 3;

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The worker of the failed attempt that is asked about.
    pub failed_on: String,
    /// Alone on a pristine lane, by worker.
    pub alone: BTreeMap<String, Tally>,
    /// After the tests that ran before the failed attempt, in their order, without a rebase between; `None` where there
    /// were none, or where it was not tried.
    pub after: Option<Tally>,
    /// How many those were.
    pub predecessors: usize,
}

/// Why a test failed.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// It fails each time, alone, on a pristine stack, wherever it was tried.
    Real {
        /// How often it was tried, and on how many workers.
        alone: Tally,
        /// At least one.
        workers: usize,
    },
    /// Under the very same conditions it passes and fails.
    Flaky {
        /// All tries under those conditions.
        tally: Tally,
        /// The failed attempt itself was under them too, and is not counted.
        beside_the_first: bool,
    },
    /// It fails after tests that ran before it, and more often than alone.
    Polluted {
        /// After them.
        after: Tally,
        /// Alone.
        alone: Tally,
    },
    /// It fails more often on some workers than on others.
    WorkerSpecific {
        /// Where it fails.
        on: Vec<String>,
        /// There.
        there: Tally,
        /// On all others.
        elsewhere: Tally,
    },
    /// What was seen could be chance.
    Unclear(Unclear),
}

/// Why there is not enough to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unclear {
    /// It was hardly run alone.
    TooFewAlone(Tally),
    /// It passes alone, and was hardly run after the others.
    TooFewAfter(Tally),
    /// It fails now and then after the others and never alone: polluted, or flaky and lucky.
    FlakyOrPolluted {
        /// After them.
        after: Tally,
        /// Alone.
        alone: Tally,
    },
}

/// Decides.
#[must_use]
pub fn judge(evidence: &Evidence) -> Finding {
    let alone = sum(evidence.alone.values());
    if alone.tries() < TRIES_MIN {
        return Finding::Unclear(Unclear::TooFewAlone(alone));
    }
    if let Some(specific) = of_a_worker(evidence) {
        return specific;
    }
    if alone.passed == 0 {
        let workers = evidence.alone.values().filter(|tally| tally.tries() > 0).count();
        return Finding::Real { alone, workers };
    }
    let Some(after) = evidence.after.filter(|_| evidence.predecessors > 0) else {
        if alone.failed == 0 && evidence.predecessors > 0 {
            return Finding::Unclear(Unclear::TooFewAfter(Tally::default()));
        }
        return Finding::Flaky { tally: alone, beside_the_first: evidence.predecessors == 0 };
    };
    if after.is_worse_than(alone) {
        return Finding::Polluted { after, alone };
    }
    match (alone.failed > 0, after.failed > 0) {
        // It needs nobody before it in order to fail.
        (true, _) => {
            let mut tally = alone;
            tally += after;
            Finding::Flaky { tally, beside_the_first: false }
        }
        (false, _) if after.tries() < TRIES_MIN => Finding::Unclear(Unclear::TooFewAfter(after)),
        (false, true) => Finding::Unclear(Unclear::FlakyOrPolluted { after, alone }),
        // The same tests before it in the same order, and it passes: their order is not it.
        (false, false) => Finding::Flaky { tally: after, beside_the_first: true },
    }
}

fn sum<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Tally {
    let mut sum = Tally::default();
    tallies.for_each(|tally| sum += *tally);
    sum
}

/// The worker where it failed against all others, both ways.
fn of_a_worker(evidence: &Evidence) -> Option<Finding> {
    let split = |wanted: bool| {
        let of = evidence.alone.iter().filter(|(name, _)| (**name == evidence.failed_on) == wanted);
        let of: Vec<_> = of.filter(|(_, tally)| tally.tries() > 0).collect();
        let names: Vec<String> = of.iter().map(|(name, _)| (*name).clone()).collect();
        (names, sum(of.iter().map(|(_, tally)| *tally)))
    };
    let ((here_names, here), (there_names, there)) = (split(true), split(false));
    if here.tries() < TRIES_MIN || there.tries() < TRIES_MIN {
        return None;
    }
    if here.is_worse_than(there) {
        return Some(Finding::WorkerSpecific { on: here_names, there: here, elsewhere: there });
    }
    there.is_worse_than(here).then_some(Finding::WorkerSpecific { on: there_names, there, elsewhere: here })
}

/// Whether a search's probe counts as a failure: nearer to what was seen after all tests than to what was seen alone.
#[must_use]
pub fn probe_fails(probe: Tally, after: Tally, alone: Tally) -> bool {
    probe.rate() >= f64::midpoint(after.rate(), alone.rate())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// failed of tries
    fn tally((failed, tries): (u32, u32)) -> Tally {
        Tally { passed: tries - failed, failed }
    }

    fn word(finding: &Finding) -> &'static str {
        match finding {
            Finding::Real { .. } => "real",
            Finding::Flaky { .. } => "flaky",
            Finding::Polluted { .. } => "polluted",
            Finding::WorkerSpecific { .. } => "worker",
            Finding::Unclear(Unclear::TooFewAlone(_)) => "too few alone",
            Finding::Unclear(Unclear::TooFewAfter(_)) => "too few after",
            Finding::Unclear(Unclear::FlakyOrPolluted { .. }) => "flaky or polluted",
        }
    }

    type Case = ((u32, u32), Option<(u32, u32)>, usize, Option<(u32, u32)>, &'static str);

    /// On its worker, elsewhere, how many ran before it, after them.
    const CASES: &[Case] = &[
        ((5, 5), Some((5, 5)), 3, None, "real"),
        ((5, 5), None, 0, None, "real"),
        ((3, 3), None, 0, None, "real"),
        ((5, 5), Some((5, 5)), 3, Some((5, 5)), "real"),
        ((2, 2), None, 0, None, "too few alone"),
        ((0, 0), None, 4, Some((5, 5)), "too few alone"),
        ((1, 1), Some((1, 1)), 0, None, "too few alone"),
        // Both, under the same conditions.
        ((2, 5), None, 0, None, "flaky"),
        ((2, 5), Some((3, 5)), 0, None, "flaky"),
        ((4, 5), Some((5, 5)), 0, None, "flaky"),
        ((1, 5), Some((0, 5)), 4, Some((1, 5)), "flaky"),
        // The failed attempt was the only failure, and its conditions were these.
        ((0, 5), None, 0, None, "flaky"),
        ((0, 5), Some((0, 5)), 7, Some((0, 5)), "flaky"),
        // Only after the others.
        ((0, 5), Some((0, 5)), 7, Some((5, 5)), "polluted"),
        ((0, 5), None, 7, Some((5, 5)), "polluted"),
        ((0, 3), None, 1, Some((3, 3)), "polluted"),
        ((0, 5), Some((0, 5)), 7, Some((3, 5)), "polluted"),
        // It fails alone now and then, and always after them.
        ((1, 10), None, 7, Some((10, 10)), "polluted"),
        ((0, 5), None, 7, Some((2, 5)), "flaky or polluted"),
        ((0, 5), Some((0, 5)), 7, Some((1, 5)), "flaky or polluted"),
        ((0, 5), None, 7, Some((0, 1)), "too few after"),
        ((0, 5), None, 7, None, "too few after"),
        ((0, 5), Some((0, 5)), 7, Some((1, 1)), "too few after"),
        // Only there.
        ((5, 5), Some((0, 5)), 0, None, "worker"),
        ((3, 3), Some((0, 3)), 0, None, "worker"),
        ((0, 5), Some((5, 5)), 0, None, "worker"),
        ((5, 5), Some((0, 5)), 7, Some((5, 5)), "worker"),
        ((5, 5), Some((3, 5)), 0, None, "flaky"),
        ((2, 2), Some((0, 9)), 0, None, "flaky"),
        ((16, 20), Some((10, 20)), 0, None, "flaky"),
        ((18, 20), Some((3, 20)), 0, None, "worker"),
    ];

    #[test]
    fn every_outcome_has_its_finding() {
        for (here, elsewhere, predecessors, after, expected) in CASES {
            let mut alone = BTreeMap::from([("w1".to_owned(), tally(*here))]);
            alone.extend(elsewhere.map(|there| ("w2".to_owned(), tally(there))));
            let evidence = Evidence {
                failed_on: "w1".into(),
                alone,
                after: after.map(tally),
                predecessors: *predecessors,
            };
            let found = judge(&evidence);
            assert_eq!(word(&found), *expected, "{here:?} {elsewhere:?} {predecessors} {after:?}: {found:?}");
        }
    }

    #[test]
    fn a_worker_is_named_where_it_is_the_one() {
        let alone = [("w1", (5, 5)), ("w2", (0, 3)), ("w3", (0, 2))];
        let alone = alone.map(|(name, counts)| (name.to_owned(), tally(counts))).into();
        let evidence = Evidence { failed_on: "w1".into(), alone, ..Evidence::default() };
        let there = Tally { passed: 0, failed: 5 };
        let elsewhere = Tally { passed: 5, failed: 0 };
        assert_eq!(judge(&evidence), Finding::WorkerSpecific { on: vec!["w1".into()], there, elsewhere });
    }

    #[test]
    fn a_probe_is_held_against_both_ends() {
        let (never, always) = (tally((0, 10)), tally((5, 5)));
        assert!(probe_fails(tally((5, 5)), always, never));
        assert!(probe_fails(tally((3, 5)), always, never));
        assert!(!probe_fails(tally((2, 5)), always, never));
        assert!(probe_fails(tally((2, 5)), tally((3, 5)), never));
        assert!(!probe_fails(tally((1, 5)), always, tally((2, 10))));
    }

    proptest::proptest! {
        /// More of the same evidence never turns one finding into its opposite.
        #[test]
        fn twice_the_same_evidence_is_no_less_sure(a in 0_u32..12, b in 0_u32..12, c in 0_u32..12, d in 0_u32..12) {
            let of = |times: u32| {
                let alone = Tally { passed: a * times, failed: b * times };
                let after = Tally { passed: c * times, failed: d * times };
                judge(&Evidence {
                    failed_on: "w1".into(),
                    alone: BTreeMap::from([("w1".to_owned(), alone)]),
                    after: Some(after),
                    predecessors: 1,
                })
            };
            let (once, twice) = (of(1), of(2));
            if word(&once) == "real" || word(&once) == "polluted" {
                proptest::prop_assert_eq!(word(&once), word(&twice));
            }
        }
    }
}
