//! Fan-out of what happens to runs, to whoever watches them. Edge state: losing it loses no truth, a watcher that
//! falls behind reads the store again.

use andon_core::ids::{RunId, TestIx};
use andon_core::model::RunState;
use dashmap::DashMap;
use tokio::sync::broadcast;

/// How far a watcher may fall behind before it reads the store again.
const BACKLOG: usize = 1_024;

/// Something happened that a watcher may want to show. The store has it already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The run went to another state, this one.
    Moved(RunState),
    /// A test has its verdict.
    Verdict(TestIx),
    /// A line of the run's own log.
    Note(String),
}

#[derive(Debug, Default)]
pub(crate) struct Watchers {
    runs: DashMap<RunId, broadcast::Sender<Change>>,
}

impl Watchers {
    pub(crate) fn subscribe(&self, run: RunId) -> broadcast::Receiver<Change> {
        self.runs.entry(run).or_insert_with(|| broadcast::channel(BACKLOG).0).subscribe()
    }

    pub(crate) fn tell(&self, run: RunId, change: Change) {
        if let Some(sender) = self.runs.get(&run) {
            // Nobody listening is no fault.
            let _ = sender.send(change);
        }
    }

    /// Forgets runs that nobody watches any more.
    pub(crate) fn sweep(&self) {
        self.runs.retain(|_, sender| sender.receiver_count() > 0);
    }
}
