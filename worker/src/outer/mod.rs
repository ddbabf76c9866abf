//! Worker boxes on a host's own engine: started, listed, removed without a trace. For `andon up` and the tests.
//!
//! A box is one container: the worker image, a volume of its own at [`DATA_DIR`] (a real file system: overlay does not sit
//! on overlay), the folder with the coordinator's socket, and as much privilege as the host can give. Nothing here knows
//! what happens inside a box.
//!
//! Invariants: whatever is made carries the farm's label, so it is found again by it; a box that could not be started
//! leaves nothing; a box that is removed takes its volume and everything nested in it along.

mod privileges;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

pub use privileges::privileges;

use crate::engine::{
    Bind, Captured, ContainerSpec, DEFAULT_ADDRESS, Discard, EngineError, ExecSpec, LogsSpec, NetworkMode,
    Privileges, Propagation, Removal, SharedEngine, Status, VolumeMount,
};

/// On every box: the farm that it belongs to.
pub const LABEL_FARM: &str = "dev.andon.farm";
/// Where a box keeps pool, images and sockets.
pub const DATA_DIR: &str = "/var/lib/andon";
/// Where a box sees the folder with the coordinator's socket.
const SOCKET_DIR: &str = "/run/andon-farm";

/// From the request to end to the kill: the worker gives its leases back and ends its daemon meanwhile.
const STOP_GRACE: Duration = Duration::from_secs(40);
/// Thawing what is frozen in a box.
const THAW_LIMIT: Duration = Duration::from_secs(10);
/// The exit code of what SIGKILL has ended.
const CODE_KILLED: i64 = 137;
/// Longest log that is read for a message, in bytes.
const LOG_BYTES_MAX: usize = 32 * 1024;

/// Thaws every group of processes, the deepest first: a frozen process cannot be killed, and would keep its box from
/// being removed (version 1 of the control groups; version 2 forgives it).
const THAW: &str = "\
find /sys/fs/cgroup -depth -name freezer.state -exec sh -c 'echo THAWED > \"$1\"' _ {} \\; ; \
find /sys/fs/cgroup -depth -name cgroup.freeze -exec sh -c 'echo 0 > \"$1\"' _ {} \\;";

/// A box cannot be had, looked at, or removed.
#[derive(Debug, Error)]
pub enum OuterError {
    /// The worker image is not there.
    #[error(
        "the engine at {address} has no image {image}: build it (ci/images/worker/Dockerfile says how), or name another"
    )]
    NoImage {
        /// The engine.
        address: String,
        /// As it was asked for.
        image: String,
    },
    /// Something else has the box's name.
    #[error(
        "the engine at {address} has another container called {name}: remove it (`docker rm -f -v {name}`), or choose another name"
    )]
    NameTaken {
        /// The engine.
        address: String,
        /// The name.
        name: String,
    },
    /// The engine refused to start it.
    #[error("the engine at {address} cannot start the worker box {name} ({asked})")]
    NotStarted {
        /// The engine.
        address: String,
        /// The box.
        name: String,
        /// The privileges that were asked for, in words.
        asked: String,
        /// The engine's answer.
        #[source]
        source: EngineError,
    },
    /// Any other call failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A box to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoxSpec {
    /// The container's and the worker's name.
    pub name: String,
    /// The farm's id.
    pub farm: String,
    /// The worker image, present in the engine.
    pub image: String,
    /// The coordinator's socket on the host. Its folder is mounted, so that a coordinator that starts again is found.
    pub socket: PathBuf,
    /// The farm's join token. Passed as environment, like everything that a box is told: not in any process list.
    pub join_token: String,
    /// The worker's own default where absent.
    pub lanes: Option<u32>,
    /// Forces a rebase driver.
    pub driver: Option<String>,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
    /// Size of `/dev/shm` in bytes; 0 for the engine's default.
    pub shm_bytes: u64,
}

/// A box that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerBox {
    /// The container's id.
    pub id: String,
    /// The container's and the worker's name.
    pub name: String,
    /// Where it is in its life.
    pub status: Status,
}

/// The engine that this machine's tools use: the value of `DOCKER_HOST`, or the default socket.
#[must_use]
pub fn engine_address(docker_host: Option<String>) -> String {
    docker_host.filter(|host| !host.is_empty()).unwrap_or_else(|| DEFAULT_ADDRESS.to_owned())
}

/// The boxes of one engine.
#[derive(Debug, Clone)]
pub struct Outer {
    engine: SharedEngine,
    privileges: Privileges,
}

impl Outer {
    /// `privileges` is what [`privileges()`] makes of the capabilities that the host allows
    /// ([`crate::host::Capabilities::bounding`]).
    #[must_use]
    pub fn new(engine: SharedEngine, privileges: Privileges) -> Self {
        Self { engine, privileges }
    }

    /// Creates and starts a box; answers with the container's id. An ended box of the same farm and name is replaced.
    /// Does not wait for the worker in it.
    pub async fn start_worker(&self, spec: &BoxSpec) -> Result<String, OuterError> {
        let address = || self.engine.address().to_owned();
        if self.engine.inspect_image(&spec.image).await?.is_none() {
            return Err(OuterError::NoImage { address: address(), image: spec.image.clone() });
        }
        let boxes = self.list(&spec.farm).await?;
        let ended = |found: &&WorkerBox| found.name == spec.name && found.status != Status::Running;
        if let Some(ended) = boxes.iter().find(ended) {
            self.remove(&ended.id).await?;
        }
        let not_started = |source| OuterError::NotStarted {
            address: address(),
            name: spec.name.clone(),
            asked: privileges::in_words(&self.privileges),
            source,
        };
        let id = match self.engine.create_container(&container(spec, &self.privileges)).await {
            Ok(id) => id,
            Err(EngineError::Conflict { .. }) => {
                return Err(OuterError::NameTaken { address: address(), name: spec.name.clone() });
            }
            Err(error) => return Err(not_started(error)),
        };
        if let Err(error) = self.engine.start_container(&id).await {
            if let Err(left) = self.engine.remove_container(&id, Removal::EVERYTHING).await {
                tracing::warn!(error = %left, "a box that did not start is left behind");
            }
            return Err(not_started(error));
        }
        Ok(id)
    }

    /// Every box of the farm, also ended ones, by name.
    pub async fn list(&self, farm: &str) -> Result<Vec<WorkerBox>, OuterError> {
        let found = self.engine.list_containers(&format!("{LABEL_FARM}={farm}")).await?;
        let boxes = found.into_iter();
        let mut boxes: Vec<WorkerBox> =
            boxes.map(|found| WorkerBox { id: found.id, name: found.name, status: found.status }).collect();
        boxes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(boxes)
    }

    /// Ends and removes one box with everything in it. Asks the worker first, so that it gives its work back; what does
    /// not end in time is killed. An absent box is no error.
    pub async fn remove(&self, id: &str) -> Result<(), OuterError> {
        let status = match self.engine.inspect_container(id).await {
            Ok(state) => state.status,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if status == Status::Paused {
            self.engine.unpause_container(id).await?;
        }
        if matches!(status, Status::Running | Status::Paused) {
            self.thaw(id).await;
            if let Err(error) = self.engine.stop_container(id, STOP_GRACE).await {
                tracing::warn!(%error, "the box does not end by itself; killing it");
            }
        }
        Ok(self.engine.remove_container(id, Removal::EVERYTHING).await?)
    }

    /// Removes every box of the farm, all at the same time; answers with how many there were. One that cannot be removed
    /// does not keep the others.
    pub async fn remove_all(&self, farm: &str) -> Result<usize, OuterError> {
        let boxes = self.list(farm).await?;
        let removals = boxes.iter().map(|found| self.remove(&found.id));
        for removal in futures::future::join_all(removals).await {
            removal?;
        }
        Ok(boxes.len())
    }

    /// How a box ended that did not end by itself, in words; `None` for one that runs, has never run, or was stopped. Where the
    /// agent is killed its box ends with it: for want of memory, where the engine says so.
    pub async fn end_of(&self, id: &str) -> Result<Option<String>, OuterError> {
        let state = self.engine.inspect_container(id).await?;
        if !matches!(state.status, Status::Exited | Status::Dead) || state.exit_code == 0 {
            return Ok(None);
        }
        let code = state.exit_code;
        Ok(Some(match (state.oom_killed && code == CODE_KILLED, state.memory_limit_bytes) {
            (true, 0) => {
                format!("exit code {code}: the agent ran out of memory, and the box has no limit of its own")
            }
            (true, bytes) => {
                format!("exit code {code}: the agent ran out of memory, limit {} MiB of the box", bytes >> 20)
            }
            (false, _) => format!("exit code {code}"),
        }))
    }

    /// The last lines that a box wrote.
    pub async fn log_tail(&self, id: &str, lines: u32) -> Result<String, OuterError> {
        let mut log = Captured::with_limit(LOG_BYTES_MAX);
        self.engine.logs(id, LogsSpec::Tail(lines), &mut log).await?;
        Ok(log.to_text())
    }

    async fn thaw(&self, id: &str) {
        let thaw = ExecSpec::new(["sh", "-c", THAW], THAW_LIMIT);
        // A box that ended meanwhile needs none, and one that fails here may still end.
        if let Err(error) = self.engine.exec(id, &thaw, &mut Discard).await {
            tracing::debug!(%error, "nothing was thawed");
        }
    }
}

fn container(spec: &BoxSpec, privileges: &Privileges) -> ContainerSpec {
    let socket = spec.socket.file_name().unwrap_or_default().to_string_lossy();
    let folder = spec.socket.parent().unwrap_or(&spec.socket).to_owned();
    let mut env = vec![
        ("ANDON_COORDINATOR".to_owned(), format!("unix://{SOCKET_DIR}/{socket}")),
        ("ANDON_JOIN_TOKEN".to_owned(), spec.join_token.clone()),
        ("ANDON_WORKER_NAME".to_owned(), spec.name.clone()),
        ("ANDON_DATA".to_owned(), DATA_DIR.to_owned()),
        // The network namespace is the box's own: the worker may turn routing off in it.
        ("ANDON_OWN_NETWORK".to_owned(), "true".to_owned()),
    ];
    env.extend(spec.lanes.map(|lanes| ("ANDON_LANES".to_owned(), lanes.to_string())));
    env.extend(spec.driver.clone().map(|driver| ("ANDON_DRIVER".to_owned(), driver)));
    env.extend(spec.env.iter().cloned());
    let socket_dir = Bind {
        source: folder,
        target: SOCKET_DIR.to_owned(),
        read_only: false,
        propagation: Propagation::Private,
    };
    ContainerSpec {
        name: spec.name.clone(),
        image: spec.image.clone(),
        hostname: spec.name.clone(),
        env,
        labels: BTreeMap::from([(LABEL_FARM.to_owned(), spec.farm.clone())]),
        binds: vec![socket_dir],
        volumes: vec![VolumeMount { name: None, target: DATA_DIR.to_owned(), read_only: false }],
        network: NetworkMode::Bridge,
        shm_bytes: spec.shm_bytes,
        privileges: privileges.clone(),
        ..ContainerSpec::default()
    }
}

#[cfg(test)]
mod tests;
