//! Running a suite's tests in a container that is there for one unit: discovery, execution, results, time limits.
//!
//! Must not know lanes, baselines, leases: it is handed a running container ([`Cell`]) and tests, and hands back results as
//! they come. Must not blame a test for the farm's faults: before a failure is reported, the [`Witness`] is asked.
//!
//! ```text
//!   pytest.rs   Andon's plugin inside pytest: events through a named pipe, results while the unit runs
//!   command.rs  any command: ids as lines, JUnit or exit codes
//!   progress.rs what both share: which test ended how (pure)
//!   rebases.rs  those that tests ask for between them
//! ```
//!
//! Invariants: a limit that passes kills the whole container; nothing of a unit runs when its `run` has answered, or the
//! container is to be removed next; ids never pass through a shell unquoted.

mod cell;
mod command;
mod event;
mod ids;
mod junit;
mod live;
mod matching;
mod progress;
mod pytest;
mod rebases;
mod report;
mod template;

use std::time::Duration;

use andon_proto::suite::Runner as SuiteRunner;
use andon_proto::{Artifacts, OutputPiece, Suite, TestCase, TestResult};
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::hands::WorkFailure;

pub use cell::{ARTIFACTS_FOLDER, Cell, EVENTS_FILE, JOB_FILE, OUT_FOLDER, RUNNERS_FOLDER};
pub(crate) use progress::Overrun;
pub use pytest::{PLUGIN_FILE, PLUGIN_SOURCE, Warm};
pub use rebases::Rebases;
pub use report::{Reporter, UnitFacts};

/// Most output that is kept of one unit, in bytes: half from its start, half from its end.
pub const OUTPUT_BYTES_MAX: usize = 512 * 1024;
/// The limit of a test whose suite gives none.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);
/// The least that collection, before the first test, may take.
pub const STARTUP_LIMIT_MIN: Duration = Duration::from_secs(120);
/// The limit of a discovery.
pub const DISCOVERY_LIMIT: Duration = Duration::from_secs(600);

/// What a unit tells while it runs.
#[derive(Debug, Clone, PartialEq)]
pub enum UnitNews {
    /// One test has ended.
    Result(TestResult),
    /// It printed this.
    Output(OutputPiece),
    /// Its tests left these files; they are in the blob store.
    Artifacts(Artifacts),
    /// What these attempts dirtied, up to a rebase within the unit.
    Footprint(andon_proto::Footprint),
}

/// Knows whether a failure is the farm's.
#[async_trait]
pub trait Witness: Send + Sync {
    /// `Err` where the farm is at fault: the daemon is gone, a service was killed for want of memory, the disk is full.
    async fn check(&self) -> Result<(), WorkFailure>;
}

/// What discovery found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Ids, in the runner's order.
    pub tests: Vec<String>,
    /// What the runner printed.
    pub log: Vec<u8>,
}

/// A suite as the runner needs it.
#[derive(Debug, Clone, Copy)]
pub struct SuiteView<'a> {
    /// As in the specification.
    pub suite: &'a Suite,
}

impl SuiteView<'_> {
    /// Of one test.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        match self.suite.timeout_ms {
            0 => TIMEOUT_DEFAULT,
            ms => Duration::from_millis(ms),
        }
    }

    /// From the runner's start to the first test's.
    #[must_use]
    pub fn startup_limit(&self) -> Duration {
        self.timeout().max(STARTUP_LIMIT_MIN)
    }
}

/// Lists a suite's tests.
pub async fn discover(
    cell: &Cell,
    suite: &Suite,
    warm: Option<Warm>,
    witness: &dyn Witness,
) -> Result<Found, WorkFailure> {
    match &suite.runner {
        Some(SuiteRunner::Pytest(pytest)) => {
            // One process a cell: a second one would wait for a job that the first one has taken.
            let warm = warm.unwrap_or_else(|| pytest::warm_up(cell, pytest));
            pytest::discover(cell, warm, witness).await
        }
        Some(SuiteRunner::Command(command)) => command::discover(cell, suite, command, witness).await,
        None => Err(WorkFailure::config(format!("suite `{}` names no runner", suite.name))),
    }
}

/// Starts what can be started before the unit is known, so that it need not be waited for. `None` where nothing can.
#[must_use]
pub fn warm_up(cell: &Cell, suite: &Suite) -> Option<Warm> {
    match &suite.runner {
        Some(SuiteRunner::Pytest(pytest)) => Some(pytest::warm_up(cell, pytest)),
        _ => None,
    }
}

/// Runs a unit's tests in order. Answers `Ok` also where it was cancelled or some tests were not run.
pub async fn run(
    cell: &Cell,
    suite: &Suite,
    warm: Option<Warm>,
    tests: Vec<TestCase>,
    reporter: &mut Reporter,
    witness: &dyn Witness,
    cancel: &CancellationToken,
) -> Result<(), WorkFailure> {
    match &suite.runner {
        Some(SuiteRunner::Pytest(pytest)) => {
            let warm = warm.unwrap_or_else(|| pytest::warm_up(cell, pytest));
            pytest::run(cell, suite, warm, tests, reporter, witness, cancel).await
        }
        Some(SuiteRunner::Command(command)) => {
            command::run(cell, suite, command, tests, reporter, witness, cancel).await
        }
        None => Err(WorkFailure::config(format!("suite `{}` names no runner", suite.name))),
    }
}
