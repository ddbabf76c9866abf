//! The only place of this crate that reads the time of day. Durations and deadlines come from monotonic clocks.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, UTC; 0 on a machine whose clock is before that.
#[must_use]
#[allow(clippy::disallowed_methods)]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
