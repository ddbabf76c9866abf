//! What the link asks of whoever does the work, and nothing more: the seam to [`crate::hands::Hands`].

use std::fmt;
use std::time::Duration;

use andon_proto::{BaselineReady, Discovered, LookEnded, LookOpen, RunSpec, TestCase, Verified};
use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::hands::{LookLine, Notices, Settled, Unfit, WorkFailure};
use crate::runner::UnitNews;

/// What every piece of work is about.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The run's number.
    pub run: u64,
    /// What the run is made of.
    pub spec: &'a RunSpec,
    /// Lines for a person.
    pub notices: &'a Notices,
}

/// The tests of one unit, in order, and where they run.
#[derive(Debug, Clone)]
pub struct Unit {
    /// On which lane.
    pub lane: u32,
    /// Of which suite.
    pub suite: String,
    /// From which baseline; empty for a project without services.
    pub baseline_key: String,
    /// In order.
    pub tests: Vec<TestCase>,
}

/// Those who work. A lane is used by one call at a time. A call that is cancelled may be dropped before it returns
/// (`execute` is not: it ends by itself), and [`Crew::settle`] then puts its lane back.
#[async_trait]
pub trait Crew: Send + Sync + fmt::Debug + 'static {
    /// How lanes are put back, for the coordinator's list.
    fn driver(&self) -> String;
    /// Free and all bytes of the file system that the pool is on; `None` where it cannot be told.
    fn disk(&self) -> Option<(u64, u64)>;
    /// Has the baseline.
    async fn prepare_baseline(&self, job: Job<'_>) -> Result<BaselineReady, WorkFailure>;
    /// The ids of a suite's tests.
    async fn discover(
        &self,
        lane: u32,
        job: Job<'_>,
        suite: &str,
        baseline_key: &str,
    ) -> Result<Discovered, WorkFailure>;
    /// Runs a unit. Each result is sent when it is known; tests without one were not run. Cancelling ends it with `Ok`.
    async fn execute(
        &self,
        job: Job<'_>,
        unit: Unit,
        news: mpsc::Sender<UnitNews>,
        cancel: CancellationToken,
    ) -> Result<(), WorkFailure>;
    /// The daemon under the lane was replaced: nothing of what stood there is there any more. Settling follows.
    async fn distrust(&self, lane: u32);
    /// Puts a lane back, verifies it, and measures what had been dirtied.
    async fn settle(&self, lane: u32) -> Result<Settled, Unfit>;
    /// Lets somebody look into what a failed test left, until they are gone. It may be dropped before it returns.
    async fn look(&self, open: LookOpen, line: LookLine) -> LookEnded;
    /// Compares what is here of a baseline (of all, for an empty key) with what was published, without being in a unit's way.
    async fn verify(&self, key: &str, limit: Duration) -> Verified;
}
