//! One run, its tests, its lanes over time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NoteLine, RunLine, Spread};
use crate::store::Counts;
use crate::store::ledger::Spent;

/// One run.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Run {
    #[serde(flatten)]
    pub(crate) line: RunLine,
    pub(crate) now_unix_ms: u64,
    pub(crate) spec_digest: String,
    /// Where its time went.
    pub(crate) phases: Phases,
    pub(crate) suites: Vec<SuiteCounts>,
    pub(crate) lanes: Vec<LaneLoad>,
    /// By driver.
    pub(crate) rebases: Vec<DriverRebases>,
    /// Failed, timed out, infrastructure, quarantined, then flaky; at most [`crate::views::FAILURES_MAX`].
    pub(crate) failures: Vec<Failure>,
    /// So many more are not shown here.
    pub(crate) failures_left_out: u32,
    /// The run's own log, the oldest first; at most [`crate::views::NOTES_MAX`].
    pub(crate) notes: Vec<NoteLine>,
    /// Other runs of the same commit, the latest first.
    pub(crate) same_commit: Vec<RunLine>,
}

/// Where a run's time went: its own wall time, then what its attempts took together.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub(crate) struct Phases {
    /// Submission to first lease.
    pub(crate) queue_ms: Option<u64>,
    /// First lease to the first test: baseline, discovery.
    pub(crate) set_up_ms: Option<u64>,
    /// Of that, until the baseline was there: built, or found.
    pub(crate) baseline_ms: Option<u64>,
    /// Of that, from there on.
    pub(crate) discovery_ms: Option<u64>,
    /// First test to the run's end.
    pub(crate) testing_ms: Option<u64>,
    /// Sums over attempts.
    pub(crate) attempts: u64,
    pub(crate) attempts_queue_ms: u64,
    pub(crate) attempts_prepare_ms: u64,
    pub(crate) attempts_rebase_us: u64,
    pub(crate) attempts_run_ms: u64,
    pub(crate) dirtied_bytes: u64,
    /// The same sums in finer parts: `attempts_prepare_ms` is set-up and start.
    pub(crate) spent: Spent,
}

/// A run's tests of one suite, by verdict.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct SuiteCounts {
    pub(crate) suite: String,
    pub(crate) total: u32,
    pub(crate) counts: Counts,
    /// What the ledger knows of it; none before the run is in it.
    pub(crate) entered: Option<SuiteEntered>,
}

/// What a suite of a run amounted to.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct SuiteEntered {
    /// Lanes were busy for it.
    pub(crate) lane_ms: u64,
    /// On what; with the queue, which is no lane's time.
    pub(crate) spent: Spent,
    /// That worked for it.
    pub(crate) lanes: u64,
    /// Tests with a verdict, a minute of lane time.
    pub(crate) tests_per_lane_minute: Option<f64>,
    pub(crate) attempts: u64,
    /// Attempts beyond the first of each test.
    pub(crate) retries: u64,
    /// As far as it was measured at the run's end.
    pub(crate) dirtied_bytes: u64,
}

/// What one lane did for a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct LaneLoad {
    pub(crate) worker: String,
    pub(crate) lane: u32,
    pub(crate) attempts: u64,
    pub(crate) busy_ms: u64,
}

/// Rebases of one driver.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct DriverRebases {
    pub(crate) driver: String,
    pub(crate) rebase_us: Spread,
}

/// A test that a person has to look at.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Failure {
    #[serde(flatten)]
    pub(crate) test: TestLine,
    /// `test`, `timeout`, `infrastructure`, `quarantined`, `flaky`: whose doing it was.
    pub(crate) class: &'static str,
    /// First lines of the failure.
    pub(crate) message: String,
    /// The last lines of what the failed attempt printed; lossy UTF-8, not escaped.
    pub(crate) excerpt: Vec<String>,
    /// The attempt that they are of.
    pub(crate) attempt: Option<u64>,
}

/// A test of a run.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct TestLine {
    /// Its place in the run, from 0.
    pub(crate) test: u32,
    pub(crate) suite: String,
    pub(crate) id: String,
    /// `open`, `passed`, `failed`, `flaky`, `timed_out`, `skipped`, `infrastructure`, `not_run`, `quarantined`.
    pub(crate) verdict: &'static str,
    pub(crate) attempts: u32,
    /// Of its last attempt.
    pub(crate) run_ms: Option<u64>,
    /// Who owns its file, by the CODEOWNERS of the run's commit.
    pub(crate) owners: Vec<String>,
    /// The quarantine that it is in by the run's own commit, whether that holds or not: the verdict says so.
    pub(crate) quarantine: Option<QuarantineLine>,
}

/// A test may fail without blocking, until a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct QuarantineLine {
    /// Who looks after it.
    pub(crate) owner: String,
    /// It has ended from then on.
    pub(crate) until_unix_ms: u64,
    /// May be empty.
    pub(crate) reason: String,
}

/// What is asked of a run's tests.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestsAsk {
    /// Only tests after this place: the page after.
    pub(crate) after: Option<u32>,
    /// Tests a page.
    pub(crate) limit: Option<u32>,
    /// Only this verdict, in the words of [`TestLine::verdict`].
    pub(crate) verdict: Option<String>,
    /// Only this suite.
    pub(crate) suite: Option<String>,
}

/// A run's lanes over time.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Timeline {
    pub(crate) run: u64,
    pub(crate) from_unix_ms: u64,
    pub(crate) to_unix_ms: u64,
    pub(crate) lanes: Vec<TimelineLane>,
    /// Attempts that found no room: at most [`crate::views::SPANS_MAX`] are shown.
    pub(crate) left_out: u64,
}

/// One lane of it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct TimelineLane {
    pub(crate) worker: String,
    pub(crate) lane: u32,
    /// As they started.
    pub(crate) spans: Vec<Span>,
}

/// One attempt: rebase and preparation (of which `start_ms` were its runner's) before `started_unix_ms`, the test and its report after it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Span {
    pub(crate) test: u32,
    pub(crate) suite: String,
    pub(crate) id: String,
    pub(crate) attempt: u64,
    /// `open`, `passed`, `failed`, `skipped`, `timed_out`, `infrastructure`, `cancelled`.
    pub(crate) outcome: &'static str,
    pub(crate) started_unix_ms: u64,
    pub(crate) prepare_ms: u64,
    pub(crate) start_ms: u64,
    pub(crate) rebase_us: u64,
    pub(crate) run_ms: u64,
    pub(crate) report_us: u64,
}

/// One test in one run.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct TestOfRun {
    pub(crate) run: RunLine,
    #[serde(flatten)]
    pub(crate) test: TestLine,
    pub(crate) all_attempts: Vec<AttemptLine>,
}

/// One attempt.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct AttemptLine {
    pub(crate) attempt: u64,
    /// Attempts with one unit shared a rebase.
    pub(crate) unit: u64,
    pub(crate) worker: String,
    pub(crate) lane: u32,
    pub(crate) driver: String,
    pub(crate) outcome: &'static str,
    pub(crate) started_unix_ms: Option<u64>,
    pub(crate) queue_ms: u64,
    pub(crate) prepare_ms: u64,
    /// Of `prepare_ms`, the runner's start.
    pub(crate) start_ms: u64,
    pub(crate) rebase_us: u64,
    pub(crate) run_ms: u64,
    /// From the test's end until its result was on its way.
    pub(crate) report_us: u64,
    pub(crate) dirtied_bytes: Option<u64>,
    pub(crate) message: String,
}
