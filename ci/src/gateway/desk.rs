//! What forges are yet to be told, and which runs are followed for it: on the disk, so that nothing is lost while a
//! forge or the gateway is away.
//!
//! For each commit and context only the newest status waits. A status leaves when the forge has taken that very one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::ledger::{Ledger, LedgerError};
use crate::forge::Status;

/// The most statuses that wait; the oldest gives way.
pub(super) const WAITING_MAX: usize = 20_000;
/// The most runs that are followed; the oldest gives way.
const TRACKED_MAX: usize = 5_000;
/// The most forges' own ids (check runs) that are remembered.
const IDS_MAX: usize = 20_000;

/// A run whose suites a forge is told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tracked {
    pub(super) run: u64,
    pub(super) project: String,
    /// Those that the commit has; of a rerun none, its tests name them.
    pub(super) suites: Vec<String>,
}

/// A status that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Queued {
    pub(super) project: String,
    pub(super) status: Status,
    pub(super) since_unix_ms: u64,
}

/// All projects'. Its calls block on the disk.
#[derive(Debug)]
pub(super) struct Desk {
    outbox: Mutex<Ledger<Queued>>,
    tracked: Mutex<Ledger<Tracked>>,
    ids: Mutex<Ledger<String>>,
    /// The newest run that was spoken of, by commit and context: an older one that is looked at again keeps quiet.
    newest: Mutex<HashMap<String, u64>>,
    /// Of the projects whose forge is told: wakes who sends.
    senders: HashMap<String, Arc<Notify>>,
    /// Wakes who follows.
    pub(super) follower: Notify,
}

fn lock<V>(ledger: &Mutex<Ledger<V>>) -> MutexGuard<'_, Ledger<V>> {
    ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn key(project: &str, status: &Status) -> String {
    format!("{project}/{}/{}", status.commit, status.context)
}

impl Desk {
    /// `told` are the projects whose forge is told.
    pub(super) fn open<'p>(folder: &Path, told: impl Iterator<Item = &'p str>) -> Result<Self, LedgerError> {
        Ok(Self {
            outbox: Mutex::new(Ledger::open(folder.join("statuses.ledger"))?),
            tracked: Mutex::new(Ledger::open(folder.join("followed.ledger"))?),
            ids: Mutex::new(Ledger::open(folder.join("checks.ledger"))?),
            newest: Mutex::default(),
            senders: told.map(|name| (name.to_owned(), Arc::new(Notify::new()))).collect(),
            follower: Notify::new(),
        })
    }

    /// Who sends a project's statuses waits for this.
    pub(super) fn sender(&self, project: &str) -> Option<Arc<Notify>> {
        self.senders.get(project).cloned()
    }

    /// From now on the run's suites are told of, if the project's forge is.
    pub(super) fn track(&self, tracked: Tracked) -> Result<(), LedgerError> {
        if !self.senders.contains_key(&tracked.project) {
            return Ok(());
        }
        let mut ledger = lock(&self.tracked);
        let mut changes = vec![(run_key(tracked.run), Some(tracked))];
        if ledger.entries().len() >= TRACKED_MAX {
            changes.extend(ledger.entries().keys().next().map(|oldest| (oldest.clone(), None)));
        }
        ledger.change(changes)?;
        self.follower.notify_one();
        Ok(())
    }

    /// The runs that are followed, in order.
    pub(super) fn tracked(&self) -> Vec<Tracked> {
        lock(&self.tracked).entries().values().cloned().collect()
    }

    /// Nothing more comes of this run.
    pub(super) fn untrack(&self, run: u64) -> Result<(), LedgerError> {
        lock(&self.tracked).remove(&run_key(run))
    }

    /// Puts what a run amounts to, but for contexts that a newer run has spoken of.
    pub(super) fn put_of_run(
        &self,
        project: &str,
        run: u64,
        mut statuses: Vec<Status>,
        now_unix_ms: u64,
    ) -> Result<(), LedgerError> {
        let mut newest = self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if newest.len() >= WAITING_MAX {
            newest.clear();
        }
        statuses.retain(|status| {
            let known = newest.entry(key(project, status)).or_insert(run);
            *known = run.max(*known);
            *known == run
        });
        drop(newest);
        self.put(project, statuses, now_unix_ms)
    }

    /// Puts statuses; each takes the place of one that waits for the same commit and context.
    pub(super) fn put(
        &self,
        project: &str,
        statuses: Vec<Status>,
        now_unix_ms: u64,
    ) -> Result<(), LedgerError> {
        let Some(sender) = self.senders.get(project).filter(|_| !statuses.is_empty()) else { return Ok(()) };
        let mut ledger = lock(&self.outbox);
        let mut changes: Vec<_> = statuses
            .into_iter()
            .map(|status| {
                let key = key(project, &status);
                // Its place in the queue stays.
                let since_unix_ms =
                    ledger.entries().get(&key).map_or(now_unix_ms, |known| known.since_unix_ms);
                (key, Some(Queued { project: project.to_owned(), status, since_unix_ms }))
            })
            .collect();
        if ledger.entries().len() >= WAITING_MAX {
            let oldest = ledger.entries().iter().min_by_key(|(_, queued)| queued.since_unix_ms);
            let oldest = oldest.map(|(key, _)| key.clone());
            tracing::error!(project, "{WAITING_MAX} statuses wait: the oldest is dropped");
            changes.extend(oldest.map(|key| (key, None)));
        }
        ledger.change(changes)?;
        sender.notify_one();
        Ok(())
    }

    /// What a project's forge is to be told, the longest waiting first.
    pub(super) fn waiting(&self, project: &str) -> Vec<(String, Queued)> {
        let ledger = lock(&self.outbox);
        let of_project = ledger.entries().iter().filter(|(_, queued)| queued.project == project);
        let mut waiting: Vec<_> = of_project.map(|(key, queued)| (key.clone(), queued.clone())).collect();
        waiting.sort_by_key(|(_, queued)| queued.since_unix_ms);
        waiting
    }

    /// The forge's own id for a commit and context.
    pub(super) fn id(&self, key: &str) -> Option<String> {
        lock(&self.ids).entries().get(key).cloned()
    }

    /// The forge has taken this one, or never will. A newer one stays.
    pub(super) fn sent(&self, key: &str, sent: &Queued, id: Option<String>) -> Result<(), LedgerError> {
        if let Some(id) = id.filter(|id| self.id(key).as_ref() != Some(id)) {
            let mut ids = lock(&self.ids);
            let mut changes = vec![(key.to_owned(), Some(id))];
            if ids.entries().len() >= IDS_MAX {
                changes.extend(ids.entries().keys().next().map(|first| (first.clone(), None)));
            }
            ids.change(changes)?;
        }
        let mut ledger = lock(&self.outbox);
        match ledger.entries().get(key) {
            Some(known) if known == sent => ledger.remove(key),
            _ => Ok(()),
        }
    }
}

/// Sorts as numbers do.
fn run_key(run: u64) -> String {
    format!("{run:020}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::State;

    fn status(state: State) -> Status {
        Status {
            commit: "a".repeat(40),
            context: "andon/unit".into(),
            state,
            description: String::new(),
            target_url: None,
            annotations: vec![],
            failed: vec![],
        }
    }

    #[test]
    fn the_newest_status_of_a_context_waits_and_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Desk::open(folder.path(), ["shop"].into_iter()).unwrap();
        let desk = open();
        desk.put("shop", vec![status(State::Pending)], 1).unwrap();
        desk.put("shop", vec![status(State::Running)], 2).unwrap();
        desk.put("untold", vec![status(State::Running)], 2).unwrap();
        drop(desk);
        let desk = open();
        let waiting = desk.waiting("shop");
        assert_eq!(waiting.len(), 1);
        assert_eq!((waiting[0].1.status.state, waiting[0].1.since_unix_ms), (State::Running, 1));
        assert!(desk.waiting("untold").is_empty(), "nobody would ever send it");
    }

    #[test]
    fn an_older_run_does_not_speak_after_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk::open(folder.path(), ["shop"].into_iter()).unwrap();
        desk.put_of_run("shop", 3, vec![status(State::Success)], 1).unwrap();
        desk.put_of_run("shop", 2, vec![status(State::Failure)], 2).unwrap();
        assert_eq!(desk.waiting("shop")[0].1.status.state, State::Success);
        desk.put_of_run("shop", 4, vec![status(State::Error)], 3).unwrap();
        assert_eq!(desk.waiting("shop")[0].1.status.state, State::Error);
    }

    #[test]
    fn a_status_that_was_replaced_while_it_was_sent_is_sent_again() {
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk::open(folder.path(), ["shop"].into_iter()).unwrap();
        desk.put("shop", vec![status(State::Running)], 1).unwrap();
        let (key, sending) = desk.waiting("shop").remove(0);
        desk.put("shop", vec![status(State::Success)], 2).unwrap();
        desk.sent(&key, &sending, Some("17".into())).unwrap();
        let (_, next) = desk.waiting("shop").remove(0);
        assert_eq!(next.status.state, State::Success);
        assert_eq!(desk.id(&key).as_deref(), Some("17"));
        desk.sent(&key, &next, None).unwrap();
        assert!(desk.waiting("shop").is_empty());
    }
}
