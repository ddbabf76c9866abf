//! The Docker Engine API as far as Andon needs it, behind one narrow trait.
//!
//! `bollard` is known in this folder (and used through it by `outer/`) and nowhere else: callers see [`Engine`], plain
//! types and [`EngineError`]. The same trait serves the nested daemon of a worker and the host's own engine. Nothing here
//! knows stacks, baselines, lanes or the wire.
//!
//! Invariants:
//! - every call is bounded in time, by a constant of [`limits`] or by a limit that the caller passes;
//! - nothing is retried here: a caller knows better what is safe to repeat;
//! - a call whose future is dropped leaves what it had started in the daemon (an exec goes on running).

mod client;
mod convert;
pub mod direct;
mod docker;
mod error;
pub mod fake;
mod output;
mod types;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use client::{DEFAULT_ADDRESS, DockerEngine};
pub(crate) use error::is_out_of_addresses;
pub use error::{BuildError, BuildFailure, EngineError};
pub use output::{Captured, Discard, HeadTail, OutputSink, OutputStream};
pub use types::{
    AttachSpec, Attached, Bind, BuildSpec, ByteStream, ContainerSpec, ContainerState, ContainerSummary,
    EngineVersion, ExecSpec, ImageHealthcheck, ImageInfo, Limits, LogsSpec, MountPoint, NetworkMode,
    NetworkSpec, NetworkSummary, Privileges, Propagation, Removal, Status, Tmpfs, VolumeMount,
};

/// An engine that is shared by all tasks of an agent.
pub type SharedEngine = Arc<dyn Engine>;

/// How long each kind of call may take before it is given up with [`EngineError::TimedOut`].
pub mod limits {
    use std::time::Duration;

    /// `ping` and `version`.
    pub const PING: Duration = Duration::from_secs(5);
    /// Looking at, tagging, creating, starting, killing, connecting, listing.
    pub const CALL: Duration = Duration::from_secs(60);
    /// Removing a container or an image: the daemon deletes files meanwhile.
    pub const REMOVE: Duration = Duration::from_secs(120);
    /// Added to the grace of `stop`.
    pub const STOP_MARGIN: Duration = Duration::from_secs(30);
    /// Loading or saving an image, first byte to last.
    pub const IMAGE_TRANSFER: Duration = Duration::from_secs(900);
    /// Pulling an image; a pull that makes no progress for [`PULL_STALL`] ends earlier.
    pub const PULL: Duration = Duration::from_secs(1800);
    /// Longest silence of a registry during a pull.
    pub const PULL_STALL: Duration = Duration::from_secs(120);
    /// Building an image.
    pub const BUILD: Duration = Duration::from_secs(1800);
    /// Longest build log that is kept, in bytes: half from its start, half from its end.
    pub const BUILD_LOG_BYTES: usize = 256 * 1024;
    /// Reading logs without following them.
    pub const LOGS: Duration = Duration::from_secs(60);
}

/// A Docker Engine.
///
/// `id` arguments take a container's id or name, `reference` arguments an image's reference or id.
#[async_trait]
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// Which daemon this is, for messages: `unix:///var/run/docker.sock`.
    fn address(&self) -> &str;

    /// Answers once the daemon serves requests.
    async fn ping(&self) -> Result<(), EngineError>;
    /// Versions and settings of the daemon that callers decide by.
    async fn version(&self) -> Result<EngineVersion, EngineError>;

    /// `None` where the image is not present.
    async fn inspect_image(&self, reference: &str) -> Result<Option<ImageInfo>, EngineError>;
    /// Loads the output of `docker save` (uncompressed tar). Answers with what the daemon says it loaded: references,
    /// or `sha256:…` ids of images without one.
    async fn load_image(&self, tar: ByteStream) -> Result<Vec<String>, EngineError>;
    /// The image as `docker save` writes it.
    async fn save_image(&self, reference: &str) -> Result<ByteStream, EngineError>;
    /// Gives the image another reference: `name:tag`.
    async fn tag_image(&self, reference: &str, new_reference: &str) -> Result<(), EngineError>;
    /// Pulls from the registry that the reference names.
    async fn pull_image(&self, reference: &str) -> Result<(), EngineError>;
    /// Builds from a tar of the context; answers with the image's id (`sha256:…`). A build that the Dockerfile makes
    /// fail is [`BuildError::Failed`] with its log.
    async fn build_image(&self, spec: BuildSpec) -> Result<String, BuildError>;
    /// Removes a reference, or an image with all its references where an id is given. An absent image is no error.
    async fn remove_image(&self, reference: &str) -> Result<(), EngineError>;

    /// Answers with the network's id. A name that is taken is [`EngineError::Conflict`].
    async fn create_network(&self, spec: &NetworkSpec) -> Result<String, EngineError>;
    /// An absent network is no error.
    async fn remove_network(&self, name: &str) -> Result<(), EngineError>;
    /// Connects a container to a further network under these aliases.
    async fn connect_network(&self, network: &str, id: &str, aliases: &[String]) -> Result<(), EngineError>;
    /// Takes a container off a network, by force.
    async fn disconnect_network(&self, network: &str, id: &str) -> Result<(), EngineError>;
    /// Networks that carry the label: `key` or `key=value`; all of them, the engine's own too, where it is empty.
    async fn list_networks(&self, label: &str) -> Result<Vec<NetworkSummary>, EngineError>;

    /// Answers with the container's id. An absent image is [`EngineError::NotFound`], a taken name
    /// [`EngineError::Conflict`].
    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, EngineError>;
    /// A container that runs already is no error.
    async fn start_container(&self, id: &str) -> Result<(), EngineError>;
    /// Sends a signal (`SIGKILL`, `SIGTERM`, …) to the first process. A container that does not run is
    /// [`EngineError::Conflict`].
    async fn kill_container(&self, id: &str, signal: &str) -> Result<(), EngineError>;
    /// Asks the container to stop by its stop signal and kills it after the grace. One that does not run is no error.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), EngineError>;
    /// Freezes every process of the container.
    async fn pause_container(&self, id: &str) -> Result<(), EngineError>;
    /// Thaws a paused container.
    async fn unpause_container(&self, id: &str) -> Result<(), EngineError>;
    /// Waits until the container does not run and answers with its exit code; at once where it does not run.
    async fn wait_container(&self, id: &str, limit: Duration) -> Result<i64, EngineError>;
    /// An absent container is no error; one that is being removed already is waited for.
    async fn remove_container(&self, id: &str, how: Removal) -> Result<(), EngineError>;
    /// The container as it is now; absent is [`EngineError::NotFound`].
    async fn inspect_container(&self, id: &str) -> Result<ContainerState, EngineError>;
    /// Runs a command in a running container, feeds its output to the sink as it comes, answers with its exit code.
    /// At the spec's limit the answer is [`EngineError::TimedOut`] and the process goes on: who started it must kill it.
    async fn exec(
        &self,
        id: &str,
        spec: &ExecSpec,
        output: &mut (dyn OutputSink + '_),
    ) -> Result<i64, EngineError>;
    /// Starts a command in a running container and answers at once, with its input and output.
    async fn attach(&self, id: &str, spec: &AttachSpec) -> Result<Attached, EngineError>;
    /// Gives the terminal of such a command another size.
    async fn resize_attached(&self, exec: &str, rows: u16, columns: u16) -> Result<(), EngineError>;
    /// The exit code of such a command, once its output has ended.
    async fn attached_exit(&self, exec: &str) -> Result<i64, EngineError>;
    /// What the container wrote, in order.
    async fn logs(
        &self,
        id: &str,
        spec: LogsSpec,
        output: &mut (dyn OutputSink + '_),
    ) -> Result<(), EngineError>;
    /// Containers, also stopped ones, that carry the label: `key` or `key=value`; all of them where it is empty.
    async fn list_containers(&self, label: &str) -> Result<Vec<ContainerSummary>, EngineError>;
}
