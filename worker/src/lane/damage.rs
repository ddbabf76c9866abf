//! Baselines of this worker that are not what was published: they are given up, and fetched anew when they are needed next.
//!
//! Must not know leases. Invariants: what is given up has no manifest any more, so that nothing new stands on it; it is fetched
//! anew only when nothing stands on it.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use andon_snapshot::Baseline;
use std::collections::BTreeSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::workshop::Workshop;
use crate::hands::{WorkFailure, blocking, chain};

/// How long the work on one lane waits until the other lanes have let go of a damaged baseline.
const LET_GO_LIMIT: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

impl Workshop {
    fn given_up_keys(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether lanes have to let go of it.
    pub(super) fn is_given_up(&self, key: &str) -> bool {
        self.given_up_keys().contains(key)
    }

    /// It is here, whole.
    pub(super) fn has_anew(&self, key: &str) {
        self.given_up_keys().remove(key);
    }

    /// Reads all of the baseline, and gives it up where it is damaged. Answers with the damage.
    pub(super) async fn give_up_if_damaged(&self, baseline: &Baseline) -> Option<String> {
        let reading = baseline.clone();
        let damage = match blocking(move || reading.check()).await {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => chain(&error),
            Err(error) => error.reason,
        };
        self.give_up(baseline.key(), &damage).await;
        Some(damage)
    }

    /// From now on it does not count as being here.
    pub(super) async fn give_up(&self, key: &str, damage: &str) {
        tracing::error!(
            key,
            damage,
            "a baseline is damaged on this worker, and is fetched anew when it is needed"
        );
        self.given_up_keys().insert(key.to_owned());
        self.stacks.lock().await.remove(key);
        self.shelf.disown(key);
        let (kept, key) = (Arc::clone(&self.kept), key.to_owned());
        // A lane that cannot wait for it finds users of the baseline, and tries again.
        let _ = blocking(move || kept.let_go_of(&key)).await;
    }

    /// Waits until nothing stands on a baseline that was given up.
    pub(super) async fn await_let_go(&self, key: &str) -> Result<(), WorkFailure> {
        if !self.is_given_up(key) {
            return Ok(());
        }
        let until = Instant::now() + LET_GO_LIMIT;
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.options.pool.users(key) > 0 {
            if Instant::now() >= until {
                return Err(WorkFailure::infrastructure(format!(
                    "baseline {key} is damaged on this worker, and another lane still stands on it"
                )));
            }
            looks.tick().await;
        }
        Ok(())
    }
}
