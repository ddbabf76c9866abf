//! Running a suite's tests in a container that is there for one unit: discovery, execution, results, time limits.
//!
//! Must not know lanes, baselines, leases: it is handed a running container ([`Cell`]) and tests, and hands back results as
//! they come. Must not blame a test for the farm's faults: before a failure is reported, the [`Witness`] is asked.
//!
//! ```text
//!   preset.rs   the trait: how one tool's tests are listed and run, as data (pure); presets/ has a file for each tool
//!   drive.rs    carries that out: calls, output, time limits
//!   progress.rs which test ended how (pure)
//!   rebases.rs  those that tests ask for between them
//!   junit.rs, matching.rs, reported.rs   JUnit files as tools write them, and which test a case is of (pure)
//! ```
//!
//! Invariants: a limit that passes kills the whole container; nothing of a unit runs when its `run` has answered, or the
//! container is to be removed next; ids never pass through a shell unquoted.

mod cell;
mod drive;
mod each;
mod event;
mod ids;
pub mod junit;
mod lines_of_ids;
mod live;
mod matching;
#[cfg(test)]
mod played;
mod preset;
mod presets;
mod process;
mod progress;
mod rebases;
mod report;
mod reported;
mod tap;
mod template;

use std::time::Duration;

use andon_proto::{Artifacts, OutputPiece, Suite, TestCase, TestResult};
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::hands::WorkFailure;

use preset::{Options, Preset};

pub use cell::{ARTIFACTS_FOLDER, Cell, EVENTS_FILE, JOB_FILE, OUT_FOLDER, RUNNERS_FOLDER};
pub use preset::Facts;
pub use presets::catalogue;
pub(crate) use presets::files;
pub use process::Warm;
pub(crate) use progress::Overrun;
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

/// The suite's preset and its options, or that there is none of this name.
fn preset_of(suite: &Suite) -> Result<(&'static dyn Preset, Options), WorkFailure> {
    let Some((name, options)) = Options::of(suite) else {
        return Err(WorkFailure::config(format!("suite `{}` names no runner", suite.name)));
    };
    let preset = presets::find(name).ok_or_else(|| {
        let known: Vec<&str> = catalogue().map(|facts| facts.name).collect();
        WorkFailure::config(format!(
            "suite `{}` has runner `{name}`, which this worker does not know; it knows {}",
            suite.name,
            known.join(", ")
        ))
    })?;
    Ok((preset, options))
}

/// Lists a suite's tests.
pub async fn discover(
    cell: &Cell,
    suite: &Suite,
    warm: Option<Warm>,
    witness: &dyn Witness,
) -> Result<Found, WorkFailure> {
    let (preset, options) = preset_of(suite)?;
    drive::discover(cell, preset, suite, &options, warm, witness).await
}

/// Starts what can be started before the unit is known, so that it need not be waited for. `None` where nothing can.
#[must_use]
pub fn warm_up(cell: &Cell, suite: &Suite) -> Option<Warm> {
    let (preset, options) = preset_of(suite).ok()?;
    drive::warm_up(cell, preset, &options)
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
    let (preset, options) = preset_of(suite)?;
    let work = drive::Work { cell, suite, options: &options, tests };
    drive::run(work, preset, warm, reporter, witness, cancel).await
}
