//! Owners: what fails, flakes and takes long of theirs, and how long it stays red.

use andon_figures::Rate;
use andon_figures::flow::End;

use super::project::{Window, flow_of};
use super::{
    OWNERS_MAX, Owner, OwnerLine, OwnerRun, Owners, Page, ProjectAsk, ViewError, Views, lines, words,
};
use crate::store::ledger::{DAY_MS, EnteredRun, FROM_THE_NEWEST, RunsOf};
use crate::store::owned::{OwnedTest, OwnedWhich, OwnerSums};

/// Runs that the figures of an owner's line look at; of more, the latest.
const FLOW_RUNS_MAX: u32 = 1_000;
/// Tests of each list.
const TESTS_MAX: u32 = 50;

impl Views {
    /// The owners of a project's tests.
    pub(crate) async fn owners(&self, project: &str) -> Result<Owners, ViewError> {
        let sums = self.store.owners(project, None, OWNERS_MAX).await?;
        if sums.is_empty() {
            let of = RunsOf::Project(project.to_owned());
            if self.store.runs_of(&of, FROM_THE_NEWEST, 1).await?.is_empty() {
                return Err(ViewError::NotFound(format!("no project is called {project:?}")));
            }
        }
        Ok(Owners { project: project.to_owned(), owners: sums.into_iter().map(line).collect() })
    }

    /// One of them.
    pub(crate) async fn owner(
        &self,
        project: &str,
        owner: &str,
        ask: &ProjectAsk,
    ) -> Result<Owner, ViewError> {
        let now_unix_ms = self.now_unix_ms();
        let Window { git_ref, from_day, before, limit } = Window::of(ask, now_unix_ms);
        let on = git_ref.as_deref();
        let mut ran = self.store.entered_of(project, owner, on, FROM_THE_NEWEST, FLOW_RUNS_MAX).await?;
        let sums = self.store.owners(project, Some(owner), 1).await?.pop();
        if sums.is_none() && ran.is_empty() && git_ref.is_none() {
            let text = format!("nobody called {owner:?} owns tests that ran in project {project:?}");
            return Err(ViewError::NotFound(text));
        }
        ran.retain(|run| run.ended_ms / DAY_MS >= from_day);
        let runs = self.store.entered_of(project, owner, on, before, limit).await?;
        let next = (runs.len() == limit as usize).then(|| runs.last().map(|last| last.run.0)).flatten();
        let tests = async |which| {
            let tests = self.store.owned(project, owner, which, TESTS_MAX).await?;
            Ok::<_, ViewError>(tests.into_iter().map(owned).collect::<Vec<_>>())
        };
        Ok(Owner {
            project: project.to_owned(),
            now_unix_ms,
            line: sums.map_or_else(|| OwnerLine { owner: owner.to_owned(), ..OwnerLine::default() }, line),
            flow: flow_of(git_ref.clone(), &ran),
            failing_tests: tests(OwnedWhich::Failing).await?,
            flaky_tests: tests(OwnedWhich::Flaky).await?,
            slow_tests: tests(OwnedWhich::Slow).await?,
            runs: Page { items: runs.into_iter().map(run).collect(), next },
        })
    }
}

fn line(sums: OwnerSums) -> OwnerLine {
    let OwnerSums { owner, tests, failing, flaky, mean_ms } = sums;
    OwnerLine { owner, tests, failing, flaky, tests_ms: mean_ms }
}

fn owned(test: OwnedTest) -> super::OwnedTest {
    super::OwnedTest {
        suite: test.suite,
        id: test.id,
        run: test.run.0,
        test: test.test.0,
        git_ref: test.git_ref,
        verdict: words::verdict(test.verdict),
        mean_ms: (test.mean_ms > 0).then_some(test.mean_ms),
        failures: test.failures,
        flakes: lines::rate(Rate::new(u64::from(test.flakes), u64::from(test.runs))),
    }
}

fn run(run: EnteredRun) -> OwnerRun {
    OwnerRun {
        run: run.run.0,
        commit: run.commit,
        git_ref: run.git_ref,
        state: match run.ending {
            End::Green => "passed",
            End::Red => "failed",
            End::Superseded => "superseded",
            End::Cancelled => "cancelled",
            End::Infrastructure => "infrastructure",
        },
        ended_unix_ms: run.ended_ms,
        tests: run.tests,
        failed: run.failed,
        flaky: run.flaky,
        lane_ms: run.lane_ms,
        test_p50_ms: (run.mean_us > 0).then_some(run.p50_ms),
    }
}
