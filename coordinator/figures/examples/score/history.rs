//! A made world as the ledger would have it: rows, by project and test.

use std::collections::BTreeMap;

use andon_figures::Outcome;
use andon_figures::flow::End;
use andon_figures::made::{MadeAttempt, MadeRun, TestAt, World};

/// See the module.
pub(crate) struct History<'a> {
    pub(crate) world: &'a World,
    /// Each project's runs that were not superseded, oldest first.
    pub(crate) runs: Vec<Vec<MadeRun>>,
}

impl<'a> History<'a> {
    pub(crate) fn new(world: &'a World) -> Self {
        let mut runs = vec![Vec::new(); world.model().projects];
        for run in world.runs().filter(|run| run.end != End::Superseded) {
            runs[run.project].push(run);
        }
        Self { world, runs }
    }

    /// All tests' attempts of a run.
    pub(crate) fn by_test(run: &MadeRun) -> BTreeMap<TestAt, Vec<&MadeAttempt>> {
        let mut tests: BTreeMap<TestAt, Vec<&MadeAttempt>> = BTreeMap::new();
        for attempt in &run.attempts {
            tests.entry(attempt.at).or_default().push(attempt);
        }
        tests
    }

    /// The test is broken at a commit.
    pub(crate) fn is_broken(&self, at: TestAt, commit: usize) -> bool {
        self.world.truth().breakages.iter().any(|breakage| breakage.at == at && breakage.holds(commit))
    }
}

/// It failed by its own doing.
pub(crate) fn has_failed(attempt: &MadeAttempt) -> bool {
    matches!(attempt.outcome, Outcome::Failed | Outcome::TimedOut)
}
