//! A stack's network and containers as objects of the engine: made, looked at, removed.
//!
//! Must not know what is in the trees. Invariant: a rig that was made half-way is removed by its labels (`sweep`).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use futures::future::{join_all, try_join_all};

use super::front::{front_of, fronts as names_of_fronts, hosts_lines};
use super::plan::{PlanRefused, Site, StackPlan};
use super::sandbox::{Sandbox, SandboxSpec, joins};
use crate::engine::{Engine, EngineError, NetworkSpec, Removal};

/// On every container and network of a lane; its value says which.
pub const LANE_LABEL: &str = "dev.andon.lane";
/// On every container of one of a lane's stands; its value says which.
const STAND_LABEL: &str = "dev.andon.stand";

/// Containers, created, and what they join.
#[derive(Debug, Clone, Default)]
pub struct Rig {
    /// Ids, in the plan's order.
    pub containers: Vec<String>,
    /// Of those in sandboxes, on the stack's own network.
    pub addresses: Vec<Option<Ipv4Addr>>,
    /// In no order: of the services that can join one.
    sandboxes: Vec<Sandbox>,
    /// Where each front leads: the service's address on the stack's own network.
    leads: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Ids of the containers that have networks of their own.
    alone: Vec<String>,
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
    /// A sandbox ended, or is another than it was.
    #[error("sandbox {name} is gone: {how}")]
    SandboxGone {
        /// The container's.
        name: String,
        /// What is there instead.
        how: String,
    },
    /// What the kernel has learned in a sandbox cannot be undone.
    #[error("cannot make the network of sandbox {name} forget what it has learned")]
    Forget {
        /// The container's.
        name: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// Its addresses and routes.
    #[error("cannot change the routes of sandbox {name}")]
    Wire {
        /// The container's.
        name: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file of a sandbox.
    #[error("cannot {what} {}", .path.display())]
    File {
        /// Was to be done.
        what: &'static str,
        /// With it.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The engine does not show where a container's own files are.
    #[error(
        "the engine does not say where container {0} keeps its files: Andon needs the storage driver overlay2"
    )]
    NoUpperDir(String),
}

impl Rig {
    /// Makes the sandboxes and starts them, then makes the containers, all at once. No service is started.
    pub async fn create(
        engine: &dyn Engine,
        plan: &StackPlan,
        site: &Site<'_>,
        path_of: &(dyn Fn(&str) -> Result<PathBuf, RigFault> + Sync),
    ) -> Result<Self, RigFault> {
        let fronts: Vec<_> =
            (0..plan.services.len()).map(|place| front_of(place).filter(|_| site.fronted)).collect();
        let hosts = if site.fronted { hosts_lines(&names_of_fronts(plan)) } else { String::new() };
        let sandboxed = try_join_all(plan.services.iter().zip(&fronts).map(async |(service, front)| {
            if !joins(&service.service) {
                return Ok(None);
            }
            let (network, hostname) = service.address(site);
            // A dot: no service's own container can be called so.
            let name = format!("{}.{}", site.prefix, service.name);
            let (labels, front) = (site.labels.clone(), *front);
            let spec = SandboxSpec { name, labels, network, hostname, front, hosts: hosts.clone() };
            Sandbox::make(engine, spec).await.map(Some)
        }));
        let sandboxed: Vec<Option<Sandbox>> = sandboxed.await?;
        let mut specs = Vec::with_capacity(plan.services.len());
        for (service, sandbox) in plan.services.iter().zip(&sandboxed) {
            specs.push(service.container(site, sandbox.as_ref(), &path_of)?);
        }
        let containers = try_join_all(specs.iter().map(|spec| engine.create_container(spec))).await?;
        let alone = containers.iter().zip(&sandboxed).filter(|(_, sandbox)| sandbox.is_none());
        let alone = alone.map(|(container, _)| container.clone()).collect();
        let lead = |(sandbox, front): (&Option<Sandbox>, &Option<Ipv4Addr>)| {
            Some(((*front)?, sandbox.as_ref()?.address()?))
        };
        let leads: Vec<_> = sandboxed.iter().zip(&fronts).filter_map(lead).collect();
        if site.fronted {
            // To each other, too, services are what they are to tests.
            try_join_all(sandboxed.iter().flatten().map(|sandbox| sandbox.lead(&leads))).await?;
        }
        let addresses = sandboxed.iter().map(|sandbox| sandbox.as_ref()?.address()).collect();
        Ok(Self { containers, addresses, sandboxes: sandboxed.into_iter().flatten().collect(), leads, alone })
    }

    /// Each front that is to lead here, with where.
    #[must_use]
    pub fn leads(&self) -> &[(Ipv4Addr, Ipv4Addr)] {
        &self.leads
    }

    /// Frames that have come in to each service since it was made; `None` where one has a network of its own, or it cannot
    /// be read. While the numbers stay the same, nobody has spoken to any service.
    #[must_use]
    pub fn frames_in(&self) -> Option<Vec<u64>> {
        if !self.alone.is_empty() {
            return None;
        }
        self.sandboxes.iter().map(Sandbox::frames_in).collect()
    }

    /// Puts back what the containers were given for their networks, by their sandboxes or the engine. They have to be dead.
    pub async fn put_networks_back(&self, engine: &dyn Engine) -> Result<(), RigFault> {
        let sandboxes = try_join_all(self.sandboxes.iter().map(|sandbox| sandbox.put_back(engine)));
        let alone = try_join_all(self.alone.iter().map(|container| discard_network_files(engine, container)));
        tokio::try_join!(sandboxes, alone).map(drop)
    }

    /// The same while the services live on: files of the engine that are not as they were are a fault.
    pub async fn put_live_networks_back(&self, engine: &dyn Engine) -> Result<(), RigFault> {
        try_join_all(self.sandboxes.iter().map(|sandbox| sandbox.put_live_back(engine))).await.map(drop)
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

    /// Removes the containers and the sandboxes, running or not, all at once.
    pub async fn remove(&self, engine: &dyn Engine) -> Result<(), EngineError> {
        let removing = self.containers.iter().map(|id| engine.remove_container(id, Removal::EVERYTHING));
        let sandboxes = self.sandboxes.iter().map(|sandbox| sandbox.remove(engine));
        let (removed, sandboxes) = tokio::join!(join_all(removing), join_all(sandboxes));
        removed.into_iter().chain(sandboxes).collect()
    }
}

/// Removes what the engine has written for a container's own network. It writes it anew when it starts the container; of what
/// it finds it would keep the mode and the owner.
async fn discard_network_files(engine: &dyn Engine, container: &str) -> Result<(), RigFault> {
    for path in engine.inspect_container(container).await?.network_files {
        let mut digest = path.clone().into_os_string();
        // Beside resolv.conf, to tell whether somebody wrote to it.
        digest.push(".hash");
        for file in [path, digest.into()] {
            match tokio::fs::remove_file(&file).await {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(RigFault::File { what: "remove", path: file, source });
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The labels of a lane's objects.
#[must_use]
pub fn lane_labels(lane: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(LANE_LABEL.to_owned(), lane.to_owned())])
}

/// The labels of a stand's containers.
#[must_use]
pub fn stand_labels(lane: &str, stand: &str) -> BTreeMap<String, String> {
    let mut labels = lane_labels(lane);
    labels.insert(STAND_LABEL.to_owned(), stand.to_owned());
    labels
}

/// Makes a lane's network anew.
pub async fn create_network(engine: &dyn Engine, name: &str, lane: &str) -> Result<(), EngineError> {
    let spec = NetworkSpec { name: name.to_owned(), labels: lane_labels(lane), ..NetworkSpec::default() };
    engine.create_network(&spec).await.map(drop)
}

/// Makes a lane's network where it is not there.
pub async fn ensure_network(engine: &dyn Engine, name: &str, lane: &str) -> Result<(), EngineError> {
    let there = engine.list_networks(&format!("{LANE_LABEL}={lane}")).await?;
    if there.iter().any(|network| network.name == name) {
        return Ok(());
    }
    create_network(engine, name, lane).await
}

/// Removes every container and network of a lane; of all lanes where `lane` is `None`.
pub async fn sweep(engine: &dyn Engine, lane: Option<&str>) -> Result<(), EngineError> {
    let filter = match lane {
        Some(lane) => format!("{LANE_LABEL}={lane}"),
        None => LANE_LABEL.to_owned(),
    };
    sweep_containers(engine, &filter).await?;
    for network in engine.list_networks(&filter).await? {
        engine.remove_network(&network.id).await?;
    }
    Ok(())
}

/// Removes every container of a stand. The lane's networks and what else is on them stay.
pub async fn sweep_stand(engine: &dyn Engine, stand: &str) -> Result<(), EngineError> {
    sweep_containers(engine, &format!("{STAND_LABEL}={stand}")).await
}

async fn sweep_containers(engine: &dyn Engine, filter: &str) -> Result<(), EngineError> {
    let containers = engine.list_containers(filter).await?;
    let removing = containers.iter().map(|found| engine.remove_container(&found.id, Removal::EVERYTHING));
    join_all(removing).await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::FakeEngine;
    use crate::engine::{ImageInfo, NetworkMode};
    use crate::hands::ResolvedImage;
    use andon_proto::{Service, Stack};

    #[tokio::test]
    async fn a_service_with_power_over_its_network_has_its_own_and_its_files_are_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let engine = FakeEngine::new();
        engine.keep_layers_in(folder.path().to_owned());
        engine.add_image("i", ImageInfo { id: "i".into(), ..ImageInfo::default() });
        create_network(engine.as_ref(), "net", "0").await.unwrap();
        let service = |name: &str| Service { name: name.to_owned(), ..Service::default() };
        let router = Service { cap_add: vec!["NET_ADMIN".to_owned()], ..service("router") };
        let stack = Stack { services: vec![service("db"), router], ..Stack::default() };
        let image = ResolvedImage { id: "i".into(), reference: "i".into(), build_key: String::new() };
        let images = vec![(image, ImageInfo::default()); 2];
        let plan = StackPlan::new(&stack, &images).unwrap();
        let (labels, source) = (lane_labels("0"), folder.path());
        let site = Site {
            prefix: "p",
            network: "net",
            labels: &labels,
            source,
            writable_source: source,
            fronted: false,
        };
        let rig = Rig::create(engine.as_ref(), &plan, &site, &|_| Ok(PathBuf::new())).await.unwrap();

        let spec = engine.spec("p-db").unwrap();
        assert_eq!((spec.network, spec.hostname.as_str()), (NetworkMode::Container("p.db".into()), ""));
        let network = NetworkMode::Named { network: "net".into(), aliases: vec!["router".into()] };
        let spec = engine.spec("p-router").unwrap();
        assert_eq!((spec.network, spec.hostname.as_str()), (network, "router"));

        rig.put_networks_back(engine.as_ref()).await.unwrap();
        let files = |container: &str| {
            let folder = folder.path().join(format!("{container}.network"));
            std::fs::read_dir(folder).unwrap().count()
        };
        assert_eq!((files("p.db"), files("p-router")), (3, 0));
        sweep(engine.as_ref(), Some("0")).await.unwrap();
        assert!(engine.containers().is_empty() && engine.networks().is_empty());
    }
}
