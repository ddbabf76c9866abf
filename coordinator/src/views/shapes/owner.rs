//! Who owns what: an owner's tests, and how their line flows.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Flow, Page, RateView};

/// The owners of a project's tests, as CODEOWNERS names them.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Owners {
    pub(crate) project: String,
    /// By name; at most [`crate::views::OWNERS_MAX`].
    pub(crate) owners: Vec<OwnerLine>,
}

/// An owner in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct OwnerLine {
    /// `@user`, `@org/team` or an address.
    pub(crate) owner: String,
    /// Tests in files that are theirs, each by its last run.
    pub(crate) tests: u64,
    /// Of these, that failed or took too long the last time.
    pub(crate) failing: u64,
    /// That were ever flaky.
    pub(crate) flaky: u64,
    /// What they take, one after the other.
    pub(crate) tests_ms: u64,
}

/// One owner in one project.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Owner {
    pub(crate) project: String,
    pub(crate) now_unix_ms: u64,
    #[serde(flatten)]
    pub(crate) line: OwnerLine,
    /// Of runs in which one of their tests ran: red where one of those failed.
    pub(crate) flow: Flow,
    /// That failed the last time, the latest first.
    pub(crate) failing_tests: Vec<OwnedTest>,
    /// That were ever flaky, the most often flaky first.
    pub(crate) flaky_tests: Vec<OwnedTest>,
    /// The slowest first.
    pub(crate) slow_tests: Vec<OwnedTest>,
    /// Newest first.
    pub(crate) runs: Page<OwnerRun>,
}

/// A test of an owner, by its last run.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct OwnedTest {
    pub(crate) suite: String,
    pub(crate) id: String,
    /// Its last run,
    pub(crate) run: u64,
    /// its place there,
    pub(crate) test: u32,
    /// and the branch of that run.
    #[serde(rename = "ref")]
    pub(crate) git_ref: String,
    pub(crate) verdict: &'static str,
    /// How long it takes, smoothed; `None` where that is not known.
    pub(crate) mean_ms: Option<u64>,
    /// Runs in which it failed or took too long.
    pub(crate) failures: u32,
    /// Runs in which it was flaky, of those in which it ran.
    pub(crate) flakes: RateView,
}

/// What an owner's tests of one run amounted to.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct OwnerRun {
    pub(crate) run: u64,
    pub(crate) commit: String,
    #[serde(rename = "ref")]
    pub(crate) git_ref: String,
    /// `passed`, `failed`, `superseded`, `cancelled`, `infrastructure`.
    pub(crate) state: &'static str,
    pub(crate) ended_unix_ms: u64,
    pub(crate) tests: u64,
    pub(crate) failed: u64,
    pub(crate) flaky: u64,
    /// Lanes were busy for so long.
    pub(crate) lane_ms: u64,
    /// The median test.
    pub(crate) test_p50_ms: Option<u64>,
}
