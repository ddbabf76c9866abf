//! The one place of the library that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// UTC in milliseconds since 1970; 0 on a machine whose clock is before that.
#[expect(clippy::disallowed_methods, reason = "this is the file that may read the clock")]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
