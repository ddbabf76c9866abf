//! One test over its runs, one baseline, one worker.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Page, QuarantineLine, RateView, RunLine, Shift, Spread};
use crate::store::ledger::Spent;

/// One test over its runs.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Test {
    pub(crate) project: String,
    pub(crate) suite: String,
    pub(crate) id: String,
    /// Who owns its file, by the CODEOWNERS of the latest of these runs.
    pub(crate) owners: Vec<String>,
    /// The quarantine that it is in by that commit.
    pub(crate) quarantine: Option<QuarantineLine>,
    /// `unknown`, `steady`, `flaky`, `settled`, `broken`.
    pub(crate) standing: &'static str,
    /// Why it failed, as the last experiments found out.
    pub(crate) cause: Option<CauseLine>,
    /// Failures on commits on which it passed, too.
    pub(crate) flakes: RateView,
    pub(crate) first_flake: Option<SeenAt>,
    pub(crate) last_flake: Option<SeenAt>,
    /// Over the runs of this page.
    pub(crate) run_ms: Spread,
    /// What it costs: lanes are busy with all its attempts of a run for so long.
    pub(crate) lane_ms: Spread,
    /// By its attempts of this page together.
    pub(crate) spent: Spent,
    /// Newest first.
    pub(crate) history: Page<PastRun>,
    pub(crate) shifts: Vec<Shift>,
}

/// Why a test failed, as experiments found out (`andon why`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct CauseLine {
    /// In which it failed.
    pub(crate) run: u64,
    pub(crate) told_unix_ms: u64,
    /// `real`, `flaky`, `polluted`, `worker_specific`, `unclear`.
    pub(crate) finding: String,
    /// For a person.
    pub(crate) said: String,
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
    /// Lanes were busy with all its attempts for so long.
    pub(crate) lane_ms: u64,
    /// By them together; none where nothing was measured.
    pub(crate) dirtied_bytes: Option<u64>,
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
    pub(crate) inexact_stands: Vec<InexactLine>,
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
