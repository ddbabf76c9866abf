//! One project's watcher: polls its mirror, submits what moved, and does what its deliveries ask for (in `events`).
//!
//! Everything about a project happens here, one thing after the other, so its mirror has one user.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::changes::{self, Head, changes};
use super::desk::Tracked;
use super::events::Failures;
use super::ledger::LedgerError;
use super::outbox::Outbox;
use super::seen::{Seen, SeenError};
use super::{GATEWAY, GatewayConfig, GatewayError, SUBMISSIONS_MAX, Shared, WatchedProject};
use crate::clock;
use crate::connect::Connection;
use crate::forge::client::HttpForge;
use crate::forge::{Forge, ForgeError};
use crate::git::mirror::{Mirror, MirrorError};
use crate::git::{Branches, CommitId, GitError, Repository};
use crate::hook::{blocking, chain, prepare_push};
use crate::spec::{PrepareError, Prepared, Request};
use crate::submit::{Dedup, SubmitError, submit};

/// Why one poll of a project did not do all there was to do. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum PollError {
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Seen(#[from] SeenError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the forge does not answer a question")]
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

/// One project's polling.
pub(super) struct Watcher {
    pub(super) project: WatchedProject,
    pub(super) mirror: Mirror,
    pub(super) connection: Connection,
    pub(super) seen: Seen,
    /// What was said last, so that a lasting trouble is said once.
    pub(super) trouble: Option<String>,
    /// The gateway's folder.
    pub(super) folder: PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) forge: Option<Arc<dyn Forge>>,
    /// A delivery has come.
    pub(super) wake: Arc<Notify>,
    /// Deliveries that could not be handled yet.
    pub(super) failures: Failures,
    /// When the forge was last asked for its open pull requests.
    pub(super) pulls_looked: Option<Instant>,
}

impl Watcher {
    pub(super) fn new(
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
            pulls_looked: None,
        })
    }

    /// Who tells the project's forge.
    pub(super) fn outbox(&self) -> Option<Outbox> {
        let (forge, desk) = (self.forge.clone()?, Arc::clone(&self.shared.desk));
        let wake = desk.sender(&self.project.name)?;
        Some(Outbox { project: self.project.name.clone(), forge, desk, wake })
    }

    pub(super) async fn run(mut self, every: Duration) {
        for poll in 0_u64.. {
            let mut ended = self.poll().await;
            if ended.is_ok() {
                ended = self.lost_pulls(Instant::now()).await;
            }
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

    pub(super) fn say(&mut self, ended: Result<(), PollError>) {
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

    pub(super) async fn poll(&mut self) -> Result<(), PollError> {
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
    pub(super) async fn submit(
        &self,
        what: &str,
        prepared: &Prepared,
        dedup: Dedup,
    ) -> Result<u64, PollError> {
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

    pub(super) async fn track(&self, run: u64, suites: Vec<String>) -> Result<(), LedgerError> {
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
