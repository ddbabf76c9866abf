//! The gateway: polls mirrors of the watched repositories, hears webhooks, submits runs and tells forges of them.
//!
//! ```text
//! fetch ──> branches ──> compare with what was seen ──> triggers ──> prepare ──> submit ──> remember ──> wait
//!   └── fails: said once, tried again at the next poll          └── mistakes: said once, remembered
//!
//! server ──> inbox (disk) ──> a project's watcher: poll now, pull request, rerun, approval ──> submit
//!                                                                                                │
//! forge <── outbox <── desk (disk) <── follower <──── WatchRun, GetRun ──── coordinator <────────┘
//! ```
//!
//! A push by webhook is a reason to poll at once, so a lost webhook costs a delay and nothing else.
//!
//! A head is remembered only after its run was submitted (or cannot ever be), and a submission has a key made of
//! project and commit. So a restart or a crash at any point neither misses a push nor runs one twice, and the hook
//! may tell of the same push. Each project polls on its own: one that hangs holds up no other.

mod changes;
mod desk;
mod events;
mod follow;
mod inbox;
mod ledger;
mod outbox;
mod pulls;
mod seen;
mod server;
pub mod settings;
mod watcher;

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::connect::Connection;
use crate::forge::client::{ClientError, Settings as ForgeSettings};
use crate::forge::guard::Guard;
use crate::forge::{Kind, Secret};
use crate::git::RemoteUrl;
use crate::git::mirror::{Credentials, MirrorError};

use self::desk::Desk;
use self::follow::Follower;
use self::inbox::Inbox;
use self::ledger::LedgerError;
use self::outbox::Outbox;
use self::pulls::Pulls;
pub use self::pulls::{ApproveError, leave_approval};
pub use self::server::{BODY_BYTES_MAX, CONNECTIONS_MAX};
use self::server::{Door, Server};
use self::settings::ForkPolicy;
use self::watcher::Watcher;

/// How often a mirror is polled where nothing else is said.
pub const DEFAULT_EVERY: Duration = Duration::from_secs(10);
/// The most runs that one poll of one project submits; further heads wait for the next.
pub const SUBMISSIONS_MAX: usize = 20;
/// In the gateway's folder: which pull requests are known, and which were approved.
const PULLS_FILE: &str = "pulls.ledger";

/// Who asks for runs of pushes.
const GATEWAY: &str = "gateway";

/// Whose webhooks are believed.
#[derive(Debug, Clone)]
pub struct Hooks {
    /// The forge.
    pub kind: Kind,
    /// Each of them is right.
    pub secrets: Vec<Secret>,
    /// The forge's name of the repository: `owner/name`.
    pub repository: String,
}

/// A repository to watch.
#[derive(Debug, Clone)]
pub struct WatchedProject {
    /// The project's name.
    pub name: String,
    /// Where it is.
    pub url: RemoteUrl,
    /// Branches or globs that start a run; `None` leaves it to each commit's `[triggers]`.
    pub branches: Option<Vec<String>>,
    /// Tags or globs that start a run, where webhooks tell of them.
    pub tags: Vec<String>,
    /// Whose credentials fetches use.
    pub credentials: Credentials,
    /// Which forge it is on.
    pub kind: Option<Kind>,
    /// Whose webhooks are believed; none without it.
    pub hooks: Option<Hooks>,
    /// Who is told of the runs; nobody without it.
    pub forge: Option<ForgeSettings>,
    /// What becomes of pull requests from forks.
    pub forks: ForkPolicy,
}

impl WatchedProject {
    /// One that is only polled.
    pub fn polled(
        name: String,
        url: RemoteUrl,
        branches: Option<Vec<String>>,
        credentials: Credentials,
    ) -> Self {
        let (tags, forks) = (Vec::new(), ForkPolicy::default());
        Self { name, url, branches, tags, credentials, kind: None, hooks: None, forge: None, forks }
    }
}

/// What a gateway does.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// What it watches.
    pub projects: Vec<WatchedProject>,
    /// How often, give or take a tenth.
    pub every: Duration,
    /// Its folder: mirrors, and what was seen of each.
    pub mirrors: PathBuf,
    /// Where runs go. May be one that connects later ([`Connection::open_lazily`]).
    pub connection: Connection,
    /// Where it listens for webhooks.
    pub listen: Option<SocketAddr>,
    /// Where a run is to be seen, `{run}` for its number.
    pub run_url: Option<String>,
    /// Which addresses it may go to.
    pub guard: Guard,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The folder.
    #[error("cannot use the gateway's folder {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another gateway works there.
    #[error("another gateway uses {0}")]
    Busy(PathBuf),
    /// A project's name.
    #[error(transparent)]
    Project(#[from] MirrorError),
    /// Two projects of one name.
    #[error("two projects are named {0:?}")]
    Twice(String),
    /// What it remembers.
    #[error(transparent)]
    Ledger(#[from] Unkept),
    /// A forge's settings.
    #[error("the forge of project {project:?} cannot be told")]
    Forge {
        /// The project.
        project: String,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// The address for webhooks.
    #[error("cannot listen for webhooks on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What the gateway remembers cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the gateway's memory is not as it should be")]
pub struct Unkept(#[source] LedgerError);

impl From<LedgerError> for GatewayError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(Unkept(error))
    }
}

/// What all projects share, on the disk.
struct Shared {
    inbox: Arc<Inbox>,
    pulls: Pulls,
    desk: Arc<Desk>,
}

impl Shared {
    fn open(config: &GatewayConfig) -> Result<Arc<Self>, LedgerError> {
        let folder = &config.mirrors;
        let told = config.projects.iter().filter(|project| project.forge.is_some());
        Ok(Arc::new(Self {
            inbox: Arc::new(Inbox::open(&folder.join("deliveries.ledger"))?),
            pulls: Pulls::open(&folder.join(PULLS_FILE))?,
            desk: Arc::new(Desk::open(folder, told.map(|project| project.name.as_str()))?),
        }))
    }
}

/// Watches until the future is dropped; returns only where it cannot start. `ready` is told the address on which webhooks
/// are heard.
pub async fn run(config: GatewayConfig, ready: impl FnOnce(SocketAddr)) -> Result<(), GatewayError> {
    let _lock = lock(&config)?;
    let shared = Shared::open(&config)?;
    let mut watchers = Vec::new();
    let mut senders = Vec::new();
    for project in &config.projects {
        if config.projects.iter().filter(|other| other.name == project.name).count() > 1 {
            return Err(GatewayError::Twice(project.name.clone()));
        }
        let watcher = Watcher::new(&config, project, &shared)?;
        senders.extend(watcher.outbox());
        watchers.push(watcher);
    }
    let server = server(&config, &watchers, &shared, ready)?;
    let Shared { desk, .. } = &*shared;
    let (connection, run_url) = (config.connection.clone(), config.run_url.clone());
    let following = Follower { desk: Arc::clone(desk), connection, run_url };
    let polling = watchers.into_iter().map(|watcher| watcher.run(config.every));
    // Each is a task of this one: all end when it is dropped.
    tokio::join!(
        futures::future::join_all(polling),
        futures::future::join_all(senders.into_iter().map(Outbox::run)),
        // Without a forge nothing is ever followed, and with nothing to watch the gateway ends.
        async {
            if config.projects.iter().any(|project| project.forge.is_some()) {
                Box::pin(following.run()).await;
            }
        },
        async {
            if let Some((server, listener)) = server {
                Box::pin(server.serve(listener)).await;
            }
        },
    );
    Ok(())
}

/// The server for webhooks, where one is wanted.
fn server(
    config: &GatewayConfig,
    watchers: &[Watcher],
    shared: &Shared,
    ready: impl FnOnce(SocketAddr),
) -> Result<Option<(Arc<Server>, TcpListener)>, GatewayError> {
    let Some(address) = config.listen else { return Ok(None) };
    let failed = |source| GatewayError::Listen { address, source };
    let listener = server::listen(address).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let doors: HashMap<_, _> = watchers
        .iter()
        .filter_map(|watcher| {
            let hooks = watcher.project.hooks.clone()?;
            Some((watcher.project.name.clone(), Door { hooks, wake: Arc::clone(&watcher.wake) }))
        })
        .collect();
    tracing::info!("webhooks are heard on {address}, for {} of the projects", doors.len());
    ready(address);
    Ok(Some((Arc::new(Server { doors, inbox: Arc::clone(&shared.inbox) }), listener)))
}

fn lock(config: &GatewayConfig) -> Result<File, GatewayError> {
    let failed = |source| GatewayError::Folder { path: config.mirrors.clone(), source };
    std::fs::create_dir_all(&config.mirrors).map_err(failed)?;
    let file = File::create(config.mirrors.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(GatewayError::Busy(config.mirrors.clone())),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests;
