//! Is a test's footprint growing?
//!
//! Pure. A test that writes more and more is one whose data is not under control; the rebase undoes it all the same.

use andon_core::ids::RunId;

use crate::store::{Store, StoreError, TestRow};

/// Runs before this one that tell what is usual.
const RUNS_MAX: u32 = 10;
/// Fewer attempts than that tell nothing.
const SAMPLES_MIN: u64 = 3;
/// So many times what is usual, and so much more than it, is growth.
const TIMES_MIN: u64 = 2;
const BYTES_MORE_MIN: u64 = 1 << 20;

/// What one test's last measured attempt dirtied, beside what is usual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drift {
    /// Its suite.
    pub(crate) suite: String,
    /// As its runner names it.
    pub(crate) id: String,
    /// Bytes.
    pub(crate) dirtied_bytes: u64,
    /// Bytes, on average over the runs before; 0 where nothing is known.
    pub(crate) usual_bytes: u64,
    /// Much more than usual.
    pub(crate) grows: bool,
}

/// Of a run's tests that were measured, the most bytes first.
pub(crate) async fn of_run(store: &dyn Store, run: RunId) -> Result<Vec<Drift>, StoreError> {
    let (tests, usual) = (store.tests(run).await?, store.usual_dirt(run, RUNS_MAX).await?);
    let mut all: Vec<Drift> = tests
        .into_iter()
        .filter_map(|TestRow { suite, id, attempts, .. }| {
            let dirtied_bytes = attempts.iter().rev().find_map(|attempt| attempt.dirtied_bytes)?;
            let (usual_bytes, samples) = usual.get(&(suite.clone(), id.clone())).copied().unwrap_or_default();
            let grows = grows(dirtied_bytes, usual_bytes, samples);
            Some(Drift { suite, id, dirtied_bytes, usual_bytes, grows })
        })
        .collect();
    all.sort_by(|a, b| b.dirtied_bytes.cmp(&a.dirtied_bytes).then_with(|| a.id.cmp(&b.id)));
    Ok(all)
}

fn grows(now: u64, usual: u64, samples: u64) -> bool {
    samples >= SAMPLES_MIN
        && now >= usual.saturating_mul(TIMES_MIN)
        && now >= usual.saturating_add(BYTES_MORE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn growth_is_much_more_than_usual_and_more_than_a_page_or_two() {
        assert!(grows(20 * MIB, 9 * MIB, 3));
        assert!(!grows(20 * MIB, 9 * MIB, 2), "too little is known");
        assert!(!grows(17 * MIB, 9 * MIB, 9));
        assert!(!grows(40_000, 4_000, 9), "nobody minds some pages");
        assert!(grows(2 * MIB, 0, 5));
    }
}
