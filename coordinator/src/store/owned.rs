//! What is owned: tests as they were in the last run that told of them, and what runs amounted to, each by who owns them. Entered with
//! the run ([`super::ledger::Entry`]); each answer comes from an index and is as long as was asked for, at most.

use andon_core::ids::{RunId, TestIx};
use andon_core::model::Verdict;
use async_trait::async_trait;

use super::Result;
use super::ledger::EnteredRun;

/// A test of an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedTest {
    /// Its suite.
    pub suite: String,
    /// As its runner names it.
    pub id: String,
    /// The last run that gave it a verdict of its own,
    pub run: RunId,
    /// its place there,
    pub test: TestIx,
    /// and the branch of that run.
    pub git_ref: String,
    /// Given there.
    pub verdict: Option<Verdict>,
    /// How long it takes, smoothed; 0 where that is not known.
    pub mean_ms: u64,
    /// In how many runs it ran,
    pub runs: u32,
    /// failed or took too long,
    pub failures: u32,
    /// or was flaky.
    pub flakes: u32,
}

/// Which of an owner's tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnedWhich {
    /// That failed or took too long the last time, the latest first.
    Failing,
    /// That were ever flaky, the most often flaky first.
    Flaky,
    /// All, the slowest first.
    Slow,
}

/// An owner's tests, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerSums {
    /// Who.
    pub owner: String,
    /// So many are theirs.
    pub tests: u64,
    /// That failed or took too long the last time.
    pub failing: u64,
    /// That were ever flaky.
    pub flaky: u64,
    /// What they take, one after the other.
    pub mean_ms: u64,
}

/// The seam's part about owners.
#[async_trait]
pub trait Owned: Send + Sync + 'static {
    /// What an owner's tests of runs amounted to, newest first; on one branch or on all.
    async fn entered_of(
        &self,
        project: &str,
        owner: &str,
        git_ref: Option<&str>,
        before: RunId,
        limit: u32,
    ) -> Result<Vec<EnteredRun>>;
    /// Tests of an owner.
    async fn owned(
        &self,
        project: &str,
        owner: &str,
        which: OwnedWhich,
        limit: u32,
    ) -> Result<Vec<OwnedTest>>;
    /// One owner's tests together, or each owner's by name; at most so many.
    async fn owners(&self, project: &str, owner: Option<&str>, limit: u32) -> Result<Vec<OwnerSums>>;
}
