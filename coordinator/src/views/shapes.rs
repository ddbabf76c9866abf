//! The shapes of the answers. They are the JSON API, too: fields are added, never renamed or removed.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::store::Counts;

/// Whether the line flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LineState {
    /// Nothing is asked of it.
    Idle,
    /// Work is done as it comes.
    Flows,
    /// It works, but something needs a look.
    Slow,
    /// Work waits and nobody can do it.
    Stands,
}

/// The line, and why it is judged so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Line {
    pub(crate) state: LineState,
    /// For a person, the worst first; empty where nothing needs saying.
    pub(crate) reasons: Vec<String>,
}

/// The farm on one page.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Overview {
    pub(crate) now_unix_ms: u64,
    pub(crate) line: Line,
    /// Runs that wait for their first lane.
    pub(crate) runs_queued: u32,
    /// Runs that are worked on.
    pub(crate) runs_running: u32,
    /// Tests without a verdict in those runs.
    pub(crate) tests_open: u32,
    /// Attempts that are out.
    pub(crate) tests_running: u32,
    pub(crate) workers_connected: u32,
    pub(crate) lanes: u32,
    pub(crate) lanes_busy: u32,
    /// Runs that have not ended, the oldest first.
    pub(crate) active: Vec<RunLine>,
    pub(crate) workers: Vec<WorkerLine>,
    /// Where the cord was pulled of late, the latest first.
    pub(crate) cords: Vec<CordPulled>,
    /// Runs that have ended, the latest first.
    pub(crate) recent: Vec<RunLine>,
    pub(crate) projects: Vec<ProjectLine>,
}

/// A run that stopped early.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct CordPulled {
    pub(crate) run: u64,
    pub(crate) project: String,
    pub(crate) reason: String,
    pub(crate) at_unix_ms: u64,
}

/// A project among others.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ProjectLine {
    pub(crate) project: String,
    /// Its latest run.
    pub(crate) latest: RunLine,
    /// How its latest verdicts were, the oldest first: at most [`super::STRIP_MAX`].
    pub(crate) strip: Vec<StripRun>,
}

/// One run of a strip.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct StripRun {
    pub(crate) run: u64,
    pub(crate) commit: String,
    pub(crate) state: &'static str,
    pub(crate) lead_ms: Option<u64>,
}

/// A run in a list.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct RunLine {
    pub(crate) run: u64,
    pub(crate) project: String,
    pub(crate) repository: String,
    pub(crate) commit: String,
    /// Empty where a bare commit was asked for.
    #[serde(rename = "ref")]
    pub(crate) git_ref: String,
    /// `push`, `person`, `rerun`, `scheduled`.
    pub(crate) trigger: &'static str,
    pub(crate) requested_by: String,
    pub(crate) rerun_of: Option<u64>,
    /// `queued`, `preparing`, `discovering`, `running`, `passed`, `failed`, `no_tests`, `config_error`, `baseline_failed`, `incomplete`.
    pub(crate) state: &'static str,
    pub(crate) over: bool,
    /// Why it is in that state, where that needs saying.
    pub(crate) reason: String,
    /// Empty while it is not pinned.
    pub(crate) baseline_key: String,
    pub(crate) created_unix_ms: u64,
    pub(crate) started_unix_ms: Option<u64>,
    pub(crate) ended_unix_ms: Option<u64>,
    /// From its submission to its end.
    pub(crate) wall_ms: Option<u64>,
    /// From its submission to its first lease.
    pub(crate) queue_ms: Option<u64>,
    /// Its tests and logs were deleted: it ended too long ago.
    pub(crate) forgotten: bool,
    pub(crate) total: u32,
    pub(crate) counts: Counts,
    /// Tests with a verdict a minute, from its start on; of a run that has ended.
    pub(crate) tests_per_minute: Option<f64>,
}

/// A page of a list. `next` asks for what follows; `None` at the end.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<u64>,
}

/// What is asked of a project.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProjectAsk {
    /// Only runs before this one: the page after.
    pub(crate) before: Option<u64>,
    /// Runs a page.
    pub(crate) limit: Option<u32>,
    /// Only this branch: `refs/heads/main`, or `main`.
    #[serde(rename = "ref")]
    pub(crate) git_ref: Option<String>,
    /// Days of figures, today the last.
    pub(crate) days: Option<u32>,
}

/// One project.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Project {
    pub(crate) project: String,
    pub(crate) now_unix_ms: u64,
    /// Newest first.
    pub(crate) runs: Page<ProjectRun>,
    /// Branches of its latest runs.
    pub(crate) refs: Vec<String>,
    pub(crate) suites: Vec<SuiteLine>,
    pub(crate) flow: Flow,
    /// One for each day on which something ended, the oldest first.
    pub(crate) days: Vec<Day>,
    /// Which commits changed how long it takes, the oldest first.
    pub(crate) shifts: Vec<Shift>,
}

/// A run of a project, as the chart shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ProjectRun {
    #[serde(flatten)]
    pub(crate) line: RunLine,
    /// From the push (the commit's first run) to this run's verdict; none without one.
    pub(crate) lead_ms: Option<u64>,
    /// What lanes worked for it, together.
    pub(crate) lane_ms: Option<u64>,
    /// Median of its tests' own time.
    pub(crate) test_p50_ms: Option<u64>,
    /// Its baseline is another than the one of the run before it on this page.
    pub(crate) baseline_changed: bool,
}

/// A suite of a project over the days that were asked for.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct SuiteLine {
    pub(crate) suite: String,
    pub(crate) figures: Figures,
    /// A day each, the oldest first.
    pub(crate) days: Vec<Day>,
}

/// How a line flows, over the days that were asked for. See docs/figures.md.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Flow {
    /// What it is told of: a branch, or all where none was asked for.
    #[serde(rename = "ref")]
    pub(crate) git_ref: Option<String>,
    /// So many runs were looked at.
    pub(crate) runs: u32,
    /// Push to verdict.
    pub(crate) lead_p50_ms: Option<u64>,
    pub(crate) lead_p90_ms: Option<u64>,
    /// Commits that got no verdict.
    pub(crate) without_verdict: u64,
    /// Red to green, of outages that ended.
    pub(crate) restore_p50_ms: Option<u64>,
    /// The line is red since.
    pub(crate) red_since_unix_ms: Option<u64>,
    /// The commit that turned it red.
    pub(crate) red_commit: Option<String>,
    pub(crate) change_failures: RateView,
    pub(crate) flakes: RateView,
    pub(crate) cost: CostView,
}

/// A share with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub(crate) struct RateView {
    pub(crate) hits: u64,
    pub(crate) of: u64,
    /// `None` of nothing.
    pub(crate) share: Option<f64>,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Lane-seconds by what came of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub(crate) struct CostView {
    pub(crate) lane_seconds: f64,
    pub(crate) judged: f64,
    pub(crate) stopped: f64,
    pub(crate) lost: f64,
}

/// Numbers of tests over some time. Percentiles are off by at most 0.8 % of themselves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Figures {
    pub(crate) runs: u64,
    pub(crate) tests: u64,
    pub(crate) attempts: u64,
    pub(crate) failed: u64,
    pub(crate) flaky: u64,
    pub(crate) infrastructure: u64,
    /// Lanes were busy for so long.
    pub(crate) lane_seconds: f64,
    pub(crate) test_ms: Spread,
    pub(crate) queue_ms: Spread,
    pub(crate) prepare_ms: Spread,
    pub(crate) rebase_us: Spread,
    pub(crate) dirtied_bytes: Spread,
}

/// Percentiles of a sketch; `None` of nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Spread {
    pub(crate) count: u64,
    pub(crate) p50: Option<u64>,
    pub(crate) p90: Option<u64>,
    pub(crate) p99: Option<u64>,
    pub(crate) max: Option<u64>,
}

/// One day of UTC.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Day {
    /// Its first moment.
    pub(crate) day_unix_ms: u64,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// A commit from which on it takes longer, or less long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Shift {
    /// The suite, or the test.
    pub(crate) name: String,
    pub(crate) run: u64,
    pub(crate) commit: String,
    /// The commit measured before: what lies between may have done it, too.
    pub(crate) previous: String,
    pub(crate) at_unix_ms: u64,
    pub(crate) before_ms: f64,
    pub(crate) after_ms: f64,
    /// 1.5 for half as long again.
    pub(crate) ratio: f64,
    /// That there is a change at all.
    pub(crate) confidence: f64,
    /// That it was this commit and none near by.
    pub(crate) share: f64,
    /// `code`, `baseline`, `farm`, `unclear`.
    pub(crate) cause: String,
}

impl Shift {
    /// As it was found in a series; `run` is of its first point.
    pub(super) fn of(name: &str, run: u64, found: &andon_figures::shift::Shift, cause: &str) -> Self {
        Self {
            name: name.to_owned(),
            run,
            commit: found.commit.clone(),
            previous: found.previous.clone(),
            at_unix_ms: found.at_unix_ms,
            before_ms: found.before_us / 1_000.0,
            after_ms: found.after_us / 1_000.0,
            ratio: found.ratio(),
            confidence: found.confidence(),
            share: found.share,
            cause: cause.to_owned(),
        }
    }
}

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
    /// Failed, timed out, infrastructure, then flaky; at most [`super::FAILURES_MAX`].
    pub(crate) failures: Vec<Failure>,
    /// So many more are not shown here.
    pub(crate) failures_left_out: u32,
    /// The run's own log, the oldest first; at most [`super::NOTES_MAX`].
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
    /// First test to the run's end.
    pub(crate) testing_ms: Option<u64>,
    /// Sums over attempts.
    pub(crate) attempts: u64,
    pub(crate) attempts_queue_ms: u64,
    pub(crate) attempts_prepare_ms: u64,
    pub(crate) attempts_rebase_us: u64,
    pub(crate) attempts_run_ms: u64,
    pub(crate) dirtied_bytes: u64,
}

/// A run's tests of one suite, by verdict.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct SuiteCounts {
    pub(crate) suite: String,
    pub(crate) total: u32,
    pub(crate) counts: Counts,
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
    /// `test`, `timeout`, `infrastructure`, `flaky`: whose doing it was.
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
    /// `open`, `passed`, `failed`, `flaky`, `timed_out`, `skipped`, `infrastructure`, `not_run`.
    pub(crate) verdict: &'static str,
    pub(crate) attempts: u32,
    /// Of its last attempt.
    pub(crate) run_ms: Option<u64>,
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
    /// Attempts that found no room: at most [`super::SPANS_MAX`] are shown.
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

/// One attempt: rebase and preparation before `started_unix_ms`, the test after it.
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
    pub(crate) rebase_us: u64,
    pub(crate) run_ms: u64,
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
    pub(crate) rebase_us: u64,
    pub(crate) run_ms: u64,
    pub(crate) dirtied_bytes: Option<u64>,
    pub(crate) message: String,
}

/// One test over its runs.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Test {
    pub(crate) project: String,
    pub(crate) suite: String,
    pub(crate) id: String,
    /// `unknown`, `steady`, `flaky`, `settled`, `broken`.
    pub(crate) standing: &'static str,
    /// Failures on commits on which it passed, too.
    pub(crate) flakes: RateView,
    pub(crate) first_flake: Option<SeenAt>,
    pub(crate) last_flake: Option<SeenAt>,
    /// Over the runs of this page.
    pub(crate) run_ms: Spread,
    /// Newest first.
    pub(crate) history: Page<PastRun>,
    pub(crate) shifts: Vec<Shift>,
}

/// When a flake was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct SeenAt {
    pub(crate) commit: String,
    pub(crate) at_unix_ms: u64,
}

/// A test in one of its runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct PastRun {
    pub(crate) run: u64,
    /// Its place in that run.
    pub(crate) test: u32,
    pub(crate) commit: String,
    #[serde(rename = "ref")]
    pub(crate) git_ref: String,
    pub(crate) baseline_key: String,
    pub(crate) verdict: &'static str,
    /// Attempts that passed,
    pub(crate) passed: u32,
    /// failed or ran out of time,
    pub(crate) failed: u32,
    /// or were spoiled by the farm.
    pub(crate) infrastructure: u32,
    /// Of its last attempt.
    pub(crate) run_ms: u64,
    pub(crate) started_unix_ms: u64,
    /// Its attempts are still there to be looked at.
    pub(crate) is_kept: bool,
}

/// A baseline in a list.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct BaselineLine {
    pub(crate) key: String,
    pub(crate) project: String,
    pub(crate) built_unix_ms: u64,
    pub(crate) build_ms: u64,
    pub(crate) bytes: u64,
    /// Empty where it was built from nothing.
    pub(crate) parent_key: String,
    pub(crate) root_key: String,
}

/// One baseline.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Baseline {
    #[serde(flatten)]
    pub(crate) line: BaselineLine,
    /// Where it lies in a registry; empty where its blobs are in the coordinator's store.
    pub(crate) artifact: String,
    /// OCI annotations, Andon's own (`dev.andon.…`) and the user's.
    pub(crate) labels: BTreeMap<String, String>,
    /// What it was built on, the nearest first; those that are still published have their facts.
    pub(crate) ancestors: Vec<Ancestor>,
    pub(crate) steps: Vec<BaselineStep>,
    pub(crate) services: Vec<BaselineService>,
    pub(crate) trees: Vec<BaselineTree>,
    /// Runs that started from it, the latest first.
    pub(crate) runs: Vec<RunLine>,
}

/// What a baseline was built on.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Ancestor {
    pub(crate) key: String,
    /// `None` where it is not published any more.
    pub(crate) line: Option<BaselineLine>,
}

/// A seeding step.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct BaselineStep {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) run: Vec<String>,
    pub(crate) took_ms: u64,
}

/// A service of a baseline's stack.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct BaselineService {
    pub(crate) name: String,
    pub(crate) reference: String,
    pub(crate) image_id: String,
    pub(crate) build_key: String,
}

/// A tree of files of a baseline.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct BaselineTree {
    pub(crate) name: String,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) blob_bytes: u64,
    pub(crate) tree_digest: String,
}

/// A worker in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct WorkerLine {
    pub(crate) name: String,
    pub(crate) connected: bool,
    pub(crate) connected_unix_ms: u64,
    pub(crate) lanes: u32,
    pub(crate) lanes_busy: u32,
    pub(crate) version: String,
    /// How its pool copies: `reflink`, `btrfs`, `overlay`, `copy`.
    pub(crate) pool: String,
    /// How it rebases.
    pub(crate) driver: String,
    /// Why it takes no work; empty where it does.
    pub(crate) unfit: String,
    /// Rebases that were not exact, of those that are remembered.
    pub(crate) inexact: u64,
    /// Of the pool's file system; `None` where the worker did not say.
    pub(crate) disk_free_bytes: Option<u64>,
    pub(crate) disk_bytes: Option<u64>,
}

/// One worker.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Worker {
    #[serde(flatten)]
    pub(crate) line: WorkerLine,
    pub(crate) now_unix_ms: u64,
    /// What its lanes have out, by lane; idle ones are not listed.
    pub(crate) busy: Vec<BusyLane>,
    /// A day and driver each, the oldest first.
    pub(crate) rebases: Vec<RebaseDay>,
    /// The latest first.
    pub(crate) inexact: Vec<InexactLine>,
}

/// A lane that has work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct BusyLane {
    pub(crate) lane: u32,
    pub(crate) run: u64,
    /// `baseline`, `discover`, `unit`.
    pub(crate) work: &'static str,
    /// Of a discovery.
    pub(crate) suite: String,
}

/// Rebases of one driver on one worker on one day.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct RebaseDay {
    pub(crate) day_unix_ms: u64,
    pub(crate) driver: String,
    pub(crate) rebase_us: Spread,
}

/// A stand that was not exact after a rebase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct InexactLine {
    pub(crate) found_unix_ms: u64,
    pub(crate) lane: u32,
    pub(crate) run: Option<u64>,
    pub(crate) suite: String,
    pub(crate) baseline_key: String,
    pub(crate) driver: String,
    /// In words.
    pub(crate) said: String,
}

/// A line of a run's own log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct NoteLine {
    pub(crate) at_unix_ms: u64,
    pub(crate) text: String,
}
