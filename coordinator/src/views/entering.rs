//! Runs that have ended are entered into the ledger, one after the other, behind the driver's back: the store knows which were not.

use std::sync::Arc;
use std::time::Duration;

use andon_core::ids::RunId;
use andon_figures::shift::{self, Cause, Series, Settings};

use super::Shift;
use crate::owning::{Owning, RunOwners};
use crate::store::ledger::{
    EnteredRun, Entering, Entry, FROM_THE_NEWEST, Named, TestFilter, has_own_verdict, name_of,
};
use crate::store::{RunRow, Store, StoreError};
use crate::traces::Traces;

/// Between two looks; a run's figures are there so long after its end, at most.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After a store that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// Runs of one look.
const RUNS_MAX: u32 = 20;
/// Tests that are read, and named, at a time: a round may have to wait for it.
const TESTS_MAX: u32 = 500;
/// Points of a suite's series.
pub const POINTS_MAX: u32 = 300;
/// Suites of a project that are compared with each other.
const SUITES_MAX: usize = 50;

/// Enters runs as they end, and offers each as a trace. Never ends itself.
pub(crate) async fn run(store: Arc<dyn Store>, owning: Owning, traces: Option<Traces>) {
    let entered = |run| {
        if let Some(traces) = &traces {
            traces.offer(run);
        }
    };
    loop {
        let pause = match step(&*store, &owning, entered).await {
            Ok(0) => LOOK_EVERY,
            Ok(_) => Duration::ZERO,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot enter runs into the ledger");
                AFTER_FAILURE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Enters the runs that wait for it, tells of each, and answers how many there were.
pub(crate) async fn step(
    store: &dyn Store,
    owning: &Owning,
    entered: impl Fn(RunId),
) -> Result<usize, StoreError> {
    let runs = store.to_enter(RUNS_MAX).await?;
    for run in &runs {
        enter(store, owning, *run).await?;
        entered(*run);
    }
    Ok(runs.len())
}

async fn enter(store: &dyn Store, owning: &Owning, run: RunId) -> Result<(), StoreError> {
    let Some(row) = store.run(run).await? else { return Ok(()) };
    let owners = owning.of(&row.header.spec_digest).await;
    let entry = amount(store, &row, &owners).await?;
    store.enter(&entry).await?;
    if !row.header.git_ref.is_empty() {
        judge(store, &entry, &row.header.git_ref).await?;
    }
    Ok(())
}

/// What a run amounts to, read a page of tests at a time however many it has. Each test is given the name by which it is found, and to
/// its owners.
pub(crate) async fn amount(store: &dyn Store, row: &RunRow, owners: &RunOwners) -> Result<Entry, StoreError> {
    let project = &row.header.project;
    let pushed_ms = store.pushed_ms(project, &row.header.commit).await?.unwrap_or(row.created_ms);
    let mut entering = Entering::of(row);
    let mut filter = TestFilter { limit: TESTS_MAX, ..TestFilter::default() };
    loop {
        let tests = store.tests_of(row.run, &filter).await?;
        let mut names = Vec::with_capacity(tests.len());
        for (test, of) in tests.iter().zip(owners.of_tests(tests.iter().map(|test| test.id.as_str()))) {
            entering.add(test, &of);
            let is_told = has_own_verdict(test) && !owners.is_silent();
            let name = name_of(project, &test.suite, &test.id);
            names.push(Named { test: test.test, name, owners: is_told.then_some(of) });
        }
        store.name_tests(row.run, &names).await?;
        filter.after = tests.last().map(|last| last.test);
        if tests.len() < TESTS_MAX as usize {
            return Ok(entering.end(pushed_ms));
        }
    }
}

/// Which commits made suites of this line slower or faster, judged anew for the suites that ran.
async fn judge(store: &dyn Store, entry: &Entry, git_ref: &str) -> Result<(), StoreError> {
    let mut lines: Vec<(String, Vec<EnteredRun>)> = Vec::new();
    for (run, _) in entry.suites.iter().filter(|(run, _)| !run.suite.is_empty()).take(SUITES_MAX) {
        let mut line =
            store.entered(&entry.project, &run.suite, Some(git_ref), FROM_THE_NEWEST, POINTS_MAX).await?;
        line.retain(EnteredRun::is_measure);
        line.reverse();
        lines.push((run.suite.clone(), line));
    }
    let project = entry.project.clone();
    // Permutations take a while, and the runtime has others to serve.
    let judged = tokio::task::spawn_blocking(move || shifts(&project, &lines)).await;
    for (suite, shifts) in judged.expect("figures do not panic") {
        let json = serde_json::to_string(&shifts).expect("texts and numbers are valid JSON");
        store.put_shifts(&entry.project, git_ref, &suite, &json).await?;
    }
    Ok(())
}

fn shifts(project: &str, lines: &[(String, Vec<EnteredRun>)]) -> Vec<(String, Vec<Shift>)> {
    let all: Vec<Series<'_>> = lines
        .iter()
        .map(|(name, line)| Series { project, name, points: line.iter().map(EnteredRun::point).collect() })
        .collect();
    let of = |(at, series): (usize, &Series<'_>)| {
        let found = shift::shifts(&series.points, &Settings::default());
        let told = found.iter().map(|found| {
            let cause = match shift::attribute(found, series, &all).cause {
                Cause::Code => "code",
                Cause::Baseline => "baseline",
                Cause::Farm => "farm",
                Cause::Unclear => "unclear",
            };
            Shift::of(series.name, lines[at].1[found.index].run.0, found, cause)
        });
        (lines[at].0.clone(), told.collect())
    };
    all.iter().enumerate().map(of).collect()
}
