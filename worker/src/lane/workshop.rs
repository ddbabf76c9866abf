//! What all lanes of a worker share: sources, baselines, images, the choice of the driver.
//!
//! Knows the farm's blobs, the pool and the engine; must not know which lane does what. Invariant: one baseline is built or
//! fetched at a time, so that two lanes never do the same work twice.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use andon_proto::{BaselineManifest, BaselineReady, BaselineService, BaselineSpec, RunSpec, Stack, Suite};
use andon_snapshot::Baseline;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use super::doomed::Doomed;
use super::kept::KeptShelf;
use super::outfit::Outfitter;
use super::stand::{Ground, Proofs, Rewinding, Stand, Teller};
use super::unit_box::{BoxPlan, BoxSeedKit, UnitBox};
use crate::baseline::{
    BUILD_LANE, Build, Chain, Found, Outcome, Shelf, Shelved, Source, Sources, farm_fault, steps_of,
};
use crate::engine::ImageInfo;
use crate::hands::{Driver, HandsOptions, Notices, ResolvedImage, WorkFailure, blocking, notice};
use crate::runner;
use crate::stack::{StackPlan, sweep};

/// How many suites' images are remembered.
pub(super) const IMAGES_MAX: usize = 256;
/// How many baselines' plans are remembered.
const STACKS_MAX: usize = 32;

/// The workshop.
#[derive(Debug)]
pub(crate) struct Workshop {
    pub(crate) options: HandsOptions,
    pub(super) shelf: Shelf,
    sources: Sources,
    out_root: PathBuf,
    runners: PathBuf,
    serial: AtomicU64,
    driver: Mutex<Option<Driver>>,
    pub(super) rewinding: Arc<Rewinding>,
    gate: Mutex<()>,
    pub(super) stacks: Mutex<HashMap<String, Known>>,
    /// Keys of baselines that are damaged here, until they were fetched anew.
    pub(super) given_up: std::sync::Mutex<BTreeSet<String>>,
    pub(super) images: Mutex<HashMap<(u64, String), ImageInfo>>,
    /// Used boxes being removed: nobody waits for them but the end.
    removals: TaskTracker,
    outfitter: Arc<Outfitter>,
    /// What failed tests left.
    pub(super) kept: Arc<KeptShelf>,
}

/// A baseline that is here, with what is made of it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    baseline: Baseline,
    plan: Arc<StackPlan>,
    proofs: Proofs,
}

/// Where a unit is to run.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// `None` for a project without services.
    pub(crate) ground: Option<Ground>,
    pub(crate) box_plan: BoxPlan,
}

impl Workshop {
    /// Makes the folders, and removes what an earlier life left.
    pub(crate) async fn open(options: HandsOptions) -> Result<Self, WorkFailure> {
        let folder = |name: &str| options.data_dir.join(name);
        let (scratch, manifests, out_root, runners) =
            (folder("scratch"), folder("manifests"), folder("out"), folder("runners"));
        let fault = |path: &std::path::Path, error: std::io::Error| {
            WorkFailure::infrastructure(format!("cannot prepare {}: {error}", path.display()))
        };
        for stale in [&scratch, &out_root, &runners] {
            match std::fs::remove_dir_all(stale) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(fault(stale, error));
                }
                _ => {}
            }
        }
        for needed in [&scratch, &manifests, &out_root, &runners] {
            std::fs::create_dir_all(needed).map_err(|error| fault(needed, error))?;
        }
        for (name, content) in runner::files() {
            let file = runners.join(name);
            let folder = file.parent().unwrap_or(&runners);
            std::fs::create_dir_all(folder).map_err(|error| fault(folder, error))?;
            std::fs::write(&file, content).map_err(|error| fault(&file, error))?;
        }
        let swept = sweep(options.engine.as_ref(), None).await;
        swept.map_err(|error| {
            WorkFailure::infrastructure(format!("cannot remove an earlier life's lanes: {error}"))
        })?;
        let outfitter = Outfitter::open(&options).await?;
        let (pool, farm) = (options.pool.clone(), Arc::clone(&options.farm));
        let workshop = Self {
            shelf: Shelf {
                pool: pool.clone(),
                farm: Arc::clone(&farm),
                registry: options.registry.clone(),
                scratch: scratch.clone(),
                downloads: options.data_dir.join("downloads"),
                manifests,
            },
            sources: Sources::new(pool, farm, scratch),
            out_root,
            runners,
            serial: AtomicU64::new(1),
            driver: Mutex::new(options.driver),
            rewinding: Arc::default(),
            gate: Mutex::new(()),
            stacks: Mutex::new(HashMap::new()),
            given_up: std::sync::Mutex::default(),
            images: Mutex::new(HashMap::new()),
            removals: TaskTracker::new(),
            outfitter,
            kept: KeptShelf::new(options.pool.clone()),
            options,
        };
        workshop.tidy().await?;
        Ok(workshop)
    }

    /// Removes what only an earlier life knew: sources, and builds that were never finished.
    async fn tidy(&self) -> Result<(), WorkFailure> {
        let shelf = self.shelf.clone();
        let tidied = blocking(move || {
            let stale =
                shelf.pool.baselines().into_iter().filter(|baseline| shelf.local(baseline.key()).is_none());
            let keys: Vec<String> = stale.map(|baseline| baseline.key().to_owned()).collect();
            keys.iter().try_for_each(|key| shelf.pool.remove(key).map(drop))
        });
        tidied.await?.map_err(|error| farm_fault(&error))
    }

    /// Keeps the pool in order.
    pub(crate) async fn tend(&self, unused: Option<Duration>) -> Result<(), WorkFailure> {
        // What is kept to look into goes before any baseline does.
        self.make_room_of_kept().await?;
        self.shelf.tend(unused).await.map(drop)
    }

    async fn make_room_of_kept(&self) -> Result<(), WorkFailure> {
        let kept = Arc::clone(&self.kept);
        blocking(move || kept.tend(0)).await?.map_err(|error| farm_fault(&error))
    }

    /// Removes a used box in the background. Its processes are dead, or die now.
    pub(crate) fn dispose(&self, used: UnitBox) {
        self.removals.spawn(async move {
            if let Err(error) = used.remove().await {
                // Swept when the lane is put up anew, or when the worker starts.
                tracing::warn!(%error, "removing a used container");
            }
        });
    }

    /// Waits until nothing is being removed any more.
    pub(crate) async fn close(&self) {
        self.removals.close();
        self.removals.wait().await;
        let kept = Arc::clone(&self.kept);
        if let Err(failure) = blocking(move || kept.clear()).await {
            tracing::warn!(reason = failure.reason, "deleting what was kept");
        }
        if let Err(error) = sweep(self.options.engine.as_ref(), None).await {
            tracing::warn!(%error, "removing what is left of the lanes");
        }
    }

    /// A folder for files that live for moments.
    pub(crate) fn scratch(&self) -> &Path {
        &self.shelf.scratch
    }

    /// A number for a box; never the same twice.
    pub(crate) fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// How lanes are put back, as far as it is known.
    pub(crate) fn driver(&self) -> Option<Driver> {
        self.driver.try_lock().ok().and_then(|driver| *driver)
    }

    /// Tries `restart` on a fresh stand where nobody has tried yet; answers with the driver of this worker. The stand is
    /// pristine after it.
    pub(crate) async fn choose_driver(&self, stand: &mut Stand) -> Result<Driver, WorkFailure> {
        let mut driver = self.driver.lock().await;
        if let Some(chosen) = *driver {
            return Ok(chosen);
        }
        let mut chosen = Driver::Recreate;
        if stand.reaches_layers() {
            match stand.rebase(Driver::Restart, &Doomed::nobody()).await {
                Ok(rebased) => {
                    tracing::info!(took = ?rebased.took, "rebase driver `restart` works here, and so does `standby`");
                    chosen = Driver::Standby;
                }
                Err(error) => {
                    tracing::warn!(%error, "rebase driver `restart` does not work here; `recreate` it is");
                    let again = stand.rebase(Driver::Recreate, &Doomed::nobody()).await;
                    again.map_err(|error| WorkFailure::infrastructure(error.to_string()))?;
                }
            }
        }
        *driver = Some(chosen);
        Ok(chosen)
    }

    /// Has the baseline: from the pool, from the farm, or by building and publishing it.
    pub(crate) async fn prepare(
        &self,
        run: u64,
        spec: &RunSpec,
        notices: &Notices,
    ) -> Result<BaselineReady, WorkFailure> {
        let Some(stack) = spec.stack.as_ref().filter(|stack| !stack.services.is_empty()) else {
            return Ok(ready(BaselineManifest::default(), false, false));
        };
        let _one_at_a_time = self.gate.lock().await;
        let began = Instant::now();
        let source = self.sources.get(&spec.source_digest).await?;
        let mut images = Vec::with_capacity(stack.services.len());
        for service in &stack.services {
            images.push(self.resolve(service.image.as_ref(), &service.name, &source, notices).await?);
        }
        let resolved: Vec<ResolvedImage> = images.iter().map(|(image, _)| image.clone()).collect();
        let baseline_spec = spec.baseline.clone().unwrap_or_default();
        let chain = Chain::new(stack, &resolved, &baseline_spec);
        let key = chain.key().to_owned();
        let plan =
            StackPlan::new(stack, &images).map_err(|refused| WorkFailure::baseline(refused.to_string()))?;
        let plan = Arc::new(plan);
        self.await_let_go(&key).await?;
        let replaces = match self.shelf.find(&key, notices).await? {
            Found::Here(found) => {
                self.remember(&found, &plan, &baseline_spec).await;
                return Ok(ready(found.manifest, false, false));
            }
            Found::Again(found) => {
                self.remember(&found, &plan, &baseline_spec).await;
                return Ok(ready(found.manifest, false, true));
            }
            Found::Gone => true,
            Found::Nowhere => false,
        };
        let (kept, cleared) = (Arc::clone(&self.kept), key.clone());
        blocking(move || kept.let_go_of(&cleared)).await?;
        self.shelf.clear(&key).await?;
        self.make_room_of_kept().await?;
        self.shelf.make_room(0).await?;
        let kit = self.seed_kit(run, spec, &source, notices).await?;
        let services = services_of(stack, &resolved);
        let build = Build {
            engine: self.options.engine.clone(),
            shelf: &self.shelf,
            chain: &chain,
            steps: &steps_of(&baseline_spec),
            spec,
            plan: &plan,
            services: &services,
            source: &source,
            notices,
            worker: &self.options.worker,
            run,
        };
        let built = match build.run(&kit).await? {
            Outcome::Found(found) => {
                self.remember(&found, &plan, &baseline_spec).await;
                return Ok(ready(found.manifest, false, replaces));
            }
            Outcome::Built(built) => *built,
        };
        let mut built = built;
        let baseline = built.baseline.clone();
        let proofs = Proofs::new(&baseline_spec.proofs, &[]);
        let printed = self.check(&baseline, &plan, &source, &proofs, notices).await?;
        built.manifest.proofs = proofs.proven(&printed);
        notice(notices, "publishing the baseline".to_owned());
        let manifest = self.shelf.publish(built, notices).await?;
        notice(notices, format!("baseline {} was built in {:.1?}", &key[..12], began.elapsed()));
        let built = Shelved { baseline, manifest };
        self.remember(&built, &plan, &baseline_spec).await;
        Ok(ready(built.manifest, true, replaces))
    }

    /// Where a unit of a suite runs, from which baseline.
    pub(crate) async fn place(
        &self,
        lane: u32,
        run: u64,
        spec: &RunSpec,
        suite: &str,
        baseline_key: &str,
        notices: &Notices,
    ) -> Result<Place, WorkFailure> {
        let Some(suite) = spec.suites.iter().find(|candidate| candidate.name == suite) else {
            let names: Vec<&str> = spec.suites.iter().map(|suite| suite.name.as_str()).collect();
            return Err(WorkFailure::config(format!(
                "there is no suite `{suite}`; there are: {}",
                names.join(", ")
            )));
        };
        let source = self.sources.get(&spec.source_digest).await?;
        let ground = match baseline_key {
            "" => None,
            key => {
                let Known { baseline, plan, proofs } = self.stack_of(spec, key, &source, notices).await?;
                Some(Ground {
                    engine: self.options.engine.clone(),
                    pool: self.options.pool.clone(),
                    baseline,
                    plan,
                    source: Arc::clone(&source),
                    lane: lane.to_string(),
                    slot: 0,
                    // Containers that tests start are on the lane's one network, and find services by its names.
                    fronted: !suite.docker,
                    deep_every: self.options.deep_every,
                    doubted: false,
                    proofs,
                    teller: Some(Teller(self.options.inexact.clone())),
                    rewinding: Arc::clone(&self.rewinding),
                })
            }
        };
        let image = self.suite_image(run, suite, &source, notices).await?;
        let network = ground.as_ref().map(|ground| super::stand::network_of(&ground.lane));
        let box_plan = self.box_plan(spec, suite, image, source, network, lane.to_string(), baseline_key);
        Ok(Place { ground, box_plan })
    }

    /// The stack behind a key that another worker may have built.
    async fn stack_of(
        &self,
        spec: &RunSpec,
        key: &str,
        source: &Arc<Source>,
        notices: &Notices,
    ) -> Result<Known, WorkFailure> {
        if let Some(known) = self.known(key).await {
            return Ok(known);
        }
        let _one_at_a_time = self.gate.lock().await;
        if let Some(known) = self.known(key).await {
            return Ok(known);
        }
        self.await_let_go(key).await?;
        let found = match self.shelf.local(key) {
            Some(found) => Found::Here(found),
            None => self.shelf.find(key, notices).await?,
        };
        let (Found::Here(found) | Found::Again(found)) = found else {
            return Err(WorkFailure::infrastructure(format!(
                "baseline {key} is neither here nor with the farm"
            )));
        };
        let stack = spec.stack.clone().unwrap_or_default();
        let mut images = Vec::with_capacity(stack.services.len());
        for service in &stack.services {
            let published = found.manifest.services.iter().find(|other| other.name == service.name);
            images.push(
                self.image_of(published, service.image.as_ref(), &service.name, source, notices).await?,
            );
        }
        let plan =
            StackPlan::new(&stack, &images).map_err(|refused| WorkFailure::baseline(refused.to_string()))?;
        let plan = Arc::new(plan);
        let wanted = spec.baseline.clone().unwrap_or_default();
        Ok(self.remember(&found, &plan, &wanted).await)
    }

    async fn seed_kit(
        &self,
        run: u64,
        spec: &RunSpec,
        source: &Arc<Source>,
        notices: &Notices,
    ) -> Result<BoxSeedKit, WorkFailure> {
        let Some(suite) = spec.suites.first() else {
            return Err(WorkFailure::config("the run has no suite, so there is no image to seed with"));
        };
        let image = self.suite_image(run, suite, source, notices).await?;
        let lane = BUILD_LANE.to_owned();
        let plan = self.box_plan(spec, suite, image, Arc::clone(source), None, lane, "");
        Ok(BoxSeedKit { plan, serial: self.next_serial() })
    }

    #[allow(clippy::too_many_arguments)]
    fn box_plan(
        &self,
        spec: &RunSpec,
        suite: &Suite,
        image: ImageInfo,
        source: Arc<Source>,
        network: Option<String>,
        lane: String,
        baseline_key: &str,
    ) -> BoxPlan {
        let env = [
            ("ANDON_SUITE", suite.name.as_str()),
            ("ANDON_LANE", &lane),
            ("ANDON_COMMIT", &spec.commit),
            ("ANDON_BASELINE", baseline_key),
        ];
        BoxPlan {
            engine: self.options.engine.clone(),
            pool: self.options.pool.clone(),
            suite: suite.clone(),
            image,
            source,
            network,
            env: env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            lane,
            out_root: self.out_root.clone(),
            runners: self.runners.clone(),
            neighbours: neighbours_of(spec),
            outfitter: Arc::clone(&self.outfitter),
        }
    }

    /// What is known of a key, while the pool still has it.
    async fn known(&self, key: &str) -> Option<Known> {
        let known = self.stacks.lock().await.get(key).cloned();
        known.filter(|_| self.options.pool.baseline(key).is_some())
    }

    async fn remember(&self, found: &Shelved, plan: &Arc<StackPlan>, spec: &BaselineSpec) -> Known {
        let key = found.baseline.key();
        self.shelf.touch(key);
        self.has_anew(key);
        let proofs = Proofs::new(&spec.proofs, &found.manifest.proofs);
        let known = Known { baseline: found.baseline.clone(), plan: Arc::clone(plan), proofs };
        let mut stacks = self.stacks.lock().await;
        if stacks.len() >= STACKS_MAX {
            stacks.clear();
        }
        stacks.insert(key.to_owned(), known.clone());
        known
    }
}

fn ready(manifest: BaselineManifest, built: bool, replaces: bool) -> BaselineReady {
    BaselineReady { manifest: Some(manifest), built, replaces }
}

/// Every name that a service is reached by.
fn neighbours_of(spec: &RunSpec) -> Vec<String> {
    let services = spec.stack.iter().flat_map(|stack| &stack.services);
    services.flat_map(|service| service.aliases.iter().chain([&service.name])).cloned().collect()
}

fn services_of(stack: &Stack, images: &[ResolvedImage]) -> Vec<BaselineService> {
    let service = |(service, image): (&andon_proto::Service, &ResolvedImage)| BaselineService {
        name: service.name.clone(),
        reference: image.reference.clone(),
        image_id: image.id.clone(),
        build_key: image.build_key.clone(),
    };
    stack.services.iter().zip(images).map(service).collect()
}
