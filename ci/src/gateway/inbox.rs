//! Deliveries of webhooks: on the disk before they are acknowledged, each handled once.
//!
//! A delivery is known by its id, and by its body: whoever replays one under another id (which no forge signs but
//! GitLab) is answered as for the first. What was handled is remembered for a bounded number of deliveries.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::ledger::{Ledger, LedgerError};
use crate::forge::Event;

/// The most deliveries that wait to be handled.
pub(crate) const WAITING_MAX: usize = 10_000;
/// The most deliveries that are remembered, waiting ones too.
pub(crate) const REMEMBERED_MAX: usize = 30_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    /// Order of arrival.
    number: u64,
    taken_unix_ms: u64,
    /// Digest of project, event and body.
    body: String,
    /// Until it was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<Event>,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is on the disk.
    New,
    /// It was there.
    Before,
    /// The same body was there under another id.
    Replayed,
}

/// Why a delivery was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InboxError {
    #[error("{WAITING_MAX} deliveries wait to be handled")]
    Full,
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A delivery to handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Project and delivery.
    pub(crate) key: String,
    /// What is to be done.
    pub(crate) event: Event,
    /// When it came.
    pub(crate) taken_unix_ms: u64,
}

#[derive(Debug)]
struct State {
    ledger: Ledger<Entry>,
    /// By order of arrival, all.
    order: BTreeMap<u64, String>,
    /// Those to handle.
    waiting: BTreeMap<u64, String>,
    bodies: HashMap<String, String>,
}

/// All projects' deliveries. Its calls block on the disk.
#[derive(Debug)]
pub(crate) struct Inbox(Mutex<State>);

impl Inbox {
    pub(crate) fn open(path: &Path) -> Result<Self, LedgerError> {
        let ledger: Ledger<Entry> = Ledger::open(path.to_owned())?;
        let (mut order, mut waiting, mut bodies) = (BTreeMap::new(), BTreeMap::new(), HashMap::new());
        for (key, entry) in ledger.entries() {
            order.insert(entry.number, key.clone());
            bodies.insert(entry.body.clone(), key.clone());
            if entry.event.is_some() {
                waiting.insert(entry.number, key.clone());
            }
        }
        Ok(Self(Mutex::new(State { ledger, order, waiting, bodies })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole in memory or not made: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes a delivery. When it returns [`Taken::New`] it survives a crash.
    pub(crate) fn take(
        &self,
        project: &str,
        delivery: &str,
        body: &[u8],
        event: Event,
        now_unix_ms: u64,
    ) -> Result<Taken, InboxError> {
        let mut state = self.state();
        let key = format!("{project}/{delivery}");
        if state.ledger.entries().contains_key(&key) {
            return Ok(Taken::Before);
        }
        let digest = digest(project, body);
        if state.bodies.contains_key(&digest) {
            return Ok(Taken::Replayed);
        }
        if state.waiting.len() >= WAITING_MAX {
            return Err(InboxError::Full);
        }
        let number = state.order.last_key_value().map_or(1, |(last, _)| last + 1);
        let entry = Entry { number, taken_unix_ms: now_unix_ms, body: digest.clone(), event: Some(event) };
        let forgotten = state.too_many();
        let mut changes = vec![(key.clone(), Some(entry))];
        changes.extend(forgotten.iter().map(|(_, key)| (key.clone(), None)));
        state.ledger.change(changes)?;
        for (number, key) in forgotten {
            state.order.remove(&number);
            state.bodies.retain(|_, known| *known != key);
        }
        state.order.insert(number, key.clone());
        state.waiting.insert(number, key.clone());
        state.bodies.insert(digest, key);
        Ok(Taken::New)
    }

    /// What a project has to handle, in order.
    pub(crate) fn waiting(&self, project: &str) -> Vec<Waiting> {
        let state = self.state();
        let keys = state.waiting.values();
        let of_project = keys.filter(|key| key.split_once('/').is_some_and(|(of, _)| of == project));
        let waiting = of_project.filter_map(|key| {
            let entry = state.ledger.entries().get(key)?;
            let (event, taken_unix_ms) = (entry.event.clone()?, entry.taken_unix_ms);
            Some(Waiting { key: key.clone(), event, taken_unix_ms })
        });
        waiting.collect()
    }

    /// These were handled, or never can be.
    pub(crate) fn done(&self, keys: &[String]) -> Result<(), LedgerError> {
        let mut state = self.state();
        let entry = |key: &String| {
            let known = state.ledger.entries().get(key)?.clone();
            Some((key.clone(), known))
        };
        let handled: Vec<_> = keys.iter().filter_map(entry).collect();
        let changes: Vec<_> = handled
            .iter()
            .map(|(key, known)| (key.clone(), Some(Entry { event: None, ..known.clone() })))
            .collect();
        state.ledger.change(changes)?;
        for (_, known) in handled {
            state.waiting.remove(&known.number);
        }
        Ok(())
    }
}

impl State {
    /// The oldest handled deliveries, where one more would be too many; a few at once.
    fn too_many(&self) -> Vec<(u64, String)> {
        if self.order.len() < REMEMBERED_MAX {
            return Vec::new();
        }
        let handled = self.order.iter().filter(|(number, _)| !self.waiting.contains_key(number));
        handled.take(REMEMBERED_MAX / 100).map(|(number, key)| (*number, key.clone())).collect()
    }
}

fn digest(project: &str, body: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(project.as_bytes()).update(&[0]).update(body);
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(branch: &str) -> Event {
        Event::Push { branch: branch.into(), commit: "a".repeat(40) }
    }

    #[test]
    fn a_delivery_is_taken_once_also_over_a_restart_and_under_another_id() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox");
        let inbox = Inbox::open(&path).unwrap();
        assert_eq!(inbox.take("shop", "1", b"one", push("main"), 5).unwrap(), Taken::New);
        assert_eq!(inbox.take("shop", "1", b"other", push("x"), 6).unwrap(), Taken::Before);
        assert_eq!(inbox.take("shop", "2", b"one", push("main"), 7).unwrap(), Taken::Replayed);
        assert_eq!(inbox.take("other", "1", b"one", push("main"), 8).unwrap(), Taken::New);
        drop(inbox);
        let inbox = Inbox::open(&path).unwrap();
        let waiting = inbox.waiting("shop");
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting[0], Waiting { key: "shop/1".into(), event: push("main"), taken_unix_ms: 5 });
        inbox.done(&["shop/1".into()]).unwrap();
        drop(inbox);
        let inbox = Inbox::open(&path).unwrap();
        assert!(inbox.waiting("shop").is_empty(), "handled");
        assert_eq!(
            inbox.take("shop", "1", b"one", push("main"), 9).unwrap(),
            Taken::Before,
            "and remembered"
        );
        assert_eq!(inbox.waiting("other").len(), 1);
    }

    #[test]
    fn deliveries_are_handled_in_the_order_of_their_arrival() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = Inbox::open(&folder.path().join("inbox")).unwrap();
        for (id, branch) in [("9", "first"), ("1", "second"), ("5", "third")] {
            inbox.take("shop", id, branch.as_bytes(), push(branch), 1).unwrap();
        }
        let order: Vec<_> = inbox.waiting("shop").into_iter().map(|waiting| waiting.key).collect();
        assert_eq!(order, ["shop/9", "shop/1", "shop/5"]);
    }
}
