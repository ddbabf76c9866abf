//! One coordinator leads a farm: the lock on its state folder, and patience with whoever holds what we need.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::CoordinatorError;
use crate::store::StoreError;

/// How often somebody who waits looks again: well below what a takeover otherwise takes.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A coordinator that was killed or stopped needs a moment until it is gone, on a busy machine also a long one.
const FAREWELL: Duration = Duration::from_secs(5);

/// What to do where another coordinator leads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhereLed {
    /// Refuse to start, unless the other one is just going away.
    #[default]
    Refuse,
    /// Wait for as long as it leads, and take over.
    StandBy,
}

impl WhereLed {
    /// Tries to get what one coordinator at a time can have, again and again while another has it.
    pub(crate) async fn get<T, F>(self, attempt: impl FnMut() -> F) -> Result<T, CoordinatorError>
    where
        F: Future<Output = Result<T, CoordinatorError>>,
    {
        let patience = match self {
            Self::Refuse => FAREWELL,
            Self::StandBy => Duration::MAX,
        };
        get_within(patience, attempt).await
    }
}

async fn get_within<T, F>(patience: Duration, mut attempt: impl FnMut() -> F) -> Result<T, CoordinatorError>
where
    F: Future<Output = Result<T, CoordinatorError>>,
{
    let first = Instant::now();
    let mut said = false;
    loop {
        match attempt().await {
            Err(led @ (CoordinatorError::InUse(_) | CoordinatorError::Store(StoreError::Led))) => {
                if first.elapsed() >= patience {
                    return Err(led);
                }
                if !std::mem::replace(&mut said, true) {
                    tracing::info!(because = %led, "standing by");
                }
            }
            decided => return decided,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One coordinator a state folder: two would give the same fence twice.
pub(crate) fn lock(state_dir: &Path) -> Result<std::fs::File, CoordinatorError> {
    std::fs::create_dir_all(state_dir).map_err(|source| crate::io("make", state_dir.to_owned(), source))?;
    let path = state_dir.join("coordinator.lock");
    let file = std::fs::File::create(&path).map_err(|source| crate::io("make", path, source))?;
    file.try_lock().map_err(|_| CoordinatorError::InUse(state_dir.to_owned()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_predecessor_that_is_going_away_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        let mut looks = 0;
        let mut held = Some(held);
        let ours = WhereLed::Refuse.get(|| {
            looks += 1;
            if looks == 3 {
                held = None;
            }
            std::future::ready(lock(folder.path()))
        });
        ours.await.unwrap();
        assert_eq!(looks, 3);
    }

    #[tokio::test]
    async fn one_that_stays_is_respected() {
        let folder = tempfile::tempdir().unwrap();
        let _held = lock(folder.path()).unwrap();
        let refused = get_within(LOOK_EVERY, || std::future::ready(lock(folder.path()))).await;
        assert!(matches!(refused.unwrap_err(), CoordinatorError::InUse(_)));
    }

    #[tokio::test]
    async fn another_failure_ends_the_wait() {
        let mut looks = 0;
        let got = WhereLed::StandBy.get(|| {
            looks += 1;
            std::future::ready(match looks {
                3 => Err(CoordinatorError::NowhereToListen),
                _ => Err::<(), _>(CoordinatorError::Store(StoreError::Led)),
            })
        });
        assert!(matches!(got.await.unwrap_err(), CoordinatorError::NowhereToListen));
    }
}
