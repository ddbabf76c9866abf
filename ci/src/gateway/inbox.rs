//! Deliveries of webhooks: on the disk before they are acknowledged, each handled once.
//!
//! A delivery is known by its id, and by its body: whoever replays one under another id (which no forge signs but
//! GitLab) is answered as for the first. What was handled is remembered for a bounded number of deliveries.
//!
//! Deliveries that come while the disk is busy share the next sync: whoever has the state takes all that wait.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

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
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum InboxError {
    #[error("{WAITING_MAX} deliveries wait to be handled")]
    Full,
    /// Of all that shared the sync.
    #[error(transparent)]
    Ledger(Arc<LedgerError>),
}

/// A delivery on its way to the disk.
#[derive(Debug)]
struct Letter {
    key: String,
    /// Digest of project and body.
    body: String,
    event: Event,
    taken_unix_ms: u64,
    answer: OnceLock<Result<Taken, InboxError>>,
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
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Those that wait for the state. Never locked by who waits for it.
    letters: Mutex<Vec<Arc<Letter>>>,
}

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
        let state = Mutex::new(State { ledger, order, waiting, bodies });
        Ok(Self { state, letters: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole in memory or not made: a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        let letter = Arc::new(Letter {
            key: format!("{project}/{delivery}"),
            body: digest(project, body),
            event,
            taken_unix_ms: now_unix_ms,
            answer: OnceLock::new(),
        });
        self.letters().push(Arc::clone(&letter));
        let mut state = self.state();
        if letter.answer.get().is_none() {
            // Nobody has taken it out, so it is among them.
            let letters = std::mem::take(&mut *self.letters());
            state.take(&letters);
        }
        drop(state);
        letter.answer.get().cloned().expect("whoever took the letter out answered before leaving the state")
    }

    fn letters(&self) -> MutexGuard<'_, Vec<Arc<Letter>>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Takes all of them with one sync, and answers each.
    fn take(&mut self, letters: &[Arc<Letter>]) {
        let mut new: BTreeMap<u64, &Letter> = BTreeMap::new();
        let mut answers = Vec::with_capacity(letters.len());
        let first = self.order.last_key_value().map_or(1, |(last, _)| last + 1);
        for letter in letters {
            let known = self.ledger.entries().contains_key(&letter.key);
            let number = first + new.len() as u64;
            let answer = if known || new.values().any(|other| other.key == letter.key) {
                Ok(Taken::Before)
            } else if self.bodies.contains_key(&letter.body)
                || new.values().any(|other| other.body == letter.body)
            {
                Ok(Taken::Replayed)
            } else if self.waiting.len() + new.len() >= WAITING_MAX {
                Err(InboxError::Full)
            } else {
                new.insert(number, letter);
                Ok(Taken::New)
            };
            answers.push(answer);
        }
        let kept = self.keep(&new);
        for (letter, answer) in letters.iter().zip(answers) {
            // One that was taken before is that whatever becomes of the others, but may be so by one of them.
            let answer = match &kept {
                Err(error) if answer.is_ok() => Err(InboxError::Ledger(Arc::clone(error))),
                _ => answer,
            };
            letter.answer.set(answer).expect("a letter is taken out once");
        }
    }

    fn keep(&mut self, new: &BTreeMap<u64, &Letter>) -> Result<(), Arc<LedgerError>> {
        if new.is_empty() {
            return Ok(());
        }
        let forgotten = self.too_many();
        let entry = |(number, letter): (&u64, &&Letter)| {
            let (body, event) = (letter.body.clone(), Some(letter.event.clone()));
            let entry = Entry { number: *number, taken_unix_ms: letter.taken_unix_ms, body, event };
            (letter.key.clone(), Some(entry))
        };
        let mut changes: Vec<_> = new.iter().map(entry).collect();
        changes.extend(forgotten.iter().map(|(_, key)| (key.clone(), None)));
        self.ledger.change(changes).map_err(Arc::new)?;
        for (number, key) in forgotten {
            self.order.remove(&number);
            self.bodies.retain(|_, known| *known != key);
        }
        for (number, letter) in new {
            self.order.insert(*number, letter.key.clone());
            self.waiting.insert(*number, letter.key.clone());
            self.bodies.insert(letter.body.clone(), letter.key.clone());
        }
        Ok(())
    }

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
    fn many_at_once_are_each_taken_exactly_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox");
        let inbox = Inbox::open(&path).unwrap();
        let take =
            |number: usize| inbox.take("shop", &number.to_string(), &number.to_le_bytes(), push("main"), 1);
        let taken = |answers: Vec<Result<Taken, InboxError>>| {
            answers.into_iter().filter(|answer| matches!(answer, Ok(Taken::New))).count()
        };
        let new = std::thread::scope(|scope| {
            // Each of a hundred deliveries by four senders.
            let senders: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..100).map(take).collect::<Vec<_>>())).collect();
            senders.into_iter().map(|sender| taken(sender.join().unwrap())).sum::<usize>()
        });
        assert_eq!(new, 100);
        drop(inbox);
        assert_eq!(Inbox::open(&path).unwrap().waiting("shop").len(), 100);
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
