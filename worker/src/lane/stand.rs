//! A stack that stands on a clone of a baseline, and the ways of putting it back.
//!
//! ```text
//!   raise ──> pristine ──unit──> used ──rebase──> pristine ──> … ──> lower
//!                                  kill all ─> put trees and layers back ─> verify ─> start in order ─> healthy
//!                                  or, with `rewind`: live.rs
//! ```
//!
//! Knows the engine, the pool and the stack; must not know runs, tests or leases. Invariants: first every service is dead, then
//! files are put back, then services start; what is handed out as pristine was compared with the baseline's listing before
//! the first service started, and every service was healthy after.

mod exact;
mod keep;
mod live;
mod proof;
mod tried;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use andon_snapshot::{Baseline, Changes, Difference, LaneClone, Pool, PoolError, Retired};
use thiserror::Error;
use tokio::sync::oneshot;

pub(crate) use self::exact::{Teller, User, part_of};
use self::live::Live;
pub(crate) use self::live::Rewinding;
pub(crate) use self::proof::{ProofFault, Proofs};
use self::tried::Tried;
use super::berth::Way;
use super::disk::Part;
use super::doomed::Doomed;
use super::kept::{Begun, Keeping};
use super::laps::Laps;
use crate::baseline::{SOURCE_TREE, Source};
use crate::engine::{EngineError, SharedEngine};
use crate::hands::{Driver, WorkFailure, blocking, chain};
use crate::host::held_bytes;
use crate::stack::{
    Completing, Rig, RigFault, Site, StackFault, StackPlan, bring_up, ensure_network, kill_all, stand_labels,
    sweep_stand,
};

/// Longer after it was put back a stand is not taken for untouched: what a server does by its own clock may have come due.
const UNTOUCHED_MAX: Duration = Duration::from_secs(60);
/// Paths of one tree that are told of a unit: those with the most bytes.
const CHANGED_FILES_MAX: usize = 20;
/// After this many restarts a lane's containers are made anew: their logs in the engine grow with each.
const RESTARTS_MAX: u32 = 500;
/// A stand that was lowered may still have its next clone made: where that is a copy it takes as long as the disk does.
const LEAVING_MAX: Duration = Duration::from_secs(60);
/// How many rebases in a row, and each which one after them, are told by what the services hold.
const WEIGHED_FIRST: u32 = 3;
const WEIGHED_EVERY: u32 = 16;

/// A rebase or a rise that failed.
#[derive(Debug, Error)]
pub(crate) enum StandFault {
    #[error(transparent)]
    Stack(#[from] StackFault),
    #[error(transparent)]
    Rig(#[from] RigFault),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error("the clone is not like its baseline: {0}")]
    Different(#[from] Difference),
    #[error(transparent)]
    Unproven(#[from] ProofFault),
    #[error(transparent)]
    Worker(#[from] WorkFailure),
}

/// What a stand is made from.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) engine: SharedEngine,
    pub(crate) pool: Pool,
    pub(crate) baseline: Baseline,
    pub(crate) plan: Arc<StackPlan>,
    pub(crate) source: Arc<Source>,
    /// In names and labels: `0`, `1`, …
    pub(crate) lane: String,
    /// Which of the lane's stands it is for.
    pub(crate) slot: u32,
    /// Whether units are led to it by fronts.
    pub(crate) fronted: bool,
    /// Each so many rebases every byte is compared with the baseline's digests; 0 for never.
    pub(crate) deep_every: u32,
    /// What was made of this before was not exact: what is raised on it is compared to the last byte.
    pub(crate) doubted: bool,
    /// What services print on each pristine stand of the baseline; run where every byte is compared.
    pub(crate) proofs: Proofs,
    /// Who is told where something is not exact; nobody where it is a build's.
    pub(crate) teller: Option<Teller>,
    /// What is known of rewinding here.
    pub(crate) rewinding: Arc<Rewinding>,
}

/// A stack on its clone.
#[derive(Debug)]
pub(crate) struct Stand {
    ground: Ground,
    clone: Arc<LaneClone>,
    /// A copy of the source, where services may write into it.
    written: Option<Arc<LaneClone>>,
    rig: Rig,
    layers: Vec<PathBuf>,
    restarts: u32,
    rebases: u32,
    /// Whose unit was on it last.
    user: User,
    /// What the next rebase finds is kept.
    keeping: Option<Keeping>,
    /// The moment to go back to, with the driver `rewind`.
    live: Option<Live>,
    /// How rewinds went.
    rewinds: Tried,
    /// Whether rewinding is worth trying at the next rebase, too.
    goes_on_rewinding: bool,
    /// Since when it is pristine, and what had come in to its services by then.
    pristine: Option<(Instant, Vec<u64>)>,
}

/// A rebase that went well.
#[derive(Debug)]
pub(crate) struct Rebased {
    /// From the last process of the unit gone to all services healthy.
    pub(crate) took: Duration,
    /// How it was done: where rewinding does not go well the stand is restarted.
    pub(crate) driver: Driver,
    /// What the unit left, once it is measured; nothing comes where that fails.
    pub(crate) footprint: oneshot::Receiver<Changes>,
}

/// Finds out what a unit left, and deletes it where it is not kept, in the background.
fn measure(trees: Vec<Retired>, layers: Changes, mut keeping: Option<Begun>) -> oneshot::Receiver<Changes> {
    let (sender, receiver) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let measured = trees.into_iter().try_fold(layers, |mut all, tree| {
            add(&mut all, tree.changes(CHANGED_FILES_MAX)?);
            // The first are the stack's volumes; what services wrote into the source is not kept.
            match keeping.take() {
                Some(keeping) => keeping.keep(tree),
                None => tree.discard()?,
            }
            Ok::<_, PoolError>(all)
        });
        match measured {
            // Nobody waits for it any more: its lease is over.
            Ok(all) => drop(sender.send(all)),
            Err(error) => tracing::warn!(error = %chain(&error), "measuring what a unit dirtied"),
        }
    });
    receiver
}

/// Trees that were not changed are left out.
fn add(all: &mut Changes, more: Changes) {
    all.footprint += more.footprint;
    all.trees.extend(more.trees.into_iter().filter(|tree| tree.footprint.files > 0));
}

impl Ground {
    /// In names, and as the pool knows it. A lane's first stand has the lane's own.
    fn name(&self) -> String {
        // No lane's number and no service's name has an underscore there.
        if self.slot == 0 { self.lane.clone() } else { format!("{}_{}", self.lane, self.slot) }
    }

    fn network(&self) -> String {
        network_of(&self.name())
    }

    fn prefix(&self) -> String {
        format!("andon-lane{}", self.name())
    }

    /// Whether a stand on this ground would be the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.baseline.key() == other.baseline.key()
            && (Arc::ptr_eq(&self.source, &other.source) || !self.plan.binds_source())
    }
}

/// A stand's network; the lane's own for its first one.
pub(crate) fn network_of(stand: &str) -> String {
    format!("andon-lane{stand}")
}

impl Stand {
    /// Clones, makes the containers, starts them. Answers when all are healthy, with the time that took.
    pub(crate) async fn raise(ground: Ground) -> Result<(Self, Duration), StandFault> {
        let began = Instant::now();
        sweep_stand(ground.engine.as_ref(), &ground.name()).await?;
        ensure_network(ground.engine.as_ref(), &ground.network(), &ground.lane).await?;
        let cloning = ground.clone();
        let (clone, written) = blocking(move || {
            let (name, written) = (cloning.name(), format!("{}/bind", cloning.name()));
            for lane in [&name, &written] {
                cloning.pool.wait_for_lane(lane, LEAVING_MAX);
            }
            let volume = |tree: &str| !tree.starts_with("layer/");
            let clone = cloning.pool.clone_lane_of(&name, &cloning.baseline, &volume)?;
            let written = match cloning.plan.writes_source() {
                true => Some(cloning.pool.clone_lane(&written, &cloning.source.baseline)?),
                false => None,
            };
            Ok::<_, PoolError>((Arc::new(clone), written.map(Arc::new)))
        })
        .await??;
        let mut stand = Self {
            ground,
            clone,
            written,
            rig: Rig::default(),
            layers: Vec::new(),
            restarts: 0,
            rebases: 0,
            user: User::default(),
            keeping: None,
            live: None,
            rewinds: Tried::default(),
            goes_on_rewinding: true,
            pristine: None,
        };
        stand.make_containers().await?;
        stand.put_layers_back().await?;
        let doubted = std::mem::take(&mut stand.ground.doubted);
        stand.verify("raise", doubted).await?;
        stand.start().await?;
        if doubted && !stand.ground.proofs.is_empty() {
            stand.prove("raise").await?;
            stand.put_back(Driver::Recreate, &Doomed::nobody(), false).await?;
        }
        Ok((stand, began.elapsed()))
    }

    pub(crate) fn ground(&self) -> &Ground {
        &self.ground
    }

    /// How its services are reached by fronts.
    pub(crate) fn way(&self) -> Way {
        Way { network: self.ground.network(), leads: self.rig.leads().to_vec() }
    }

    /// Memory that its services hold, in bytes; what cannot be read counts nothing.
    pub(crate) async fn held_bytes(&self) -> u64 {
        let mut sum = 0;
        for container in &self.rig.containers {
            if let Ok(state) = self.ground.engine.inspect_container(container).await
                && state.is_running()
            {
                sum += held_bytes(state.pid).unwrap_or_default();
            }
        }
        sum
    }

    /// The same at its first rebases and now and then after that, because the engine is asked for each service; else 0.
    pub(crate) async fn held_bytes_at_times(&self) -> u64 {
        match self.rebases < WEIGHED_FIRST || self.rebases.is_multiple_of(WEIGHED_EVERY) {
            true => self.held_bytes().await,
            false => 0,
        }
    }

    /// Whether it is as it was when it was put back, for certain: nothing has come in to any service since (a unit shares
    /// nothing but the network with them), and all of them still run.
    pub(crate) async fn is_untouched(&self) -> bool {
        let Some((since, frames)) = &self.pristine else { return false };
        if since.elapsed() > UNTOUCHED_MAX || self.rig.frames_in().as_ref() != Some(frames) {
            return false;
        }
        let plans = self.ground.plan.services.iter().zip(&self.rig.containers);
        for (_, container) in plans.filter(|(service, _)| !service.completes) {
            let state = self.ground.engine.inspect_container(container).await;
            if !state.is_ok_and(|state| state.is_running() && !state.oom_killed) {
                return false;
            }
        }
        true
    }

    /// Whether rewinding is worth trying at the next rebase, too.
    pub(crate) fn goes_on_rewinding(&self) -> bool {
        self.goes_on_rewinding
    }

    /// What its services write to.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let trees = self.ground.baseline.trees().iter().map(|tree| tree.name.clone());
        let volumes = trees.filter_map(|tree| Some((tree.clone(), self.clone.path(&tree).ok()?)));
        let layers = self.ground.plan.services.iter().map(|service| service.layer.clone());
        let written = self.written.iter().filter_map(|written| written.path(SOURCE_TREE).ok());
        let written = written.map(|folder| ("the source that services write to".to_owned(), folder));
        volumes.chain(layers.zip(self.layers.iter().cloned())).chain(written).collect()
    }

    /// Ids, in the plan's order.
    pub(crate) fn containers(&self) -> &[String] {
        &self.rig.containers
    }

    /// Whether the containers' own layers can be reached: what `restart` needs.
    pub(crate) fn reaches_layers(&self) -> bool {
        self.layers.iter().all(|layer| layer.is_dir())
    }

    /// Puts everything back, after every service and `doomed` are dead. On an error the stand is
    /// neither up nor pristine, and may be rebased again.
    pub(crate) async fn rebase(&mut self, driver: Driver, doomed: &Doomed) -> Result<Rebased, StandFault> {
        self.rebases = self.rebases.wrapping_add(1);
        let every = self.ground.deep_every;
        if every > 0 && self.rebases.is_multiple_of(every) {
            return self.rebase_deeply(driver, doomed).await;
        }
        self.put_back(driver, doomed, false).await
    }

    /// The same, every byte compared before services start and what they print after that. Then once more, because that leaves
    /// something in the servers.
    pub(crate) async fn rebase_deeply(
        &mut self,
        driver: Driver,
        doomed: &Doomed,
    ) -> Result<Rebased, StandFault> {
        let mut rebased = self.put_back(driver, doomed, true).await?;
        if !self.ground.proofs.is_empty() {
            let began = Instant::now();
            self.prove(driver.as_str()).await?;
            self.put_back(driver, &Doomed::nobody(), false).await?;
            rebased.took += began.elapsed();
        }
        Ok(rebased)
    }

    async fn put_back(&mut self, driver: Driver, doomed: &Doomed, deep: bool) -> Result<Rebased, StandFault> {
        self.pristine = None;
        if driver == Driver::Rewind {
            // What is kept has to be whole without the processes' memory.
            if self.keeping.is_none()
                && let Some(rebased) = self.rewind(doomed, deep).await
            {
                return Ok(rebased);
            }
            let rebased = self.restart(Driver::Restart, doomed, deep).await?;
            // While nothing has spoken to it yet.
            self.goes_on_rewinding = self.arm(Duration::ZERO).await?;
            return Ok(rebased);
        }
        self.restart(driver, doomed, deep).await
    }

    /// By killing the services and starting them on what was put back.
    async fn restart(&mut self, driver: Driver, doomed: &Doomed, deep: bool) -> Result<Rebased, StandFault> {
        self.disarm().await;
        let again =
            driver != Driver::Recreate && self.restarts < RESTARTS_MAX && !self.rig.containers.is_empty();
        let engine = self.ground.engine.clone();
        let mut laps = Laps::start();
        if self.keeping.is_some() {
            doomed.kill(engine.as_ref()).await?;
            self.ask_to_stop().await;
            laps.lap("stopped");
        }
        tokio::try_join!(kill_all(engine.as_ref(), &self.rig.containers), doomed.kill(engine.as_ref()))?;
        let gone = Instant::now();
        laps.lap("killed");
        let layers = self.measure_layers().await?;
        laps.lap("layers measured");
        let keeping = self.begin_keeping().await;
        if again {
            self.restarts += 1;
        } else {
            self.rig.remove(engine.as_ref()).await?;
            self.rig = Rig::default();
        }
        let networks = self.rig.put_networks_back(engine.as_ref());
        let (trees, networks) = tokio::join!(self.put_trees_back(), networks);
        let trees = trees?;
        let footprint = measure(trees, layers, keeping);
        networks?;
        laps.lap("trees put back");
        if !again {
            self.make_containers().await?;
        }
        self.put_layers_back().await?;
        laps.lap("layers put back");
        self.verify(driver.as_str(), deep).await?;
        laps.lap("verified");
        self.start().await?;
        laps.lap("healthy");
        tracing::debug!(lane = self.ground.lane, %driver, ?laps, "rebased");
        Ok(Rebased { took: gone.elapsed(), footprint, driver })
    }

    /// Removes containers and clone. Its network stays with the lane.
    pub(crate) async fn lower(self) -> Result<(), StandFault> {
        let Self { ground, clone, written, live, .. } = self;
        let swept = sweep_stand(ground.engine.as_ref(), &ground.name()).await;
        blocking(move || drop((live, clone, written))).await?;
        Ok(swept?)
    }

    /// Makes ready, in the background, what the next rebase needs and can be made beforehand.
    pub(crate) fn prepare_next(&self) {
        let (clone, written, lane) =
            (Arc::clone(&self.clone), self.written.clone(), self.ground.lane.clone());
        tokio::task::spawn_blocking(move || {
            let made =
                clone.ready_spare().and_then(|()| written.map_or(Ok(()), |written| written.ready_spare()));
            if let Err(error) = made {
                // The next rebase tries again, and says so where it fails.
                tracing::warn!(error = %chain(&error), lane, "preparing the next clone");
            }
        });
    }

    async fn make_containers(&mut self) -> Result<(), StandFault> {
        let source = self.ground.source.path()?;
        let writable = match &self.written {
            Some(written) => written.path(SOURCE_TREE)?,
            None => source.clone(),
        };
        let (labels, prefix, network) = (
            stand_labels(&self.ground.lane, &self.ground.name()),
            self.ground.prefix(),
            self.ground.network(),
        );
        let site = Site {
            prefix: &prefix,
            network: &network,
            labels: &labels,
            source: &source,
            writable_source: &writable,
            fronted: self.ground.fronted,
        };
        let engine = self.ground.engine.as_ref();
        let clone = &self.clone;
        self.rig = Rig::create(engine, &self.ground.plan, &site, &|tree| Ok(clone.path(tree)?)).await?;
        self.layers = self.rig.layers(engine).await?;
        self.restarts = 0;
        Ok(())
    }

    async fn put_trees_back(&self) -> Result<Vec<Retired>, StandFault> {
        let (clone, written) = (Arc::clone(&self.clone), self.written.clone());
        let put = blocking(move || {
            let mut retired = vec![clone.reset()?];
            if let Some(written) = written {
                retired.push(written.reset()?);
            }
            Ok::<_, PoolError>(retired)
        });
        Ok(put.await??)
    }

    /// What the services wrote into their own layers since the last rebase.
    async fn measure_layers(&self) -> Result<Changes, StandFault> {
        let work = self.layer_work();
        let measured = blocking(move || {
            let mut all = Changes::default();
            for (tree, layer) in &work.layers {
                if layer.is_dir() && work.pool.verify_in(&work.baseline, tree, layer).is_err() {
                    add(&mut all, work.pool.changes_of(&work.baseline, tree, layer, CHANGED_FILES_MAX)?);
                }
            }
            Ok::<_, PoolError>(all)
        });
        Ok(measured.await??)
    }

    async fn put_layers_back(&self) -> Result<(), StandFault> {
        let work = self.layer_work();
        let put = blocking(move || {
            for (tree, layer) in &work.layers {
                if work.pool.verify_in(&work.baseline, tree, layer).is_err() {
                    work.pool.restore_into(&work.baseline, tree, layer)?;
                }
            }
            Ok::<_, PoolError>(())
        });
        Ok(put.await??)
    }

    async fn start(&mut self) -> Result<(), StandFault> {
        let engine = self.ground.engine.as_ref();
        bring_up(engine, &self.ground.plan, &self.rig.containers, Completing::Done).await?;
        self.pristine = self.rig.frames_in().map(|frames| (Instant::now(), frames));
        Ok(())
    }

    fn layer_work(&self) -> LayerWork {
        let names = self.ground.plan.services.iter().map(|service| service.layer.clone());
        LayerWork {
            pool: self.ground.pool.clone(),
            baseline: self.ground.baseline.clone(),
            layers: names.zip(self.layers.iter().cloned()).collect(),
        }
    }
}

struct LayerWork {
    pool: Pool,
    baseline: Baseline,
    layers: Vec<(String, PathBuf)>,
}
