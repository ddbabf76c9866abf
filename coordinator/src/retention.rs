//! What old runs leave behind is deleted in the background: a little at a time, so that no round waits for long.

use std::sync::Arc;
use std::time::Duration;

use crate::blobs::{Blobs, Digest};
use crate::clock::Clock;
use crate::store::Store;
use crate::unreferenced::Sweep;

/// Rows of one step: some milliseconds, for which a round may have to wait.
const ROWS_MAX: u32 = 1_000;
/// Between two steps.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks once nothing is left to do, and after a step that failed.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// Deletes what runs left behind that ended longer ago than `keep`. Never ends.
pub(crate) async fn run(store: Arc<dyn Store>, blobs: Blobs, keep: Duration, clock: Clock) {
    let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
    let mut sweep = Sweep::new();
    loop {
        let before_ms = clock.now().unix_ms.saturating_sub(keep_ms);
        let pause = match store.forget(before_ms, ROWS_MAX).await {
            Ok(forgotten) => {
                remove(&blobs, &forgotten.blobs).await;
                if forgotten.is_more {
                    PAUSE
                } else {
                    unreferenced(&mut sweep, &*store, &blobs).await;
                    LOOK_EVERY
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot delete what old runs left");
                LOOK_EVERY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn unreferenced(sweep: &mut Sweep, store: &dyn Store, blobs: &Blobs) {
    match sweep.step(store, blobs).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "sources and specifications of forgotten runs were deleted"),
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "cannot delete sources and specifications of forgotten runs"
        ),
    }
}

/// A unit that leaves the same files at this very moment loses them: a reader is told that the blob is not there.
async fn remove(blobs: &Blobs, unused: &[String]) {
    for digest in unused.iter().filter_map(|digest| Digest::parse(digest).ok()) {
        if let Err(error) = blobs.remove(&digest).await {
            tracing::warn!(%error, digest = digest.as_str(), "cannot delete artifacts");
        }
    }
}

#[cfg(test)]
mod tests {
    use andon_core::ids::RunId;
    use andon_core::model::{Record, RunEnd, RunHeader, RunState};

    use super::*;
    use crate::store::memory::Memory;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    #[tokio::test]
    async fn runs_are_forgotten_after_their_time_and_not_before() {
        let clock = Clock::start();
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let now_ms = clock.now().unix_ms;
        for (run, days_ago) in [(RunId(1), 9_u64), (RunId(2), 8), (RunId(3), 6)] {
            let at_unix_ms = now_ms - days_ago * 24 * 3_600_000;
            let over = RunState::Ended(RunEnd::Passed);
            let records = [
                Record::RunCreated { run, header: RunHeader::default(), at_unix_ms },
                Record::Noted { run, text: "a note".into(), log_zstd: vec![], at_unix_ms },
                Record::RunMoved { run, state: over, reason: String::new(), at_unix_ms },
            ];
            store.apply(&records).await.unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path().join("blobs")).unwrap();
        let job = tokio::spawn(run(Arc::clone(&store), blobs, 7 * DAY, clock));
        let forgotten = async {
            for run in [RunId(1), RunId(2)] {
                while !store.run(run).await.unwrap().unwrap().forgotten {
                    tokio::task::yield_now().await;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), forgotten).await.expect("old runs are forgotten");
        assert!(store.notes(RunId(1)).await.unwrap().is_empty());
        assert_eq!(store.notes(RunId(3)).await.unwrap().len(), 1);
        job.abort();
    }
}
