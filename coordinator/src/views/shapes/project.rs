//! One project: flow, days, suites, change points.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Page, RunLine};
use crate::store::ledger::Spent;

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
    /// On what; with the queue, which is no lane's time.
    pub(crate) spent: Option<Spent>,
    /// That worked for it,
    pub(crate) lanes: Option<u64>,
    /// attempts beyond the first of each test,
    pub(crate) retries: Option<u64>,
    /// and what its tests dirtied, as far as it was measured.
    pub(crate) dirtied_bytes: Option<u64>,
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
    /// How its line flows, as the project's; none for a suite beyond the first [`crate::views::SUITE_FLOWS_MAX`].
    pub(crate) flow: Option<Flow>,
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
    /// Starts of runners.
    pub(crate) start_ms: Spread,
    /// From a test's end until its result was on its way.
    pub(crate) report_us: Spread,
    /// By all attempts together.
    pub(crate) spent: Spent,
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
    pub(in crate::views) fn of(
        name: &str,
        run: u64,
        found: &andon_figures::shift::Shift,
        cause: &str,
    ) -> Self {
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
