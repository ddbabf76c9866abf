//! One test over its runs.

use andon_core::ids::RunId;
use andon_core::model::Outcome;
use andon_figures::flake::{self, Standing};
use andon_figures::shift::{self, Point, Settings};
use andon_figures::{Outcome as Judged, Sketch};

use super::{CauseLine, Page, PastRun, SeenAt, Shift, Test, ViewError, Views, lines, page_size, words};
use crate::store::Cause;
use crate::store::ledger::{FROM_THE_NEWEST, PastTest, Spent, outcome_of};

impl Views {
    /// One test over its runs before that one, the latest where none is named. What is judged is judged by the page's runs.
    pub(crate) async fn test(
        &self,
        project: &str,
        suite: &str,
        id: &str,
        before: Option<u64>,
        limit: Option<u32>,
    ) -> Result<Test, ViewError> {
        let limit = page_size(limit);
        let from = before.map_or(FROM_THE_NEWEST, RunId);
        let past = self.store.past(project, suite, id, from, limit).await?;
        if past.is_empty() && before.is_none() {
            return Err(ViewError::NotFound(format!(
                "no run of {project:?} that has ended has the test {suite}/{id}"
            )));
        }
        let next = (past.len() == limit as usize).then(|| past.last().map(|last| last.run.0)).flatten();
        let latest = match past.first() {
            Some(latest) => self.store.run(latest.run).await?,
            None => None,
        };
        let (owners, quarantine) = match latest {
            Some(row) => {
                let of_run = self.owning.of(&row.header.spec_digest).await;
                (of_run.of_test(id), of_run.quarantine_of(suite, id).map(lines::quarantine))
            }
            None => (Vec::new(), None),
        };
        let cause = self.store.cause(project, suite, id).await?;
        let judgement = flake::judge(&attempts(&past));
        let run_ms: Sketch = past.iter().filter_map(run_ms).collect();
        let seen = |seen: flake::Seen| SeenAt { commit: seen.commit, at_unix_ms: seen.started_unix_ms };
        Ok(Test {
            project: project.to_owned(),
            suite: suite.to_owned(),
            id: id.to_owned(),
            owners,
            quarantine,
            standing: standing(&judgement.standing),
            cause: cause.map(cause_line),
            flakes: lines::rate(judgement.rate),
            first_flake: judgement.first_seen.map(seen),
            last_flake: judgement.last_seen.map(seen),
            run_ms: lines::spread(&run_ms),
            lane_ms: lines::spread(&past.iter().map(|past| spent_in(past).lane_ms()).collect()),
            spent: past.iter().flat_map(|past| &past.test.attempts).collect(),
            shifts: shifts(&past),
            history: Page { items: past.into_iter().map(past_run).collect(), next },
        })
    }
}

fn cause_line(Cause { run, told_unix_ms, finding, said }: Cause) -> CauseLine {
    CauseLine { run: run.0, told_unix_ms, finding, said }
}

const fn standing(standing: &Standing) -> &'static str {
    match standing {
        Standing::Unknown => "unknown",
        Standing::Steady => "steady",
        Standing::Flaky => "flaky",
        Standing::Settled => "settled",
        Standing::Broken { .. } => "broken",
    }
}

/// As they are judged.
pub(crate) fn attempts(past: &[PastTest]) -> Vec<flake::Attempt<'_>> {
    let mut all = Vec::new();
    for past in past {
        let (commit, baseline) = (past.commit.as_str(), past.baseline_key.as_str());
        for attempt in &past.test.attempts {
            if let Some(outcome) = outcome_of(attempt) {
                all.push(flake::Attempt { commit, baseline, started_unix_ms: attempt.started_ms, outcome });
            }
        }
    }
    all
}

fn spent_in(past: &PastTest) -> Spent {
    past.test.attempts.iter().collect()
}

/// How long it took where it passed: what fails fails early or late.
fn run_ms(past: &PastTest) -> Option<u64> {
    let passed = |attempt: &&crate::store::AttemptRow| attempt.outcome == Some(Outcome::Passed);
    past.test.attempts.iter().rev().find(passed).map(|attempt| attempt.run_ms)
}

/// Its cause is told of suites alone: one test has no others to compare with.
fn shifts(past: &[PastTest]) -> Vec<Shift> {
    let timed: Vec<(&PastTest, u64)> =
        past.iter().rev().filter_map(|past| run_ms(past).map(|ms| (past, ms))).collect();
    let run_of = |at: usize| timed[at].0.run.0;
    let points: Vec<Point<'_>> = timed
        .iter()
        .map(|(past, ms)| Point {
            commit: &past.commit,
            at_unix_ms: past.test.attempts.last().map_or(0, |attempt| attempt.started_ms),
            duration_us: ms.saturating_mul(1_000),
            baseline: &past.baseline_key,
            farm: "",
        })
        .collect();
    let name = past.first().map(|past| past.test.id.clone()).unwrap_or_default();
    shift::shifts(&points, &Settings::default())
        .into_iter()
        .map(|shift| Shift::of(&name, run_of(shift.index), &shift, "unclear"))
        .collect()
}

fn past_run(past: PastTest) -> PastRun {
    let count = |is: fn(Judged) -> bool| {
        let ended = past.test.attempts.iter().filter_map(outcome_of);
        u32::try_from(ended.filter(|outcome| is(*outcome)).count()).unwrap_or(u32::MAX)
    };
    let last = past.test.attempts.iter().rev().find(|attempt| attempt.outcome.is_some());
    PastRun {
        passed: count(|outcome| outcome == Judged::Passed),
        failed: count(Judged::is_failure),
        infrastructure: count(|outcome| outcome == Judged::Infrastructure),
        run_ms: last.map_or(0, |last| last.run_ms),
        lane_ms: spent_in(&past).lane_ms(),
        dirtied_bytes: past
            .test
            .attempts
            .iter()
            .filter_map(|attempt| attempt.dirtied_bytes)
            .reduce(u64::saturating_add),
        started_unix_ms: last.map_or(0, |last| last.started_ms),
        is_kept: !past.test.attempts.is_empty(),
        run: past.run.0,
        test: past.test.test.0,
        commit: past.commit,
        git_ref: past.git_ref,
        baseline_key: past.baseline_key,
        verdict: words::verdict(past.test.verdict),
    }
}
