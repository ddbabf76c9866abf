//! Stacks as failed tests left them, kept to look into.
//!
//! ```text
//!   unit runs ──expect──> a test failed ──Keeping──> its stack is put back: layers taken aside, volumes kept instead of deleted
//!                              │ none did                        │
//!                              └──> nothing                      └──> Kept ──whole──> a baseline of its own, to raise stands on
//!                                                                       └── too old, too many, no room: deleted
//! ```
//!
//! Nothing is copied for it: a rebase moves the used volumes aside in any case, and here they are deleted later. Only what
//! services wrote into their own layers is taken while they are dead, by clones; where the pool has none, only a little of it.
//!
//! Knows the pool; must not know engines, streams or sessions. Invariants: so many a project, so many in all, each for a time; they
//! go before anything else does where there is no room; nothing of it outlives the worker's process (the pool clears it when
//! it is opened, and baselines without a manifest go when the worker starts).

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use andon_proto::Policy;
use andon_snapshot::{Baseline, Changes, Pool, PoolError, PoolKind, Retired, Staging};
use tokio::sync::Notify;

use super::workshop::Place;
use crate::baseline::is_short_of_room;
use crate::hands::chain;

/// Of all projects together, on a worker.
const KEPT_MAX: usize = 16;
/// Where a project does not say.
const PROJECT_DEFAULT: u32 = 3;
const FOR_DEFAULT: Duration = Duration::from_secs(30 * 60);
const FOR_MAX: Duration = Duration::from_secs(24 * 3600);
/// Largest layer of a service that is taken aside where the pool clones, and where it copies, in bytes.
const LAYER_BYTES_MAX: u64 = 1 << 30;
const COPIED_LAYER_BYTES_MAX: u64 = 16 << 20;
/// Paths of one layer that are remembered.
const LAYER_FILES_MAX: usize = 2_000;

/// What a project asks of its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeepRule {
    /// At a time on this worker; the oldest gives way.
    pub(crate) most: usize,
    pub(crate) time: Duration,
}

impl KeepRule {
    /// `None` where nothing is to be kept.
    pub(crate) fn of(policy: Option<&Policy>) -> Option<Self> {
        let policy = policy.filter(|policy| policy.keep_failed)?;
        let most = if policy.keep_max == 0 { PROJECT_DEFAULT } else { policy.keep_max };
        let time = match policy.keep_for_ms {
            0 => FOR_DEFAULT,
            ms => Duration::from_millis(ms).min(FOR_MAX),
        };
        Some(Self { most: usize::try_from(most).unwrap_or(KEPT_MAX).min(KEPT_MAX), time })
    }
}

/// Whose stack it is.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    pub(crate) project: String,
    pub(crate) run: u64,
    /// Where the unit ran.
    pub(crate) place: Place,
    pub(crate) rule: KeepRule,
}

/// A kept stack. Dropping it deletes it: do that on a thread that may block.
#[derive(Debug)]
pub(crate) struct Kept {
    label: Label,
    /// The tests that ran on it, in order, and whether each failed.
    outcomes: Vec<(u64, bool)>,
    since: Instant,
    /// What its services wrote into their own layers, told when it was taken.
    layer_changes: Changes,
    pool: Pool,
    /// Under which it is a baseline, once it is.
    key: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The volumes; nothing where the stack was not touched.
    volumes: Option<Retired>,
    /// The layers that were changed.
    layers: Option<Staging>,
    whole: Option<Baseline>,
}

impl Kept {
    /// Where its unit ran.
    pub(crate) fn place(&self) -> &Place {
        &self.label.place
    }

    /// Of this run.
    pub(crate) fn run(&self) -> u64 {
        self.label.run
    }

    /// Tests that ran on it after this one.
    pub(crate) fn tests_after(&self, attempt: u64) -> usize {
        self.outcomes.iter().rev().take_while(|(other, _)| *other != attempt).count()
    }

    /// How long it will still be there.
    pub(crate) fn left(&self) -> Duration {
        self.label.rule.time.saturating_sub(self.since.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is not as in the baseline, with up to so many paths a tree. Blocking.
    pub(crate) fn changes(&self, files_max: usize) -> Result<Changes, PoolError> {
        let mut all = match &self.state().volumes {
            Some(volumes) => volumes.changes(files_max)?,
            None => Changes::default(),
        };
        all.footprint += self.layer_changes.footprint;
        all.trees.extend(self.layer_changes.trees.iter().cloned());
        for tree in &mut all.trees {
            if tree.files.len() > files_max {
                tree.left_out += tree.files.drain(files_max..).len() as u64;
            }
        }
        all.trees.retain(|tree| tree.footprint.files > 0);
        Ok(all)
    }

    /// All of it as a baseline, made when it is asked for first. Blocking: reads every byte of it.
    pub(crate) fn whole(&self) -> Result<Option<Baseline>, PoolError> {
        let Some(ground) = &self.label.place.ground else { return Ok(None) };
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(whole) = &state.whole {
            return Ok(Some(whole.clone()));
        }
        let Some(volumes) = &state.volumes else { return Ok(Some(ground.baseline.clone())) };
        let layers = state.layers.take();
        let taken = layers.as_ref().map(|layers| layers.trees().to_vec()).unwrap_or_default();
        let mut staging = match layers {
            Some(layers) => layers,
            None => self.pool.stage(&self.key)?,
        };
        let mut fill = || {
            for tree in ground.baseline.trees().iter().map(|tree| tree.name.as_str()) {
                match () {
                    () if taken.iter().any(|name| name == tree) => {}
                    () if is_layer(tree) => {
                        let nothing: [std::io::Empty; 0] = [];
                        staging.import_layers(tree, Some(&ground.baseline), nothing)?;
                    }
                    () => staging.capture(tree, &volumes.path(tree)?)?,
                }
            }
            Ok::<_, PoolError>(())
        };
        fill()?;
        let whole = staging.publish(serde_json::json!({ "kept_of_run": self.label.run }))?;
        state.whole = Some(whole.clone());
        Ok(Some(whole))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.state().whole.take().is_some()
            && let Err(error) = self.pool.remove(&self.key)
        {
            // It goes when the worker starts next.
            tracing::warn!(error = %chain(&error), "deleting a kept stack");
        }
    }
}

fn is_layer(tree: &str) -> bool {
    tree.starts_with("layer/")
}

/// All that this worker keeps.
#[derive(Debug)]
pub(crate) struct KeptShelf {
    pool: Pool,
    stock: Mutex<Stock>,
    moved: Notify,
}

#[derive(Debug, Default)]
struct Stock {
    serial: u64,
    /// The oldest first.
    kept: VecDeque<Arc<Kept>>,
    /// Runs with attempts that may still be kept, and how often they are expected.
    expected: HashMap<(u64, u64), u32>,
}

/// What came of asking for a kept stack.
#[derive(Debug)]
pub(crate) enum Asked {
    Found(Arc<Kept>),
    /// Its unit has not ended yet.
    Running,
    Gone,
}

impl KeptShelf {
    pub(crate) fn new(pool: Pool) -> Arc<Self> {
        Arc::new(Self { pool, stock: Mutex::default(), moved: Notify::new() })
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These attempts are at work: whoever asks for what they leave waits until that is decided.
    pub(crate) fn expect(self: &Arc<Self>, label: Label, attempts: &[u64]) -> Arc<Expected> {
        let mut stock = self.stock();
        for attempt in attempts {
            *stock.expected.entry((label.run, *attempt)).or_default() += 1;
        }
        Arc::new(Expected { shelf: Arc::clone(self), label, attempts: attempts.to_vec() })
    }

    /// What this failed attempt left; waits for it for so long where its unit has not ended.
    pub(crate) async fn find(&self, run: u64, attempt: u64, patience: Duration) -> Asked {
        let until = tokio::time::Instant::now() + patience;
        loop {
            let moved = self.moved.notified();
            {
                let stock = self.stock();
                let is_it = |kept: &&Arc<Kept>| {
                    kept.label.run == run
                        && kept.left() > Duration::ZERO
                        && kept.outcomes.contains(&(attempt, true))
                };
                if let Some(kept) = stock.kept.iter().find(is_it) {
                    return Asked::Found(Arc::clone(kept));
                }
                if !stock.expected.contains_key(&(run, attempt)) {
                    return Asked::Gone;
                }
            }
            if tokio::time::timeout_at(until, moved).await.is_err() {
                return Asked::Running;
            }
        }
    }

    /// What gives way is deleted here: blocking.
    fn put(&self, kept: Kept) {
        let rule = kept.label.rule;
        let gone = {
            let mut stock = self.stock();
            let project = kept.label.project.clone();
            stock.kept.push_back(Arc::new(kept));
            let mut gone = Vec::new();
            let of_project =
                |stock: &Stock| stock.kept.iter().filter(|kept| kept.label.project == project).count();
            while of_project(&stock) > rule.most {
                let oldest = stock.kept.iter().position(|kept| kept.label.project == project);
                gone.extend(oldest.and_then(|oldest| stock.kept.remove(oldest)));
            }
            while stock.kept.len() > KEPT_MAX {
                gone.extend(stock.kept.pop_front());
            }
            gone
        };
        drop(gone);
    }

    /// Deletes what is too old; and, while the pool is short of room for so many more bytes, the oldest. Blocking.
    pub(crate) fn tend(&self, need: u64) -> Result<(), PoolError> {
        self.let_go(|kept| kept.left() == Duration::ZERO);
        while is_short_of_room(&self.pool.space()?, need) {
            let oldest = self.stock().kept.pop_front();
            let Some(oldest) = oldest else { break };
            tracing::info!(run = oldest.label.run, "a kept stack goes: its room is needed");
            drop(oldest);
        }
        Ok(())
    }

    /// Deletes what stands on this baseline. Blocking.
    pub(crate) fn let_go_of(&self, key: &str) {
        self.let_go(|kept| {
            kept.label.place.ground.as_ref().is_some_and(|ground| ground.baseline.key() == key)
        });
    }

    /// Deletes all. Blocking.
    pub(crate) fn clear(&self) {
        self.let_go(|_| true);
    }

    fn let_go(&self, goes: impl Fn(&Kept) -> bool) {
        let gone: Vec<_> = {
            let mut stock = self.stock();
            let (gone, stays): (Vec<_>, Vec<_>) = stock.kept.drain(..).partition(|kept| goes(kept));
            stock.kept = stays.into();
            gone
        };
        drop(gone);
    }
}

/// That attempts may be kept; over when it is dropped.
#[derive(Debug)]
pub(crate) struct Expected {
    shelf: Arc<KeptShelf>,
    label: Label,
    attempts: Vec<u64>,
}

impl Expected {
    /// The order to keep what these attempts left; none where all of them passed.
    pub(crate) fn keeping(self: &Arc<Self>, outcomes: Vec<(u64, bool)>) -> Option<Keeping> {
        let any_failed = outcomes.iter().any(|(_, failed)| *failed);
        any_failed.then(|| Keeping { expected: Arc::clone(self), outcomes })
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        {
            let mut stock = self.shelf.stock();
            for attempt in &self.attempts {
                let key = (self.label.run, *attempt);
                match stock.expected.get_mut(&key) {
                    Some(times) if *times > 1 => *times -= 1,
                    _ => drop(stock.expected.remove(&key)),
                }
            }
        }
        self.shelf.moved.notify_waiters();
    }
}

/// An order to keep what a stand's next rebase finds.
#[derive(Debug)]
pub(crate) struct Keeping {
    expected: Arc<Expected>,
    outcomes: Vec<(u64, bool)>,
}

impl Keeping {
    /// Nothing was changed.
    pub(crate) fn untouched(self) {
        self.put(State::default(), Changes::default(), String::new());
    }

    /// Takes the changed layers aside, while the services are dead: each with its name and its folder. Blocking.
    pub(crate) fn begin(
        self,
        pool: &Pool,
        baseline: &Baseline,
        layers: &[(String, PathBuf)],
    ) -> Result<Begun, PoolError> {
        let key = {
            let mut stock = self.expected.shelf.stock();
            stock.serial += 1;
            format!("kept-{}-{}", self.expected.label.run, stock.serial)
        };
        let most = match pool.kind() {
            PoolKind::Btrfs | PoolKind::Reflink => LAYER_BYTES_MAX,
            PoolKind::Overlay | PoolKind::Copy => COPIED_LAYER_BYTES_MAX,
        };
        let (mut staging, mut changes) = (None, Changes::default());
        for (tree, folder) in layers {
            if pool.verify_in(baseline, tree, folder).is_ok() {
                continue;
            }
            let changed = pool.changes_of(baseline, tree, folder, LAYER_FILES_MAX)?;
            let before =
                baseline.trees().iter().find(|known| known.name == *tree).map_or(0, |known| known.bytes);
            let bytes = before.saturating_add(changed.footprint.bytes);
            if bytes > most {
                let why = format!("{tree} has {bytes} bytes, and at most {most} are kept with this pool");
                return Err(PoolError::Unsupported { path: folder.clone(), why });
            }
            changes.footprint += changed.footprint;
            changes.trees.extend(changed.trees);
            if staging.is_none() {
                staging = Some(pool.stage(&key)?);
            }
            if let Some(staging) = &mut staging {
                staging.capture(tree, folder)?;
            }
        }
        Ok(Begun { keeping: self, key, staging, changes })
    }

    fn put(self, state: State, layer_changes: Changes, key: String) {
        let Self { expected, outcomes } = self;
        let shelf = Arc::clone(&expected.shelf);
        shelf.put(Kept {
            label: expected.label.clone(),
            outcomes,
            since: Instant::now(),
            layer_changes,
            pool: shelf.pool.clone(),
            key,
            state: Mutex::new(state),
        });
        // From now on it is found; only then is it expected no more.
        drop(expected);
    }
}

/// Half of a kept stack.
#[derive(Debug)]
pub(crate) struct Begun {
    keeping: Keeping,
    key: String,
    staging: Option<Staging>,
    changes: Changes,
}

impl Begun {
    /// The other half: its volumes, moved aside. Blocking.
    pub(crate) fn keep(self, volumes: Retired) {
        let Self { keeping, key, staging, changes } = self;
        let state = State { volumes: Some(volumes), layers: staging, whole: None };
        keeping.put(state, changes, key);
    }
}
