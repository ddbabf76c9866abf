//! The ledger: what runs amounted to, entered once after each run's end, and what is read for looking at.
//!
//! An entry is made of what the store itself holds of the run ([`Entering`], pure), so that entering needs no word from the driver: a
//! coordinator that stops in between enters the run after its restart. The run is marked in the transaction that adds its figures to
//! its day's, so that it counts once. Figures stay when the run's tests are deleted (`retention.rs`).

use std::collections::{BTreeMap, BTreeSet};

use andon_core::ids::{LaneIx, Lease, RunId, TestIx, WorkerId};
use andon_core::model::{LeaseKind, Outcome, RunEnd, RunState, Verdict};
use andon_figures::Sketch;
use andon_figures::flow::End;
use andon_figures::shift::Point;
use async_trait::async_trait;

use super::{AttemptRow, Counts, Result, RunRow, TestRow};

pub use super::spent::Spent;
pub use super::tally::Tally;

/// Milliseconds of a day.
pub const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// Owners that one run is entered for, the first by name.
pub const OWNERS_MAX: usize = 200;
/// Distinct projects that are listed.
pub const PROJECTS_MAX: u32 = 200;

/// Which runs, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunsOf {
    /// That have not ended.
    Active,
    /// That have.
    Over,
    /// Of this project.
    Project(String),
    /// Of this project on this branch.
    Ref(String, String),
    /// Of this project and commit.
    Commit(String, String),
    /// Of this project and of commits that begin so.
    CommitsFrom(String, String),
    /// That start from this baseline.
    Baseline(String),
}

/// Which tests of a run, in order.
#[derive(Debug, Clone, Default)]
pub struct TestFilter {
    /// With one of these verdicts, `None` for an open test; empty for all.
    pub verdicts: Vec<Option<Verdict>>,
    /// Of this suite.
    pub suite: Option<String>,
    /// After this place.
    pub after: Option<TestIx>,
    /// At most so many.
    pub limit: u32,
}

/// What the ended attempts of a run on one lane took together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneSums {
    /// Whose lane.
    pub worker: WorkerId,
    /// Which.
    pub lane: LaneIx,
    /// So many attempts.
    pub attempts: u64,
    /// By them.
    pub spent: Spent,
    /// As far as it was measured.
    pub dirtied_bytes: u64,
    /// When the first of them started; 0 where none did.
    pub first_started_ms: u64,
}

/// A test in one of its runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastTest {
    /// The run.
    pub run: RunId,
    /// Its commit,
    pub commit: String,
    /// branch,
    pub git_ref: String,
    /// and baseline.
    pub baseline_key: String,
    /// The test there.
    pub test: TestRow,
}

/// What a run, or one suite of it, amounted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnteredRun {
    /// Empty for the whole run.
    pub suite: String,
    /// Its number.
    pub run: RunId,
    /// Its branch; may be empty.
    pub git_ref: String,
    /// Its commit.
    pub commit: String,
    /// Empty for none.
    pub baseline_key: String,
    /// Something that is the same while the same workers with the same drivers run.
    pub farm: String,
    /// When the commit was first asked for.
    pub pushed_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// How, for this suite.
    pub ending: End,
    /// Tests with a verdict of their own.
    pub tests: u64,
    /// Ended attempts.
    pub attempts: u64,
    /// Tests that failed or ran out of time.
    pub failed: u64,
    /// Tests that passed only after they had failed.
    pub flaky: u64,
    /// Lanes were busy for it.
    pub lane_ms: u64,
    /// What a test takes on average; 0 where none ran.
    pub mean_us: u64,
    /// The median test.
    pub p50_ms: u64,
    /// By its attempts.
    pub spent: Spent,
    /// That had attempts of it.
    pub lanes: u64,
    /// By its attempts, as far as it was measured at the run's end.
    pub dirtied_bytes: u64,
}

impl EnteredRun {
    /// In a series that is looked through for changes.
    #[must_use]
    pub fn point(&self) -> Point<'_> {
        Point {
            commit: &self.commit,
            at_unix_ms: self.ended_ms,
            duration_us: self.mean_us,
            baseline: &self.baseline_key,
            farm: &self.farm,
        }
    }

    /// Attempts beyond the first of each test that got a verdict of its own.
    #[must_use]
    pub const fn retries(&self) -> u64 {
        self.attempts.saturating_sub(self.tests)
    }

    /// Its times say how long the suite takes: what was stopped halfway has the times of its first half.
    #[must_use]
    pub fn is_measure(&self) -> bool {
        self.mean_us > 0 && matches!(self.ending, End::Green | End::Red)
    }
}

/// What is entered of a run that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Whose.
    pub project: String,
    /// The day of its end, counted from 1970.
    pub day: u64,
    /// The whole run (suite ""), then each suite, with what it adds to its day.
    pub suites: Vec<(EnteredRun, Tally)>,
    /// By worker and driver, in microseconds.
    pub rebases: Vec<(WorkerId, String, Sketch)>,
    /// What each owner's tests of it amounted to, by owner; at most [`OWNERS_MAX`].
    pub owners: Vec<(String, EnteredRun)>,
}

/// A test of a run that is entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its place in the run.
    pub test: TestIx,
    /// See [`name_of`].
    pub name: i64,
    /// Who owns it; `None` where this run says nothing of that: it gave no verdict.
    pub owners: Option<Vec<String>>,
}

/// What a run that has ended amounts to, as its tests come: it holds figures, and none of the tests.
#[derive(Debug)]
pub struct Entering<'a> {
    row: &'a RunRow,
    suites: BTreeMap<String, Part>,
    /// The first by name, at most [`OWNERS_MAX`].
    owners: BTreeMap<String, Part>,
    /// Workers with the drivers that they used, and their rebases.
    drivers: BTreeMap<(WorkerId, String), Sketch>,
}

/// Of the tests of a run those of one suite, or of one owner.
#[derive(Debug, Default)]
struct Part {
    tally: Tally,
    lanes: BTreeSet<(WorkerId, LaneIx)>,
}

impl Part {
    fn of_run() -> Self {
        Self { tally: Tally::of_run(), lanes: BTreeSet::new() }
    }

    fn add(&mut self, test: &TestRow) {
        self.tally.add(test);
        let ended = test.attempts.iter().filter(|attempt| attempt.outcome.is_some());
        for (worker, lane) in ended.map(|attempt| (&attempt.worker, attempt.lane)) {
            self.lanes.insert((worker.clone(), lane));
        }
    }
}

impl<'a> Entering<'a> {
    /// Without any test yet.
    #[must_use]
    pub fn of(row: &'a RunRow) -> Self {
        Self { row, suites: BTreeMap::new(), owners: BTreeMap::new(), drivers: BTreeMap::new() }
    }

    /// One of its tests, and who owns it; nobody where nothing is to be said of that.
    pub fn add(&mut self, test: &TestRow, owners: &[String]) {
        add_to(&mut self.suites, &test.suite, test);
        for owner in owners {
            add_to(&mut self.owners, owner, test);
        }
        while self.owners.len() > OWNERS_MAX {
            self.owners.pop_last();
        }
        for attempt in &test.attempts {
            let rebased = attempt.rebase_us > 0;
            if rebased || !attempt.driver.is_empty() {
                let place = (attempt.worker.clone(), attempt.driver.clone());
                let sketch = self.drivers.entry(place).or_default();
                if rebased {
                    sketch.add(attempt.rebase_us);
                }
            }
        }
    }

    /// All of it. `pushed_ms`: when its commit was first asked for.
    #[must_use]
    pub fn end(self, pushed_ms: u64) -> Entry {
        let (row, farm, ending) = (self.row, self.farm(), ending(self.row));
        // A part of a red run is green where none of its own tests failed.
        let entered = |suite: &str, is_part: bool, part: Part| {
            let Part { tally, lanes } = part;
            let ending = match ending {
                End::Red if is_part && tally.failed == 0 => End::Green,
                other => other,
            };
            let run = EnteredRun {
                suite: suite.to_owned(),
                run: row.run,
                git_ref: row.header.git_ref.clone(),
                commit: row.header.commit.clone(),
                baseline_key: row.baseline_key.clone(),
                farm: farm.clone(),
                pushed_ms: pushed_ms.min(row.created_ms),
                ended_ms: row.ended_ms,
                ending,
                tests: tally.tests,
                attempts: tally.attempts,
                failed: tally.failed,
                flaky: tally.flaky,
                lane_ms: tally.lane_ms,
                mean_us: tally.test_ms.mean().map_or(0, |mean| (mean * 1_000.0) as u64),
                p50_ms: tally.test_ms.quantile(0.5).unwrap_or(0),
                spent: tally.spent,
                lanes: lanes.len() as u64,
                dirtied_bytes: u64::try_from(tally.dirtied_bytes.sum()).unwrap_or(u64::MAX),
            };
            (run, tally)
        };
        let mut whole = Part::default();
        for part in self.suites.values() {
            whole.tally.merge(&part.tally);
            whole.lanes.extend(part.lanes.iter().cloned());
        }
        whole.tally.runs = 1;
        let mut suites = vec![entered("", false, whole)];
        let named = self.suites.into_iter().filter(|(suite, _)| !suite.is_empty());
        suites.extend(named.map(|(suite, part)| entered(&suite, true, part)));
        // What was not run says nothing of its owner.
        let ran = self.owners.into_iter().filter(|(_, part)| part.tally.tests > 0);
        let owners = ran.map(|(owner, part)| (owner, entered("", true, part).0)).collect();
        let rebased = self.drivers.into_iter().filter(|(_, sketch)| sketch.count() > 0);
        Entry {
            project: row.header.project.clone(),
            day: row.ended_ms / DAY_MS,
            suites,
            rebases: rebased.map(|((worker, driver), sketch)| (worker, driver, sketch)).collect(),
            owners,
        }
    }

    /// The same while the same workers with the same drivers run.
    fn farm(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (worker, driver) in self.drivers.keys().filter(|(_, driver)| !driver.is_empty()) {
            hasher.update(&(worker.0.len() as u64).to_le_bytes());
            hasher.update(worker.0.as_bytes());
            hasher.update(&(driver.len() as u64).to_le_bytes());
            hasher.update(driver.as_bytes());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }
}

fn add_to(parts: &mut BTreeMap<String, Part>, name: &str, test: &TestRow) {
    match parts.get_mut(name) {
        Some(part) => part.add(test),
        None => parts.entry(name.to_owned()).or_insert_with(Part::of_run).add(test),
    }
}

/// The number by which a test is found over its runs; whoever looks compares the words, too. Never 0.
#[must_use]
pub fn name_of(project: &str, suite: &str, id: &str) -> i64 {
    let mut hasher = blake3::Hasher::new();
    for part in [project, suite, id] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    (i64::from_le_bytes(first) & i64::MAX).max(1)
}

/// It was run, and the farm let it.
pub(crate) fn has_own_verdict(test: &TestRow) -> bool {
    test.verdict.is_some_and(|verdict| !matches!(verdict, Verdict::Infrastructure | Verdict::NotRun))
}

pub(crate) fn ending(row: &RunRow) -> End {
    match row.state {
        RunState::Ended(RunEnd::Passed) => End::Green,
        RunState::Ended(RunEnd::Incomplete) if row.reason.starts_with("superseded") => End::Superseded,
        RunState::Ended(RunEnd::Incomplete) if row.reason.starts_with("cancelled") => End::Cancelled,
        // The cord: it stopped because tests failed.
        RunState::Ended(RunEnd::Incomplete) if row.counts.failed + row.counts.timed_out > 0 => End::Red,
        RunState::Ended(RunEnd::Incomplete) => End::Infrastructure,
        _ => End::Red,
    }
}

/// How an attempt ended, in the words of the figures; `None` while it is out.
#[must_use]
pub fn outcome_of(attempt: &AttemptRow) -> Option<andon_figures::Outcome> {
    attempt.outcome.map(|outcome| match outcome {
        Outcome::Passed => andon_figures::Outcome::Passed,
        Outcome::Failed => andon_figures::Outcome::Failed,
        Outcome::TimedOut => andon_figures::Outcome::TimedOut,
        Outcome::Skipped => andon_figures::Outcome::Skipped,
        Outcome::Infrastructure => andon_figures::Outcome::Infrastructure,
        Outcome::Cancelled => andon_figures::Outcome::Cancelled,
    })
}

/// The part of the seam that looks: each answer comes from an index and is as long as was asked for, at most.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Runs that have ended and were not entered, by number.
    async fn to_enter(&self, limit: u32) -> Result<Vec<RunId>>;
    /// Gives tests of a run the [numbers](name_of) by which they are found over their runs, and to their owners. One
    /// transaction, which a round may have to wait for: a page of them at a time.
    async fn name_tests(&self, run: RunId, names: &[Named]) -> Result<()>;
    /// Enters a run; one that was entered before changes nothing.
    async fn enter(&self, entry: &Entry) -> Result<()>;
    /// When a run of this commit was first asked for.
    async fn pushed_ms(&self, project: &str, commit: &str) -> Result<Option<u64>>;
    /// The change points of a suite on a branch, as JSON, in place of what was there.
    async fn put_shifts(&self, project: &str, git_ref: &str, suite: &str, shifts: &str) -> Result<()>;
    /// Branch, suite and change points as they were put; of one branch or of all, at most so many.
    async fn shifts(
        &self,
        project: &str,
        git_ref: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, String, String)>>;
    /// What runs (suite "") or a suite of them amounted to, newest first; on one branch or on all.
    async fn entered(
        &self,
        project: &str,
        suite: &str,
        git_ref: Option<&str>,
        before: RunId,
        limit: u32,
    ) -> Result<Vec<EnteredRun>>;
    /// Day, suite ("" for all) and figures from a day on, the oldest first.
    async fn days(&self, project: &str, from_day: u64, limit: u32) -> Result<Vec<(u64, String, Tally)>>;
    /// Day, driver and rebases of a worker, in microseconds, from a day on, the oldest first.
    async fn rebase_days(
        &self,
        worker: &str,
        from_day: u64,
        limit: u32,
    ) -> Result<Vec<(u64, String, Sketch)>>;
    /// Names of projects that have a run, in order.
    async fn projects(&self) -> Result<Vec<String>>;
    /// Runs before that one, newest first.
    async fn runs_of(&self, of: &RunsOf, before: RunId, limit: u32) -> Result<Vec<RunRow>>;
    /// Tests of a run, in order, with their attempts.
    async fn tests_of(&self, run: RunId, filter: &TestFilter) -> Result<Vec<TestRow>>;
    /// A run's tests by suite and verdict.
    async fn suites_of(&self, run: RunId) -> Result<Vec<(String, Counts)>>;
    /// What its ended attempts took, by lane.
    async fn lanes_of(&self, run: RunId) -> Result<Vec<LaneSums>>;
    /// Driver and microseconds of its rebases.
    async fn rebases_of(&self, run: RunId, limit: u32) -> Result<Vec<(String, u64)>>;
    /// Its attempts by number, each with its test, suite and id.
    async fn attempts_of(&self, run: RunId, limit: u32) -> Result<Vec<(TestIx, String, String, AttemptRow)>>;
    /// A test in its runs before that one that were entered, newest first.
    async fn past(
        &self,
        project: &str,
        suite: &str,
        id: &str,
        before: RunId,
        limit: u32,
    ) -> Result<Vec<PastTest>>;
    /// What a worker has out, by lane.
    async fn out(&self, worker: &str) -> Result<Vec<(LaneIx, Lease, LeaseKind)>>;
}

/// No number of a run or attempt is as high.
pub const FROM_THE_NEWEST: RunId = RunId(i64::MAX as u64);
