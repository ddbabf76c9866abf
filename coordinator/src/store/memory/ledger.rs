//! The ledger in memory.

use std::collections::BTreeMap;

use andon_core::ids::{LaneIx, Lease, RunId, TestIx, WorkerId};
use andon_core::model::{LeaseKind, RunState};
use andon_figures::Sketch;
use async_trait::async_trait;

use super::super::ledger::{
    EnteredRun, Entry, LaneSums, Ledger, Named, PROJECTS_MAX, PastTest, RunsOf, Spent, Tally, TestFilter,
};
use super::super::{AttemptRow, Counts, Result, RunRow, TestRow};
use super::{Memory, Stored};

/// What was entered.
#[derive(Debug, Clone, Default)]
pub(super) struct Entered {
    /// By project, suite and run.
    runs: BTreeMap<(String, String, RunId), EnteredRun>,
    /// By project, day and suite.
    days: BTreeMap<(String, u64, String), Tally>,
    /// By worker, day and driver.
    rebases: BTreeMap<(WorkerId, u64, String), Sketch>,
    /// By project, branch and suite.
    shifts: BTreeMap<(String, String, String), String>,
}

impl Entered {
    fn has(&self, project: &str, run: RunId) -> bool {
        self.runs.contains_key(&(project.to_owned(), String::new(), run))
    }
}

fn is_over(stored: &Stored) -> bool {
    matches!(stored.row.state, RunState::Ended(_))
}

pub(super) fn many(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[async_trait]
impl Ledger for Memory {
    async fn to_enter(&self, limit: u32) -> Result<Vec<RunId>> {
        let state = self.state();
        let open = state.runs.values().filter(|stored| {
            is_over(stored) && !state.entered.has(&stored.row.header.project, stored.row.run)
        });
        Ok(open.map(|stored| stored.row.run).take(many(limit)).collect())
    }

    async fn name_tests(&self, run: RunId, names: &[Named]) -> Result<()> {
        // Here tests are found by their words.
        self.state().own_tests(run, names);
        Ok(())
    }

    async fn enter(&self, entry: &Entry) -> Result<()> {
        let state = &mut *self.state();
        let entered = &mut state.entered;
        let Some((whole, _)) = entry.suites.first() else { return Ok(()) };
        if entered.has(&entry.project, whole.run) {
            return Ok(());
        }
        for (run, tally) in &entry.suites {
            entered.runs.insert((entry.project.clone(), run.suite.clone(), run.run), run.clone());
            let day = (entry.project.clone(), entry.day, run.suite.clone());
            entered.days.entry(day).or_default().merge(tally);
        }
        for (worker, driver, sketch) in &entry.rebases {
            let day = (worker.clone(), entry.day, driver.clone());
            entered.rebases.entry(day).or_default().merge(sketch);
        }
        state.own(whole.run, entry);
        Ok(())
    }

    async fn pushed_ms(&self, project: &str, commit: &str) -> Result<Option<u64>> {
        let state = self.state();
        let of_commit = state
            .runs
            .values()
            .map(|stored| &stored.row)
            .filter(|row| row.header.project == project && row.header.commit == commit);
        Ok(of_commit.map(|row| row.created_ms).min())
    }

    async fn put_shifts(&self, project: &str, git_ref: &str, suite: &str, shifts: &str) -> Result<()> {
        let of = (project.to_owned(), git_ref.to_owned(), suite.to_owned());
        self.state().entered.shifts.insert(of, shifts.to_owned());
        Ok(())
    }

    async fn shifts(
        &self,
        project: &str,
        git_ref: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, String, String)>> {
        let state = self.state();
        let wanted = state
            .entered
            .shifts
            .iter()
            .filter(|((of, on, _), _)| of == project && git_ref.is_none_or(|git_ref| git_ref == on));
        let told =
            wanted.map(|((_, git_ref, suite), shifts)| (git_ref.clone(), suite.clone(), shifts.clone()));
        Ok(told.take(many(limit)).collect())
    }

    async fn entered(
        &self,
        project: &str,
        suite: &str,
        git_ref: Option<&str>,
        before: RunId,
        limit: u32,
    ) -> Result<Vec<EnteredRun>> {
        let state = self.state();
        let wanted = state.entered.runs.iter().rev().filter(|((of, known, run), entered)| {
            of == project
                && known == suite
                && *run < before
                && git_ref.is_none_or(|git_ref| git_ref == entered.git_ref)
        });
        Ok(wanted.map(|(_, entered)| entered.clone()).take(many(limit)).collect())
    }

    async fn days(&self, project: &str, from_day: u64, limit: u32) -> Result<Vec<(u64, String, Tally)>> {
        let state = self.state();
        let wanted = state.entered.days.iter().filter(|((of, day, _), _)| of == project && *day >= from_day);
        let told = wanted.map(|((_, day, suite), tally)| (*day, suite.clone(), tally.clone()));
        Ok(told.take(many(limit)).collect())
    }

    async fn rebase_days(
        &self,
        worker: &str,
        from_day: u64,
        limit: u32,
    ) -> Result<Vec<(u64, String, Sketch)>> {
        let state = self.state();
        let wanted =
            state.entered.rebases.iter().filter(|((of, day, _), _)| of.0 == worker && *day >= from_day);
        let told = wanted.map(|((_, day, driver), sketch)| (*day, driver.clone(), sketch.clone()));
        Ok(told.take(many(limit)).collect())
    }

    async fn projects(&self) -> Result<Vec<String>> {
        let state = self.state();
        let mut names: Vec<_> = state.runs.values().map(|stored| stored.row.header.project.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(many(PROJECTS_MAX));
        Ok(names)
    }

    async fn runs_of(&self, of: &RunsOf, before: RunId, limit: u32) -> Result<Vec<RunRow>> {
        let state = self.state();
        let is_wanted = |stored: &&Stored| {
            let header = &stored.row.header;
            match of {
                RunsOf::Active => !is_over(stored),
                RunsOf::Over => is_over(stored),
                RunsOf::Project(project) => header.project == *project,
                RunsOf::Ref(project, git_ref) => header.project == *project && header.git_ref == *git_ref,
                RunsOf::Commit(project, commit) => header.project == *project && header.commit == *commit,
                RunsOf::CommitsFrom(project, prefix) => {
                    header.project == *project && header.commit.starts_with(prefix.as_str())
                }
                RunsOf::Baseline(key) => stored.row.baseline_key == *key,
            }
        };
        let wanted = state.runs.range(..before).rev().map(|(_, stored)| stored).filter(is_wanted);
        Ok(wanted.take(many(limit)).map(Stored::row).collect())
    }

    async fn tests_of(&self, run: RunId, filter: &TestFilter) -> Result<Vec<TestRow>> {
        let state = self.state();
        let Some(stored) = state.runs.get(&run) else { return Ok(Vec::new()) };
        let is_wanted = |test: &&TestRow| {
            filter.after.is_none_or(|after| test.test > after)
                && filter.suite.as_ref().is_none_or(|suite| test.suite == *suite)
                && (filter.verdicts.is_empty() || filter.verdicts.contains(&test.verdict))
        };
        Ok(stored.tests.values().filter(is_wanted).take(many(filter.limit)).cloned().collect())
    }

    async fn suites_of(&self, run: RunId) -> Result<Vec<(String, Counts)>> {
        let state = self.state();
        let mut suites: BTreeMap<String, Counts> = BTreeMap::new();
        for test in state.runs.get(&run).iter().flat_map(|stored| stored.tests.values()) {
            suites.entry(test.suite.clone()).or_default().add(test.verdict, 1);
        }
        Ok(suites.into_iter().collect())
    }

    async fn lanes_of(&self, run: RunId) -> Result<Vec<LaneSums>> {
        let state = self.state();
        let mut lanes: BTreeMap<(WorkerId, LaneIx), LaneSums> = BTreeMap::new();
        let tests = state.runs.get(&run).into_iter().flat_map(|stored| stored.tests.values());
        for attempt in tests.flat_map(|test| &test.attempts).filter(|attempt| attempt.outcome.is_some()) {
            let (worker, lane) = (attempt.worker.clone(), attempt.lane);
            let sums = lanes.entry((worker.clone(), lane)).or_insert(LaneSums {
                worker,
                lane,
                attempts: 0,
                spent: Spent::default(),
                dirtied_bytes: 0,
                first_started_ms: 0,
            });
            sums.attempts += 1;
            sums.spent.merge(&Spent::by(attempt));
            sums.dirtied_bytes += attempt.dirtied_bytes.unwrap_or(0);
            let started = [sums.first_started_ms, attempt.started_ms].into_iter().filter(|at| *at > 0);
            sums.first_started_ms = started.min().unwrap_or(0);
        }
        Ok(lanes.into_values().collect())
    }

    async fn rebases_of(&self, run: RunId, limit: u32) -> Result<Vec<(String, u64)>> {
        let attempts = self.attempts_of(run, u32::MAX).await?.into_iter().map(|(.., attempt)| attempt);
        let rebased = attempts.filter(|attempt| attempt.rebase_us > 0);
        Ok(rebased.map(|attempt| (attempt.driver, attempt.rebase_us)).take(many(limit)).collect())
    }

    async fn attempts_of(&self, run: RunId, limit: u32) -> Result<Vec<(TestIx, String, String, AttemptRow)>> {
        let state = self.state();
        let tests = state.runs.get(&run).into_iter().flat_map(|stored| stored.tests.values());
        let mut attempts: Vec<_> = tests
            .flat_map(|test| {
                let told =
                    |attempt: &AttemptRow| (test.test, test.suite.clone(), test.id.clone(), attempt.clone());
                test.attempts.iter().map(told)
            })
            .collect();
        attempts.sort_by_key(|(.., attempt)| attempt.attempt);
        attempts.truncate(many(limit));
        Ok(attempts)
    }

    async fn past(
        &self,
        project: &str,
        suite: &str,
        id: &str,
        before: RunId,
        limit: u32,
    ) -> Result<Vec<PastTest>> {
        let state = self.state();
        let runs = state.runs.range(..before).rev().map(|(_, stored)| stored);
        let of_project = runs.filter(|stored| {
            stored.row.header.project == project && state.entered.has(project, stored.row.run)
        });
        let past = of_project.filter_map(|stored| {
            let test = stored.tests.values().find(|test| test.suite == suite && test.id == id)?;
            Some(PastTest {
                run: stored.row.run,
                commit: stored.row.header.commit.clone(),
                git_ref: stored.row.header.git_ref.clone(),
                baseline_key: stored.row.baseline_key.clone(),
                test: test.clone(),
            })
        });
        Ok(past.take(many(limit)).collect())
    }

    async fn out(&self, worker: &str) -> Result<Vec<(LaneIx, Lease, LeaseKind)>> {
        let state = self.state();
        let of_worker = state.leases.values().filter(|lease| lease.worker.0 == worker);
        let mut out: Vec<_> = of_worker.map(|lease| (lease.lane, lease.lease, lease.kind.clone())).collect();
        out.sort_by_key(|(lane, lease, _)| (*lane, lease.fence));
        Ok(out)
    }
}
