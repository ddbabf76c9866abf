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

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::clock;
use crate::connect::Connection;
use crate::forge::client::{ClientError, HttpForge, Settings as ForgeSettings};
use crate::forge::guard::Guard;
use crate::forge::{Forge, ForgeError, Kind, Secret};
use crate::git::mirror::{Credentials, Mirror, MirrorError};
use crate::git::{Branches, CommitId, GitError, RemoteUrl, Repository};
use crate::hook::{blocking, chain, prepare_push};
use crate::spec::{PrepareError, Prepared, Request};
use crate::submit::{Dedup, SubmitError, submit};

use self::changes::{Head, changes};
use self::desk::{Desk, Tracked};
use self::events::Failures;
use self::follow::Follower;
use self::inbox::Inbox;
use self::ledger::LedgerError;
use self::outbox::Outbox;
use self::pulls::Pulls;
pub use self::pulls::{ApproveError, leave_approval};
use self::seen::{Seen, SeenError};
pub use self::server::{BODY_BYTES_MAX, CONNECTIONS_MAX};
use self::server::{Door, Server};
use self::settings::ForkPolicy;

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

/// Why one poll of a project did not do all there was to do. It is tried again.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Seen(#[from] SeenError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("cannot ask the forge who may")]
    Forge(#[from] ForgeError),
    #[error("the coordinator did not take {what}: {}", .status.message())]
    Farm {
        what: &'static str,
        #[source]
        status: Box<tonic::Status>,
    },
    #[error("{branch} {commit} is not submitted")]
    Prepare {
        branch: String,
        commit: String,
        #[source]
        source: PrepareError,
    },
    #[error("{branch} {commit} is not submitted")]
    Submit {
        branch: String,
        commit: String,
        #[source]
        source: SubmitError,
    },
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
    let server = server(&config, &watchers, &shared, ready).await?;
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
async fn server(
    config: &GatewayConfig,
    watchers: &[Watcher],
    shared: &Shared,
    ready: impl FnOnce(SocketAddr),
) -> Result<Option<(Arc<Server>, TcpListener)>, GatewayError> {
    let Some(address) = config.listen else { return Ok(None) };
    let failed = |source| GatewayError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
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

/// One project's polling.
struct Watcher {
    project: WatchedProject,
    mirror: Mirror,
    connection: Connection,
    seen: Seen,
    /// What was said last, so that a lasting trouble is said once.
    trouble: Option<String>,
    /// The gateway's folder.
    folder: PathBuf,
    shared: Arc<Shared>,
    forge: Option<Arc<dyn Forge>>,
    /// A delivery has come.
    wake: Arc<Notify>,
    /// Deliveries that could not be handled yet.
    failures: Failures,
}

impl Watcher {
    fn new(
        config: &GatewayConfig,
        project: &WatchedProject,
        shared: &Arc<Shared>,
    ) -> Result<Self, GatewayError> {
        let mirror = Mirror::new(&config.mirrors, &project.name, project.url.clone(), project.credentials)?;
        let guard = Arc::new(config.guard.clone());
        let mirror = mirror.with_guard(Arc::clone(&guard));
        let seen = Seen::open(mirror.path().with_extension("seen.json"));
        let failed = |source| GatewayError::Forge { project: project.name.clone(), source };
        let forge = project.forge.as_ref().map(|settings| HttpForge::new(settings, &guard)).transpose();
        Ok(Self {
            project: project.clone(),
            mirror,
            connection: config.connection.clone(),
            seen,
            trouble: None,
            folder: config.mirrors.clone(),
            shared: Arc::clone(shared),
            forge: forge.map_err(failed)?.map(|forge| Arc::new(forge) as Arc<dyn Forge>),
            wake: Arc::new(Notify::new()),
            failures: Failures::default(),
        })
    }

    /// Who tells the project's forge.
    fn outbox(&self) -> Option<Outbox> {
        let (forge, desk) = (self.forge.clone()?, Arc::clone(&self.shared.desk));
        let wake = desk.sender(&self.project.name)?;
        Some(Outbox { project: self.project.name.clone(), forge, desk, wake })
    }

    async fn run(mut self, every: Duration) {
        for poll in 0_u64.. {
            let ended = self.poll().await;
            self.say(ended);
            let pause = tokio::time::sleep(changes::spread(every, &self.project.name, poll));
            tokio::pin!(pause);
            loop {
                let ended = self.deliveries().await;
                self.say(ended);
                tokio::select! {
                    () = &mut pause => break,
                    () = self.wake.notified() => {}
                }
            }
        }
    }

    fn say(&mut self, ended: Result<(), PollError>) {
        let project = &self.project.name;
        match ended {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    tracing::info!(project, "polling works again");
                }
            }
            Err(error) => {
                let trouble = chain(&error);
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!(project, "{trouble}; trying again");
                    self.trouble = Some(trouble);
                }
            }
        }
    }

    async fn poll(&mut self) -> Result<(), PollError> {
        self.mirror.fetch().await?;
        let (heads, refused) = self.heads().await?;
        let changes = changes(self.seen.heads(), &heads);
        if !changes.is_empty() {
            for reason in refused {
                tracing::warn!(project = self.project.name, "{reason}");
            }
        }
        for branch in &changes.gone {
            self.seen.forget(branch)?;
        }
        let mut submitted = 0;
        for head in &changes.moved {
            if submitted >= SUBMISSIONS_MAX {
                break;
            }
            submitted += usize::from(self.head(head).await?);
        }
        Ok(())
    }

    async fn heads(&self) -> Result<(Vec<Head>, Vec<String>), GitError> {
        let path = self.mirror.path().to_owned();
        blocking(move || {
            let repository = Repository::open(&path)?;
            let Branches { heads, refused } = repository.branches()?;
            let heads = heads
                .into_iter()
                .map(|(branch, commit)| {
                    let time = repository.commit_time(&commit)?;
                    Ok(Head { branch, commit, time })
                })
                .collect::<Result<Vec<_>, GitError>>()?;
            Ok((heads, refused))
        })
        .await
    }

    /// Handles one moved head; true where a run was submitted.
    async fn head(&mut self, head: &Head) -> Result<bool, PollError> {
        let project = self.project.name.clone();
        let scratch =
            tempfile::tempdir().map_err(|source| SeenError::write(&std::env::temp_dir(), source))?;
        let prepared = match self.prepare(head, scratch.path().to_owned()).await {
            Ok(prepared) => prepared,
            Err(error) if error.is_of_the_commit() => {
                self.mistakes(&head.commit, &head.branch, &error).await?;
                self.seen.remember(&head.branch, &head.commit)?;
                return Ok(false);
            }
            Err(source) => {
                let (branch, commit) = (head.branch.clone(), head.commit.short());
                return Err(PollError::Prepare { branch, commit, source });
            }
        };
        let Some(prepared) = prepared else {
            tracing::debug!(project, "{} {} starts no run", head.branch, head.commit.short());
            self.seen.remember(&head.branch, &head.commit)?;
            return Ok(false);
        };
        for note in &prepared.notes {
            tracing::info!(project, "{note}");
        }
        self.submit(&head.branch, &prepared, Dedup::Push).await?;
        self.seen.remember(&head.branch, &head.commit)?;
        Ok(true)
    }

    /// Submits, and has the forge told of what becomes of it.
    async fn submit(&self, what: &str, prepared: &Prepared, dedup: Dedup) -> Result<u64, PollError> {
        let (project, commit) = (self.project.name.clone(), CommitId::parse(&prepared.spec.commit)?);
        let done = submit(&self.connection, prepared, dedup).await.map_err(|source| PollError::Submit {
            branch: what.to_owned(),
            commit: commit.short(),
            source,
        })?;
        let again = if done.existed { ", told of already" } else { "" };
        tracing::info!(project, "run {} for {what} {}{again}", done.run, commit.short());
        let suites = prepared.spec.suites.iter().map(|suite| suite.name.clone()).collect();
        let newest = if done.existed && self.forge.is_some() {
            self.newest(&prepared.spec.commit).await?
        } else {
            None
        };
        match newest.filter(|newest| newest.run > done.run) {
            // What counts is what its rerun said, or will say.
            Some(rerun) => self.track(rerun.run, Vec::new()).await?,
            None => self.track(done.run, suites).await?,
        }
        Ok(done.run)
    }

    async fn track(&self, run: u64, suites: Vec<String>) -> Result<(), LedgerError> {
        let desk = Arc::clone(&self.shared.desk);
        let tracked = Tracked { run, project: self.project.name.clone(), suites };
        blocking(move || desk.track(tracked)).await
    }

    async fn prepare(&self, head: &Head, scratch: PathBuf) -> Result<Option<Prepared>, PrepareError> {
        let (path, project) = (self.mirror.path().to_owned(), self.project.clone());
        let (branch, commit): (String, CommitId) = (head.branch.clone(), head.commit.clone());
        let now = clock::unix_ms();
        blocking(move || {
            let repository = Repository::open(&path)?;
            prepare_push(&repository, &branch, &commit, project.branches.as_deref(), &scratch, |trigger| {
                Request {
                    project: project.name.clone(),
                    repository: project.url.to_string(),
                    git_ref: format!("refs/heads/{branch}"),
                    trigger,
                    requested_by: GATEWAY.to_owned(),
                    submitted_unix_ms: now,
                }
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests;
