//! What is to be run: a working tree or a commit, made into a specification that may be sent, or only planned.
//!
//! The project's files are read and checked before the farm is asked for anything, so a mistake in them is found without one.

use std::path::{Path, PathBuf};

use andon::git::{GitError, Repository};
use andon::spec::{self, PrepareError, Prepared, Request};
use andon::submit::SubmitError;
use andon_proto as wire;
use andon_proto::{RunSpec, Trigger};
use clap::Args;

use super::asked::AskedArgs;
use super::error::CliError;
use super::{clock, out};
use crate::report::exit::Exit;
use crate::report::text::lines;
use crate::report::words;

/// Longest name of a project (`andon::config::NAME_LEN_MAX`).
const PROJECT_CHARS_MAX: usize = andon::config::NAME_LEN_MAX;
/// Where a working tree's run says that it is one, before the branch that it is on.
const WORKING_REF: &str = "refs/worktree/";

/// What to run, and how.
#[derive(Debug, Args)]
pub(crate) struct WhatArgs {
    /// A commit instead of the working tree: a branch, a tag, an id, HEAD
    #[arg(long, value_name = "REV")]
    commit: Option<String>,
    #[command(flatten)]
    pub(super) source: SourceArgs,
    /// Only this suite; may be given several times
    #[arg(long, value_name = "NAME")]
    suite: Vec<String>,
    #[command(flatten)]
    asked: AskedArgs,
}

/// Where commits are read from.
#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArgs {
    /// Working copy or bare repository [default: the one around this folder]
    #[arg(long, value_name = "DIR")]
    pub(super) repo: Option<PathBuf>,
    /// Name of the project [default: the repository's name]
    #[arg(long, value_name = "NAME")]
    pub(super) project: Option<String>,
}

impl SourceArgs {
    pub(super) fn folder(&self) -> &Path {
        self.repo.as_deref().unwrap_or(Path::new("."))
    }

    /// The project that is meant: the one that was named, else the repository's, else none.
    pub(super) fn of_project(&self) -> String {
        let of_repository =
            || Repository::discover(self.folder()).ok().map(|repo| project_name(&repo.origin()));
        self.project.clone().or_else(of_repository).unwrap_or_default()
    }
}

impl WhatArgs {
    /// Reads, checks and archives what was asked for; says on stderr what a person should know.
    pub(super) async fn prepare(&self, scratch: &Path) -> Result<Prepared, CliError> {
        let repo = open(self.source.folder())?;
        let project = match &self.source.project {
            Some(name) => name.clone(),
            None => project_name(&repo.origin()),
        };
        let at = self.commit.clone().map_or(At::WorkingTree, At::Commit);
        let mut prepared = prepare(repo, at, project, Trigger::Person, scratch).await?;
        choose_suites(&mut prepared.spec, &self.suite)?;
        prepared.spec.asked = self.asked.wire()?;
        Ok(prepared)
    }
}

/// Where the files are read.
pub(super) enum At {
    /// As they lie in the working copy; `HEAD` where nothing is changed, or there is none.
    WorkingTree,
    /// At a revision.
    Commit(String),
}

pub(super) fn scratch() -> Result<tempfile::TempDir, CliError> {
    tempfile::Builder::new()
        .prefix("andon-")
        .tempdir()
        .map_err(|error| CliError::infrastructure("cannot make a temporary folder").because(&error))
}

pub(super) fn open(path: &Path) -> Result<Repository, CliError> {
    Ok(Repository::discover(path).map_err(PrepareError::Git)?)
}

/// Reads, checks and archives, off the runtime's threads.
pub(super) async fn prepare(
    repository: Repository,
    at: At,
    project: String,
    trigger: Trigger,
    scratch: &Path,
) -> Result<Prepared, CliError> {
    let scratch = scratch.to_owned();
    let work = move || read(&repository, &at, project, trigger, &scratch);
    let prepared = match tokio::task::spawn_blocking(work).await {
        Ok(prepared) => prepared?,
        Err(stopped) => std::panic::resume_unwind(stopped.into_panic()),
    };
    if let Some(said) = &prepared.said {
        out::note(said);
    }
    for note in &prepared.prepared.notes {
        out::note(&format!("note: {}", lines(&note.to_string())));
    }
    Ok(prepared.prepared)
}

struct Read {
    prepared: Prepared,
    said: Option<String>,
}

fn read(
    repository: &Repository,
    at: &At,
    project: String,
    trigger: Trigger,
    scratch: &Path,
) -> Result<Read, PrepareError> {
    let revision = match at {
        At::WorkingTree => "HEAD",
        At::Commit(revision) => revision,
    };
    let mut request = Request {
        project,
        repository: repository.origin(),
        git_ref: repository.branch_of(revision).unwrap_or_default(),
        trigger,
        requested_by: std::env::var("USER").unwrap_or_default(),
        submitted_unix_ms: clock::unix_ms(),
    };
    let working = match at {
        At::WorkingTree => repository.working_tree(scratch)?,
        At::Commit(_) => None,
    };
    let Some(working) = working else {
        let commit = repository.resolve(revision)?;
        return Ok(Read { prepared: spec::prepare(repository, &commit, &request, scratch)?, said: None });
    };
    let branch = request.git_ref.strip_prefix("refs/heads/").unwrap_or("HEAD");
    request.git_ref = format!("{WORKING_REF}{branch}");
    let mut prepared = spec::prepare(&working.repository, &working.commit, &request, scratch)?;
    let (base_commit, changes) = (working.base.to_string(), working.changes);
    prepared.spec.working_tree = Some(wire::WorkingTree { base_commit, changes });
    prepared.notes.extend(working.notes);
    let unknown = match working.untracked {
        0 => String::new(),
        count => format!(", {} of them untracked", words::thousands(count)),
    };
    let said = format!(
        "the working tree is sent: {} on top of {}{unknown} (`--commit HEAD` for the commit alone)",
        words::plural(changes, "change"),
        working.base.short(),
    );
    Ok(Read { prepared, said: Some(said) })
}

/// Keeps the suites that were named. The seed runs in the first suite's image, so where there is one that image has
/// to stay the first.
fn choose_suites(spec: &mut RunSpec, names: &[String]) -> Result<(), CliError> {
    if names.is_empty() {
        return Ok(());
    }
    for name in names {
        if !spec.suites.iter().any(|suite| &suite.name == name) {
            let known: Vec<&str> = spec.suites.iter().map(|suite| suite.name.as_str()).collect();
            return Err(CliError::usage(format!("there is no suite {name:?} at this commit"))
                .hint(format!("its suites: {}", known.join(", "))));
        }
    }
    let first = spec.suites.first().map(|suite| (suite.name.clone(), suite.image.clone()));
    let has_seed = spec.baseline.as_ref().is_some_and(|baseline| !baseline.seed.is_empty());
    spec.suites.retain(|suite| names.contains(&suite.name));
    let Some((first, image)) = first else { return Ok(()) };
    if has_seed && spec.suites.first().is_some_and(|suite| suite.image != image) {
        return Err(CliError::usage(format!(
            "the seed runs in the image of the suite {first:?}, which is not chosen"
        ))
        .hint(format!("add --suite {first}")));
    }
    Ok(())
}

/// The last part of where the repository came from, made fit to be a project's name.
pub(crate) fn project_name(origin: &str) -> String {
    let trimmed = origin.trim_end_matches('/');
    let trimmed = trimmed.strip_suffix("/.git").unwrap_or(trimmed);
    let last = trimmed.rsplit(['/', ':']).next().unwrap_or_default();
    let last = last.strip_suffix(".git").unwrap_or(last);
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = last
        .chars()
        .map(|c| if fit(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(PROJECT_CHARS_MAX)
        .collect();
    if name.is_empty() { "project".to_owned() } else { name }
}

impl From<PrepareError> for CliError {
    fn from(error: PrepareError) -> Self {
        let said = error.to_string();
        match &error {
            PrepareError::Config(_) => Self::config(said),
            PrepareError::NoConfig { .. } => Self::config(said).hint("`andon init` writes one"),
            PrepareError::Project(_) => Self::usage(said).hint("name the project by --project"),
            PrepareError::Git(git) => {
                let exit = match git {
                    GitError::Open { .. } | GitError::Revision { .. } | GitError::NotAnId { .. } => {
                        Exit::Usage
                    }
                    GitError::Hostile { .. } | GitError::TooLarge { .. } => Exit::Config,
                    GitError::Read { .. } | GitError::Archive { .. } => Exit::Incomplete,
                };
                let mut new = Self::new(exit, said);
                if matches!(git, GitError::Open { .. }) {
                    new = new.hint("--repo names the working copy or bare repository");
                }
                match std::error::Error::source(git) {
                    Some(cause) => new.because(cause),
                    None => new,
                }
            }
        }
    }
}

impl From<SubmitError> for CliError {
    fn from(error: SubmitError) -> Self {
        match error {
            // Refused, not failed: said as the farm says it.
            SubmitError::Farm { status, .. } if status.code() == tonic::Code::InvalidArgument => {
                Self::from(*status)
            }
            SubmitError::Farm { what, status } => {
                Self::infrastructure(format!("the coordinator did not take {what}")).because(&*status)
            }
            SubmitError::Read { .. } => Self::infrastructure("cannot send the run").because(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_proto::{BaselineSpec, Image, Suite, image::Source};

    #[test]
    fn a_project_is_called_as_its_repository() {
        for (origin, name) in [
            ("/srv/git/shop.git", "shop"),
            ("/srv/git/shop.git/", "shop"),
            ("/home/ann/shop/.git/", "shop"),
            ("https://example.org/team/shop.git", "shop"),
            ("git@example.org:shop.git", "shop"),
            ("/home/ann/my shop", "my-shop"),
            ("/tmp/.hidden", "hidden"),
            ("/", "project"),
            ("", "project"),
        ] {
            assert_eq!(project_name(origin), name, "{origin}");
            assert!(andon::config::is_name(&project_name(origin)), "{origin}");
        }
        assert!(andon::config::is_name(&project_name(&format!("/{}", "x".repeat(500)))));
    }

    fn suites(seed: &[&str]) -> RunSpec {
        let suite = |name: &str, image: &str| Suite {
            name: name.into(),
            image: Some(Image { source: Some(Source::Reference(image.into())) }),
            ..Suite::default()
        };
        RunSpec {
            suites: vec![suite("a", "one"), suite("b", "one"), suite("c", "two")],
            baseline: Some(BaselineSpec {
                seed: seed.iter().map(|&seed| seed.to_owned()).collect(),
                ..BaselineSpec::default()
            }),
            ..RunSpec::default()
        }
    }

    #[test]
    fn suites_are_chosen_by_name_and_unknown_ones_refused() {
        let mut spec = suites(&[]);
        choose_suites(&mut spec, &["c".into()]).unwrap();
        assert_eq!(spec.suites.len(), 1);
        assert_eq!(choose_suites(&mut suites(&[]), &["x".into()]).unwrap_err().exit(), Exit::Usage);
        let mut all = suites(&[]);
        choose_suites(&mut all, &[]).unwrap();
        assert_eq!(all.suites.len(), 3);
    }

    #[test]
    fn the_seeds_image_is_never_changed_by_a_choice() {
        choose_suites(&mut suites(&["seed"]), &["b".into()]).unwrap();
        assert_eq!(choose_suites(&mut suites(&["seed"]), &["c".into()]).unwrap_err().exit(), Exit::Usage);
    }
}
