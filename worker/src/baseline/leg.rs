//! One leg of a build: the stack comes up on what there is, steps are run, it stops cleanly, everything is captured.
//!
//! ```text
//!   fill ─┐
//!         ├──> clone ──> up ──> steps ──> stop ──> capture
//!   state ┘
//! ```
//!
//! Knows Docker's engine trait and the pool; must not know lanes or the session, nor which baseline is built upon. Invariant:
//! a leg that fails leaves no tree.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use andon_snapshot::{Baseline, LaneClone};
use async_trait::async_trait;

use super::build::Build;
use super::shelf::farm_fault;
use crate::engine::{ContainerSpec, EngineError, Removal, VolumeMount};
use crate::hands::{WorkFailure, blocking, notice};
use crate::stack::{
    Completing, Rig, RigFault, Site, StackFault, bring_up, create_network, lane_labels, stop_cleanly,
};

/// The lane of a build, in labels and names.
pub(crate) const BUILD_LANE: &str = "build";
const PREFIX: &str = "andon-build";
const NETWORK: &str = "andon-build";
/// Steps that took so long in all are not run again for a change of a later one: the state after them is kept.
const KEPT_AFTER_MIN: Duration = Duration::from_secs(3);

/// What a file system in memory has where nothing says otherwise (tmpfs(5)).
const OPEN_TO_ALL: u32 = 0o1777;

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

/// What a leg starts from.
pub(super) enum Ground {
    /// Volumes as the images fill them.
    Images(Baseline),
    /// A state that was captured before.
    State(Baseline),
}

impl Ground {
    fn baseline(&self) -> &Baseline {
        match self {
            Self::Images(baseline) | Self::State(baseline) => baseline,
        }
    }
}

/// A leg that was gone.
pub(super) struct Leg {
    /// The state after it.
    pub(super) baseline: Baseline,
    /// How many of all steps are done now.
    pub(super) done: usize,
    /// How long each step of it took.
    pub(super) took: Vec<Duration>,
}

impl Build<'_> {
    /// Every volume as Docker would fill it: by the content of the image at its path.
    pub(super) async fn fill(&self, initial_key: &str) -> Result<Baseline, WorkFailure> {
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

    /// Runs steps from the one at `first`, until the last or one after which the state is kept. `came_up` is called when the
    /// ground has proven itself.
    pub(super) async fn leg(
        &self,
        kit: &dyn SeedKit,
        ground: &Ground,
        first: usize,
        left: &mut Duration,
        came_up: impl FnOnce() -> Result<(), WorkFailure>,
    ) -> Result<Leg, WorkFailure> {
        let (pool, from) = (self.shelf.pool.clone(), ground.baseline().clone());
        let clone = blocking(move || pool.clone_lane(BUILD_LANE, &from))
            .await?
            .map_err(|error| farm_fault(&error))?;
        let written = self.writable_source().await?;
        let gone = self.leg_on(kit, ground, &clone, written.as_ref(), first, left, came_up).await;
        if let Err(error) = self.sweep().await {
            tracing::warn!(%error, "sweeping after a build");
        }
        blocking(move || drop((clone, written))).await?;
        gone
    }

    #[allow(clippy::too_many_arguments)]
    async fn leg_on(
        &self,
        kit: &dyn SeedKit,
        ground: &Ground,
        clone: &LaneClone,
        written: Option<&LaneClone>,
        first: usize,
        left: &mut Duration,
        came_up: impl FnOnce() -> Result<(), WorkFailure>,
    ) -> Result<Leg, WorkFailure> {
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
        let completing = match ground {
            Ground::Images(_) => Completing::Run,
            Ground::State(state) => {
                self.put_layers_back(state, &rig).await?;
                // What such services do is in the state.
                Completing::Done
            }
        };
        self.judged(bring_up(engine, self.plan, &rig.containers, completing).await).await?;
        came_up()?;
        let took = self.run_steps(kit, &rig, first, left).await?;
        let done = first + took.len();
        notice(self.notices, "stopping the services".to_owned());
        self.judged(stop_cleanly(engine, self.plan, &rig.containers).await).await?;
        let mut folders = Vec::new();
        for tree in self.plan.volume_trees().into_keys() {
            let path = clone.path(&tree).map_err(|error| farm_fault(&error))?;
            folders.push((tree, path));
        }
        let layers = rig.layers(engine).await.map_err(rig_failure)?;
        for (service, layer) in self.plan.services.iter().zip(layers) {
            let opened = open_mount_points(&layer, service.in_memory());
            opened.map_err(|error| WorkFailure::infrastructure(format!("{}: {error}", layer.display())))?;
            folders.push((service.layer.clone(), layer));
        }
        let baseline = self.capture(self.chain.after(done), folders).await?;
        Ok(Leg { baseline, done, took })
    }

    /// What the services had written into their own layers.
    async fn put_layers_back(&self, state: &Baseline, rig: &Rig) -> Result<(), WorkFailure> {
        let layers = rig.layers(self.engine.as_ref()).await.map_err(rig_failure)?;
        let names = self.plan.services.iter().map(|service| service.layer.clone());
        let layers: Vec<(String, PathBuf)> = names.zip(layers).collect();
        let (pool, state) = (self.shelf.pool.clone(), state.clone());
        let put = blocking(move || {
            layers.iter().try_for_each(|(tree, layer)| pool.restore_into(&state, tree, layer))
        });
        put.await?.map_err(|error| farm_fault(&error))
    }

    /// How long each step took that was run.
    async fn run_steps(
        &self,
        kit: &dyn SeedKit,
        rig: &Rig,
        first: usize,
        left: &mut Duration,
    ) -> Result<Vec<Duration>, WorkFailure> {
        let mut took = Vec::new();
        // A step may be inputs alone: another state by its key, with nothing to run.
        let steps = &self.steps[first..];
        if steps.iter().all(|step| step.run.is_empty()) {
            return Ok(vec![Duration::ZERO; steps.len()]);
        }
        let seeder = kit.seeder(NETWORK).await?;
        for place in first..self.steps.len() {
            let began = Instant::now();
            self.run_step(seeder.as_ref(), rig, place, left).await?;
            took.push(began.elapsed());
            let is_last = place + 1 == self.steps.len();
            let took_long = took.iter().sum::<Duration>() >= KEPT_AFTER_MIN;
            if !is_last && self.steps[place].keep.unwrap_or(took_long) {
                break;
            }
        }
        // What a command left in the background must not write while the services stop.
        seeder.end().await?;
        Ok(took)
    }

    async fn run_step(
        &self,
        seeder: &dyn Seeder,
        rig: &Rig,
        place: usize,
        left: &mut Duration,
    ) -> Result<(), WorkFailure> {
        let (step, count) = (&self.steps[place], self.steps[place].run.len());
        let name = self.name_of(place);
        for (number, command) in step.run.iter().enumerate() {
            let number = number + 1;
            let which = format!("{name}seed command {number} of {count}, `{}`,", shown(command));
            notice(self.notices, format!("{name}seeding {number} of {count}: {}", shown(command)));
            let began = Instant::now();
            let ended = seeder.run(command, *left).await;
            *left = left.saturating_sub(began.elapsed());
            match ended {
                Ok((0, _)) => {}
                Ok((code, output)) => return Err(self.seed_failed(&which, code, output, rig).await),
                Err(EngineError::TimedOut { .. }) => {
                    let limit = self.seed_limit();
                    let reason = format!("{which} did not end: seeding may take {limit:?} in all");
                    return Err(WorkFailure::baseline(reason));
                }
                Err(error) => return Err(WorkFailure::infrastructure(error.to_string())),
            }
        }
        Ok(())
    }

    /// Before what is told of a step: nothing where there is only one.
    fn name_of(&self, place: usize) -> String {
        let (step, count) = (&self.steps[place], self.steps.len());
        match (count, step.name.as_str()) {
            (1, "") => String::new(),
            (_, "") => format!("step {} of {count}: ", place + 1),
            (_, name) => format!("step {} of {count} (`{name}`): ", place + 1),
        }
    }

    /// A fault is the project's only where the daemon is well.
    async fn judged(&self, outcome: Result<(), StackFault>) -> Result<(), WorkFailure> {
        let Err(fault) = outcome else { return Ok(()) };
        match self.engine.ping().await {
            Ok(()) => Err(fault.into_failure()),
            Err(error) => Err(WorkFailure::infrastructure(format!("{error}; before that: {fault}"))),
        }
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
}

/// A file system in memory has the mode of the folder that it is mounted on. Where the image has none the engine makes one, at
/// the first start, on which the file system is open to all; so it has to be at every later one.
fn open_mount_points<'a>(layer: &Path, targets: impl Iterator<Item = &'a str>) -> io::Result<()> {
    for target in targets {
        let mut folder = layer.to_owned();
        let names = Path::new(target).components().filter(|part| matches!(part, Component::Normal(_)));
        // Links are not followed: they would lead out of the layer.
        let is_there = names.into_iter().all(|name| {
            folder.push(name);
            folder.symlink_metadata().is_ok_and(|found| found.is_dir())
        });
        if is_there && folder != layer {
            fs::set_permissions(&folder, Permissions::from_mode(OPEN_TO_ALL))?;
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_that_the_engine_made_is_open_and_no_other_folder_is() {
        let folder = tempfile::tempdir().unwrap();
        let (layer, outside) = (folder.path().join("layer"), folder.path().join("outside"));
        for path in ["var/scratch", "etc"] {
            fs::create_dir_all(layer.join(path)).unwrap();
        }
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, layer.join("link")).unwrap();
        open_mount_points(&layer, ["/var/scratch", "/link", "/not/there", "/"].into_iter()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&layer.join("var/scratch")), OPEN_TO_ALL);
        for path in [layer.clone(), layer.join("var"), layer.join("etc"), outside] {
            assert_ne!(mode(&path), OPEN_TO_ALL, "{}", path.display());
        }
    }
}
