//! Who owns what, in memory.

use std::collections::BTreeMap;

use andon_core::ids::RunId;
use andon_core::model::Verdict;
use async_trait::async_trait;

use super::super::Result;
use super::super::ledger::{EnteredRun, Entry, Named};
use super::super::owned::{Owned, OwnedTest, OwnedWhich, OwnerSums};
use super::ledger::many;
use super::{Memory, State};

/// What was entered.
#[derive(Debug, Clone, Default)]
pub(super) struct Owners {
    /// By project, owner and run.
    runs: BTreeMap<(String, String, RunId), EnteredRun>,
    /// By project, owner and name.
    tests: BTreeMap<(String, String, i64), OwnedTest>,
}

impl Owners {
    pub(super) fn forget(&mut self, run: RunId) {
        self.tests.retain(|_, test| test.run != run);
    }
}

impl State {
    pub(super) fn own(&mut self, run: RunId, entry: &Entry) {
        for (owner, entered) in &entry.owners {
            let of = (entry.project.clone(), owner.clone(), run);
            self.owners.runs.insert(of, entered.clone());
        }
    }

    pub(super) fn own_tests(&mut self, run: RunId, names: &[Named]) {
        let Some(stored) = self.runs.get(&run) else { return };
        let project = &stored.row.header.project;
        for named in names {
            let (Some(owners), Some(test)) = (&named.owners, stored.tests.get(&named.test)) else { continue };
            let tests = &mut self.owners.tests;
            if tests.iter().any(|((.., name), known)| *name == named.name && known.run > run) {
                continue;
            }
            tests.retain(|(.., name), _| *name != named.name);
            let history = self.history.get(&(project.clone(), test.suite.clone()));
            let past = history.and_then(|of| of.get(&test.id)).map(|(past, _)| *past).unwrap_or_default();
            for owner in owners {
                let of = (project.clone(), owner.clone(), named.name);
                let owned = OwnedTest {
                    suite: test.suite.clone(),
                    id: test.id.clone(),
                    run,
                    test: test.test,
                    git_ref: stored.row.header.git_ref.clone(),
                    verdict: test.verdict,
                    mean_ms: past.mean_ms,
                    runs: past.runs,
                    failures: past.failures,
                    flakes: past.flakes,
                };
                tests.insert(of, owned);
            }
        }
    }
}

fn is_failing(test: &OwnedTest) -> bool {
    matches!(test.verdict, Some(Verdict::Failed | Verdict::TimedOut))
}

#[async_trait]
impl Owned for Memory {
    async fn entered_of(
        &self,
        project: &str,
        owner: &str,
        git_ref: Option<&str>,
        before: RunId,
        limit: u32,
    ) -> Result<Vec<EnteredRun>> {
        let state = self.state();
        let wanted = state.owners.runs.iter().rev().filter(|((of, by, run), entered)| {
            of == project
                && by == owner
                && *run < before
                && git_ref.is_none_or(|git_ref| git_ref == entered.git_ref)
        });
        Ok(wanted.map(|(_, entered)| entered.clone()).take(many(limit)).collect())
    }

    async fn owned(
        &self,
        project: &str,
        owner: &str,
        which: OwnedWhich,
        limit: u32,
    ) -> Result<Vec<OwnedTest>> {
        let state = self.state();
        let of_owner = state.owners.tests.iter().filter(|((of, by, _), _)| of == project && by == owner);
        let mut tests: Vec<OwnedTest> = of_owner.map(|(_, test)| test.clone()).collect();
        tests.sort_by(|a, b| (&a.suite, &a.id).cmp(&(&b.suite, &b.id)));
        match which {
            OwnedWhich::Failing => {
                tests.retain(is_failing);
                tests.sort_by_key(|test| std::cmp::Reverse(test.run));
            }
            OwnedWhich::Flaky => {
                tests.retain(|test| test.flakes > 0 && test.runs > 0);
                let share = |test: &OwnedTest| u64::from(test.flakes) * 1_000_000 / u64::from(test.runs);
                tests.sort_by_key(|test| std::cmp::Reverse((share(test), test.flakes)));
            }
            OwnedWhich::Slow => tests.sort_by_key(|test| std::cmp::Reverse(test.mean_ms)),
        }
        tests.truncate(many(limit));
        Ok(tests)
    }

    async fn owners(&self, project: &str, owner: Option<&str>, limit: u32) -> Result<Vec<OwnerSums>> {
        let state = self.state();
        let mut sums: BTreeMap<&str, OwnerSums> = BTreeMap::new();
        for ((of, by, _), test) in &state.owners.tests {
            if of == project && owner.is_none_or(|owner| owner == by) {
                let sum = sums.entry(by).or_insert_with(|| OwnerSums {
                    owner: by.clone(),
                    tests: 0,
                    failing: 0,
                    flaky: 0,
                    mean_ms: 0,
                });
                sum.tests += 1;
                sum.failing += u64::from(is_failing(test));
                sum.flaky += u64::from(test.flakes > 0);
                sum.mean_ms += test.mean_ms;
            }
        }
        Ok(sums.into_values().take(many(limit)).collect())
    }
}
