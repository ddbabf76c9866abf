//! What a lane writes while a unit runs on it, held against the suite's limit.
//!
//! Quotas of the kernel would be exact, and are not to be had everywhere: XFS has them only where the kernel was built with
//! them and reached by a mount option, btrfs by subvolume (container layers are none), overlay and plain copies lie on the
//! host's own file system. So the lane's folders are measured, again and again, and a unit that has gone beyond is ended.
//!
//! Must not know how a unit runs. Invariants: a unit is ended for what came after its start alone; what tests write and
//! unlink while it is open counts; measuring takes at most a [`SHARE`]th of one processor.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::{ContainerState, SharedEngine};
use crate::hands::blocking;
use crate::host::unlinked_bytes;
use crate::runner::{Cell, OUT_FOLDER, Overrun};

use super::witness::Services;

/// Between two looks, at least.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// Looks that take long are further apart: by so many times what they took.
const SHARE: u32 = 10;
/// What files without a name count as.
const UNLINKED: &str = "files that have no name any more";

/// A folder of the lane with what it is called in a message.
pub(crate) type Part = (String, PathBuf);

/// The folders of the stand that serves now. Shared with the lane: they change with a rebase within the unit.
pub(crate) type Parts = Arc<Mutex<Vec<Part>>>;

/// Keeps one unit to its limit.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) engine: SharedEngine,
    pub(crate) limit_bytes: u64,
    pub(crate) services: Services,
    /// Of the stand.
    pub(crate) parts: Parts,
    /// Of the unit's own container, beside its layer.
    pub(crate) own: Vec<Part>,
    /// On the containers that its tests start; `None` where they can start none.
    pub(crate) guests: Option<String>,
}

/// Bytes by the name of the part.
type Look = BTreeMap<String, u64>;

impl Keeper {
    /// Measures until it is dropped. A unit that has gone beyond the limit is told so by its cell, whose container is killed.
    pub(crate) async fn keep(mut self, cell: &Cell) -> Infallible {
        self.own.push((format!("its {OUT_FOLDER}"), cell.out_dir.clone()));
        if let Ok(state) = self.engine.inspect_container(&cell.container).await {
            self.own.extend(parts_of(state, "the test's container"));
        }
        let mut start = None;
        loop {
            let began = Instant::now();
            let now = self.look(cell).await;
            match &start {
                None => start = now,
                Some(start) => {
                    let over = now.and_then(|now| overrun(start, &now, self.limit_bytes));
                    if let Some(over) = over {
                        tracing::info!(container = cell.container, "{over}: the unit is ended");
                        // It is set once: this is its only place.
                        let _ = cell.overrun.set(over);
                        cell.kill().await;
                        return pending().await;
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY.max(began.elapsed() * SHARE)).await;
        }
    }

    /// `None` where the worker is in trouble: others will say so.
    async fn look(&self, cell: &Cell) -> Option<Look> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        parts.extend(self.own.iter().cloned());
        let mut containers = vec![cell.container.clone()];
        {
            let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
            containers.extend(services.iter().map(|(_, container)| container.clone()));
        }
        if let Some(label) = &self.guests {
            for guest in self.engine.list_containers(label).await.ok()? {
                // It may be gone again.
                if let Ok(state) = self.engine.inspect_container(&guest.id).await {
                    parts.extend(parts_of(state, "a container that the test started"));
                }
                containers.push(guest.id);
            }
        }
        let measured = blocking(move || {
            let mut look = Look::new();
            for (name, folder) in parts {
                *look.entry(name).or_default() += andon_snapshot::used_bytes(&folder);
            }
            look.insert(UNLINKED.to_owned(), unlinked_bytes(&containers));
            look
        });
        measured.await.ok()
    }
}

/// A container's layer and its volumes of the engine's own.
fn parts_of(state: ContainerState, name: &str) -> Vec<Part> {
    let volumes = state.mounts.into_iter().filter(|mount| mount.volume.is_some()).map(|mount| mount.source);
    state.upper_dir.into_iter().chain(volumes).map(|folder| (name.to_owned(), folder)).collect()
}

/// What came since the start, where it is too much. What shrinks makes no room for what grows: the stand's services may
/// throw away what they had before the unit.
fn overrun(start: &Look, now: &Look, limit_bytes: u64) -> Option<Overrun> {
    let grown = now.iter().map(|(name, bytes)| {
        let before = start.get(name).copied().unwrap_or(0);
        (bytes.saturating_sub(before), name)
    });
    let grown: Vec<(u64, &String)> = grown.collect();
    let written_bytes = grown.iter().map(|(bytes, _)| bytes).sum();
    let (_, mostly) = grown.iter().max()?;
    let mostly = (*mostly).clone();
    (written_bytes > limit_bytes).then_some(Overrun { limit_bytes, written_bytes, mostly })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(parts: &[(&str, u64)]) -> Look {
        parts.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect()
    }

    #[test]
    fn only_what_came_since_the_start_counts_and_the_largest_part_is_named() {
        let start = look(&[("volume/data", 300 << 20), ("layer/db", 5 << 20)]);
        let now =
            look(&[("volume/data", 340 << 20), ("layer/db", 1 << 20), ("the test's container", 30 << 20)]);
        assert_eq!(overrun(&start, &now, 70 << 20), None);
        let over = overrun(&start, &now, 64 << 20).expect("70 MiB were written");
        assert_eq!(
            over.to_string(),
            "disk limit of the lane: 64 MiB; 70 MiB were written, most of it in volume/data"
        );
    }

    #[test]
    fn a_stack_that_was_put_back_meanwhile_has_written_nothing() {
        let start = look(&[("volume/data", 300 << 20)]);
        assert_eq!(overrun(&start, &look(&[("volume/data", 290 << 20)]), 0), None);
        assert_eq!(overrun(&start, &Look::new(), 0), None);
    }
}
