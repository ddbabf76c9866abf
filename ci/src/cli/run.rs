//! `andon run` and `andon rerun`: from a commit to a verdict.
//!
//! The project's files are read at the commit and checked before the farm is asked for anything, so a mistake in
//! them is found without one.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use andon::connect::Connection;
use andon::git::{GitError, Repository};
use andon::spec::{self, PrepareError, Prepared, Request};
use andon::submit::{self, Dedup, SubmitError};
use andon_proto::{GetRunRequest, RerunRequest, Run, RunSpec, Trigger};
use clap::Args;

use super::error::CliError;
use super::farm::FarmArgs;
use super::show::{run_or_latest, split_run, write_junit};
use super::{clock, follow, out};
use crate::report::exit::Exit;
use crate::report::listing::branch;
use crate::report::text::{cut, lines};
use crate::report::words;

/// How long the question for uncommitted changes may take; without an answer nothing is said.
const STATUS_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest name of a project (`andon::config::NAME_LEN_MAX`).
const PROJECT_CHARS_MAX: usize = andon::config::NAME_LEN_MAX;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon run                          HEAD of the repository in this folder\n  andon run \
                        --commit feature --suite reports\n  andon run --repo /srv/git/shop.git --commit main --junit \
                        report.xml\n\nEnds with the run's exit code: 0 all passed, 100 tests failed, 106 incomplete, …\nCtrl-C \
                        ends the following (130), not the run."
)]
pub(crate) struct RunArgs {
    /// What to run: a branch, a tag, an id
    #[arg(long, value_name = "REV", default_value = "HEAD")]
    commit: String,
    #[command(flatten)]
    source: SourceArgs,
    /// Only this suite; may be given several times
    #[arg(long, value_name = "NAME")]
    suite: Vec<String>,
    #[command(flatten)]
    after: AfterArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon rerun --failed               what failed in the latest run of this project\n  \
                        andon rerun 12 --failed --commit main   the same tests at another commit\n  andon rerun 12 \
                        --not-run\n  andon rerun 12 integration/tests/test_orders.py::test_place\n\nSame suites, same baseline, \
                        and by default the same commit."
)]
pub(crate) struct RerunArgs {
    /// Number of the run [default: the latest of this project], then tests as `show` prints them
    #[arg(value_name = "RUN|TEST", allow_hyphen_values = false)]
    words: Vec<String>,
    /// The tests that failed, timed out, or that the farm could not run
    #[arg(long)]
    failed: bool,
    /// The tests that were not run
    #[arg(long)]
    not_run: bool,
    /// Run them at this commit instead
    #[arg(long, value_name = "REV")]
    commit: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    after: AfterArgs,
}

/// Where commits are read from.
#[derive(Debug, Clone, Args)]
struct SourceArgs {
    /// Working copy or bare repository [default: the one around this folder]
    #[arg(long, value_name = "DIR")]
    repo: Option<PathBuf>,
    /// Name of the project [default: the repository's name]
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
}

impl SourceArgs {
    fn folder(&self) -> &Path {
        self.repo.as_deref().unwrap_or(Path::new("."))
    }
}

/// What happens once the run is asked for.
#[derive(Debug, Args)]
struct AfterArgs {
    /// Say the run's number and do not follow it
    #[arg(long, conflicts_with = "junit")]
    detach: bool,
    /// Write JUnit XML to this file when the run is over
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

pub(crate) async fn run(args: RunArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let scratch = scratch()?;
    let repo = open(args.source.folder())?;
    if args.commit == "HEAD" && !repo.is_bare() {
        note_uncommitted(repo.path()).await;
    }
    let project = match &args.source.project {
        Some(name) => name.clone(),
        None => project_name(&repo.origin()),
    };
    let mut prepared = prepare(repo, &args.commit, project, Trigger::Person, scratch.path()).await?;
    choose_suites(&mut prepared.spec, &args.suite)?;
    let connection = farm.connect().await?;
    let submitted = submit::submit(&connection, &prepared, Dedup::Never).await?;
    let at = &prepared.spec;
    let of_branch =
        if at.git_ref.is_empty() { String::new() } else { format!(" ({})", cut(branch(&at.git_ref), 80)) };
    out::line(&format!(
        "run {}: {} {}{of_branch}",
        submitted.run,
        cut(&at.project, 80),
        words::short(&at.commit)
    ))?;
    after(&connection, submitted.run, &args.after).await
}

pub(crate) async fn rerun(args: RerunArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let (number, tests) = split_run(&args.words);
    if !args.failed && !args.not_run && tests.is_empty() {
        return Err(
            CliError::usage("which tests?").hint("--failed, --not-run, or tests as `andon show` prints them")
        );
    }
    let connection = farm.connect().await?;
    let number = run_or_latest(&connection, number, &of_project(&args.source)).await?;
    let spec_digest = match &args.commit {
        None => String::new(),
        Some(commit) => {
            let request = GetRunRequest { run: number, with_tests: false };
            let before = connection.farm().get_run(request).await?.into_inner();
            let scratch = scratch()?;
            let repo = repository_of(&args.source, &before)?;
            let prepared = prepare(repo, commit, before.project, Trigger::Rerun, scratch.path()).await?;
            submit::upload(&connection, &prepared).await?
        }
    };
    let (failed, not_run) = (args.failed, args.not_run);
    let request =
        RerunRequest { run: number, failed, not_run, tests, spec_digest, ..RerunRequest::default() };
    let run = connection.farm().rerun(request).await?.into_inner().run;
    out::line(&format!("run {run}: a rerun of {number}"))?;
    after(&connection, run, &args.after).await
}

async fn after(connection: &Connection, run: u64, args: &AfterArgs) -> Result<Exit, CliError> {
    if args.detach {
        out::line(&format!("follow it with `andon watch {run}`"))?;
        return Ok(Exit::Passed);
    }
    let (exit, run) = follow::to_the_end(connection, run).await?;
    if let (Some(file), Some(run)) = (&args.junit, &run) {
        write_junit(run, file)?;
    }
    Ok(exit)
}

/// The project whose latest run is meant: the one that was named, else the repository's, else any.
fn of_project(source: &SourceArgs) -> String {
    let of_repository =
        || Repository::discover(source.folder()).ok().map(|repo| project_name(&repo.origin()));
    source.project.clone().or_else(of_repository).unwrap_or_default()
}

/// Where a run is rerun at another commit: the named repository, the one around this folder if it is the project's,
/// else the one that the run came from, where that is a folder of this machine.
fn repository_of(source: &SourceArgs, run: &Run) -> Result<Repository, CliError> {
    if source.repo.is_none() {
        let here = Repository::discover(source.folder()).ok();
        if let Some(here) = here.filter(|here| project_name(&here.origin()) == run.project) {
            return Ok(here);
        }
        let origin = Path::new(&run.repository);
        if origin.is_absolute() && origin.is_dir() {
            return open(origin);
        }
    }
    open(source.folder())
}

fn scratch() -> Result<tempfile::TempDir, CliError> {
    tempfile::Builder::new()
        .prefix("andon-")
        .tempdir()
        .map_err(|error| CliError::infrastructure("cannot make a temporary folder").because(&error))
}

fn open(path: &Path) -> Result<Repository, CliError> {
    Ok(Repository::discover(path).map_err(PrepareError::Git)?)
}

/// Reads, checks and archives the commit, off the runtime's threads.
async fn prepare(
    repository: Repository,
    revision: &str,
    project: String,
    trigger: Trigger,
    scratch: &Path,
) -> Result<Prepared, CliError> {
    let (revision, scratch) = (revision.to_owned(), scratch.to_owned());
    let work = move || {
        let commit = repository.resolve(&revision)?;
        let request = Request {
            project,
            repository: repository.origin(),
            git_ref: repository.branch_of(&revision).unwrap_or_default(),
            trigger,
            requested_by: std::env::var("USER").unwrap_or_default(),
            submitted_unix_ms: clock::unix_ms(),
        };
        spec::prepare(&repository, &commit, &request, &scratch)
    };
    let prepared = match tokio::task::spawn_blocking(work).await {
        Ok(prepared) => prepared?,
        Err(stopped) => std::panic::resume_unwind(stopped.into_panic()),
    };
    for note in &prepared.notes {
        out::note(&format!("note: {}", lines(&note.to_string())));
    }
    Ok(prepared)
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

/// Only committed files are run; somebody who changed others should know.
async fn note_uncommitted(path: &Path) {
    let mut status = tokio::process::Command::new("git");
    // `core.fsmonitor` names a program; this question must not run one.
    status.args(["-c", "core.fsmonitor=false", "-C"]).arg(path).args(["status", "--porcelain"]);
    status.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let Ok(Ok(output)) = tokio::time::timeout(STATUS_TIME_MAX, status.output()).await else { return };
    let changed = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() as u64;
    if output.status.success() && changed > 0 {
        let changes = words::plural(changed, "uncommitted change");
        let are = if changed == 1 { "is" } else { "are" };
        out::note(&format!("note: {changes} {are} not part of this run"));
    }
}

impl From<PrepareError> for CliError {
    fn from(error: PrepareError) -> Self {
        let said = error.to_string();
        match &error {
            PrepareError::Config(_) => Self::config(said),
            PrepareError::NoConfig { .. } => {
                Self::config(said).hint("`andon init` writes one; commit it, then run again")
            }
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
