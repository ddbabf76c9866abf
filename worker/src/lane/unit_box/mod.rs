//! The container that one unit runs in: the suite's image, a fresh copy of the source, an out folder, nothing else.
//!
//! ```text
//!   make ──> ready ──unit──> used ──kill──> dead ──refit──> ready ──> …
//!                                             └── cannot serve again ──> removed
//! ```
//!
//! Knows the engine, the pool and the runner's needs; must not know stacks or rebases. Invariant: a box that is ready is as
//! its first start made it; whatever a unit left in it (files, processes) is gone before the next one.

mod refit;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use andon_proto::Suite;
use andon_snapshot::{LaneClone, Pool, PoolError};
use async_trait::async_trait;
use rustix::fs::{CWD, FileType, Mode};

use crate::baseline::{SOURCE_TREE, SeedKit, Seeder, Source, farm_fault};
use crate::engine::{
    Bind, ContainerSpec, EngineError, ExecSpec, HeadTail, ImageInfo, Limits, NetworkMode, Propagation,
    Removal, SharedEngine,
};
use crate::hands::{WorkFailure, blocking, chain};
use crate::runner::{self, ARTIFACTS_FOLDER, Cell, EVENTS_FILE, JOB_FILE, OUT_FOLDER, RUNNERS_FOLDER, Warm};
use crate::stack::lane_labels;

use super::berth::{Berth, Way};
use super::disk::Part;
use super::doomed::Doomed;
use super::door::SOCKET_FILE;
use super::outfit::{Outfit, Outfitter};
use refit::OwnLayer;

/// Where the source is mounted where the suite does not say.
const WORKDIR_DEFAULT: &str = "/src";
/// Processes and threads of a suite that does not say.
const PIDS_DEFAULT: u64 = 8192;
/// Most output that is kept of one seed command, in bytes.
const SEED_OUTPUT_MAX: usize = 256 * 1024;

/// What a box is made from. Two equal plans make equal boxes.
#[derive(Debug, Clone)]
pub(crate) struct BoxPlan {
    pub(crate) engine: SharedEngine,
    pub(crate) pool: Pool,
    pub(crate) suite: Suite,
    /// The image's id and what it says of itself.
    pub(crate) image: ImageInfo,
    pub(crate) source: Arc<Source>,
    /// `None` for a project without services.
    pub(crate) network: Option<String>,
    /// The lane's name.
    pub(crate) lane: String,
    /// Known before the unit: commit, baseline, suite, lane.
    pub(crate) env: Vec<(String, String)>,
    /// Where out folders are made.
    pub(crate) out_root: PathBuf,
    /// Andon's files for runners.
    pub(crate) runners: PathBuf,
    /// The stack's services, by all their names.
    pub(crate) neighbours: Vec<String>,
    /// For what the suite asks for beside them.
    pub(crate) outfitter: Arc<Outfitter>,
}

impl BoxPlan {
    /// Whether a box made for one serves the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.suite == other.suite
            && self.image.id == other.image.id
            && Arc::ptr_eq(&self.source, &other.source)
            && self.network == other.network
            && self.env == other.env
    }

    /// Whether its suite asks for nothing beside the image and the source.
    pub(super) fn is_plain(&self) -> bool {
        !self.suite.docker && self.suite.egress.is_empty()
    }

    pub(super) fn workdir(&self) -> &str {
        if self.suite.workdir.is_empty() { WORKDIR_DEFAULT } else { &self.suite.workdir }
    }

    /// `PYTHONPATH` as the suite or the image have it.
    fn python_path(&self) -> String {
        let own = self.suite.environment.iter().rev().map(|pair| (&pair.key, &pair.value));
        let image = self.image.env.iter().map(|(key, value)| (key, value));
        let mut all = own.chain(image);
        all.find(|(key, _)| *key == "PYTHONPATH").map(|(_, value)| value.clone()).unwrap_or_default()
    }

    fn container(&self, name: &str, source: &Path, out: &Path, berth: Option<&Berth>) -> ContainerSpec {
        let bind = |source: &Path, target: &str, read_only: bool| Bind {
            source: source.to_owned(),
            target: target.to_owned(),
            read_only,
            propagation: Propagation::Private,
        };
        let own = self.suite.environment.iter().map(|pair| (pair.key.clone(), pair.value.clone()));
        ContainerSpec {
            name: name.to_owned(),
            image: self.image.id.clone(),
            entrypoint: Some(vec!["sh".to_owned()]),
            command: Some(["-c", "while :; do sleep 3600; done"].map(str::to_owned).to_vec()),
            env: own
                .chain(self.env.iter().cloned())
                .chain([
                    ("ANDON_ARTIFACTS".to_owned(), format!("{OUT_FOLDER}/{ARTIFACTS_FOLDER}")),
                    ("ANDON_SOCKET".to_owned(), format!("{OUT_FOLDER}/{SOCKET_FILE}")),
                ])
                .collect(),
            labels: lane_labels(&self.lane),
            binds: vec![
                bind(source, self.workdir(), false),
                bind(out, OUT_FOLDER, false),
                bind(&self.runners, RUNNERS_FOLDER, true),
            ],
            network: match (berth, &self.network) {
                (Some(berth), _) => berth.network(),
                (None, Some(network)) => NetworkMode::Named { network: network.clone(), aliases: Vec::new() },
                (None, None) => NetworkMode::None,
            },
            working_dir: self.workdir().to_owned(),
            // Reaps what tests leave behind, and survives a test that kills everything it can see.
            init: true,
            limits: Limits::of(self.suite.limits.as_ref(), PIDS_DEFAULT),
            ..ContainerSpec::default()
        }
    }
}

/// A running box.
#[derive(Debug)]
pub(crate) struct UnitBox {
    plan: BoxPlan,
    source: Arc<LaneClone>,
    cell: Cell,
    warm: Option<Warm>,
    /// `None` for one with a network of its own.
    berth: Option<Berth>,
    outfit: Outfit,
    /// Its end, once its unit is over.
    doomed: Doomed,
    /// Units that it served before this one.
    lives: u32,
    /// Where it keeps what a unit writes; known where it can serve again.
    layer: Option<OwnLayer>,
}

impl UnitBox {
    /// Makes and starts it; `serial` is never the same twice in a worker's life.
    pub(crate) async fn make(
        plan: BoxPlan,
        serial: u64,
        warm: bool,
        berth: Option<Berth>,
    ) -> Result<Self, WorkFailure> {
        let infra = |error: EngineError| WorkFailure::infrastructure(error.to_string());
        let out = plan.out_root.join(format!("{}-{serial}", plan.lane));
        let (pool, from, lane, folder) = (
            plan.pool.clone(),
            plan.source.baseline.clone(),
            format!("{}/box{serial}", plan.lane),
            out.clone(),
        );
        let source = blocking(move || {
            make_out_folder(&folder)?;
            pool.clone_lane(&lane, &from)
        });
        let source = source.await?.map_err(|error| farm_fault(&error))?;
        let path = source.path(SOURCE_TREE).map_err(|error| farm_fault(&error))?;
        let name = format!("andon-lane{}-unit{serial}", plan.lane);
        // Boxed: it is large, and rarely more than a look.
        let outfit = Box::pin(Outfit::make(&plan, serial, &path)).await?;
        let mut spec = plan.container(&name, &path, &out, berth.as_ref());
        outfit.dress(&mut spec);
        let container = plan.engine.create_container(&spec).await.map_err(infra)?;
        let cell = Cell {
            engine: plan.engine.clone(),
            container,
            out_dir: out,
            python_path: plan.python_path(),
            unit_env: BTreeMap::new(),
            overrun: Arc::default(),
        };
        let doomed = Doomed::one(&cell.container);
        let mut made = Self {
            plan,
            source: Arc::new(source),
            cell,
            warm: None,
            berth,
            outfit,
            doomed,
            lives: 0,
            layer: None,
        };
        made.layer = made.own_layer().await;
        if let Err(error) = made.plan.engine.start_container(&made.cell.container).await {
            let lost = match &made.berth {
                Some(berth) => berth.check().await.err(),
                None => None,
            };
            let failure = match (&error, lost) {
                (_, Some(lost)) => WorkFailure::infrastructure(chain(&lost)),
                // Mostly: the image has no `sh`.
                (
                    EngineError::Refused { .. } | EngineError::NotFound { .. } | EngineError::Conflict { .. },
                    None,
                ) => WorkFailure::config(format!(
                    "the image of suite `{}` cannot run tests: {error}",
                    made.plan.suite.name
                )),
                _ => infra(error),
            };
            made.remove().await?;
            return Err(failure);
        }
        if warm {
            made.warm = runner::warm_up(&made.cell, &made.plan.suite);
        }
        Ok(made)
    }

    pub(crate) fn plan(&self) -> &BoxPlan {
        &self.plan
    }

    /// The container as the runner takes it, with what is known of the unit only now.
    pub(crate) fn cell(&self, unit_env: BTreeMap<String, String>) -> Cell {
        Cell { unit_env, ..self.cell.clone() }
    }

    /// What its tests write to, beside the container's own layer.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let source = self.source.path(SOURCE_TREE).ok();
        source.map(|source| ("its copy of the source".to_owned(), source)).into_iter().collect()
    }

    /// On the containers that its tests start.
    pub(crate) fn guest_label(&self) -> Option<String> {
        self.outfit.guest_label()
    }

    /// Leads it to a stand, away from any other.
    pub(crate) async fn lead_to(&mut self, way: &Way) -> Result<(), WorkFailure> {
        match &mut self.berth {
            Some(berth) => {
                let led = berth.lead_to(way).await;
                led.map_err(|error| WorkFailure::infrastructure(chain(&error)))
            }
            None => Err(WorkFailure::infrastructure("a unit's container has no way to the lane's stand")),
        }
    }

    /// Whether it can still serve.
    pub(crate) fn is_fresh(&self) -> bool {
        self.warm.as_ref().is_none_or(Warm::is_fresh)
    }

    pub(crate) fn take_warm(&mut self) -> Option<Warm> {
        self.warm.take()
    }

    /// Removes what its tests made with Docker.
    pub(crate) async fn close_outfit(&self) -> Result<(), String> {
        Box::pin(self.outfit.close()).await
    }

    /// The same, within a unit: its tests may go on to make more.
    pub(crate) async fn clear_outfit(&self) -> Result<(), String> {
        Box::pin(self.outfit.clear()).await
    }

    /// Itself, as who puts its stack back has to know it.
    pub(crate) fn doomed(&self) -> Doomed {
        self.doomed.clone()
    }

    /// Kills what runs in it, and removes it with its copy of the source.
    pub(crate) async fn remove(self) -> Result<(), WorkFailure> {
        let Self { plan, source, cell, warm, berth, outfit, .. } = self;
        drop(warm);
        let cleared = Box::pin(outfit.close()).await;
        let removed = plan.engine.remove_container(&cell.container, Removal::EVERYTHING).await;
        if let (Ok(()), Some(berth)) = (&removed, berth) {
            berth.leave().await;
        }
        let gone = blocking(move || {
            drop(source);
            std::fs::remove_dir_all(&cell.out_dir)
        });
        if let Err(error) = gone.await? {
            tracing::warn!(%error, "removing an out folder");
        }
        removed.map_err(|error| WorkFailure::infrastructure(error.to_string()))?;
        cleared.map_err(WorkFailure::infrastructure)?;
        Box::pin(outfit.remove(&plan)).await
    }
}

/// Also for images whose user is not root.
fn make_out_folder(folder: &Path) -> Result<(), PoolError> {
    let fault = |action: &'static str| {
        move |source: std::io::Error| PoolError::Io { action, path: folder.to_owned(), source }
    };
    let artifacts = folder.join(ARTIFACTS_FOLDER);
    std::fs::create_dir_all(&artifacts).map_err(fault("make"))?;
    let everyone = Mode::from_raw_mode(0o777);
    for folder in [folder, &artifacts] {
        rustix::fs::chmod(folder, everyone).map_err(|error| fault("open to all")(error.into()))?;
    }
    for name in [EVENTS_FILE, JOB_FILE] {
        let path = folder.join(name);
        let made = rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o666), 0);
        made.map_err(|error| fault("make a pipe in")(error.into()))?;
        let opened = rustix::fs::chmod(&path, Mode::from_raw_mode(0o666));
        opened.map_err(|error| fault("open to all")(error.into()))?;
    }
    Ok(())
}

/// Seeds run in such a box, too.
#[derive(Debug)]
pub(crate) struct BoxSeedKit {
    pub(crate) plan: BoxPlan,
    pub(crate) serial: u64,
}

struct BoxSeeder {
    unit_box: UnitBox,
}

#[async_trait]
impl SeedKit for BoxSeedKit {
    async fn seeder(&self, network: &str) -> Result<Box<dyn Seeder>, WorkFailure> {
        let plan = BoxPlan { network: Some(network.to_owned()), ..self.plan.clone() };
        let unit_box = UnitBox::make(plan, self.serial, false, None).await?;
        Ok(Box::new(BoxSeeder { unit_box }))
    }
}

#[async_trait]
impl Seeder for BoxSeeder {
    async fn run(&self, command: &str, limit: Duration) -> Result<(i64, Vec<u8>), EngineError> {
        let mut output = HeadTail::with_limit(SEED_OUTPUT_MAX);
        let cell = &self.unit_box.cell;
        let spec = ExecSpec::new(["sh", "-c", command], limit);
        let code = cell.engine.exec(&cell.container, &spec, &mut output).await?;
        Ok((code, output.to_bytes()))
    }

    async fn end(self: Box<Self>) -> Result<(), WorkFailure> {
        self.unit_box.remove().await
    }
}
