//! How many stands a lane should have: one that serves, and others that stand by.
//!
//! Pure. A stand that stands by costs its services' memory all the time and no more of a processor than a restart costs
//! anyway; only a third and further ones put more work on the processors at a time.

use crate::host::Pressure;

/// The one that serves counts.
pub(super) const CLONES_MAX: usize = 4;
/// Left for the tests, the daemon and the agent, in bytes.
const RESERVE_BYTES: u64 = 512 * 1024 * 1024;
/// Percent of time in which something waited for memory: more, and nothing stands by.
const MEMORY_WAITED_MAX: f32 = 5.0;
/// Percent of time in which something waited for a processor: more, and one that stands by is enough.
const CPU_WAITED_MAX: f32 = 20.0;

/// What the lane knows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Needs {
    /// What one stand's services hold, in bytes.
    pub(super) stand_bytes: u64,
    /// Stands that there are, in whatever state.
    pub(super) have: usize,
    /// The last unit, or rebase within one, had to wait because none was ready.
    pub(super) waited: bool,
}

/// The number to have from now on.
pub(super) fn clones(now: &Pressure, needs: Needs) -> usize {
    let room = |more: usize| {
        let wanted = needs.stand_bytes.saturating_mul(u64::try_from(more).unwrap_or(u64::MAX));
        now.available_bytes >= wanted.saturating_add(RESERVE_BYTES)
    };
    if now.memory_waited.is_some_and(|waited| waited > MEMORY_WAITED_MAX) || !room(0) {
        return 1;
    }
    let is_idle = now.cpu_waited.is_none_or(|waited| waited <= CPU_WAITED_MAX);
    let most = match needs.have {
        0 | 1 => 2,
        _ if !is_idle => 2,
        have if needs.waited => have + 1,
        have => have,
    };
    let most = most.min(CLONES_MAX);
    if most > needs.have && !room(most - needs.have) { needs.have.max(1) } else { most }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const QUIET: Pressure =
        Pressure { available_bytes: 16 * GIB, cpu_waited: Some(0.0), memory_waited: Some(0.0) };

    fn needs(have: usize, waited: bool) -> Needs {
        Needs { stand_bytes: GIB, have, waited }
    }

    #[test]
    fn one_stands_by_where_there_is_memory_for_it() {
        assert_eq!(clones(&QUIET, needs(1, false)), 2);
        let scarce = Pressure { available_bytes: GIB, ..QUIET };
        assert_eq!(clones(&scarce, needs(1, false)), 1);
        assert_eq!(clones(&scarce, needs(2, false)), 2, "what is there is paid for");
    }

    #[test]
    fn more_stand_by_only_where_units_wait_and_processors_do_not() {
        assert_eq!(clones(&QUIET, needs(2, true)), 3);
        assert_eq!(clones(&QUIET, needs(2, false)), 2);
        assert_eq!(clones(&QUIET, needs(CLONES_MAX, true)), CLONES_MAX);
        let busy = Pressure { cpu_waited: Some(60.0), ..QUIET };
        assert_eq!(clones(&busy, needs(2, true)), 2);
        assert_eq!(clones(&busy, needs(4, true)), 2);
    }

    #[test]
    fn under_pressure_for_memory_nothing_stands_by() {
        let thrashing = Pressure { memory_waited: Some(30.0), ..QUIET };
        assert_eq!(clones(&thrashing, needs(3, true)), 1);
        let full = Pressure { available_bytes: RESERVE_BYTES / 2, ..QUIET };
        assert_eq!(clones(&full, needs(2, false)), 1);
    }

    #[test]
    fn a_host_that_tells_nothing_of_its_pressure_is_not_under_any() {
        let silent = Pressure { cpu_waited: None, memory_waited: None, ..QUIET };
        assert_eq!(clones(&silent, needs(2, true)), 3);
    }

    proptest::proptest! {
        #[test]
        fn there_is_always_one_and_never_too_many(
            available_bytes in 0..64 * GIB, cpu in 0f32..100.0, memory in 0f32..100.0,
            stand_bytes in 0..8 * GIB, have in 0usize..10, waited: bool,
        ) {
            let now = Pressure { available_bytes, cpu_waited: Some(cpu), memory_waited: Some(memory) };
            let want = clones(&now, Needs { stand_bytes, have, waited });
            proptest::prop_assert!((1..=CLONES_MAX.max(have)).contains(&want));
            let more = want.saturating_sub(have) as u64;
            proptest::prop_assert!(want <= 1 || more * stand_bytes + RESERVE_BYTES <= available_bytes);
        }
    }
}
