//! A stack's network and containers as objects of the engine: made, looked at, removed.
//!
//! Must not know what is in the trees. Invariant: a rig that was made half-way is removed by its labels (`sweep`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::future::{join_all, try_join_all};

use super::plan::{PlanRefused, Site, StackPlan};
use crate::engine::{Engine, EngineError, NetworkSpec, Removal};

/// On every container and network of a lane; its value says which.
pub const LANE_LABEL: &str = "dev.andon.lane";

/// Containers, created.
#[derive(Debug, Clone)]
pub struct Rig {
    /// Ids, in the plan's order.
    pub containers: Vec<String>,
}

/// What stands in the way of a rig.
#[derive(Debug, thiserror::Error)]
pub enum RigFault {
    /// The stack's own fault.
    #[error(transparent)]
    Plan(#[from] PlanRefused),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A tree's path.
    #[error(transparent)]
    Pool(#[from] andon_snapshot::PoolError),
    /// The engine does not show where a container's own files are.
    #[error(
        "the engine does not say where container {0} keeps its files: Andon needs the storage driver overlay2"
    )]
    NoUpperDir(String),
}

impl Rig {
    /// Makes the containers, all at once. Nothing is started.
    pub async fn create(
        engine: &dyn Engine,
        plan: &StackPlan,
        site: &Site<'_>,
        path_of: &(dyn Fn(&str) -> Result<PathBuf, RigFault> + Sync),
    ) -> Result<Self, RigFault> {
        let mut specs = Vec::with_capacity(plan.services.len());
        for service in &plan.services {
            specs.push(service.container(site, &path_of)?);
        }
        let containers = try_join_all(specs.iter().map(|spec| engine.create_container(spec))).await?;
        Ok(Self { containers })
    }

    /// Where each container's own layer is, in the plan's order.
    pub async fn layers(&self, engine: &dyn Engine) -> Result<Vec<PathBuf>, RigFault> {
        let mut layers = Vec::with_capacity(self.containers.len());
        for container in &self.containers {
            let state = engine.inspect_container(container).await?;
            layers.push(state.upper_dir.ok_or(RigFault::NoUpperDir(state.name))?);
        }
        Ok(layers)
    }

    /// Removes the containers, running or not, all at once.
    pub async fn remove(&self, engine: &dyn Engine) -> Result<(), EngineError> {
        let removing = self.containers.iter().map(|id| engine.remove_container(id, Removal::EVERYTHING));
        join_all(removing).await.into_iter().collect()
    }
}

/// The labels of a lane's objects.
#[must_use]
pub fn lane_labels(lane: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(LANE_LABEL.to_owned(), lane.to_owned())])
}

/// Makes a lane's network anew.
pub async fn create_network(engine: &dyn Engine, name: &str, lane: &str) -> Result<(), EngineError> {
    let spec = NetworkSpec { name: name.to_owned(), labels: lane_labels(lane), ..NetworkSpec::default() };
    engine.create_network(&spec).await.map(drop)
}

/// Removes every container and network of a lane; of all lanes where `lane` is `None`.
pub async fn sweep(engine: &dyn Engine, lane: Option<&str>) -> Result<(), EngineError> {
    let filter = match lane {
        Some(lane) => format!("{LANE_LABEL}={lane}"),
        None => LANE_LABEL.to_owned(),
    };
    let containers = engine.list_containers(&filter).await?;
    let removing = containers.iter().map(|found| engine.remove_container(&found.id, Removal::EVERYTHING));
    join_all(removing).await.into_iter().collect::<Result<(), _>>()?;
    for network in engine.list_networks(&filter).await? {
        engine.remove_network(&network.id).await?;
    }
    Ok(())
}
