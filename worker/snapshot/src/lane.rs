//! A lane's clone of a baseline, and what becomes of it when it is used.
//!
//! ```text
//!            ready_spare             reset                       discard
//!   (clone) ─────────────> spare/ ──rename──> set/ ──rename──> trash/N-LANE ─────> gone
//! ```
//!
//! Must not know: how trees are cloned. Invariants: `set/` is always a whole clone; a reset that fails leaves the used
//! one in place; the lane's own folder is the same over resets.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::Mode;

use crate::driver::{self, Source};
use crate::error::Context as _;
use crate::store::{Store, Use};
use crate::tree::{Stamp, ctime_of, remove};
use crate::{Baseline, Changes, Difference, Footprint, PoolError, PoolKind, footprint, verify};

const IN_PLACE: &str = "set";
const SPARE: &str = "spare";
const MAKING: &str = "making";
/// An empty file in a set, made when its clone was whole: its time is that instant on the file system's clock.
const MADE: &str = "made";
/// A try lasts about 2 µs, the coarsest tick 10 ms. A clock that stands still must not hold a lane up.
const TICK_TRIES_MAX: u32 = 50_000;

/// A lane's clone of a baseline. Methods take `&self`: share it by `Arc`. Dropping it discards it (on a blocking thread).
#[derive(Debug)]
pub struct LaneClone {
    used: Use,
    lane: String,
    dir: PathBuf,
    /// Which of the baseline's trees it has.
    trees: Vec<usize>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the clone in place was made.
    made: Stamp,
    /// When the spare was made, if there is one.
    spare: Option<Stamp>,
}

impl LaneClone {
    pub(crate) fn new(
        store: &Arc<Store>,
        lane: &str,
        baseline: &Baseline,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<LaneClone, PoolError> {
        let used = store.hold(baseline)?;
        let trees = baseline.trees().iter().enumerate().filter(|(_, tree)| wanted(&tree.name));
        let trees = trees.map(|(index, _)| index).collect();
        let dir = store.enter_lane(lane)?;
        let state = Mutex::new(State { made: Stamp(0, 0), spare: None });
        // From here on its drop undoes what was done.
        let clone = LaneClone { used, lane: lane.to_owned(), dir, trees, state };
        clone.state().made = clone.make(IN_PLACE)?;
        Ok(clone)
    }

    /// The lane's name.
    pub fn lane(&self) -> &str {
        &self.lane
    }

    /// What it is a clone of.
    pub fn baseline(&self) -> &Baseline {
        &self.used.baseline
    }

    /// The lane's folder: the same inode over resets, above every tree's path. Who stays alive over a reset has this
    /// one bound, and finds the new clone under the old path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the tree is; the same over resets.
    pub fn path(&self, tree: &str) -> Result<PathBuf, PoolError> {
        let index = self.baseline().index(tree)?;
        if !self.trees.contains(&index) {
            let trees = self.trees.iter().map(|index| self.baseline().at(*index).name.to_owned()).collect();
            let (key, tree) = (self.baseline().key().to_owned(), tree.to_owned());
            return Err(PoolError::NoSuchTree { key, tree, trees });
        }
        Ok(driver::tree_in(&self.dir.join(IN_PLACE), self.baseline().at(index).folder))
    }

    /// Prepares the next clone, off the hot path. Does nothing if one is ready.
    pub fn ready_spare(&self) -> Result<(), PoolError> {
        let mut state = self.state();
        if state.spare.is_none() {
            state.spare = Some(self.make(SPARE)?);
        }
        Ok(())
    }

    /// True where `reset` has nothing to clone.
    pub fn has_spare(&self) -> bool {
        self.state().spare.is_some()
    }

    /// Puts a fresh clone in place: the spare, if one is ready. The used one is moved aside. Nobody may have files
    /// open in it that matter. On an error the used one stays in place.
    pub fn reset(&self) -> Result<Retired, PoolError> {
        let mut state = self.state();
        let made = match state.spare {
            Some(made) => made,
            None => *state.spare.insert(self.make(SPARE)?),
        };
        let (place, spare, trash) = (self.dir.join(IN_PLACE), self.dir.join(SPARE), self.new_trash());
        if let Err(error) = driver::move_set(&place, &trash) {
            self.used.store.emptied(&trash);
            return Err(error);
        }
        if let Err(error) = driver::move_set(&spare, &place) {
            driver::move_set(&trash, &place)?;
            self.used.store.emptied(&trash);
            return Err(error);
        }
        let retired = self.retired(trash, state.made);
        *state = State { made, spare: None };
        Ok(retired)
    }

    /// The clone in place matches the baseline's listing: paths, kinds, modes, owners, sizes, times, link targets.
    pub fn verify(&self) -> Result<(), Difference> {
        // No reset in between.
        let _state = self.state();
        self.trees.iter().try_for_each(|index| {
            let tree = self.baseline().at(*index);
            let place = driver::tree_in(&self.dir.join(IN_PLACE), tree.folder);
            verify::compare(tree.name, tree.listing, &place)
        })
    }

    /// The clone in place is the baseline to the last byte: what `verify` compares, then attributes and contents. Reads
    /// everything, so nobody may write to it meanwhile; finds a damaged baseline as well (`digest`).
    pub fn verify_deep(&self) -> Result<(), Difference> {
        let _state = self.state();
        self.trees.iter().try_for_each(|index| {
            let (tree, digest) = (self.baseline().at(*index), &self.baseline().trees()[*index].tree_digest);
            let place = driver::tree_in(&self.dir.join(IN_PLACE), tree.folder);
            verify::compare_deep(tree.name, tree.listing, digest, &tree.path, &place)
        })
    }

    /// What the clone in place has by now that the baseline has not, with up to `limit` changed paths a tree. Exact only
    /// while nobody writes to it.
    pub fn changes(&self, limit: usize) -> Result<Changes, PoolError> {
        let state = self.state();
        changes(self.baseline(), &self.trees, &self.dir.join(IN_PLACE), state.made, limit)
    }

    /// Gives the lane up; its last clone is handed over.
    pub fn retire(self) -> Result<Retired, PoolError> {
        let trash = self.new_trash();
        if let Err(error) = driver::move_set(&self.dir.join(IN_PLACE), &trash) {
            self.used.store.emptied(&trash);
            return Err(error);
        }
        let made = self.state().made;
        Ok(self.retired(trash, made))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_trash(&self) -> PathBuf {
        self.used.store.new_trash(&self.dir.file_name().unwrap_or_default().to_string_lossy())
    }

    fn retired(&self, dir: PathBuf, made: Stamp) -> Retired {
        Retired { used: self.used.clone(), dir, made, trees: self.trees.clone(), discarded: false }
    }

    /// Makes a whole clone under a name in the lane's folder.
    fn make(&self, name: &str) -> Result<Stamp, PoolError> {
        let kind = self.used.store.kind();
        let bytes: u64 = self.trees.iter().map(|index| self.baseline().trees()[*index].bytes).sum();
        // A copy writes all of it; of the other kinds' clones databases write some.
        self.used.store.grow_for(if kind == PoolKind::Copy { bytes } else { 0 });
        let making = self.dir.join(MAKING);
        driver::remove_set(kind, &making)?;
        let trees: Vec<_> = self.trees.iter().map(|index| self.baseline().at(*index)).collect();
        let sources: Vec<_> =
            trees.iter().map(|tree| Source { folder: tree.folder, listing: tree.listing }).collect();
        let cloned = driver::clone_set(kind, &self.baseline().set(), &sources, &making);
        cloned.map_err(|error| if kind == PoolKind::Copy { error.needing(bytes) } else { error })?;
        let made = mark_made(&making.join(MADE))?;
        driver::move_set(&making, &self.dir.join(name))?;
        Ok(made)
    }
}

/// The instant at which a clone was whole, on the file system's clock. What is changed from now on has a later time.
///
/// That clock ticks coarsely. Kernels since 6.13 give the next change of a file whose time was asked for a finer one,
/// and no later change an earlier one than that; on older ones this lasts until the next tick.
fn mark_made(path: &Path) -> Result<Stamp, PoolError> {
    let file = File::create(path).ctx("create", path)?;
    let time = || Ok(ctime_of(&rustix::fs::fstat(&file).ctx("read", path)?));
    let made = time()?;
    for _ in 0..TICK_TRIES_MAX {
        rustix::fs::fchmod(&file, Mode::RUSR).ctx("change the mode of", path)?;
        if time()? > made {
            break;
        }
    }
    Ok(made)
}

impl Drop for LaneClone {
    fn drop(&mut self) {
        // What cannot be removed now is cleared when the lane, or the pool, is opened next.
        for name in [IN_PLACE, SPARE, MAKING] {
            let _ = driver::remove_set(self.used.store.kind(), &self.dir.join(name));
        }
        let _ = remove::tree(&self.dir);
        self.used.store.leave_lane(&self.lane);
    }
}

/// A used clone, moved aside. Dropping it discards it: do that on a blocking thread.
#[derive(Debug)]
pub struct Retired {
    used: Use,
    dir: PathBuf,
    made: Stamp,
    trees: Vec<usize>,
    discarded: bool,
}

impl Retired {
    /// What was changed relative to the baseline, over all trees.
    pub fn footprint(&self) -> Result<Footprint, PoolError> {
        let mut sum = Footprint::default();
        for index in &self.trees {
            let tree = self.used.baseline.at(*index);
            let used = driver::tree_in(&self.dir, tree.folder);
            sum += footprint::measure(tree.listing, &tree.path, &used, Some(self.made))?;
        }
        Ok(sum)
    }

    /// The same with the paths that were changed, the most bytes first, up to `limit` of them a tree: as one pass, so
    /// that who wants both asks for this alone.
    pub fn changes(&self, limit: usize) -> Result<Changes, PoolError> {
        changes(&self.used.baseline, &self.trees, &self.dir, self.made, limit)
    }

    /// Where the used tree is now, to look into what a test left.
    pub fn path(&self, tree: &str) -> Result<PathBuf, PoolError> {
        Ok(driver::tree_in(&self.dir, self.used.baseline.tree(tree)?.folder))
    }

    /// Deletes it; may be slow. What cannot be deleted now is swept up later (`Pool::sweep_trash`).
    pub fn discard(mut self) -> Result<(), PoolError> {
        self.discarded = true;
        self.delete()
    }

    fn delete(&self) -> Result<(), PoolError> {
        let deleted = driver::remove_set(self.used.store.kind(), &self.dir);
        self.used.store.emptied(&self.dir);
        deleted
    }
}

fn changes(
    baseline: &Baseline,
    trees: &[usize],
    set: &Path,
    made: Stamp,
    limit: usize,
) -> Result<Changes, PoolError> {
    let compared = trees.iter().map(|index| {
        let tree = baseline.at(*index);
        let used = driver::tree_in(set, tree.folder);
        let collected = footprint::collect(tree.listing, &tree.path, &used, Some(made), limit)?;
        Ok(collected.finish(tree.name))
    });
    Ok(Changes::of(compared.collect::<Result<_, PoolError>>()?))
}

impl Drop for Retired {
    fn drop(&mut self) {
        if !self.discarded {
            let _ = self.delete();
        }
    }
}
