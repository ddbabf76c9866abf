//! The gateway: polls mirrors of the watched repositories and submits a run for each watched branch that moved.
//!
//! ```text
//! fetch ──> branches ──> compare with what was seen ──> triggers ──> prepare ──> submit ──> remember ──> wait
//!   └── fails: said once, tried again at the next poll          └── mistakes: said once, remembered
//! ```
//!
//! A head is remembered only after its run was submitted (or cannot ever be), and a submission has a key made of
//! project and commit. So a restart or a crash at any point neither misses a push nor runs one twice, and the hook
//! may tell of the same push. Each project polls on its own: one that hangs holds up no other.

mod changes;
mod seen;

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock;
use crate::connect::Connection;
use crate::git::mirror::{Credentials, Mirror, MirrorError};
use crate::git::{Branches, CommitId, GitError, RemoteUrl, Repository};
use crate::hook::{blocking, chain, prepare_push};
use crate::spec::{PrepareError, Prepared, Request};
use crate::submit::{Dedup, SubmitError, submit};

use self::changes::{Head, changes};
use self::seen::{Seen, SeenError};

/// How often a mirror is polled where nothing else is said.
pub const DEFAULT_EVERY: Duration = Duration::from_secs(10);
/// The most runs that one poll of one project submits; further heads wait for the next.
pub const SUBMISSIONS_MAX: usize = 20;

/// A repository to watch.
#[derive(Debug, Clone)]
pub struct WatchedProject {
    /// The project's name.
    pub name: String,
    /// Where it is.
    pub url: RemoteUrl,
    /// Branches or globs that start a run; `None` leaves it to each commit's `[triggers]`.
    pub branches: Option<Vec<String>>,
    /// Whose credentials fetches use.
    pub credentials: Credentials,
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

/// Watches until the future is dropped; returns only where it cannot start.
pub async fn run(config: GatewayConfig) -> Result<(), GatewayError> {
    let _lock = lock(&config)?;
    let mut watchers = Vec::new();
    for project in &config.projects {
        if config.projects.iter().filter(|other| other.name == project.name).count() > 1 {
            return Err(GatewayError::Twice(project.name.clone()));
        }
        watchers.push(Watcher::new(&config, project)?);
    }
    let every = config.every;
    let polling = watchers.into_iter().map(|watcher| watcher.run(every));
    futures::future::join_all(polling).await;
    Ok(())
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
}

impl Watcher {
    fn new(config: &GatewayConfig, project: &WatchedProject) -> Result<Self, GatewayError> {
        let mirror = Mirror::new(&config.mirrors, &project.name, project.url.clone(), project.credentials)?;
        let seen = Seen::open(mirror.path().with_extension("seen.json"));
        Ok(Self {
            project: project.clone(),
            mirror,
            connection: config.connection.clone(),
            seen,
            trouble: None,
        })
    }

    async fn run(mut self, every: Duration) {
        for poll in 0_u64.. {
            let ended = self.poll().await;
            self.say(ended);
            tokio::time::sleep(changes::spread(every, &self.project.name, poll)).await;
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
                tracing::error!(project, "no run for {} {}: {error}", head.branch, head.commit.short());
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
        let done = submit(&self.connection, &prepared, Dedup::Push).await.map_err(|source| {
            let (branch, commit) = (head.branch.clone(), head.commit.short());
            PollError::Submit { branch, commit, source }
        })?;
        let again = if done.existed { ", told of already" } else { "" };
        tracing::info!(project, "run {} for {} {}{again}", done.run, head.branch, head.commit.short());
        self.seen.remember(&head.branch, &head.commit)?;
        Ok(true)
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
                    requested_by: "gateway".to_owned(),
                    submitted_unix_ms: now,
                }
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests;
