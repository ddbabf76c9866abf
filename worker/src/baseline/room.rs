//! Which baselines go, and when: the policy of the pool's garbage collection. Pure: inputs in, a decision out.
//!
//! ```text
//!   free ≥ low mark + need   ──> nothing goes for space
//!   free < low mark + need   ──> the least recently used one goes, and again, until free ≥ high mark + need
//!   unused for `unused`      ──> goes, however much is free
//! ```
//!
//! Must not know the pool, files, clocks. Invariants: a baseline that clones stand on, or that is still being built (it has no
//! manifest yet), never goes; every decision removes one baseline, so deciding again and again ends.

use std::time::Duration;

/// The low mark: with less free, baselines go. The smaller of these.
const LOW_BYTES_MAX: u64 = 4 << 30;
const LOW_SHARE: u64 = 10;
/// The high mark: with this much free no more of them go. The smaller of these.
const HIGH_BYTES_MAX: u64 = 8 << 30;
const HIGH_SHARE: u64 = 5;
/// With fewer files left to be made, baselines go as for want of space.
const INODES_MIN: u64 = 100_000;

/// The pool's room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
    /// Where the file system counts them.
    pub(crate) inodes_free: Option<u64>,
}

/// A baseline in the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) key: String,
    /// Lanes and clones on it.
    pub(crate) users: usize,
    /// How long ago it was used; `None` without a manifest: it is being built.
    pub(crate) idle: Option<Duration>,
}

/// Why a baseline goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Nothing used it for so long.
    Unused,
    /// Something else needs its room.
    Space,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Bytes that are about to be written.
    pub(crate) need: u64,
    /// What was not used for so long goes.
    pub(crate) unused: Option<Duration>,
    /// Room is being made already: go on up to the high mark.
    pub(crate) making: bool,
}

/// The next baseline that goes, if one does.
pub(crate) fn next(space: Space, candidates: &[Candidate], wish: Wish) -> Option<(&str, Why)> {
    let free_to_go = candidates.iter().filter(|one| one.users == 0);
    let idle = free_to_go.filter_map(|one| Some((one.idle?, one.key.as_str())));
    // The one that was used longest ago; among equals any, but always the same.
    let (idle, key) = idle.max()?;
    if wish.unused.is_some_and(|unused| idle >= unused) {
        return Some((key, Why::Unused));
    }
    is_short(space, wish).then_some((key, Why::Space))
}

fn is_short(space: Space, wish: Wish) -> bool {
    let low = LOW_BYTES_MAX.min(space.total_bytes / LOW_SHARE);
    let high = HIGH_BYTES_MAX.min(space.total_bytes / HIGH_SHARE);
    let mark = if wish.making { high } else { low };
    space.free_bytes < mark.saturating_add(wish.need)
        || space.inodes_free.is_some_and(|free| free < INODES_MIN)
}

/// Whether anything has to go before so many more bytes are written.
pub(crate) fn is_short_of_room(space: &andon_snapshot::Space, need: u64) -> bool {
    let space = Space {
        free_bytes: space.free_bytes,
        total_bytes: space.total_bytes,
        inodes_free: space.inodes_free,
    };
    is_short(space, Wish { need, unused: None, making: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;
    const DAY: Duration = Duration::from_secs(86_400);
    const CALM: Wish = Wish { need: 0, unused: None, making: false };

    fn space(free: u64) -> Space {
        Space { free_bytes: free, total_bytes: 100 * GIB, inodes_free: None }
    }

    fn candidate(key: &str, users: usize, idle: Option<u32>) -> Candidate {
        Candidate { key: key.to_owned(), users, idle: idle.map(|days| DAY * days) }
    }

    #[test]
    fn the_least_recently_used_one_goes_first_and_none_while_there_is_room() {
        let all =
            [candidate("new", 0, Some(1)), candidate("old", 0, Some(9)), candidate("lane", 1, Some(30))];
        assert_eq!(next(space(4 * GIB), &all, CALM), None);
        assert_eq!(next(space(4 * GIB - 1), &all, CALM), Some(("old", Why::Space)));
        assert_eq!(next(space(5 * GIB), &all, Wish { need: 2 * GIB, ..CALM }), Some(("old", Why::Space)));
    }

    #[test]
    fn once_room_is_made_it_is_made_up_to_the_high_mark() {
        let all = [candidate("a", 0, Some(1))];
        assert_eq!(next(space(7 * GIB), &all, CALM), None);
        assert_eq!(next(space(7 * GIB), &all, Wish { making: true, ..CALM }), Some(("a", Why::Space)));
        assert_eq!(next(space(8 * GIB), &all, Wish { making: true, ..CALM }), None);
        // A small pool has small marks.
        let small = Space { total_bytes: GIB, ..space(GIB / 9) };
        assert_eq!(next(small, &all, CALM), None);
    }

    #[test]
    fn what_was_not_used_for_long_goes_though_there_is_room() {
        let all =
            [candidate("old", 0, Some(14)), candidate("lane", 2, Some(90)), candidate("built", 0, None)];
        let wish = Wish { unused: Some(DAY * 14), ..CALM };
        assert_eq!(next(space(90 * GIB), &all, wish), Some(("old", Why::Unused)));
        assert_eq!(next(space(90 * GIB), &all[1..], wish), None);
    }

    #[test]
    fn too_few_inodes_are_as_too_few_bytes() {
        let few = Space { inodes_free: Some(9), ..space(90 * GIB) };
        assert_eq!(next(few, &[candidate("a", 0, Some(0))], CALM), Some(("a", Why::Space)));
    }

    fn candidates() -> impl Strategy<Value = Vec<(u64, Candidate)>> {
        let one = (0u64..20, 0usize..3, proptest::option::of(0u32..30));
        proptest::collection::vec(one, 0..12).prop_map(|all| {
            let numbered = all.into_iter().enumerate();
            numbered.map(|(n, (gib, users, idle))| (gib, candidate(&n.to_string(), users, idle))).collect()
        })
    }

    proptest! {
        #[test]
        fn deciding_ends_spares_what_is_used_and_stops_at_the_mark(
            mut all in candidates(), free in 0u64..100, need in 0u64..10, days in proptest::option::of(0u32..40),
        ) {
            let mut free = free * GIB;
            let mut wish = Wish { need: need * GIB, unused: days.map(|days| DAY * days), making: false };
            let before = all.clone();
            let mut last = None;
            for _ in 0..=before.len() {
                let only: Vec<_> = all.iter().map(|(_, one)| one.clone()).collect();
                let Some((key, why)) = next(space(free), &only, wish) else { break };
                let at = all.iter().position(|(_, one)| one.key == key).unwrap();
                let (gib, gone) = all.remove(at);
                prop_assert!(gone.users == 0 && gone.idle.is_some());
                // Always the one that is idle longest.
                prop_assert!(last.is_none_or(|last| gone.idle <= last));
                last = Some(gone.idle);
                match why {
                    Why::Unused => prop_assert!(gone.idle >= wish.unused),
                    Why::Space => {
                        prop_assert!(free < 8 * GIB + wish.need);
                        wish.making = true;
                    }
                }
                free += gib * GIB;
            }
            let left: Vec<_> = all.iter().map(|(_, one)| one.clone()).collect();
            prop_assert_eq!(next(space(free), &left, wish), None);
            for (_, one) in before.iter().filter(|(_, one)| one.users > 0 || one.idle.is_none()) {
                prop_assert!(left.contains(one));
            }
        }
    }
}
