//! Building a baseline: volumes as the images fill them, services up, seeds run, services stopped cleanly, everything captured.
//!
//! ```text
//!   fill ──> up ──> seed ──> stop ──> capture ──> (the lane's side: clone, start once, healthy) ──> published
//!     └────────┴───────┴───────┴────────┴── any fault: swept, nothing published, the reason and its output told
//! ```
//!
//! Knows Docker's engine trait and the pool; must not know lanes or the session. Invariant: nothing of a failed build is left,
//! neither containers nor trees.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use andon_proto::RunSpec;
use andon_snapshot::{Baseline, LaneClone, PoolError};
use async_trait::async_trait;

use super::shelf::{Shelf, farm_fault};
use super::source::Source;
use crate::engine::{ContainerSpec, EngineError, Removal, SharedEngine, VolumeMount};
use crate::hands::{Notices, WorkFailure, blocking, notice};
use crate::stack::{
    Completing, Rig, RigFault, Site, StackFault, StackPlan, bring_up, create_network, lane_labels,
    stop_cleanly, sweep,
};

/// The lane of a build, in labels and names.
pub(crate) const BUILD_LANE: &str = "build";
const PREFIX: &str = "andon-build";
const NETWORK: &str = "andon-build";
/// What seeds may take in all where the specification does not say.
const SEED_LIMIT_DEFAULT: Duration = Duration::from_secs(1800);

/// Runs seed commands: a container of the first suite's image on the stack's network.
#[async_trait]
pub(crate) trait Seeder: Send + Sync {
    /// Exit code and output, head and tail.
    async fn run(&self, command: &str, limit: Duration) -> Result<(i64, Vec<u8>), EngineError>;
    /// Ends whatever still runs in it, and removes it.
    async fn end(self: Box<Self>) -> Result<(), WorkFailure>;
}

/// Makes a [`Seeder`] on a network.
#[async_trait]
pub(crate) trait SeedKit: Send + Sync {
    /// Ready to run commands. It is removed with the build's lane.
    async fn seeder(&self, network: &str) -> Result<Box<dyn Seeder>, WorkFailure>;
}

/// What a build works with.
pub(crate) struct Build<'a> {
    pub(crate) engine: SharedEngine,
    pub(crate) shelf: &'a Shelf,
    pub(crate) key: &'a str,
    pub(crate) spec: &'a RunSpec,
    pub(crate) plan: &'a StackPlan,
    pub(crate) source: &'a Source,
    pub(crate) notices: &'a Notices,
}

impl Build<'_> {
    /// The captured baseline, in the pool and not yet published.
    pub(crate) async fn run(&self, kit: &dyn SeedKit) -> Result<Baseline, WorkFailure> {
        self.sweep().await?;
        let built = self.build(kit).await;
        // Also after a success: nothing of the build is needed any more.
        let swept = self.sweep().await;
        let built = built?;
        swept?;
        Ok(built)
    }

    async fn sweep(&self) -> Result<(), WorkFailure> {
        let swept = sweep(self.engine.as_ref(), Some(BUILD_LANE)).await;
        swept.map_err(|error| WorkFailure::infrastructure(error.to_string()))
    }

    async fn build(&self, kit: &dyn SeedKit) -> Result<Baseline, WorkFailure> {
        let initial_key = format!("initial/{}", self.key);
        let initial = self.fill(&initial_key).await?;
        let (pool, from) = (self.shelf.pool.clone(), initial.clone());
        let clone = blocking(move || pool.clone_lane(BUILD_LANE, &from))
            .await?
            .map_err(|error| farm_fault(&error))?;
        let written = self.writable_source().await?;
        let built = self.build_on(kit, &clone, written.as_ref()).await;
        if let Err(error) = self.sweep().await {
            tracing::warn!(%error, "sweeping after a build");
        }
        let pool = self.shelf.pool.clone();
        let gone = blocking(move || {
            drop((clone, written, initial));
            pool.remove(&initial_key)
        });
        if let Err(error) = gone.await? {
            tracing::warn!(%error, "removing the volumes that a build started from");
        }
        built
    }

    /// Every volume as Docker would fill it: by the content of the image at its path.
    async fn fill(&self, initial_key: &str) -> Result<Baseline, WorkFailure> {
        let infra = |error: EngineError| WorkFailure::infrastructure(error.to_string());
        let mut by_service: BTreeMap<usize, Vec<(String, String)>> = BTreeMap::new();
        for (tree, (place, mount)) in self.plan.volume_trees() {
            by_service.entry(place).or_default().push((tree, mount.target));
        }
        let mut folders: Vec<(String, PathBuf)> = Vec::new();
        for (place, trees) in by_service {
            let service = &self.plan.services[place];
            let volumes = trees.iter().map(|(_, target)| VolumeMount {
                name: None,
                target: target.clone(),
                read_only: false,
            });
            // Never started: the engine fills volumes when it makes a container.
            let spec = ContainerSpec {
                name: format!("{PREFIX}-fill-{}", service.name),
                image: service.image.id.clone(),
                entrypoint: Some(vec!["/andon-never-started".to_owned()]),
                volumes: volumes.collect(),
                labels: lane_labels(BUILD_LANE),
                ..ContainerSpec::default()
            };
            let id = self.engine.create_container(&spec).await.map_err(infra)?;
            let mounts = self.engine.inspect_container(&id).await.map_err(infra)?.mounts;
            for (tree, target) in trees {
                let Some(found) = mounts.iter().find(|mount| mount.target == target) else {
                    return Err(WorkFailure::infrastructure(format!(
                        "the engine made no volume at {target} for service `{}`",
                        service.name
                    )));
                };
                folders.push((tree, found.source.clone()));
            }
        }
        let baseline = self.capture(initial_key, folders).await?;
        for service in &self.plan.services {
            let name = format!("{PREFIX}-fill-{}", service.name);
            self.engine.remove_container(&name, Removal::EVERYTHING).await.map_err(infra)?;
        }
        Ok(baseline)
    }

    async fn writable_source(&self) -> Result<Option<LaneClone>, WorkFailure> {
        if !self.plan.writes_source() {
            return Ok(None);
        }
        let (pool, from) = (self.shelf.pool.clone(), self.source.baseline.clone());
        let lane = format!("{BUILD_LANE}/source");
        blocking(move || pool.clone_lane(&lane, &from)).await?.map(Some).map_err(|error| farm_fault(&error))
    }

    async fn build_on(
        &self,
        kit: &dyn SeedKit,
        clone: &LaneClone,
        written: Option<&LaneClone>,
    ) -> Result<Baseline, WorkFailure> {
        let engine = self.engine.as_ref();
        let source = self.source.path()?;
        let writable = match written {
            Some(written) => written.path(super::source::TREE).map_err(|error| farm_fault(&error))?,
            None => source.clone(),
        };
        let labels = lane_labels(BUILD_LANE);
        let site = Site {
            prefix: PREFIX,
            network: NETWORK,
            labels: &labels,
            source: &source,
            writable_source: &writable,
            fronted: false,
        };
        let network = create_network(engine, NETWORK, BUILD_LANE).await;
        network.map_err(|error| WorkFailure::infrastructure(error.to_string()))?;
        let rig = Rig::create(engine, self.plan, &site, &|tree| Ok(clone.path(tree)?)).await;
        let rig = rig.map_err(rig_failure)?;
        notice(self.notices, format!("starting {} service(s)", self.plan.services.len()));
        self.judged(bring_up(engine, self.plan, &rig.containers, Completing::Run).await).await?;
        self.seed(kit, &rig).await?;
        notice(self.notices, "stopping the services".to_owned());
        self.judged(stop_cleanly(engine, self.plan, &rig.containers).await).await?;
        let mut folders = Vec::new();
        for tree in self.plan.volume_trees().into_keys() {
            let path = clone.path(&tree).map_err(|error| farm_fault(&error))?;
            folders.push((tree, path));
        }
        let layers = rig.layers(engine).await.map_err(rig_failure)?;
        for (service, layer) in self.plan.services.iter().zip(layers) {
            folders.push((service.layer.clone(), layer));
        }
        self.capture(self.key, folders).await
    }

    /// A fault is the project's only where the daemon is well.
    async fn judged(&self, outcome: Result<(), StackFault>) -> Result<(), WorkFailure> {
        let Err(fault) = outcome else { return Ok(()) };
        match self.engine.ping().await {
            Ok(()) => Err(fault.into_failure()),
            Err(error) => Err(WorkFailure::infrastructure(format!("{error}; before that: {fault}"))),
        }
    }

    async fn seed(&self, kit: &dyn SeedKit, rig: &Rig) -> Result<(), WorkFailure> {
        let baseline = self.spec.baseline.clone().unwrap_or_default();
        if baseline.seed.is_empty() {
            return Ok(());
        }
        let limit = match baseline.seed_timeout_ms {
            0 => SEED_LIMIT_DEFAULT,
            ms => Duration::from_millis(ms),
        };
        let began = Instant::now();
        let seeder = kit.seeder(NETWORK).await?;
        let count = baseline.seed.len();
        for (place, command) in baseline.seed.iter().enumerate() {
            let which = format!("seed command {} of {count}, `{}`,", place + 1, shown(command));
            notice(self.notices, format!("seeding {} of {count}: {}", place + 1, shown(command)));
            let left = limit.saturating_sub(began.elapsed());
            let (code, output) = match seeder.run(command, left).await {
                Ok(ended) => ended,
                Err(EngineError::TimedOut { .. }) => {
                    let reason = format!("{which} did not end: seeding may take {limit:?} in all");
                    return Err(WorkFailure::baseline(reason));
                }
                Err(error) => return Err(WorkFailure::infrastructure(error.to_string())),
            };
            if code != 0 {
                return Err(self.seed_failed(&which, code, output, rig).await);
            }
        }
        // What a command left in the background must not write while the services stop.
        seeder.end().await
    }

    async fn seed_failed(&self, which: &str, code: i64, output: Vec<u8>, rig: &Rig) -> WorkFailure {
        for (service, container) in self.plan.services.iter().zip(&rig.containers) {
            match self.engine.inspect_container(container).await {
                Ok(state) if state.oom_killed => {
                    let reason = format!("service `{}` ran out of memory while seeding", service.name);
                    return WorkFailure::infrastructure(reason);
                }
                Ok(_) => {}
                Err(error) => return WorkFailure::infrastructure(error.to_string()),
            }
        }
        let text = String::from_utf8_lossy(&output);
        let lines: Vec<&str> = text.trim_end().lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n");
        WorkFailure::baseline(format!("{which} failed with exit code {code}\n{tail}")).with_log(output)
    }

    async fn capture(&self, key: &str, folders: Vec<(String, PathBuf)>) -> Result<Baseline, WorkFailure> {
        let (pool, key) = (self.shelf.pool.clone(), key.to_owned());
        let captured = blocking(move || {
            // What an interrupted build left under this key.
            pool.remove(&key)?;
            let mut staging = pool.stage(&key)?;
            for (tree, folder) in folders {
                staging.capture(&tree, &folder)?;
            }
            staging.publish(serde_json::Value::Null)
        });
        captured.await?.map_err(|error| match &error {
            PoolError::Unsupported { .. } => WorkFailure::baseline(crate::hands::chain(&error)),
            _ => farm_fault(&error),
        })
    }
}

/// The class of what stands in the way of a stack's containers.
pub(crate) fn rig_failure(fault: RigFault) -> WorkFailure {
    match fault {
        RigFault::Plan(refused) => WorkFailure::baseline(refused.to_string()),
        // The engine understood and will not: an option that the project asked for.
        RigFault::Engine(error @ EngineError::Refused { .. }) => WorkFailure::baseline(error.to_string()),
        other => WorkFailure::infrastructure(crate::hands::chain(&other)),
    }
}

/// A command on one line, cut.
fn shown(command: &str) -> String {
    let line: String = command.chars().map(|c| if c.is_control() { ' ' } else { c }).take(100).collect();
    if line.len() < command.len() { format!("{line}…") } else { line }
}
