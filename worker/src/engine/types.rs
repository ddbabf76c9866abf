//! What goes into an engine and comes out of it, free of the client library.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use tokio::io::AsyncWrite;

use super::error::EngineError;
use super::output::OutputStream;

/// Bytes that come in pieces: an image, a build context.
pub type ByteStream = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// Versions and settings of a daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineVersion {
    /// `26.1.5`.
    pub version: String,
    /// `1.45`.
    pub api_version: String,
    /// `overlay2`.
    pub storage_driver: String,
    /// Where the daemon keeps its data, as the daemon sees it.
    pub root_dir: String,
    /// `1` or `2`.
    pub cgroup_version: String,
}

/// What an image says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageInfo {
    /// `sha256:…`, the digest of its configuration.
    pub id: String,
    /// Paths that the image declares as volumes.
    pub volumes: Vec<String>,
    /// As in the image; empty where it has none.
    pub entrypoint: Vec<String>,
    /// As in the image; empty where it has none.
    pub command: Vec<String>,
    /// Name and value.
    pub env: Vec<(String, String)>,
    /// Empty where the image has none.
    pub working_dir: String,
    /// Empty where the image has none.
    pub user: String,
    /// Empty where the image has none.
    pub stop_signal: String,
    /// The image's own healthcheck, where it has one.
    pub healthcheck: Option<ImageHealthcheck>,
    /// The image's labels.
    pub labels: BTreeMap<String, String>,
    /// `name@sha256:…` for each registry that it came from.
    pub repo_digests: Vec<String>,
    /// Of all its layers.
    pub size_bytes: u64,
}

/// A `HEALTHCHECK` of an image. Zero means: not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageHealthcheck {
    /// `CMD …`, `CMD-SHELL …` or `NONE` as the first word.
    pub test: Vec<String>,
    /// Between two checks.
    pub interval: Duration,
    /// Of one check.
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
    /// Failures are not counted before.
    pub start_period: Duration,
}

/// A build of an image.
pub struct BuildSpec {
    /// Uncompressed tar of the context.
    pub context: ByteStream,
    /// Beneath the context.
    pub dockerfile: String,
    /// A stage; empty for the last one.
    pub target: String,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Put on the image.
    pub labels: BTreeMap<String, String>,
    /// `name:tag` for the image.
    pub tag: String,
}

impl fmt::Debug for BuildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of arguments may be secrets.
        f.debug_struct("BuildSpec")
            .field("dockerfile", &self.dockerfile)
            .field("target", &self.target)
            .field("args", &self.args.keys())
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

/// A network to create.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Unique on the engine.
    pub name: String,
    /// To find it again.
    pub labels: BTreeMap<String, String>,
    /// Without a way out.
    pub internal: bool,
}

/// A network in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSummary {
    /// The engine's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A container to create. `Default` is the image as it is, without a network and without privileges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Unique on the engine.
    pub name: String,
    /// Reference or id.
    pub image: String,
    /// `None` keeps the image's; `Some`, even empty, replaces it.
    pub entrypoint: Option<Vec<String>>,
    /// `None` keeps the image's; `Some`, even empty, replaces it.
    pub command: Option<Vec<String>>,
    /// Added to the image's.
    pub env: Vec<(String, String)>,
    /// To find it again.
    pub labels: BTreeMap<String, String>,
    /// Folders and files of the daemon's own file system.
    pub binds: Vec<Bind>,
    /// File systems in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Volumes that the engine manages.
    pub volumes: Vec<VolumeMount>,
    /// What it is connected to at its start.
    pub network: NetworkMode,
    /// Empty for the engine's choice.
    pub hostname: String,
    /// `name: address` lines for `/etc/hosts`.
    pub extra_hosts: Vec<(String, IpAddr)>,
    /// Empty keeps the image's.
    pub user: String,
    /// Empty keeps the image's.
    pub working_dir: String,
    /// Empty keeps the image's.
    pub stop_signal: String,
    /// Size of `/dev/shm` in bytes; 0 for the engine's default.
    pub shm_bytes: u64,
    /// Put an init in front that reaps processes.
    pub init: bool,
    /// `net.core.somaxconn` and the like.
    pub sysctls: BTreeMap<String, String>,
    /// Root file system.
    pub read_only: bool,
    /// Allocate a terminal.
    pub tty: bool,
    /// Keep standard input open.
    pub open_stdin: bool,
    /// What it may use.
    pub limits: Limits,
    /// What it may do.
    pub privileges: Privileges,
    /// Let the engine run the image's healthcheck on its own. Andon probes by itself (`exec`), so that an idle lane costs
    /// nothing.
    pub engine_healthcheck: bool,
}

/// A folder or file of the daemon's file system in a container. The source must exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// As the daemon sees it.
    pub source: PathBuf,
    /// Absolute, in the container.
    pub target: String,
    /// Not writable from within.
    pub read_only: bool,
    /// Whether mounts made later are seen.
    pub propagation: Propagation,
}

/// Whether mounts that are made beneath a bind's source later show in the container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    /// They do not.
    #[default]
    Private,
    /// They do (`rslave`); the source must be on a shared mount.
    Slave,
}

/// A file system in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Absolute, in the container.
    pub target: String,
    /// 0 for the kernel's default.
    pub bytes: u64,
}

/// A volume that the engine manages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    /// `None` for an anonymous one, which is removed with its container.
    pub name: Option<String>,
    /// Absolute, in the container.
    pub target: String,
    /// Not writable from within.
    pub read_only: bool,
}

/// What a container is connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// Nothing but its loopback.
    #[default]
    None,
    /// The engine's default bridge, where it has one.
    Bridge,
    /// The daemon's own network.
    Host,
    /// The network of another container.
    Container(String),
    /// A network made by [`super::Engine::create_network`].
    Named {
        /// Its name or id.
        network: String,
        /// Names that others on it reach the container by, besides its own.
        aliases: Vec<String>,
    },
}

/// What a container may use; 0 means no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory, swap included.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Thousandths of a processor.
    pub cpu_millis: u64,
}

impl Limits {
    /// As a specification has them; processes are always limited.
    #[must_use]
    pub fn of(asked: Option<&andon_proto::Limits>, pids_default: u64) -> Self {
        let asked = asked.copied().unwrap_or_default();
        let pids = if asked.pids == 0 { pids_default } else { asked.pids };
        Self { memory_bytes: asked.memory_bytes, pids, cpu_millis: asked.cpu_millis }
    }
}

/// What a container may do beyond the engine's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Privileges {
    /// Everything. Refused by engines whose own capabilities are cut.
    pub privileged: bool,
    /// `ALL`, `NET_ADMIN`, …
    pub cap_add: Vec<String>,
    /// As `cap_add`, taken away.
    pub cap_drop: Vec<String>,
    /// `seccomp=unconfined` and the like, also `systempaths=unconfined`.
    pub security_opt: Vec<String>,
    /// A cgroup namespace of its own.
    pub private_cgroupns: bool,
    /// `a *:* rwm` and the like.
    pub device_cgroup_rules: Vec<String>,
}

/// What to remove with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// Kill it first where it runs.
    pub force: bool,
    /// Its anonymous volumes too.
    pub volumes: bool,
}

impl Removal {
    /// Kill it, and leave nothing of it.
    pub const EVERYTHING: Self = Self { force: true, volumes: true };
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Never started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Being restarted by the engine.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended.
    Exited,
    /// The engine failed to remove it.
    Dead,
}

/// A container as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerState {
    /// The engine's id.
    pub id: String,
    /// Without a leading slash.
    pub name: String,
    /// `sha256:…`.
    pub image_id: String,
    /// Where it is in its life.
    pub status: Status,
    /// Of the last run; 0 while it runs.
    pub exit_code: i64,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// What its memory is limited to; 0 for no limit of its own.
    pub memory_limit_bytes: u64,
    /// The engine's word on a failed start; mostly empty.
    pub error: String,
    /// Of its first process as the daemon sees it; 0 where it does not run.
    pub pid: u32,
    /// What asks it to end: `SIGTERM`, `SIGRTMIN+3`, …
    pub stop_signal: String,
    /// The writable layer's folder (overlay2), as the daemon sees it.
    pub upper_dir: Option<PathBuf>,
    /// `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` as the daemon sees them, where the container has its own.
    pub network_files: Vec<PathBuf>,
    /// A file that stands for its network namespace, as the daemon sees it; `None` where it does not run.
    pub network_namespace: Option<PathBuf>,
    /// Address on each network, by the network's name.
    pub addresses: BTreeMap<String, IpAddr>,
    /// Volumes and binds.
    pub mounts: Vec<MountPoint>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl ContainerState {
    /// `out of memory: limit 64 MiB` where the kernel killed something of it for want of memory.
    #[must_use]
    pub fn out_of_memory(&self) -> Option<String> {
        match (self.oom_killed, self.memory_limit_bytes) {
            (false, _) => None,
            (true, 0) => {
                Some("out of memory: the worker has no more, and it has no limit of its own".to_owned())
            }
            (true, bytes) => Some(format!("out of memory: limit {} MiB", bytes >> 20)),
        }
    }

    /// Whether its processes exist (also frozen).
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }
}

/// A volume or bind of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// The volume's name; `None` for a bind.
    pub volume: Option<String>,
    /// As the daemon sees it.
    pub source: PathBuf,
    /// In the container.
    pub target: String,
}

/// A container in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSummary {
    /// The engine's id.
    pub id: String,
    /// Without a leading slash.
    pub name: String,
    /// Where it is in its life.
    pub status: Status,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A command to run in a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments; no shell in between.
    pub argv: Vec<String>,
    /// Added to the container's.
    pub env: Vec<(String, String)>,
    /// Empty keeps the container's.
    pub working_dir: String,
    /// Empty keeps the container's.
    pub user: String,
    /// Fed to its standard input, which is closed after it.
    pub stdin: Option<bytes::Bytes>,
    /// From the start to the end of its output.
    pub limit: Duration,
}

impl ExecSpec {
    /// A command with the container's own surroundings.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>, limit: Duration) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            working_dir: String::new(),
            user: String::new(),
            stdin: None,
            limit,
        }
    }
}

/// A command in a container whose input and output are at hand while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachSpec {
    /// Program and arguments; no shell in between.
    pub argv: Vec<String>,
    /// Added to the container's.
    pub env: Vec<(String, String)>,
    /// It has a terminal of so many rows and columns; without one it has pipes.
    pub terminal: Option<(u16, u16)>,
}

/// A command that runs so.
pub struct Attached {
    /// What the engine calls it.
    pub exec: String,
    /// Its standard input. Shut down, it has no more; it is to be held until the output ends.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// What it writes, until it ends. With a terminal all of it is its standard output.
    pub output: BoxStream<'static, Result<(OutputStream, Bytes), EngineError>>,
}

/// Which part of a container's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogsSpec {
    /// Everything that was written so far.
    All,
    /// The last lines.
    Tail(u32),
    /// From the start on until the container ends or the limit passes.
    Follow(Duration),
}
