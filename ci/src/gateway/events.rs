//! What a project's deliveries ask for, done one after the other by the project's own watcher.
//!
//! Each can be done again after a crash: submissions and reruns have keys. One that cannot be done now stays and does not
//! hold up the others; one that never can is said and let go.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use andon_proto::{ListRunsRequest, RerunRequest, Run, RunState, Trigger};
use tokio::time::Instant;
use tonic::Code;

use super::inbox::Waiting;
use super::pulls::{ApproveError, Decision, Known, decide, left, refs, taken};
use super::seen::SeenError;
use super::watcher::{PollError, Watcher};
use super::{GATEWAY, SUBMISSIONS_MAX};
use crate::clock;
use crate::forge::client::OpenPull;
use crate::forge::status::{State, Status};
use crate::forge::{Author, Command, Event, May, short};
use crate::git::mirror::MirrorError;
use crate::git::{CommitId, Repository};
use crate::hook::{blocking, chain};
use crate::spec::{self, PrepareError, Prepared, Pull, Request};
use crate::submit::Dedup;

/// How often a delivery is tried whose repository does not give what it told of.
const TRIES_MAX: u32 = 10;
/// How long a delivery is tried whatever stands in its way.
const AGE_MAX_MS: u64 = 3 * 24 * 60 * 60 * 1000;
/// How many runs of a commit are looked at for the one to rerun.
const RUNS_OF_A_COMMIT: u32 = 20;
/// How often a forge is asked for its open pull requests.
const PULLS_EVERY: Duration = Duration::from_secs(40);
/// The context in which a fork's commit waits for its approval.
const APPROVAL: &str = "andon/approval";
/// The context of a commit whose configuration has mistakes.
const CONFIGURATION: &str = "andon/configuration";

/// Tries of deliveries, in memory: after a restart they are tried anew.
pub(super) type Failures = HashMap<String, u32>;

/// A run that is ready, and the folder that its archive is in.
struct Ready {
    prepared: Prepared,
    _scratch: tempfile::TempDir,
}

/// What became of a delivery.
enum Done {
    /// It is done, or there was nothing to do.
    Now,
    /// It asks for a poll, which is done for all of them together.
    ByPoll,
}

impl Watcher {
    /// Handles what waits: deliveries, and approvals that were left by the command.
    pub(super) async fn deliveries(&mut self) -> Result<(), PollError> {
        self.approvals().await?;
        let waiting = self.shared.inbox.waiting(&self.project.name);
        let mut pushes = Vec::new();
        let mut failed = None;
        for waiting in waiting {
            match self.event(&waiting).await {
                Ok(Done::Now) => self.done(vec![waiting.key]).await?,
                Ok(Done::ByPoll) => pushes.push(waiting.key),
                Err(error) => {
                    if self.never(&waiting, &error) {
                        self.done(vec![waiting.key]).await?;
                    } else {
                        failed = Some(error);
                    }
                }
            }
        }
        if !pushes.is_empty() {
            // They came before this poll began, so it sees what they told of.
            self.poll().await?;
            self.done(pushes).await?;
        }
        failed.map_or(Ok(()), Err)
    }

    async fn done(&mut self, keys: Vec<String>) -> Result<(), PollError> {
        for key in &keys {
            self.failures.remove(key);
        }
        let inbox = Arc::clone(&self.shared.inbox);
        Ok(blocking(move || inbox.done(&keys)).await?)
    }

    /// Whether a delivery is given up: it is too old, or what it tells of cannot be had, again and again.
    fn never(&mut self, waiting: &Waiting, error: &PollError) -> bool {
        if clock::unix_ms().saturating_sub(waiting.taken_unix_ms) > AGE_MAX_MS {
            tracing::error!(
                project = self.project.name,
                "{} is given up, too old: {}",
                waiting.event,
                chain(error)
            );
            return true;
        }
        let hopeless = match error {
            PollError::Mirror(MirrorError::Git { .. } | MirrorError::Ref(_)) | PollError::Git(_) => true,
            PollError::Prepare { source, .. } => source.is_of_the_commit(),
            _ => false,
        };
        if !hopeless {
            return false;
        }
        let tries = self.failures.entry(waiting.key.clone()).or_insert(0);
        *tries += 1;
        let given_up = *tries >= TRIES_MAX;
        if given_up {
            let project = &self.project.name;
            tracing::error!(
                project,
                "{} is given up after {TRIES_MAX} tries: {}",
                waiting.event,
                chain(error)
            );
        }
        given_up
    }

    async fn event(&mut self, waiting: &Waiting) -> Result<Done, PollError> {
        match &waiting.event {
            Event::Push { .. } => return Ok(Done::ByPoll),
            Event::Tag { tag, commit } => self.tag(tag, commit).await?,
            Event::Pull { number, commit, fork } => {
                let known = self.see(*number, commit, *fork).await?;
                self.pull(*number, &known).await?;
            }
            Event::Rerun { commit, by } => self.rerun(commit, false, by, &waiting.key).await?,
            Event::Comment { number, command, by, may } => {
                self.comment(*number, command, by, *may, &waiting.key).await?;
            }
        }
        Ok(Done::Now)
    }

    async fn see(&self, number: u64, commit: &str, fork: bool) -> Result<Known, PollError> {
        let (shared, project, commit) =
            (Arc::clone(&self.shared), self.project.name.clone(), commit.to_owned());
        let now = clock::unix_ms();
        Ok(blocking(move || shared.pulls.see(&project, number, &commit, fork, now)).await?)
    }

    /// Asks the forge for open pull requests, now and then: what a lost webhook would have told. Those that are open at the
    /// very first look are only remembered.
    pub(super) async fn lost_pulls(&mut self, now: Instant) -> Result<(), PollError> {
        let due = self.pulls_looked.is_none_or(|looked| now.saturating_duration_since(looked) >= PULLS_EVERY);
        let Some(forge) = self.forge.clone().filter(|_| due) else { return Ok(()) };
        self.pulls_looked = Some(now);
        let open = forge.open_pulls().await?;
        let (shared, project, at) = (Arc::clone(&self.shared), self.project.name.clone(), clock::unix_ms());
        let first = blocking(move || shared.pulls.is_first_look(&project, at)).await?;
        let mut lost = 0;
        for OpenPull { number, commit, fork } in open {
            let before = self.shared.pulls.get(&self.project.name, number);
            let same = before.as_ref().is_some_and(|before| before.commit == commit && before.fork == fork);
            if same || number == 0 || CommitId::parse(&commit).is_err() {
                continue;
            }
            if !first {
                if lost >= SUBMISSIONS_MAX {
                    break;
                }
                lost += 1;
                tracing::info!(
                    project = self.project.name,
                    "pull request {number} at {} was not told of",
                    short(&commit)
                );
                let approved = before.and_then(|before| before.approved);
                let known = Known { commit: commit.clone(), fork, approved, seen_unix_ms: at };
                // Remembered only when it was done, so that a crash in between loses nothing.
                self.pull(number, &known).await?;
            }
            self.see(number, &commit, fork).await?;
        }
        Ok(())
    }

    async fn tag(&mut self, tag: &str, commit: &str) -> Result<(), PollError> {
        let project = self.project.name.clone();
        if !crate::config::branch_matches(&self.project.tags, tag) {
            tracing::debug!(project, "the tag {tag} starts no run");
            return Ok(());
        }
        let name = format!("refs/tags/{tag}");
        self.mirror.fetch_ref(&name, &name).await?;
        let Some(ready) = self.at(commit, &name, Trigger::Push, GATEWAY, None).await? else { return Ok(()) };
        self.submit(&name, &ready.prepared, Dedup::Push).await?;
        Ok(())
    }

    /// A pull request's head: runs, waits or stays.
    async fn pull(&mut self, number: u64, known: &Known) -> Result<(), PollError> {
        let project = self.project.name.clone();
        let (Some(kind), at) = (self.project.kind, short(&known.commit).to_owned()) else { return Ok(()) };
        let approved_by = match decide(self.project.forks, known) {
            Decision::Run { approved_by } => approved_by,
            Decision::Wait => {
                tracing::info!(project, "pull request {number} at {at} is from a fork: waits for approval");
                let said = format!("from a fork: a maintainer comments /andon approve {at}");
                return self.tell(&known.commit, APPROVAL, State::Pending, said).await;
            }
            Decision::Never => {
                tracing::info!(project, "pull request {number} at {at} is from a fork: not run");
                let said = "pull requests from forks are not run here".to_owned();
                return self.tell(&known.commit, APPROVAL, State::Error, said).await;
            }
        };
        let (from, to) = refs(kind, number);
        self.mirror.fetch_ref(&from, &to).await?;
        let pull = Pull { number, fork: known.fork, approved_by };
        let ready = self.at(&known.commit, &from, Trigger::Push, GATEWAY, Some(&pull)).await?;
        let Some(Ready { prepared, _scratch }) = ready else { return Ok(()) };
        let dedup = if known.fork { Dedup::Fork(number) } else { Dedup::Push };
        self.submit(&format!("pull request {number}"), &prepared, dedup).await?;
        if let Some(by) = pull.approved_by {
            self.tell(&known.commit, APPROVAL, State::Success, format!("approved by {by}")).await?;
        }
        Ok(())
    }

    async fn comment(
        &mut self,
        number: u64,
        command: &Command,
        by: &Author,
        may: May,
        key: &str,
    ) -> Result<(), PollError> {
        let project = self.project.name.clone();
        let may = match (may, &self.forge) {
            (May::Yes, _) => true,
            (May::No, _) => false,
            (May::Ask, Some(forge)) => forge.may(by).await?,
            (May::Ask, None) => {
                tracing::warn!(
                    project,
                    "commands of comments need a token, to ask the forge who may give them"
                );
                false
            }
        };
        if !may {
            tracing::warn!(
                project,
                "{command} on pull request {number} is refused: {} may not write",
                by.name
            );
            return Ok(());
        }
        match command {
            Command::Approve { commit } => self.approve(number, commit.as_deref(), &by.name).await,
            Command::Rerun { all } => match self.shared.pulls.get(&project, number) {
                Some(known) => self.rerun(&known.commit, *all, &by.name, key).await,
                None => {
                    tracing::warn!(project, "{command}: pull request {number} is not known yet");
                    Ok(())
                }
            },
        }
    }

    async fn approve(&mut self, number: u64, commit: Option<&str>, by: &str) -> Result<(), PollError> {
        let (shared, project) = (Arc::clone(&self.shared), self.project.name.clone());
        let (wanted, by) = (commit.map(str::to_owned), by.to_owned());
        let approve = move || shared.pulls.approve(&project, number, wanted.as_deref(), &by);
        let project = &self.project.name;
        match blocking(approve).await {
            Ok(known) => self.pull(number, &known).await,
            Err(ApproveError::Ledger(error)) => {
                tracing::error!(project, "pull request {number} is not approved: {error}");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(project, "not approved: {error}");
                Ok(())
            }
        }
    }

    /// What `andon approve` has left.
    async fn approvals(&mut self) -> Result<(), PollError> {
        for (number, commit) in left(&self.folder, &self.project.name) {
            self.approve(number, Some(&commit.to_string()), "andon approve").await?;
            taken(&self.folder, &self.project.name, number, &commit);
        }
        Ok(())
    }

    /// The newest run of a commit once more: what failed or did not run, or all of it.
    async fn rerun(&mut self, commit: &str, all: bool, by: &str, key: &str) -> Result<(), PollError> {
        let (project, at) = (self.project.name.clone(), short(commit));
        let Some(run) = self.newest(commit).await? else {
            tracing::warn!(project, "nothing to rerun: no run of {at} is known");
            return Ok(());
        };
        if run.ended_unix_ms == 0 {
            tracing::info!(project, "nothing to rerun: run {} of {at} is under way", run.run);
            return Ok(());
        }
        let (failed, not_run) = (!all, !all);
        let dedup_key = format!("rerun:{key}");
        let request = RerunRequest { run: run.run, failed, not_run, dedup_key, ..RerunRequest::default() };
        match self.connection.farm().rerun(request).await {
            Ok(submitted) => {
                let number = submitted.into_inner().run;
                tracing::info!(project, "run {number} is a rerun of run {} for {by}", run.run);
                Ok(self.track(number, Vec::new()).await?)
            }
            // It had no tests, because it never came so far.
            Err(status) if status.code() == Code::FailedPrecondition && !is_whole(&run) => {
                self.anew(&run, by, key).await
            }
            Err(status) if status.code() == Code::FailedPrecondition => {
                tracing::info!(project, "nothing to rerun: {}", status.message());
                Ok(())
            }
            Err(status) => Err(PollError::Farm { what: "the rerun", status: Box::new(status) }),
        }
    }

    pub(super) async fn newest(&self, commit: &str) -> Result<Option<Run>, PollError> {
        let (project, commit) = (self.project.name.clone(), commit.to_owned());
        let request = ListRunsRequest { project, limit: RUNS_OF_A_COMMIT, commit };
        let listed = self.connection.farm().list_runs(request).await;
        let failed = |status| PollError::Farm { what: "the question for runs", status: Box::new(status) };
        Ok(listed.map_err(failed)?.into_inner().runs.into_iter().max_by_key(|run| run.run))
    }

    /// The commit of a run that had no tests, run once more from its beginning.
    async fn anew(&mut self, run: &Run, by: &str, key: &str) -> Result<(), PollError> {
        let pull = self.pull_of(&run.git_ref, &run.commit);
        let ready = self.at(&run.commit, &run.git_ref, Trigger::Rerun, by, pull.as_ref()).await?;
        let Some(Ready { prepared, _scratch }) = ready else { return Ok(()) };
        self.submit(&run.git_ref, &prepared, Dedup::Once(blake3::hash(key.as_bytes()))).await.map(drop)
    }

    /// What is known of the pull request that a ref belongs to, with nobody's approval but one for this commit.
    fn pull_of(&self, git_ref: &str, commit: &str) -> Option<Pull> {
        let number = git_ref.strip_suffix("/head")?.rsplit('/').next()?.parse().ok()?;
        let known = self.shared.pulls.get(&self.project.name, number);
        let approved = known.as_ref().and_then(|known| known.approved.clone());
        let approved_by = approved.filter(|(approved, _)| approved == commit).map(|(_, by)| by);
        // Of one that is not known the worst is taken to be true.
        Some(Pull { number, fork: known.is_none_or(|known| known.fork), approved_by })
    }

    /// A commit of the mirror made ready; `None` where it is not there, has no configuration, or one with mistakes.
    async fn at(
        &self,
        commit: &str,
        git_ref: &str,
        trigger: Trigger,
        by: &str,
        pull: Option<&Pull>,
    ) -> Result<Option<Ready>, PollError> {
        let commit = CommitId::parse(commit)?;
        let scratch =
            tempfile::tempdir().map_err(|source| SeenError::write(&std::env::temp_dir(), source))?;
        let request = Request {
            project: self.project.name.clone(),
            repository: self.project.url.to_string(),
            git_ref: git_ref.to_owned(),
            trigger,
            requested_by: by.to_owned(),
            submitted_unix_ms: clock::unix_ms(),
        };
        let (path, wanted): (PathBuf, CommitId) = (self.mirror.path().to_owned(), commit.clone());
        let work = move || {
            let repository = Repository::open(&path)?;
            if !repository.has(&wanted) {
                return Ok(None);
            }
            spec::prepare(&repository, &wanted, &request, scratch.path())
                .map(|prepared| Some((prepared, scratch)))
        };
        let project = &self.project.name;
        match blocking(work).await {
            Ok(Some((mut prepared, scratch))) => {
                if let Some(pull) = pull {
                    prepared.of_pull(pull);
                }
                Ok(Some(Ready { prepared, _scratch: scratch }))
            }
            Ok(None) => {
                tracing::info!(project, "no run for {git_ref} {}: its head has moved on", commit.short());
                Ok(None)
            }
            Err(PrepareError::NoConfig { .. }) => {
                tracing::debug!(project, "{git_ref} {} has no configuration", commit.short());
                Ok(None)
            }
            Err(error) if error.is_of_the_commit() => {
                self.mistakes(&commit, git_ref, &error).await?;
                Ok(None)
            }
            Err(source) => {
                Err(PollError::Prepare { branch: git_ref.to_owned(), commit: commit.short(), source })
            }
        }
    }

    /// Says that a commit cannot run, here and at the forge.
    pub(super) async fn mistakes(
        &self,
        commit: &CommitId,
        what: &str,
        error: &PrepareError,
    ) -> Result<(), PollError> {
        tracing::error!(project = self.project.name, "no run for {what} {}: {error}", commit.short());
        let said = error.to_string().lines().take(2).collect::<Vec<_>>().join(": ");
        self.tell(&commit.to_string(), CONFIGURATION, State::Error, said).await
    }

    async fn tell(&self, commit: &str, context: &str, state: State, said: String) -> Result<(), PollError> {
        let status = Status {
            commit: commit.to_owned(),
            context: context.to_owned(),
            state,
            description: said,
            target_url: None,
            annotations: Vec::new(),
            failed: Vec::new(),
        };
        let (desk, project, now) =
            (Arc::clone(&self.shared.desk), self.project.name.clone(), clock::unix_ms());
        Ok(blocking(move || desk.put(&project, vec![status], now)).await?)
    }
}

/// Whether a run had tests at all.
fn is_whole(run: &Run) -> bool {
    !matches!(run.state(), RunState::ConfigError | RunState::BaselineFailed | RunState::NoTests)
        && run.counts.is_some_and(|counts| counts.total > 0)
}
