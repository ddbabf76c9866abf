//! A repository at a commit, made into what the farm is asked to run.
//!
//! Reads `andon.toml` and the compose file at the commit, checks both together and against the commit's files, and
//! gives the wire's `RunSpec` with the source's archive. Must not know how a run is submitted or scheduled, nor the
//! clock: times come in with the [`Request`].

mod against;
mod convert;
mod digest;
mod owners;

use std::path::Path;

use andon_figures::quarantine::DURATION_MAX_MS;
use andon_proto::{Provenance, RunSpec, Trigger};

use crate::config::quarantine::Quarantine;
use crate::config::{
    self, Config, ConfigErrors, Note, Place, Problem, RepoPath, Triggers, all_problems, compose, is_name,
};
use crate::git::{Archive, CommitId, GitError, Kind, Repository, Snapshot};

/// What is asked for, beside the commit.
#[derive(Debug, Clone)]
pub struct Request {
    /// The project's name: part of ids and of the key that keeps a push from running twice.
    pub project: String,
    /// Where the commit came from, without credentials.
    pub repository: String,
    /// `refs/heads/main`; empty for a bare commit.
    pub git_ref: String,
    /// Why.
    pub trigger: Trigger,
    /// By whom.
    pub requested_by: String,
    /// When, UTC in milliseconds since 1970.
    pub submitted_unix_ms: u64,
}

/// A commit's run, ready to be submitted.
#[derive(Debug)]
pub struct Prepared {
    /// The specification.
    pub spec: RunSpec,
    /// The source, in a temporary file.
    pub archive: Archive,
    /// What a person should know.
    pub notes: Vec<Note>,
}

/// The pull or merge request that a commit is the head of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pull {
    /// As people know it.
    pub number: u64,
    /// The head is in another repository.
    pub fork: bool,
    /// Who let this very commit run.
    pub approved_by: Option<String>,
}

impl Prepared {
    /// Says of which pull request it is. A fork's commit that nobody has approved keeps nothing that lets code reach
    /// out: its suites lose their `egress`. Secrets it cannot have: a specification is made of the commit alone.
    pub fn of_pull(&mut self, pull: &Pull) {
        let provenance = self.spec.provenance.get_or_insert_default();
        provenance.pull_request = pull.number;
        provenance.fork = pull.fork;
        provenance.approved_by = pull.approved_by.clone().unwrap_or_default();
        if pull.fork && pull.approved_by.is_none() {
            for suite in &mut self.spec.suites {
                suite.egress.clear();
            }
        }
    }
}

/// Why there is nothing to submit.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The project's files have mistakes: all of them.
    #[error("{}", counted(.0))]
    Config(#[from] ConfigErrors),
    /// The commit has no `andon.toml`.
    #[error("commit {commit} has no {} at the root of its tree", config::FILE_NAME)]
    NoConfig {
        /// Which commit.
        commit: CommitId,
    },
    /// The project's name is none.
    #[error("{name} is no name for a project: {form}", name = .0, form = config::NAME_FORM)]
    Project(String),
    /// The repository cannot be read, or holds what is refused.
    #[error(transparent)]
    Git(#[from] GitError),
}

impl PrepareError {
    /// Whether the commit itself is to blame, so that trying again cannot help.
    pub fn is_of_the_commit(&self) -> bool {
        match self {
            Self::Config(_) | Self::NoConfig { .. } => true,
            Self::Git(error) => matches!(error, GitError::Hostile { .. } | GitError::TooLarge { .. }),
            Self::Project(_) => false,
        }
    }
}

fn counted(errors: &ConfigErrors) -> String {
    let count = errors.problems.len();
    let mistakes = if count == 1 { "mistake" } else { "mistakes" };
    format!("{count} {mistakes} in the project's configuration\n{errors}")
}

/// A project's checked configuration at one commit.
#[derive(Debug, Clone)]
pub struct Project {
    /// `andon.toml`.
    pub config: Config,
    /// The compose file and its path; absent for a project without services.
    pub stack: Option<(RepoPath, compose::Compose)>,
    /// What a person should know.
    pub notes: Vec<Note>,
}

/// Reads and checks a commit's configuration: the mistakes of both files, and what they name that is not there.
pub fn check(snapshot: &Snapshot<'_>) -> Result<Project, PrepareError> {
    let bytes = config_bytes(snapshot)?;
    let draft = config::read(config::FILE_NAME, &bytes);
    let (mut problems, mut notes) = (draft.problems, draft.notes);
    let mut stack = None;
    if let Some(path) = &draft.config.compose {
        match snapshot.read(path.value.as_str())? {
            Some(bytes) => {
                let compose = compose::read(&path.value, &bytes);
                problems.extend(compose.problems);
                notes.extend(compose.notes);
                stack = Some((path.value.clone(), compose.compose));
            }
            None => problems.push(against::no_file(snapshot, "compose", path)),
        }
    }
    let compose = stack.as_ref().map(|(_, compose)| compose);
    against::commit(snapshot, &draft.config, compose, &mut problems, &mut notes)?;
    notes.sort();
    match all_problems(problems) {
        Some(errors) => Err(PrepareError::Config(errors)),
        None => Ok(Project { config: draft.config, stack, notes }),
    }
}

/// Which branches start a run, as the commit itself says; `None` for a commit without configuration. A file with
/// mistakes elsewhere still says it. Cheap: nothing but the one file is read.
pub fn triggers(repository: &Repository, commit: &CommitId) -> Result<Option<Triggers>, GitError> {
    let bytes = repository.root_file(commit, config::FILE_NAME)?;
    Ok(bytes.map(|bytes| config::read(config::FILE_NAME, &bytes).config.triggers))
}

fn config_bytes(snapshot: &Snapshot<'_>) -> Result<Vec<u8>, PrepareError> {
    match snapshot.kind(config::FILE_NAME) {
        Some(Kind::File { .. }) => Ok(snapshot.read(config::FILE_NAME)?.unwrap_or_default()),
        Some(_) => Err(PrepareError::Config(ConfigErrors::one(
            Place::start_of(config::FILE_NAME),
            "is not a file: a symlink or a folder is not read",
        ))),
        None => Err(PrepareError::NoConfig { commit: snapshot.commit().clone() }),
    }
}

/// Reads, checks and archives a commit. The archive is written into `scratch` and goes away with the result.
pub fn prepare(
    repository: &Repository,
    commit: &CommitId,
    request: &Request,
    scratch: &Path,
) -> Result<Prepared, PrepareError> {
    if !is_name(&request.project) {
        return Err(PrepareError::Project(config::quoted(&request.project)));
    }
    let snapshot = repository.snapshot(commit)?;
    let project = check(&snapshot)?;
    ends(&project.config.quarantines, request.submitted_unix_ms)?;
    let mut spec = specification(&snapshot, &project)?;
    spec.project.clone_from(&request.project);
    spec.repository.clone_from(&request.repository);
    spec.git_ref.clone_from(&request.git_ref);
    spec.provenance = Some(Provenance {
        trigger: request.trigger.into(),
        requested_by: request.requested_by.clone(),
        submitted_unix_ms: request.submitted_unix_ms,
        ..Provenance::default()
    });
    let archive = snapshot.archive(scratch)?;
    spec.source_digest.clone_from(&archive.digest);
    let mut notes = project.notes;
    let (owners, of_owners) = owners::of_commit(&snapshot, &request.repository)?;
    spec.owners = owners;
    notes.extend(of_owners);
    notes.extend_from_slice(snapshot.notes());
    Ok(Prepared { spec, archive, notes })
}

/// A quarantine ends within [`DURATION_MAX_MS`]; one that has ended is no mistake, its tests block again.
fn ends(quarantines: &[Quarantine], now_unix_ms: u64) -> Result<(), PrepareError> {
    const DAY_MS: u64 = 24 * 3_600 * 1_000;
    // It lasts to the end of its last day.
    let latest_unix_ms = now_unix_ms.saturating_add(DURATION_MAX_MS);
    let too_far = quarantines.iter().filter(|of| of.until_unix_ms.value > latest_unix_ms);
    let problem = |of: &Quarantine| {
        let days = (of.until_unix_ms.value - now_unix_ms).div_ceil(DAY_MS);
        let message = format!(
            "\"until\" is {days} days ahead: a quarantine ends within {} days, then somebody decides anew",
            DURATION_MAX_MS / DAY_MS
        );
        Problem { place: of.until_unix_ms.place.clone(), message }
    };
    match all_problems(too_far.map(problem).collect()) {
        Some(errors) => Err(PrepareError::Config(errors)),
        None => Ok(()),
    }
}

/// The part of a specification that the commit alone decides; everything but source, project and provenance.
pub fn specification(snapshot: &Snapshot<'_>, project: &Project) -> Result<RunSpec, PrepareError> {
    let stack = match &project.stack {
        Some((path, compose)) => {
            let bytes = snapshot.read(path.as_str())?.unwrap_or_default();
            Some(convert::stack(compose, &bytes, &project.config))
        }
        None => None,
    };
    let compose = project.stack.as_ref().map(|(_, compose)| compose);
    let baseline = digest::baseline(snapshot, &project.config, compose, stack.as_ref())?;
    Ok(RunSpec {
        commit: snapshot.commit().to_string(),
        stack,
        baseline: Some(baseline),
        suites: project.config.suites.iter().map(convert::suite).collect(),
        policy: Some(convert::policy(&project.config.policy)),
        quarantines: project.config.quarantines.iter().map(convert::quarantine).collect(),
        ..RunSpec::default()
    })
}

#[cfg(test)]
mod tests;
