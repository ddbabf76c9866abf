//! What people look at: read-only answers about the farm, as plain values. The JSON API writes them as they are (`web/api.rs`), the
//! pages show them (`web/pages`), `andon stats` prints them.
//!
//! It reads the store, the specifications of runs for who owns their tests, and edge state (who is connected). It must not know HTTP, HTML or the driver: nothing here can change a run.
//! Every answer is bounded by a named constant, and every question is answered from an index: none looks at all attempts of the farm.
//!
//! ```text
//!   runs(before, limit)                runs of all projects, newest first
//!   overview()                         the line in ten seconds: flows or not, running, queue, workers, cord
//!   project(name, &ProjectAsk)         its runs, newest first, a page at a time; figures, days, change points
//!   run(run)                           counts, phases, lanes, suites, failures first with the reason and the end of the log
//!   tests(run, &TestsAsk)              its tests, a page at a time
//!   owners(project), owner(project, owner, &ProjectAsk)
//!                                      whose tests fail, flake and take long, and how their line flows
//!   commit(prefix)                     runs of commits that begin so
//!   timeline(run)                      what each of its lanes did when
//!   test_of_run(run, test)             one test in one run: all attempts
//!   log(run, test, attempt)            what an attempt printed; without a test, the run's own log
//!   test(project, suite, id, before)   one test over its runs: history, flakes, durations, change points
//!   baselines(), baseline(key)         where, when, why; ancestors, steps, labels, runs that start from it
//!   workers(), worker(name)            lanes, rebase times, stands that were not exact
//! ```
//!
//! Moments are UTC milliseconds since 1970 (`_unix_ms`), durations say their unit, what is not known or does not apply is `None`.

mod baseline;
pub(crate) mod entering;
mod lines;
mod overview;
mod owner;
mod project;
mod run;
mod shapes;
mod test;
mod words;

use std::sync::Arc;

use andon_core::ids::RunId;
use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::driver::Farm;
use crate::owning::Owning;
use crate::sessions::Sessions;
use crate::store::{Store, StoreError};
use crate::watch::{Change, Watchers};

pub(crate) use lines::is_other_baseline;
pub(crate) use run::Log;
pub(crate) use shapes::*;
pub(crate) use test::attempts as judged_attempts;
pub(crate) use words::{outcome_word, state as state_word, verdict_word};

/// Verdicts in a project's strip.
pub(crate) const STRIP_MAX: u32 = 20;
/// Failures of a run that come with an excerpt of what they printed.
pub(crate) const FAILURES_MAX: u32 = 20;
/// Suites of a project of which it is told how their lines flow.
pub(crate) const SUITE_FLOWS_MAX: usize = 20;
/// Lines of a run's own log that come with it.
pub(crate) const NOTES_MAX: usize = 200;
/// Attempts of a timeline.
pub(crate) const SPANS_MAX: u32 = 5_000;
/// Owners that are listed.
pub(crate) const OWNERS_MAX: u32 = 1_000;
/// Items of a page where nobody asks for a number …
pub(crate) const PAGE_DEFAULT: u32 = 50;
/// … and at most.
pub(crate) const PAGE_MAX: u32 = 200;
/// Days of figures where nobody asks for a number …
pub(crate) const DAYS_DEFAULT: u32 = 30;
/// … and at most.
pub(crate) const DAYS_MAX: u32 = 366;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ViewError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The question makes no sense.
    #[error("{0}")]
    BadAsk(String),
    /// The store.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

fn page_size(asked: Option<u32>) -> u32 {
    asked.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX)
}

/// Who answers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Views {
    store: Arc<dyn Store>,
    sessions: Arc<Sessions>,
    watchers: Arc<Watchers>,
    owning: Owning,
    clock: Clock,
}

impl Views {
    /// Looks at this farm, and keeps nothing of it by which it could be changed.
    pub(crate) fn of(farm: &Farm) -> Self {
        Self {
            store: Arc::clone(&farm.store),
            sessions: Arc::clone(&farm.sessions),
            watchers: Arc::clone(&farm.watchers),
            owning: farm.owning.clone(),
            clock: farm.clock,
        }
    }

    /// UTC milliseconds since 1970.
    pub(crate) fn now_unix_ms(&self) -> u64 {
        self.clock.now().unix_ms
    }

    /// What happens to a run from now on. Who falls behind reads the run again.
    pub(crate) fn changes(&self, run: u64) -> broadcast::Receiver<Change> {
        self.watchers.subscribe(RunId(run))
    }
}

impl std::fmt::Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Views")
    }
}
