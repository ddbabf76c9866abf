//! How long to wait before the next try. Pure: randomness comes in.

use std::time::Duration;

/// The first wait, at most.
const FIRST: Duration = Duration::from_millis(200);
/// The longest wait: a coordinator that is back is found within this.
const LONGEST: Duration = Duration::from_secs(3);

/// Doubles with each failure; between half and the whole of each step is waited, so that workers who lost the same
/// coordinator do not come back in one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It went well.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed once more; `random` is in 0..1.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let step = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        step.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..7).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3000, 3000, 3000]);
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_millis(100));
    }
}
