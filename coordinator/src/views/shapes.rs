//! The shapes of the answers. They are the JSON API, too: fields are added, never renamed or removed.

mod owner;
mod project;
mod run;
mod things;

use schemars::JsonSchema;
use serde::Serialize;

use crate::store::Counts;
pub(crate) use owner::*;
pub(crate) use project::*;
pub(crate) use run::*;
pub(crate) use things::*;

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
    /// How its latest verdicts were, the oldest first: at most [`crate::views::STRIP_MAX`].
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
    /// From there until its baseline was there: built, or found.
    pub(crate) baseline_ms: Option<u64>,
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
