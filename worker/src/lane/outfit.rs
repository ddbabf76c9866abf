//! What a unit's box gets beside its image and its source where the suite asks for it: a Docker API of its own, a
//! way out.
//!
//! Must not know stacks or rebases. Invariant: what an outfit made goes with [`Outfit::close`] (what tests made) and
//! [`Outfit::remove`] (the rest); a suite that asks for nothing costs nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::unit_box::BoxPlan;
use crate::egress::{Egress, Rules};
use crate::engine::{Bind, ContainerSpec, Limits, NetworkMode, Propagation};
use crate::hands::{HandsOptions, ImageSource, WorkFailure};
use crate::lane_docker::{self, Caps, Guest, GuestSpec, HaveImage, SOCKET_IN_BOX};
use crate::stack::create_network;

/// Memory of a container that a test starts, where the suite does not say.
const MEMORY_BYTES_DEFAULT: u64 = 2 << 30;
/// Its processes and threads.
const PIDS_DEFAULT: u64 = 2048;

/// What outfits are made with; shared by all lanes.
#[derive(Debug)]
pub(crate) struct Outfitter {
    /// `None` where this worker has no daemon to stand in front of.
    daemon: Option<PathBuf>,
    /// Where sockets are made.
    folder: PathBuf,
    images: Arc<dyn ImageSource>,
}

impl Outfitter {
    /// Makes the folder anew, and removes what tests of an earlier life left.
    pub(crate) async fn open(options: &HandsOptions) -> Result<Arc<Self>, WorkFailure> {
        let folder = options.data_dir.join("docker");
        let fault =
            |why: String| WorkFailure::infrastructure(format!("cannot prepare Docker APIs for tests: {why}"));
        crate::lane_docker::tidy(&folder, options.docker_socket.as_deref()).await.map_err(fault)?;
        let images = Arc::clone(&options.images);
        Ok(Arc::new(Self { daemon: options.docker_socket.clone(), folder, images }))
    }

    fn have_image(&self) -> HaveImage {
        let images = Arc::clone(&self.images);
        Arc::new(move |reference| {
            let images = Arc::clone(&images);
            Box::pin(async move { images.have_without_registry(&reference).await })
        })
    }
}

/// As much as the suite's own box may have.
fn caps_of(plan: &BoxPlan) -> Caps {
    let Limits { memory_bytes, pids, cpu_millis } = Limits::of(plan.suite.limits.as_ref(), PIDS_DEFAULT);
    let memory_bytes = if memory_bytes == 0 { MEMORY_BYTES_DEFAULT } else { memory_bytes };
    Caps { memory_bytes, pids, cpu_millis }
}

/// Of one box.
#[derive(Debug, Default)]
pub(crate) struct Outfit {
    guest: Option<Guest>,
    socket: PathBuf,
    egress: Option<Egress>,
    neighbours: Vec<String>,
    /// Made for this box alone, where the project has no services.
    own_network: Option<String>,
}

impl Outfit {
    /// `source` is the box's copy of the source.
    pub(crate) async fn make(plan: &BoxPlan, serial: u64, source: &Path) -> Result<Self, WorkFailure> {
        if plan.is_plain() {
            return Ok(Self::default());
        }
        let Some(daemon) = &plan.outfitter.daemon else {
            return Err(WorkFailure::infrastructure(format!(
                "suite `{}` asks for Docker or egress, which this worker does not offer",
                plan.suite.name
            )));
        };
        let mut outfit = Self { neighbours: plan.neighbours.clone(), ..Self::default() };
        let network = match &plan.network {
            Some(network) => network.clone(),
            None => {
                let name = format!("andon-lane{}-unit{serial}", plan.lane);
                let made = create_network(plan.engine.as_ref(), &name, &plan.lane).await;
                made.map_err(|error| WorkFailure::infrastructure(error.to_string()))?;
                outfit.own_network = Some(name.clone());
                name
            }
        };
        let added = async {
            outfit.add_guest(plan, serial, source, daemon, &network).await?;
            outfit.add_egress(plan, daemon, &network).await
        };
        if let Err(failure) = added.await {
            outfit.remove(plan).await?;
            return Err(failure);
        }
        Ok(outfit)
    }

    async fn add_guest(
        &mut self,
        plan: &BoxPlan,
        serial: u64,
        source: &Path,
        daemon: &Path,
        network: &str,
    ) -> Result<(), WorkFailure> {
        if !plan.suite.docker {
            return Ok(());
        }
        self.socket = plan.outfitter.folder.join(format!("{}-{serial}.sock", plan.lane));
        let spec = GuestSpec {
            daemon: daemon.to_owned(),
            socket: self.socket.clone(),
            lane: plan.lane.clone(),
            serial,
            network: network.to_owned(),
            workdir: plan.workdir().to_owned(),
            source: source.to_owned(),
            caps: caps_of(plan),
            suite_image: plan.image.id.clone(),
            have_image: plan.outfitter.have_image(),
        };
        let guest = Guest::open(spec).await;
        self.guest = Some(guest.map_err(|why| {
            WorkFailure::infrastructure(format!("cannot offer a Docker API to tests: {why}"))
        })?);
        Ok(())
    }

    async fn add_egress(&mut self, plan: &BoxPlan, daemon: &Path, network: &str) -> Result<(), WorkFailure> {
        if plan.suite.egress.is_empty() {
            return Ok(());
        }
        let rules = Rules::parse(plan.suite.egress.iter().map(String::as_str));
        let rules = rules
            .map_err(|why| WorkFailure::config(format!("egress of suite `{}`: {why}", plan.suite.name)))?;
        let fault = |why: String| WorkFailure::infrastructure(format!("cannot open a way out: {why}"));
        let home = lane_docker::home(daemon, network).await.map_err(fault)?;
        let open = Egress::open(&plan.lane, rules, home.gateway, move |from| home.holds(from)).await;
        self.egress = Some(open.map_err(|error| fault(error.to_string()))?);
        Ok(())
    }

    /// Whether the box has nothing beside its image and its source.
    pub(crate) fn is_plain(&self) -> bool {
        self.guest.is_none() && self.egress.is_none() && self.own_network.is_none()
    }

    /// Adds it to the box. What the suite's own environment says stays.
    pub(crate) fn dress(&self, spec: &mut ContainerSpec) {
        let docker = self.guest.iter().flat_map(Guest::env);
        let egress = self.egress.iter().flat_map(|egress| egress.env(&self.neighbours));
        for (name, value) in docker.chain(egress) {
            if !spec.env.iter().any(|(known, _)| *known == name) {
                spec.env.push((name, value));
            }
        }
        if self.guest.is_some() {
            spec.binds.push(Bind {
                source: self.socket.clone(),
                target: SOCKET_IN_BOX.to_owned(),
                read_only: false,
                propagation: Propagation::Private,
            });
        }
        if let Some(network) = &self.own_network {
            spec.network = NetworkMode::Named { network: network.clone(), aliases: Vec::new() };
        }
    }

    /// On the containers that tests start.
    pub(crate) fn guest_label(&self) -> Option<String> {
        self.guest.as_ref().map(Guest::label)
    }

    /// Removes what tests made, and lets them make no more. Free where they made nothing.
    pub(crate) async fn close(&self) -> Result<(), String> {
        match &self.guest {
            Some(guest) => guest.close().await,
            None => Ok(()),
        }
    }

    /// Removes what tests made; they may go on to make more.
    pub(crate) async fn clear(&self) -> Result<(), String> {
        match &self.guest {
            Some(guest) => guest.clear().await,
            None => Ok(()),
        }
    }

    /// After the box is removed.
    pub(crate) async fn remove(self, plan: &BoxPlan) -> Result<(), WorkFailure> {
        self.close().await.map_err(WorkFailure::infrastructure)?;
        if let Some(network) = &self.own_network {
            let removed = plan.engine.remove_network(network).await;
            removed.map_err(|error| WorkFailure::infrastructure(error.to_string()))?;
        }
        Ok(())
    }
}
