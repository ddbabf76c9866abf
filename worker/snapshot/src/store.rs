//! The pool's folders on disk, what is registered in memory, and what a killed process left.
//!
//! ```text
//!   root/pool.lock            held by the one process that has the pool open
//!   root/pool.img             only where the host's file system cannot clone; mounted at root/pool
//!   root/pool/pool.json       which kind it was made as
//!            /baselines/KEY/  manifest.json, listings/TREE, set/   kept for ever, never written again
//!            /staging/N/      the same, in the making               cleared at open
//!            /lanes/LANE/     set/ (in place), spare/               cleared at open
//!            /trash/N-LANE/   used sets until they are discarded    cleared at open
//! ```
//!
//! Must not know: how kinds differ (driver.rs), archives. Invariants: a folder is in `baselines/` only if it was renamed
//! there whole; a baseline with users is not removed.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, chmod, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::Context as _;
use crate::image::Image;
use crate::pool::{PoolKind, PoolOptions};
use crate::probe::Choice;
use crate::tree::remove;
use crate::{Baseline, ImportLimits, PoolError, baseline, driver, mounts, names};

const BASELINES: &str = "baselines";
const STAGING: &str = "staging";
const LANES: &str = "lanes";
const TRASH: &str = "trash";
/// What a process leaves when it is killed.
const TRANSIENT: [&str; 3] = [STAGING, LANES, TRASH];

/// The pool behind all its handles.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) choice: Choice,
    pub(crate) import: ImportLimits,
    state: Mutex<State>,
    /// A lane was left.
    left: Condvar,
    counter: AtomicU64,
    /// Keeps other processes out until the last handle is gone.
    _lock: Lock,
}

#[derive(Debug, Default)]
struct State {
    baselines: BTreeMap<String, Held>,
    lanes: HashSet<String>,
    /// What lies in the trash and somebody will delete.
    trash: HashSet<PathBuf>,
}

#[derive(Debug)]
struct Held {
    baseline: Baseline,
    users: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    kind: PoolKind,
}

/// The lock that one process has on a pool's root.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a program that is just being started holds a copy of it until it is exec'd.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Locks the pool's root for this process.
pub(crate) fn lock(root: &Path) -> Result<Lock, PoolError> {
    let path = root.join("pool.lock");
    let file = File::create(&path).ctx("create", &path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(file)),
        Err(Errno::WOULDBLOCK) => Err(PoolError::AlreadyOpen { root: root.to_owned() }),
        Err(error) => Err(error).ctx("lock", &path),
    }
}

impl Store {
    /// Takes over what is on disk.
    pub(crate) fn open(
        root: &Path,
        mut choice: Choice,
        options: &PoolOptions,
        lock: Lock,
    ) -> Result<Store, PoolError> {
        let dir = choice.dir.clone();
        fs::create_dir_all(&dir).ctx("make", &dir)?;
        // Trees hold whatever a database holds: nobody lists the pool, and whoever must can pass through.
        chmod(&dir, Mode::from_raw_mode(0o711)).ctx("change the mode of", &dir)?;
        identify(root, &dir, choice.kind)?;
        for folder in TRANSIENT {
            clear(choice.kind, &dir.join(folder))?;
        }
        let baselines = dir.join(BASELINES);
        fs::create_dir_all(&baselines).ctx("make", &baselines)?;
        let mut state = State::default();
        for entry in fs::read_dir(&baselines).ctx("list", &baselines)? {
            let path = entry.ctx("list", &baselines)?.path();
            if baseline::is_forgotten(&path) {
                // Its removal was cut off. A full disk must not hinder the others.
                if let Err(error) = remove_baseline(choice.kind, &path) {
                    choice.notes.push(format!("{error}"));
                }
                continue;
            }
            match Baseline::load(&path) {
                Ok(baseline) if driver::can_use(choice.kind, &baseline.set()) => {
                    state.baselines.insert(baseline.key().to_owned(), Held { baseline, users: 0 });
                }
                Ok(_) => choice.notes.push(format!("{} is not of kind {}", path.display(), choice.kind)),
                Err(error) => choice.notes.push(format!("{error}")),
            }
        }
        let counter = AtomicU64::new(0);
        let state = Mutex::new(state);
        Ok(Store { choice, import: options.import, state, left: Condvar::new(), counter, _lock: lock })
    }

    pub(crate) fn kind(&self) -> PoolKind {
        self.choice.kind
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.choice.dir
    }

    /// Makes room for `need` bytes where the pool's image can grow; the sizes before and after.
    pub(crate) fn grow_for(&self, need: u64) -> Option<(u64, u64)> {
        self.choice.image.as_ref()?.grow_for(need)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn new_staging(&self) -> PathBuf {
        self.dir().join(STAGING).join(self.number().to_string())
    }

    /// A new name in the trash; `from` is a folder's name, for people who look. Who asks for it calls `emptied` later.
    pub(crate) fn new_trash(&self, from: &str) -> PathBuf {
        self.new_trash_in(&mut self.state(), from)
    }

    fn new_trash_in(&self, state: &mut State, from: &str) -> PathBuf {
        let path = self.dir().join(TRASH).join(format!("{}-{from}", self.number()));
        state.trash.insert(path.clone());
        path
    }

    /// Nobody deletes what lies there any more; if something still does, `sweep_trash` may.
    pub(crate) fn emptied(&self, trash: &Path) {
        self.state().trash.remove(trash);
    }

    /// Deletes what lies in the trash and could not be deleted when it should have been; how many sets.
    pub(crate) fn sweep_trash(&self) -> Result<u64, PoolError> {
        let trash = self.dir().join(TRASH);
        let mut swept = 0;
        for entry in fs::read_dir(&trash).ctx("list", &trash)? {
            let path = entry.ctx("list", &trash)?.path();
            if self.state().trash.contains(&path) || !path.exists() {
                continue;
            }
            let kind = self.kind();
            // A used clone, or a baseline's folder.
            remove_baseline(kind, &path).and_then(|()| driver::remove_set(kind, &path))?;
            swept += 1;
        }
        Ok(swept)
    }

    /// How many clones stand on the baseline.
    pub(crate) fn users(&self, key: &str) -> usize {
        self.state().baselines.get(key).map_or(0, |held| held.users)
    }

    pub(crate) fn baseline(&self, key: &str) -> Option<Baseline> {
        self.state().baselines.get(key).map(|held| held.baseline.clone())
    }

    pub(crate) fn baselines(&self) -> Vec<Baseline> {
        self.state().baselines.values().map(|held| held.baseline.clone()).collect()
    }

    /// Makes the finished staging a baseline, or gives the one that is there.
    pub(crate) fn publish(&self, key: &str, staging: &Path) -> Result<Baseline, PoolError> {
        let baselines = self.dir().join(BASELINES);
        let path = baselines.join(names::folder("baseline key", key)?);
        let mut state = self.state();
        if let Some(held) = state.baselines.get(key) {
            return Ok(held.baseline.clone());
        }
        if path.exists() {
            // It could not be loaded when the pool was opened: what is whole takes its place.
            let trash = self.new_trash_in(&mut state, "damaged");
            let removed = driver::move_set(&path, &trash).and_then(|()| remove_baseline(self.kind(), &trash));
            state.trash.remove(&trash);
            removed?;
        }
        driver::move_set(staging, &path)?;
        File::open(&baselines).and_then(|dir| dir.sync_all()).ctx("sync", &baselines)?;
        let baseline = Baseline::load(&path)?;
        state.baselines.insert(key.to_owned(), Held { baseline: baseline.clone(), users: 0 });
        Ok(baseline)
    }

    /// Removes a baseline that nobody uses; false if there is none.
    pub(crate) fn remove(&self, key: &str) -> Result<bool, PoolError> {
        let mut state = self.state();
        let Some(held) = state.baselines.get(key) else { return Ok(false) };
        if held.users > 0 {
            return Err(PoolError::BaselineInUse { key: key.to_owned(), users: held.users });
        }
        let dir = held.baseline.dir().to_owned();
        let trash = self.new_trash_in(&mut state, "baseline");
        let moved = match driver::move_set(&dir, &trash) {
            // btrfs has no room even for a rename until what was deleted before is committed.
            Err(PoolError::Full { .. }) => self.sync().and_then(|()| driver::move_set(&dir, &trash)),
            other => other,
        };
        let gone = match moved {
            Ok(()) => Ok(trash.clone()),
            // Or not at all, but deleting goes on its reserve. Without its manifest it is none (`Store::open`).
            Err(PoolError::Full { .. }) => baseline::forget(&dir).map(|()| dir),
            Err(error) => Err(error),
        };
        if gone.is_ok() {
            state.baselines.remove(key);
        }
        drop(state);
        let removed = gone.and_then(|gone| remove_baseline(self.kind(), &gone));
        self.emptied(&trash);
        removed?;
        // Who removes baselines to make room looks at the free space next.
        self.sync()?;
        Ok(true)
    }

    /// Waits until the space of what was deleted is free again.
    pub(crate) fn sync(&self) -> Result<(), PoolError> {
        driver::reclaim(self.kind(), self.dir())
    }

    /// Registers a user of the baseline.
    pub(crate) fn hold(self: &Arc<Self>, baseline: &Baseline) -> Result<Use, PoolError> {
        match self.state().baselines.get_mut(baseline.key()) {
            Some(held) if held.baseline.is(baseline) => held.users += 1,
            _ => return Err(PoolError::BaselineGone { key: baseline.key().to_owned() }),
        }
        Ok(Use { store: Arc::clone(self), baseline: baseline.clone() })
    }

    /// Registers a lane, and gives its folder, empty.
    pub(crate) fn enter_lane(&self, lane: &str) -> Result<PathBuf, PoolError> {
        let dir = self.dir().join(LANES).join(names::folder("lane name", lane)?);
        if !self.state().lanes.insert(lane.to_owned()) {
            return Err(PoolError::LaneInUse { lane: lane.to_owned() });
        }
        let made = clear(self.kind(), &dir);
        if made.is_err() {
            self.leave_lane(lane);
        }
        made.map(|()| dir)
    }

    pub(crate) fn leave_lane(&self, lane: &str) {
        self.state().lanes.remove(lane);
        self.left.notify_all();
    }

    /// Waits until nobody has the lane, but no longer than this.
    pub(crate) fn wait_for_lane(&self, lane: &str, limit: Duration) {
        let taken = self.left.wait_timeout_while(self.state(), limit, |state| state.lanes.contains(lane));
        drop(taken.unwrap_or_else(PoisonError::into_inner));
    }

    /// Unmounts all that the pool mounted.
    pub(crate) fn unmount(&self) -> Result<(), PoolError> {
        for folder in TRANSIENT {
            mounts::unmount_below(&self.dir().join(folder))?;
        }
        self.choice.image.as_ref().map_or(Ok(()), Image::unmount)
    }
}

/// A user of a baseline: while it lives the baseline is not removed.
#[derive(Debug)]
pub(crate) struct Use {
    pub(crate) store: Arc<Store>,
    pub(crate) baseline: Baseline,
}

impl Clone for Use {
    fn clone(&self) -> Self {
        if let Some(held) = self.store.state().baselines.get_mut(self.baseline.key()) {
            held.users += 1;
        }
        Use { store: Arc::clone(&self.store), baseline: self.baseline.clone() }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if let Some(held) = self.store.state().baselines.get_mut(self.baseline.key()) {
            held.users -= 1;
        }
    }
}

/// Checks that the pool was made as this kind, or notes it in a new one. Kinds whose trees are plain folders can take
/// over from each other.
fn identify(root: &Path, dir: &Path, kind: PoolKind) -> Result<(), PoolError> {
    let path = dir.join("pool.json");
    if let Ok(text) = fs::read(&path)
        && let Ok(Identity { kind: was }) = serde_json::from_slice(&text)
        && was != kind
        && (was == PoolKind::Btrfs || kind == PoolKind::Btrfs)
    {
        return Err(PoolError::KindChanged { root: root.to_owned(), was, now: kind });
    }
    let text = serde_json::to_vec(&Identity { kind }).expect("an identity is JSON");
    fs::write(&path, text).ctx("write", &path)
}

/// Removes what a killed process left in a folder of sets, lanes or stagings, and makes it anew.
fn clear(kind: PoolKind, dir: &Path) -> Result<(), PoolError> {
    if dir.exists() {
        mounts::unmount_below(dir)?;
        remove_sets_below(kind, dir, 2)?;
    }
    remove::tree(dir)?;
    fs::create_dir_all(dir).ctx("make", dir)
}

/// Sets lie at most two folders deep: `lanes/LANE/set`, `staging/N/set`, `trash/N-LANE`.
fn remove_sets_below(kind: PoolKind, dir: &Path, levels: u32) -> Result<(), PoolError> {
    for entry in fs::read_dir(dir).ctx("list", dir)? {
        let path = entry.ctx("list", dir)?.path();
        if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            continue;
        }
        if path.join(driver::TREES).exists() {
            driver::remove_set(kind, &path)?;
        } else if levels > 1 {
            remove_sets_below(kind, &path, levels - 1)?;
        }
    }
    Ok(())
}

/// Removes a baseline's folder, or a staging's.
pub(crate) fn remove_baseline(kind: PoolKind, dir: &Path) -> Result<(), PoolError> {
    driver::remove_set(kind, &dir.join(crate::baseline::SET))?;
    remove::tree(dir)
}
