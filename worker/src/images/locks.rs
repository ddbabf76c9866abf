//! One at a time for each name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Locks by name; a name that nobody uses takes no memory.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<String, Weak<AsyncMutex<()>>>>);

impl Locks {
    /// Waits until nobody else has this name. Never take a second name that another task may take first.
    pub(super) async fn turn(&self, name: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().expect("no panic while it is held");
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(name).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                locks.insert(name.to_owned(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn one_name_is_had_once_and_others_are_free() {
        let locks = Locks::default();
        let first = locks.turn("a").await;
        assert!(locks.turn("a").now_or_never().is_none());
        assert!(locks.turn("b").now_or_never().is_some());
        drop(first);
        assert!(locks.turn("a").now_or_never().is_some());
    }

    #[tokio::test]
    async fn names_that_are_not_used_are_forgotten() {
        let locks = Locks::default();
        for name in 0..100 {
            drop(locks.turn(&name.to_string()).await);
        }
        let _held = locks.turn("held").await;
        assert_eq!(locks.0.lock().expect("sound").len(), 1);
    }
}
