//! What the core is told of a run, and what it asks to be stored of it. Plain data, no behaviour but small truths.

use crate::asked::Asked;
use crate::ids::{AttemptId, Fence, LaneIx, Lease, RunId, TestIx, WorkId, WorkerId};
use crate::inexact::Inexact;
use crate::quarantine::Quarantine;

/// Facts about a run that the core only hands on to the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunHeader {
    /// The project's name.
    pub project: String,
    /// Where the commit came from, without credentials.
    pub repository: String,
    /// Full hex object id.
    pub commit: String,
    /// Empty where a person asked for a bare commit.
    pub git_ref: String,
    /// Who or what asked for it.
    pub trigger: Trigger,
    /// A person's or a hook's name.
    pub requested_by: String,
    /// The specification in the blob store.
    pub spec_digest: String,
    /// Two submissions with one key are one run.
    pub dedup_key: Option<String>,
    /// The run whose tests this one runs again.
    pub rerun_of: Option<RunId>,
}

/// What asked for a run. The order is the order of service: a person who waits comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trigger {
    /// A person reruns tests.
    Rerun,
    /// A person runs a commit.
    Person,
    /// A push.
    #[default]
    Push,
    /// A clock.
    Scheduled,
}

/// What the core needs to know of a run's specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The suites, by name.
    pub suites: Vec<SuitePlan>,
    /// What the project allows and forbids.
    pub policy: Policy,
    /// Runs of one group share a baseline: only one of them prepares it at a time. `None` for a run without a stack.
    pub baseline_group: Option<String>,
    /// Runs of one project with one key ask for the same: same commit, same suites, same stack. `None` where each run
    /// shall execute its own tests.
    pub merge_key: Option<String>,
    /// What whoever submits it asks beyond that.
    pub asked: Asked,
    /// Tests that may fail without blocking.
    pub quarantine: Vec<Quarantine>,
}

/// One suite of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuitePlan {
    /// Unique in the plan.
    pub name: String,
    /// How often a failed test runs again.
    pub retries: u32,
    /// Which tests share a rebase.
    pub grain: Grain,
}

/// Which tests share one rebase, in order, on one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// Every test starts pristine.
    Test,
    /// The tests of one class.
    Class,
    /// The tests of one file.
    File,
    /// A small batch.
    Batch,
    /// The whole suite.
    Never,
}

/// What the project allows and forbids. The default forbids nothing and allows nothing that costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// The cord: stop the run at this many failed tests.
    pub max_failures: Option<u32>,
    /// The cord: stop it at the first.
    pub fail_fast: bool,
    /// So many retries of failed tests in the whole run; `None` for no limit but each suite's own.
    pub retry_budget: Option<u32>,
    /// A push makes older runs of the same branch pointless: they are stopped.
    pub supersede: bool,
    /// Tests that take much longer than expected may be started a second time on an idle lane.
    pub hedge: bool,
}

impl Policy {
    /// True where this many failures stop the run.
    #[must_use]
    pub fn pulls_at(&self, failures: u32) -> bool {
        (self.fail_fast && failures >= 1) || self.max_failures.is_some_and(|most| failures >= most)
    }
}

/// Where a run begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Find the tests first.
    Discover,
    /// The tests are known, and perhaps the baseline too.
    Chosen {
        /// In order, by suite name.
        tests: Vec<(String, Candidate)>,
        /// The earlier run's baseline, for a rerun of the same commit.
        baseline: Option<String>,
    },
}

/// A test as discovery named it, with what history says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// As its runner names it.
    pub id: String,
    /// How long it took before; `None` for a new test.
    pub expected_ms: Option<u64>,
    /// It failed the last time it ran.
    pub failed_last: bool,
    /// A failure of it blocks nothing: it is in quarantine, and known to be flaky.
    pub excused: bool,
}

/// A run's life. See the picture in `lib.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Waits for a lane.
    Queued,
    /// A worker has the baseline to prepare.
    Preparing,
    /// Tests are being found; none runs yet.
    Discovering,
    /// Tests run.
    Running,
    /// It is over.
    Ended(RunEnd),
}

impl RunState {
    /// Its baseline is there, if it needs one: work is done that starts from it.
    #[must_use]
    pub const fn has_its_baseline(self) -> bool {
        matches!(self, Self::Discovering | Self::Running)
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// Every test passed, perhaps after a retry, or was skipped.
    Passed,
    /// At least one test failed or ran out of time.
    Failed,
    /// A suite found no tests.
    NoTests,
    /// The discover command failed, or a test id is refused.
    ConfigError,
    /// The baseline could not be built: the project's fault.
    BaselineFailed,
    /// Infrastructure, cancelled, or the cord.
    Incomplete,
}

/// How one attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The test passed.
    Passed,
    /// The test failed.
    Failed,
    /// The test says that it does not apply.
    Skipped,
    /// The test was killed at its time limit.
    TimedOut,
    /// The farm's fault; counts towards the limit of infrastructure retries.
    Infrastructure,
    /// It was not run after all, and does not count.
    Cancelled,
}

/// What a test's attempts amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Passed at once.
    Passed,
    /// Failed as often as it was tried.
    Failed,
    /// Passed, but only after it had failed.
    Flaky,
    /// Ran out of time as often as it was tried.
    TimedOut,
    /// Does not apply.
    Skipped,
    /// The farm could not run it. Never the test's fault.
    Infrastructure,
    /// The run was stopped before.
    NotRun,
    /// Failed or ran out of time as often as it was tried, and may: it was excused before.
    Quarantined,
}

/// Everything that is known of an attempt once it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// From the lease's arrival to the test's start, without the rebase.
    pub prepare_ms: u64,
    /// Of that, the runner's start.
    pub start_ms: u64,
    /// The rebase that made the lane pristine for this attempt's unit; 0 for later tests of a unit.
    pub rebase_us: u64,
    /// The test itself.
    pub run_ms: u64,
    /// From its end until its result was on its way here.
    pub report_us: u64,
    /// First lines of the failure, or why the farm failed.
    pub message: String,
    /// Its output as zstd; empty where there is none.
    pub log_zstd: Vec<u8>,
    /// When it started, UTC.
    pub started_unix_ms: u64,
    /// The driver that rebased its lane.
    pub driver: String,
}

impl Ended {
    /// An attempt that ended without a worker's word.
    #[must_use]
    pub fn without_report(outcome: Outcome, message: impl Into<String>) -> Self {
        Self {
            outcome,
            prepare_ms: 0,
            start_ms: 0,
            rebase_us: 0,
            run_ms: 0,
            report_us: 0,
            message: message.into(),
            log_zstd: Vec::new(),
            started_unix_ms: 0,
            driver: String::new(),
        }
    }
}

/// What a lease is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Have the baseline.
    PrepareBaseline,
    /// Find a suite's tests.
    Discover {
        /// The suite.
        suite: String,
        /// Empty for a run without a stack.
        baseline: String,
    },
    /// Run these tests in order.
    Execute {
        /// The suite.
        suite: String,
        /// Empty for a run without a stack.
        baseline: String,
        /// Attempt, test, and the id the runner knows.
        tests: Vec<(AttemptId, TestIx, String)>,
    },
}

/// What a worker says about a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The baseline is published under this key.
    BaselineReady {
        /// The baseline's key.
        key: String,
        /// What it is and where it comes from, as the store keeps it.
        manifest: Vec<u8>,
        /// What was published under this key before is gone.
        replaces: bool,
    },
    /// The suite's tests.
    Discovered {
        /// In order, with history.
        tests: Vec<Candidate>,
    },
    /// One attempt has ended.
    TestEnded {
        /// Which.
        attempt: AttemptId,
        /// How.
        ended: Ended,
    },
    /// The unit is over; attempts without a result were not run.
    UnitEnded,
    /// What these attempts of one unit dirtied; comes after the lease is over.
    Footprint {
        /// Of the unit.
        attempts: Vec<AttemptId>,
        /// Bytes that the rebase had to put back.
        dirtied_bytes: u64,
        /// Which ones, as the worker tells it; passed on.
        changes: String,
    },
    /// The work failed as a whole.
    WorkFailed {
        /// Whose fault.
        class: FailureClass,
        /// In words.
        reason: String,
        /// Output as zstd, may be empty.
        log_zstd: Vec<u8>,
    },
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// The farm's: retried elsewhere.
    Infrastructure,
    /// The project's stack or seed.
    Baseline,
    /// The project's configuration.
    Config,
}

/// Files that a unit's tests left for people, as one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// tar.zst in the blob store.
    pub blob_digest: String,
    /// Of the archive, in bytes.
    pub blob_size: u64,
    /// How many files are in it.
    pub files: u32,
    /// Their bytes before compression.
    pub bytes: u64,
    /// How many are not in it.
    pub left_out: u32,
}

/// What must be durable before anything else happens. The store applies the records of one step in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A run exists.
    RunCreated {
        /// Its number.
        run: RunId,
        /// What it is.
        header: RunHeader,
        /// When.
        at_unix_ms: u64,
    },
    /// A run went on to another state.
    RunMoved {
        /// Which.
        run: RunId,
        /// Where to.
        state: RunState,
        /// Why, where that needs saying.
        reason: String,
        /// When.
        at_unix_ms: u64,
    },
    /// All tests of the run start from this baseline.
    BaselinePinned {
        /// Which run.
        run: RunId,
        /// The baseline's key.
        key: String,
    },
    /// A suite's tests are known.
    TestsAdded {
        /// Which run.
        run: RunId,
        /// The suite.
        suite: String,
        /// Place and id of each.
        tests: Vec<(TestIx, String)>,
    },
    /// A lease was granted; its attempts exist.
    Leased {
        /// The grant.
        lease: Lease,
        /// What for: `baseline`, `discover` or `unit`.
        kind: LeaseKind,
        /// To whom.
        worker: WorkerId,
        /// On which lane.
        lane: LaneIx,
        /// Opened by this lease: attempt, test, and how long it waited.
        attempts: Vec<(AttemptId, TestIx, u64)>,
    },
    /// A lease is over.
    LeaseClosed {
        /// Which grant.
        fence: Fence,
    },
    /// A worker came to nothing with a baseline or a discovery, by the farm's fault.
    WorkLost {
        /// Which run.
        run: RunId,
        /// Which of its work.
        kind: LeaseKind,
        /// Who.
        worker: WorkerId,
    },
    /// An attempt has ended; it never changes again.
    AttemptEnded {
        /// Which run.
        run: RunId,
        /// Which attempt.
        attempt: AttemptId,
        /// How.
        ended: Ended,
        /// When.
        at_unix_ms: u64,
    },
    /// What attempts dirtied. The store takes it only for ended attempts of this grant and worker, and only once.
    Footprint {
        /// The grant that the attempts ran under.
        lease: Lease,
        /// Who measured it.
        worker: WorkerId,
        /// Of one unit.
        attempts: Vec<AttemptId>,
        /// Bytes that the rebase had to put back.
        dirtied_bytes: u64,
        /// Which ones, as the worker tells it; passed on.
        changes: String,
    },
    /// A unit printed this while it ran. What begins where another piece of the grant began is dropped.
    Printed {
        /// The grant that it ran under.
        lease: Lease,
        /// Where it begins in what the unit printed, in bytes.
        starts: u64,
        /// How much it is before compression.
        raw_bytes: u32,
        /// The piece.
        zstd: Vec<u8>,
    },
    /// A unit's tests left files; the blob is there.
    ArtifactsKept {
        /// The grant that it ran under.
        lease: Lease,
        /// What they left.
        artifacts: Artifacts,
    },
    /// A baseline is published. It never changes: a second one under the same key is dropped, unless the first is gone from
    /// where it was.
    BaselinePublished {
        /// Its key.
        key: String,
        /// What it is and where it comes from.
        manifest: Vec<u8>,
        /// When it was published.
        at_unix_ms: u64,
        /// It takes the place of one that is gone.
        replaces: bool,
    },
    /// A stand was not what its baseline says after it was put back. What was told before under its id is dropped.
    Inexact {
        /// Who told it.
        worker: WorkerId,
        /// What.
        inexact: Inexact,
        /// When it was heard.
        at_unix_ms: u64,
    },
    /// A test has its verdict; it never changes again.
    VerdictGiven {
        /// Which run.
        run: RunId,
        /// Which test.
        test: TestIx,
        /// What.
        verdict: Verdict,
        /// How long its last attempt ran; `None` where it never did. Feeds the history.
        run_ms: Option<u64>,
    },
    /// An attempt of another run of the same counts for this run too: it was executed once for both. The store copies
    /// what it knows of the other.
    AttemptShared {
        /// Which run it counts for.
        run: RunId,
        /// Its number there.
        attempt: AttemptId,
        /// Of which test.
        test: TestIx,
        /// The run that executed it.
        of: RunId,
        /// Its number there.
        of_attempt: AttemptId,
    },
    /// A line of the run's own log.
    Noted {
        /// Which run.
        run: RunId,
        /// For a person.
        text: String,
        /// Output that belongs to it, zstd, may be empty.
        log_zstd: Vec<u8>,
        /// When.
        at_unix_ms: u64,
    },
}

/// The kind of a lease, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseKind {
    /// A baseline to prepare.
    Baseline,
    /// A suite to discover.
    Discover(String),
    /// A unit to execute.
    Unit,
}

/// A run that had not ended when the coordinator stopped, as the store gives it back.
#[derive(Debug, Clone)]
pub struct StoredRun {
    /// Its number.
    pub run: RunId,
    /// What it is.
    pub header: RunHeader,
    /// From its specification.
    pub plan: Plan,
    /// Where it was.
    pub state: RunState,
    /// Pinned already.
    pub baseline: Option<String>,
    /// Suites whose tests are known.
    pub discovered: Vec<String>,
    /// In order of their numbers.
    pub tests: Vec<StoredTest>,
    /// Leases that were out.
    pub leases: Vec<StoredLease>,
    /// Baselines and discoveries that came to nothing, each with who had it.
    pub losses: Vec<(LeaseKind, WorkerId)>,
    /// The highest work number given.
    pub last_work: WorkId,
}

/// A test as stored.
#[derive(Debug, Clone)]
pub struct StoredTest {
    /// Its suite.
    pub suite: String,
    /// Its id, with what history says.
    pub candidate: Candidate,
    /// Given already.
    pub verdict: Option<Verdict>,
    /// In order of their numbers; `None` for one that is still out.
    pub attempts: Vec<(AttemptId, Option<Outcome>)>,
}

/// A lease as stored.
#[derive(Debug, Clone)]
pub struct StoredLease {
    /// The grant.
    pub lease: Lease,
    /// What for.
    pub kind: LeaseKind,
    /// To whom.
    pub worker: WorkerId,
    /// On which lane.
    pub lane: LaneIx,
    /// Its attempts that have not ended.
    pub open: Vec<(AttemptId, TestIx)>,
}
