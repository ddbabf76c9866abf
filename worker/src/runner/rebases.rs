//! The rebases of one unit: the one before its first test, and those that its tests ask for between them.
//!
//! Shared by whoever rebases and whoever reports and keeps time limits. Must not know how a rebase is done. Invariants: each
//! rebase is carried by one result, the next one; the time it takes is nobody's time limit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Between two looks at a limit that passes while a rebase goes on.
const LOOK_MIN: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Rebases(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Not carried by a result yet.
    waited: Duration,
    driver: &'static str,
    /// Attempts that ended since the last rebase.
    ended: Vec<u64>,
    /// The same, and whether each failed, until they are asked for.
    outcomes: Vec<(u64, bool)>,
    /// Attempts that failed, until they are asked for.
    failed: Vec<u64>,
    /// All that rebases within the unit took, but for the one that goes on.
    rested: Duration,
    since: Option<Instant>,
}

/// A time limit that stands still during rebases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    rested: Duration,
}

impl Rebases {
    /// Before the unit's first test. The driver is empty for a lane without services.
    #[must_use]
    pub fn after(waited: Duration, driver: &'static str) -> Self {
        let rebases = Self::default();
        rebases.waited(waited, driver);
        rebases
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waited(&self, took: Duration, driver: &'static str) {
        let mut state = self.state();
        state.waited += took;
        state.driver = driver;
    }

    /// One begins within the unit; answers with the attempts that it puts an end to.
    pub(crate) fn begin(&self) -> Vec<u64> {
        let mut state = self.state();
        state.since = Some(Instant::now());
        std::mem::take(&mut state.ended)
    }

    /// It is over.
    pub(crate) fn end(&self, took: Duration, driver: &'static str) {
        {
            let mut state = self.state();
            let since = state.since.take();
            state.rested += since.map_or(Duration::ZERO, |since| since.elapsed());
        }
        self.waited(took, driver);
    }

    /// For an attempt's result: what was waited for rebases since the result before, in microseconds, and the last driver.
    pub(crate) fn carried_by(&self, attempt: u64) -> (u64, String) {
        let mut state = self.state();
        state.ended.push(attempt);
        let waited = std::mem::take(&mut state.waited);
        (u64::try_from(waited.as_micros()).unwrap_or(u64::MAX), state.driver.to_owned())
    }

    /// How an attempt ended.
    pub(crate) fn note(&self, attempt: u64, failed: bool) {
        let mut state = self.state();
        state.outcomes.push((attempt, failed));
        if failed {
            state.failed.push(attempt);
        }
    }

    /// The attempts that failed since this was asked last.
    pub(crate) fn failed(&self) -> Vec<u64> {
        std::mem::take(&mut self.state().failed)
    }

    /// The attempts that ended since this was asked last, in order, and whether each failed.
    pub(crate) fn outcomes(&self) -> Vec<(u64, bool)> {
        std::mem::take(&mut self.state().outcomes)
    }

    /// A limit from now on.
    pub(crate) fn within(&self, limit: Duration) -> Deadline {
        Deadline { at: Instant::now() + limit, rested: self.rested() }
    }

    fn rested(&self) -> Duration {
        let state = self.state();
        state.rested + state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Answers when the limit has passed, rebases not counted.
    pub(crate) async fn passed(&self, deadline: Deadline) {
        loop {
            let at = deadline.at + self.rested().saturating_sub(deadline.rested);
            let now = Instant::now();
            if now >= at {
                return;
            }
            tokio::time::sleep_until(at.max(now + LOOK_MIN)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_rebase_is_carried_by_the_next_result() {
        let rebases = Rebases::after(Duration::from_micros(5), "restart");
        assert_eq!(rebases.carried_by(1), (5, "restart".to_owned()));
        assert_eq!(rebases.carried_by(2), (0, "restart".to_owned()));
        assert_eq!(rebases.begin(), [1, 2]);
        rebases.end(Duration::from_micros(7), "clean");
        assert_eq!(rebases.begin(), [0u64; 0]);
        rebases.end(Duration::from_micros(1), "standby");
        assert_eq!(rebases.carried_by(3), (8, "standby".to_owned()));
    }

    #[tokio::test]
    async fn a_limit_stands_still_while_the_stack_is_put_back() {
        let rebases = Rebases::default();
        let began = Instant::now();
        let deadline = rebases.within(Duration::from_millis(50));
        rebases.begin();
        let ends = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            rebases.end(Duration::from_millis(300), "restart");
        };
        tokio::join!(rebases.passed(deadline), ends);
        assert!(began.elapsed() >= Duration::from_millis(350));
    }
}
