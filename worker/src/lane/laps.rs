//! How long each step of a rebase took, for the log.

use std::fmt;
use std::time::{Duration, Instant};

/// Shown as a list of names and times.
pub(super) struct Laps(Vec<(&'static str, Duration)>, Instant);

impl Laps {
    pub(super) fn start() -> Self {
        Self(Vec::new(), Instant::now())
    }

    /// What was done since the last one.
    pub(super) fn lap(&mut self, name: &'static str) {
        let now = Instant::now();
        self.0.push((name, now.duration_since(self.1)));
        self.1 = now;
    }
}

impl fmt::Debug for Laps {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_map().entries(self.0.iter().map(|(name, took)| (name, took))).finish()
    }
}
