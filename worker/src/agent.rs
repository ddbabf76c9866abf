//! The worker agent as a whole: brings its parts up in order, keeps them together, takes them down in reverse.
//!
//! ```text
//!   host report ──> pool ──> nested daemon ──> hands ──> link ──┐
//!                                                               │ until a signal, a refusal, or the daemon is given up
//!   pool closed <── daemon shut down <── hands shut down <──────┘ leases given back
//! ```
//!
//! It knows every part by its face and no part's inside. Invariant: whatever came up is taken down, also where a later
//! part could not come up; nothing stays mounted.

mod crew;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use andon_snapshot::{Pool, PoolError};
pub use andon_snapshot::{PoolKind, PoolOptions};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::hands::{Driver, Hands, HandsOptions, WorkFailure};
use crate::host::{HostReport, HostUnfit, LookError, Pressure, Role, Severity};
use crate::images::Images;
use crate::link::{self, AddressError, Coordinator, FarmClient, Health, LinkError, LinkOptions};
use crate::nested::{DaemonState, NestedConfig, NestedDaemon, NestedError};
use crate::registry::{Registry, RegistryConfig, RegistryError};

/// Where a worker keeps its things unless told otherwise.
pub const DATA_DIR_DEFAULT: &str = "/var/lib/andon";
/// Most lanes a worker opens by itself; more only when told.
const LANES_DEFAULT_MAX: usize = 8;
/// Most lanes a worker may have; the coordinator takes no more.
pub const LANES_MAX: u32 = 1_024;
/// Longest name.
const NAME_BYTES_MAX: usize = 128;
/// How long removing lanes may take when the worker stops; the daemon's own shutdown then removes what is left.
const HANDS_LIMIT: Duration = Duration::from_secs(20);

/// What a worker is told.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// `unix:///path/to.sock` or `http://host:port`.
    pub coordinator: String,
    /// The farm's join token.
    pub token: String,
    /// Unique in the farm; the host's name where absent.
    pub name: Option<String>,
    /// How many lanes; one a CPU where absent, at most 8.
    pub lanes: Option<u32>,
    /// Pool, images, sockets. A real file system, not an overlay.
    pub data_dir: PathBuf,
    /// Forces a rebase driver; probed where absent.
    pub driver: Option<Driver>,
    /// How to open the pool.
    pub pool: PoolOptions,
    /// Baselines that nothing used for so long leave the pool; without it they stay while there is room.
    pub pool_unused: Option<Duration>,
    /// Each so many rebases of a stack every byte is compared with the baseline's digests; 0 for never.
    pub deep_every: u32,
    /// Let what runs in lanes sync to the disk when it asks for it; otherwise that does nothing.
    pub fsync: bool,
    /// Restart services' containers without the nested daemon, where that can be.
    pub direct: bool,
    /// Where baselines go, and come from, before the coordinator's blob store.
    pub registry: Option<RegistryConfig>,
    /// The network namespace is this worker's own (a box): routing between its networks may be turned off.
    pub own_network: bool,
}

/// Why a worker cannot work, or go on.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The coordinator's address or the token.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The name cannot be used.
    #[error("{0:?} cannot be a worker's name: 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.' can")]
    Name(String),
    /// No lanes, or too many.
    #[error("a worker has 1 to {LANES_MAX} lanes, not {0}")]
    Lanes(u32),
    /// The host cannot be looked at.
    #[error("cannot see what this host allows")]
    Look(#[from] LookError),
    /// The host does not allow what a worker does; names everything that is missing.
    #[error(transparent)]
    Host(#[from] HostUnfit),
    /// The pool cannot be opened.
    #[error("cannot open the pool in {path}")]
    Pool {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: PoolError,
    },
    /// The nested daemon does not come up, or fell over for good.
    #[error(transparent)]
    Nested(#[from] NestedError),
    /// The lanes cannot be made ready.
    #[error("cannot make the lanes ready")]
    Hands(#[source] WorkFailure),
    /// The coordinator does not want this worker.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The registry refuses the credentials, or cannot be spoken to.
    #[error("the registry for baselines cannot be used")]
    Registry(#[from] RegistryError),
    /// A folder or a signal.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Works until SIGTERM or SIGINT. Then running work is given back to the coordinator and everything is taken down.
///
/// # Errors
/// Where the worker cannot start, the coordinator refuses it, or its daemon is lost for good.
pub async fn run(config: WorkerConfig) -> Result<(), AgentError> {
    let stop = CancellationToken::new();
    let listen = |kind, name| {
        signal(kind).map_err(|source| AgentError::Io { what: format!("listen for {name}"), source })
    };
    let mut terminate = listen(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
    let working = run_until(config, stop.clone());
    let mut working = std::pin::pin!(working);
    tokio::select! {
        end = &mut working => return end,
        _ = terminate.recv() => tracing::info!("SIGTERM: shutting down"),
        _ = interrupt.recv() => tracing::info!("SIGINT: shutting down"),
    }
    stop.cancel();
    working.await
}

/// As [`run`], but stops when the token is cancelled instead of listening for signals.
///
/// # Errors
/// As [`run`].
pub async fn run_until(config: WorkerConfig, stop: CancellationToken) -> Result<(), AgentError> {
    let plan = Plan::of(config)?;
    let registry = open_registry(&plan).await?;
    examine_host(&plan).await?;
    let pool = open_pool(&plan).await?;
    let worked = with_pool(&plan, pool.clone(), registry, stop).await;
    let closed = tokio::task::spawn_blocking(move || pool.close()).await;
    let closed = closed.expect("closing a pool does not panic");
    let path = plan.pool_dir();
    worked.and(closed.map_err(|source| AgentError::Pool { path, source }))
}

/// A configuration that was checked, with what it leaves open filled in.
#[derive(Debug)]
struct Plan {
    coordinator: Coordinator,
    name: String,
    lanes: u32,
    told: WorkerConfig,
}

impl Plan {
    fn of(mut told: WorkerConfig) -> Result<Self, AgentError> {
        let coordinator = Coordinator::new(&told.coordinator, &told.token)?;
        let name = told.name.take().unwrap_or_else(host_name);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
            return Err(AgentError::Name(name));
        }
        let lanes = told.lanes.unwrap_or_else(lanes_by_cpus);
        if lanes == 0 || lanes > LANES_MAX {
            return Err(AgentError::Lanes(lanes));
        }
        Ok(Self { coordinator, name, lanes, told })
    }

    fn pool_dir(&self) -> PathBuf {
        self.told.data_dir.join("pool")
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn lanes_by_cpus() -> u32 {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cpus.min(LANES_DEFAULT_MAX)).expect("a small number")
}

async fn examine_host(plan: &Plan) -> Result<(), AgentError> {
    let data_dir = plan.told.data_dir.clone();
    let looking = tokio::task::spawn_blocking(move || HostReport::examine(Role::Worker, &data_dir));
    let report = looking.await.expect("looking at the host does not panic")?;
    for finding in report.findings.iter().filter(|finding| finding.severity == Severity::Warning) {
        tracing::warn!("{finding}");
    }
    Ok(report.require()?)
}

async fn open_pool(plan: &Plan) -> Result<Pool, AgentError> {
    let (path, options) = (plan.pool_dir(), plan.told.pool.clone());
    let opening = tokio::task::spawn_blocking({
        let path = path.clone();
        move || Pool::open(&path, options)
    });
    let opened = opening.await.expect("opening a pool does not panic");
    let pool = opened.map_err(|source| AgentError::Pool { path, source })?;
    for note in pool.notes() {
        tracing::info!("pool: {note}");
    }
    tracing::info!(kind = %pool.kind(), in_image = pool.in_image(), dir = %pool.dir().display(), "pool is open");
    Ok(pool)
}

/// A registry that refuses this worker is a mistake to tell at once; one that is away may come back.
async fn open_registry(plan: &Plan) -> Result<Option<Registry>, AgentError> {
    let Some(config) = &plan.told.registry else { return Ok(None) };
    if config.tells_password() {
        tracing::warn!(
            registry = config.address(),
            "the registry's password crosses the network in the clear: --registry-insecure"
        );
    }
    let registry = Registry::new(config.clone()).await?;
    match registry.greet().await {
        Ok(()) => tracing::info!(registry = registry.address(), "baselines go to the registry"),
        Err(error @ RegistryError::Away { .. }) => {
            tracing::warn!("{error}; until it is back baselines go to the coordinator's store");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Some(registry))
}

async fn with_pool(
    plan: &Plan,
    pool: Pool,
    registry: Option<Registry>,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let daemon = NestedDaemon::start(nested_config(plan, pool.dir())).await?;
    let worked = with_daemon(plan, pool, registry, &daemon, stop).await;
    daemon.shutdown().await;
    worked
}

fn nested_config(plan: &Plan, pool: &Path) -> NestedConfig {
    NestedConfig {
        data_root: pool.join("docker"),
        run_dir: plan.told.data_dir.join("run"),
        own_network: plan.told.own_network,
        fsync: plan.told.fsync,
        direct: plan.told.direct,
    }
}

async fn with_daemon(
    plan: &Plan,
    pool: Pool,
    registry: Option<Registry>,
    daemon: &NestedDaemon,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let farm = FarmClient::new(&plan.coordinator);
    let data_dir = pool.dir().join("work");
    std::fs::create_dir_all(&data_dir)
        .map_err(|source| AgentError::Io { what: format!("make {}", data_dir.display()), source })?;
    let kind = pool.kind();
    let (inexact, inexact_told) = mpsc::channel(INEXACT_MAX);
    let docker_socket = nested_config(plan, pool.dir()).docker_socket();
    let hands = Hands::start(HandsOptions {
        engine: daemon.engine(),
        pool,
        images: Arc::new(Images::new(daemon.engine(), Arc::new(farm.clone()), data_dir.clone())),
        farm: Arc::new(farm.clone()),
        registry,
        data_dir,
        lanes: plan.lanes,
        driver: plan.told.driver,
        deep_every: plan.told.deep_every,
        pressure: Pressure::look,
        worker: plan.name.clone(),
        inexact,
        docker_socket: Some(docker_socket),
    });
    let hands = Arc::new(hands.await.map_err(AgentError::Hands)?);
    let (news, health) = mpsc::channel(HEALTH_NEWS_MAX);
    let link = LinkOptions {
        coordinator: plan.coordinator.clone(),
        worker: plan.name.clone(),
        lanes: plan.lanes,
        pool: kind.to_string(),
        farm,
        crew: hands.clone(),
        health,
        inexact: inexact_told,
    };
    tracing::info!(worker = plan.name, lanes = plan.lanes, driver = %hands.driver(), "ready");
    let worked = tokio::select! {
        worked = work(link, daemon.state(), news, stop) => worked,
        never = tend(&hands, plan.told.pool_unused) => match never {},
    };
    if tokio::time::timeout(HANDS_LIMIT, hands.shutdown()).await.is_err() {
        tracing::warn!("removing the lanes took longer than {HANDS_LIMIT:?}; the daemon goes with them");
    }
    worked
}

/// Keeps the pool in order for as long as it is polled.
async fn tend(hands: &Hands, unused: Option<Duration>) -> Infallible {
    let mut times = tokio::time::interval(TEND_INTERVAL);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        if let Err(failure) = hands.tend(unused).await {
            tracing::warn!(reason = failure.reason, "keeping the pool in order");
        }
    }
}

/// How often the pool is looked after. Its image grows while the free quarter of it lasts.
const TEND_INTERVAL: Duration = Duration::from_secs(20);

/// So much may wait that is to be told of stands that are not exact.
const INEXACT_MAX: usize = 64;

/// News of the daemon that may wait.
const HEALTH_NEWS_MAX: usize = 8;

/// The link, for as long as the daemon can be kept up.
async fn work(
    link: LinkOptions,
    state: watch::Receiver<DaemonState>,
    news: mpsc::Sender<Health>,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let stop = stop.child_token();
    let linked = link::run(link, stop.clone());
    let watched = async {
        let lost = watch_daemon(state, news).await;
        // Whether it was given up or watching ended: without a daemon there is no work.
        stop.cancel();
        lost
    };
    let mut watched = std::pin::pin!(watched);
    let mut linked = std::pin::pin!(linked);
    tokio::select! {
        end = &mut linked => end.map_err(AgentError::from),
        lost = &mut watched => {
            linked.await?;
            Err(lost.into())
        }
    }
}

/// Passes on how the daemon fares; answers when it will not come back.
async fn watch_daemon(mut state: watch::Receiver<DaemonState>, news: mpsc::Sender<Health>) -> NestedError {
    loop {
        let now = state.borrow_and_update().clone();
        let told = match now {
            DaemonState::Running => Health::Up,
            DaemonState::Starting => Health::Down { reason: "the nested Docker daemon starts".to_owned() },
            DaemonState::Restarting { reason } => {
                tracing::warn!(reason, "the nested Docker daemon broke and is started again");
                Health::Down { reason: format!("the nested Docker daemon broke: {reason}") }
            }
            DaemonState::GaveUp { reason, log } => return NestedError::GaveUp { reason, log },
            DaemonState::Stopped => {
                return NestedError::GaveUp { reason: "it was stopped".to_owned(), log: String::new() };
            }
        };
        // A link that has ended needs no news.
        let _ = news.send(told).await;
        if state.changed().await.is_err() {
            return NestedError::GaveUp { reason: "its driver ended".to_owned(), log: String::new() };
        }
    }
}

#[cfg(test)]
mod tests;
