//! The one place of the coordinator that reads clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use andon_core::ids::Now;

/// Reads both clocks of [`Now`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        let mono_ms =
            u64::try_from(self.started.elapsed().as_millis()).expect("a process lives < 500 million years");
        Now { mono_ms, unix_ms: unix_ms() }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).expect("milliseconds since 1970 fit")
}
