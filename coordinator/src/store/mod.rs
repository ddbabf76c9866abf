//! The store: one narrow seam. Records of the core go in, in one transaction each time; rows come out.
//!
//! Implementations: [`sqlite`] (embedded, durable), [`postgres`] (a server's), [`memory`] (for tests). `conformance.rs` holds the cases that
//! each of them must pass.

mod codes;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod leading;
pub mod ledger;
mod location;
pub mod memory;
mod migrations;
mod outputs;
pub mod owned;
pub mod postgres;
mod round;
mod spent;
pub mod sqlite;
mod tally;
#[cfg(test)]
mod testing;

use std::collections::HashMap;

use andon_core::ids::{AttemptId, Fence, LaneIx, Lease, RunId, TestIx, WorkId, WorkerId};
use andon_core::inexact::Inexact;
use andon_core::model::{Artifacts, LeaseKind, Outcome, Record, RunHeader, RunState, Verdict};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// Why the store could not do what was asked. Nothing of the request was done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database said no.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// The database is of a newer Andon, or its history was changed.
    #[error("the database's schema does not fit this version of andon")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// What tests print could not be written beside the database.
    #[error("the output of tests cannot be written")]
    Outputs(#[source] std::io::Error),
    /// SQLite does not work over a network.
    #[error("{} is on a network file system ({name}), where SQLite loses data: use a folder of this machine, or PostgreSQL (--store)", folder.display())]
    Remote {
        /// Where the file was to be.
        folder: std::path::PathBuf,
        /// Which file system.
        name: &'static str,
    },
    /// Somebody else owns the database.
    #[error("another coordinator leads this farm: its database is locked")]
    Led,
    /// Somebody else owns the database by now: nothing is written any more.
    #[error("another coordinator leads this farm now")]
    Superseded,
    /// Figures of the ledger are damaged, or of a newer Andon.
    #[error("the ledger's figures cannot be read: they are damaged, or of a newer version of andon")]
    Figures,
    /// A stored number has no meaning.
    #[error("the database holds an unknown {what}: {value}")]
    Unknown {
        /// Of what kind.
        what: &'static str,
        /// The number.
        value: i64,
    },
}

type Result<T> = std::result::Result<T, StoreError>;

/// A run as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// Its number.
    pub run: RunId,
    /// What it is.
    pub header: RunHeader,
    /// Where it is.
    pub state: RunState,
    /// Why it is there, where that needs saying.
    pub reason: String,
    /// Empty while it is not pinned.
    pub baseline_key: String,
    /// UTC milliseconds.
    pub created_ms: u64,
    /// 0 while nothing of it has been leased.
    pub started_ms: u64,
    /// When the first of its work was leased for which a baseline has to be there, if it needs one; 0 before.
    pub based_ms: u64,
    /// 0 while it has not ended.
    pub ended_ms: u64,
    /// Its tests, attempts and logs were deleted: it ended too long ago.
    pub forgotten: bool,
    /// Tests by verdict.
    pub counts: Counts,
}

/// Tests by verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[allow(missing_docs, reason = "the names are the verdicts")]
pub struct Counts {
    pub passed: u32,
    pub failed: u32,
    pub flaky: u32,
    pub timed_out: u32,
    pub skipped: u32,
    pub infrastructure: u32,
    pub not_run: u32,
    /// Of runs from before there were any, none.
    #[serde(default)]
    pub quarantined: u32,
    /// Without a verdict.
    pub open: u32,
    /// Attempts that are out.
    pub running: u32,
}

impl Counts {
    /// Counts one verdict.
    pub(crate) fn add(&mut self, verdict: Option<Verdict>, tests: u32) {
        let field = match verdict {
            None => &mut self.open,
            Some(Verdict::Passed) => &mut self.passed,
            Some(Verdict::Failed) => &mut self.failed,
            Some(Verdict::Flaky) => &mut self.flaky,
            Some(Verdict::TimedOut) => &mut self.timed_out,
            Some(Verdict::Skipped) => &mut self.skipped,
            Some(Verdict::Infrastructure) => &mut self.infrastructure,
            Some(Verdict::NotRun) => &mut self.not_run,
            Some(Verdict::Quarantined) => &mut self.quarantined,
        };
        *field += tests;
    }

    /// All tests that are known.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.passed
            + self.failed
            + self.flaky
            + self.timed_out
            + self.skipped
            + self.infrastructure
            + self.not_run
            + self.quarantined
            + self.open
    }
}

/// A test as stored, with its attempts in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRow {
    /// Its place in the run.
    pub test: TestIx,
    /// Its suite.
    pub suite: String,
    /// As its runner names it.
    pub id: String,
    /// `None` while it is open.
    pub verdict: Option<Verdict>,
    /// Oldest first.
    pub attempts: Vec<AttemptRow>,
}

/// An attempt as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRow {
    /// Its number in the run.
    pub attempt: AttemptId,
    /// The unit it ran in.
    pub work: WorkId,
    /// The grant it ran under.
    pub fence: Fence,
    /// Where.
    pub worker: WorkerId,
    /// On which lane.
    pub lane: LaneIx,
    /// `None` while it is out.
    pub outcome: Option<Outcome>,
    /// From queued to leased.
    pub queue_ms: u64,
    /// From the lease's arrival to the start, without the rebase.
    pub prepare_ms: u64,
    /// Of that, the runner's start.
    pub start_ms: u64,
    /// The rebase before its unit; 0 for later tests of the unit.
    pub rebase_us: u64,
    /// The test itself.
    pub run_ms: u64,
    /// From its end until its result was on its way here.
    pub report_us: u64,
    /// `None` until the rebase after it has measured.
    pub dirtied_bytes: Option<u64>,
    /// First lines of the failure.
    pub message: String,
    /// The driver that rebased its lane.
    pub driver: String,
    /// UTC milliseconds.
    pub started_ms: u64,
}

impl AttemptRow {
    /// For how long it kept its lane busy.
    #[must_use]
    pub fn busy_ms(&self) -> u64 {
        spent::Spent::by(self).lane_ms()
    }
}

/// Suite and id of a test to the bytes that an attempt of it dirtied on average, and of how many attempts that is.
pub type UsualDirt = HashMap<(String, String), (u64, u64)>;

/// What is kept of an attempt's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// It printed nothing, or nothing of it came.
    Nothing,
    /// All of it; head and tail where it was too much.
    Whole(Content),
    /// What its unit had printed by the time it was last heard of, in order. Between pieces something may be missing.
    Pieces(Vec<Piece>),
}

/// Compressed with zstd; or why it is lost.
pub type Content = std::result::Result<Vec<u8>, String>;

/// A part of what a unit printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins, in bytes.
    pub starts: u64,
    /// How much it is before compression.
    pub raw_bytes: u64,
    /// The bytes.
    pub content: Content,
}

/// Which runs to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Only this project.
    pub project: Option<String>,
    /// Only commits that begin so.
    pub commit: Option<String>,
    /// At most so many.
    pub limit: u32,
}

/// A line of a run's own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// UTC milliseconds.
    pub at_ms: u64,
    /// For a person.
    pub text: String,
    /// Output that belongs to it, zstd; empty where there is none.
    pub zstd: Vec<u8>,
}

/// A stand that was not exact, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InexactRow {
    /// Who told it.
    pub worker: WorkerId,
    /// Counted for each worker, from 1.
    pub number: u64,
    /// What.
    pub inexact: Inexact,
}

/// Which of them, the latest first.
#[derive(Debug, Clone, Default)]
pub struct InexactFilter {
    /// Only this worker's.
    pub worker: Option<String>,
    /// Only on this baseline.
    pub baseline_key: Option<String>,
    /// At most so many.
    pub limit: u32,
}

/// An image that the farm shares without a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// As it is asked for.
    pub reference: String,
    /// Its own id.
    pub image_id: String,
    /// `docker save`, zstd.
    pub blob_digest: String,
    /// Of the blob.
    pub blob_size: u64,
}

/// A run that had not ended, for a restart. Its plan comes from its specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveRun {
    /// The run.
    pub row: RunRow,
    /// All its tests.
    pub tests: Vec<TestRow>,
    /// Suites whose tests are known.
    pub discovered: Vec<String>,
    /// Leases that are out.
    pub leases: Vec<ActiveLease>,
    /// Baselines and discoveries that came to nothing, each with who had it.
    pub losses: Vec<(LeaseKind, WorkerId)>,
    /// The highest work number among leases and attempts.
    pub last_work: u64,
}

/// A lease that is out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveLease {
    /// The grant.
    pub lease: Lease,
    /// What for.
    pub kind: LeaseKind,
    /// To whom.
    pub worker: WorkerId,
    /// On which lane.
    pub lane: LaneIx,
}

/// What a restart needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Active {
    /// The highest run number, 0 for none.
    pub last_run: u64,
    /// The highest fence, 0 for none.
    pub last_fence: u64,
    /// Runs that have not ended, by number.
    pub runs: Vec<ActiveRun>,
}

/// What one step of [`Store::forget`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// There may be more to do.
    pub is_more: bool,
    /// Digests of blobs that no artifacts are in any more.
    pub blobs: Vec<String>,
}

/// What is known of a test from earlier runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Past {
    /// How long it takes, smoothed.
    pub mean_ms: u64,
    /// It failed the last time, in at least one attempt.
    pub failed_last: bool,
    /// In how many runs it ran.
    pub runs: u32,
    /// In how many it failed or took too long …
    pub failures: u32,
    /// … or was flaky.
    pub flakes: u32,
}

/// Why a test failed, as experiments found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// In which it failed.
    pub run: RunId,
    /// When it was told.
    pub told_unix_ms: u64,
    /// `real`, `flaky`, `polluted`, `worker_specific`, `unclear`.
    pub finding: String,
    /// For a person, one line.
    pub said: String,
}

/// The seam. Whoever implements it makes the records of one `apply` durable together or not at all.
#[async_trait]
pub trait Store: ledger::Ledger + owned::Owned {
    /// Applies records in order, in one transaction. Durable when it returns.
    async fn apply(&self, records: &[Record]) -> Result<()>;
    /// Deletes, of one run that ended before that, about so many rows of what it left behind; it stays itself.
    async fn forget(&self, ended_before_ms: u64, rows_max: u32) -> Result<Forgotten>;
    /// Runs after that one, forgotten ones or those that are kept, each with the digest of its specification, by number.
    async fn specifications(&self, forgotten: bool, after: RunId, limit: u32)
    -> Result<Vec<(RunId, String)>>;
    /// What a restart needs.
    async fn active(&self) -> Result<Active>;
    /// The run that was submitted under this key.
    async fn find_dedup(&self, key: &str) -> Result<Option<RunId>>;
    /// One run.
    async fn run(&self, run: RunId) -> Result<Option<RunRow>>;
    /// Runs, newest first.
    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>>;
    /// A run's tests in order, with their attempts.
    async fn tests(&self, run: RunId) -> Result<Vec<TestRow>>;
    /// One test.
    async fn test(&self, run: RunId, test: TestIx) -> Result<Option<TestRow>>;
    /// What an attempt printed.
    async fn output(&self, run: RunId, attempt: AttemptId) -> Result<Output>;
    /// What the unit of an attempt left.
    async fn artifacts(&self, run: RunId, attempt: AttemptId) -> Result<Option<Artifacts>>;
    /// What an ended attempt changed, as its worker told it.
    async fn changes(&self, run: RunId, attempt: AttemptId) -> Result<Option<String>>;
    /// How much the tests of this run's project dirtied in at most so many runs before it.
    async fn usual_dirt(&self, run: RunId, runs_max: u32) -> Result<UsualDirt>;
    /// Stands that were not exact.
    async fn inexact(&self, filter: &InexactFilter) -> Result<Vec<InexactRow>>;
    /// How many each worker has told of, as far as they are remembered.
    async fn inexact_counts(&self) -> Result<HashMap<WorkerId, u64>>;
    /// A run's own log.
    async fn notes(&self, run: RunId) -> Result<Vec<Note>>;
    /// What is known of a suite's tests, by id.
    async fn history(&self, project: &str, suite: &str) -> Result<HashMap<String, Past>>;
    /// Notes why a test failed, in place of what was known.
    async fn put_cause(&self, project: &str, suite: &str, id: &str, cause: &Cause) -> Result<()>;
    /// Why a test failed, as far as anybody found out.
    async fn cause(&self, project: &str, suite: &str, id: &str) -> Result<Option<Cause>>;
    /// A published baseline's manifest.
    async fn baseline(&self, key: &str) -> Result<Option<Vec<u8>>>;
    /// All of them, newest first.
    async fn baselines(&self) -> Result<Vec<Vec<u8>>>;
    /// Shares an image, in place of what had its reference.
    async fn put_image(&self, image: &ImageRow) -> Result<()>;
    /// By reference or by image id.
    async fn image(&self, reference: &str) -> Result<Option<ImageRow>>;
}

/// The smoothing of a test's duration: three parts what was known, one part what was seen, as far as that is believed:
/// a single wild one counts for no more than four times, and no less than a quarter of, what was known.
pub(crate) fn smoothed(before: Option<u64>, seen_ms: u64) -> u64 {
    before.map_or(seen_ms, |mean| (3 * mean + seen_ms.min((mean * 4).max(TAME_MS)).max(mean / 4)) / 4)
}

/// Durations up to this are never wild: also a test that took no time at all may come to take some. Stands in
/// `sql/write.rs` as a number.
const TAME_MS: u64 = 100;
