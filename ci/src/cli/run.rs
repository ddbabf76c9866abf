//! `andon run` and `andon rerun`: from files or an earlier run to a verdict.

use std::path::{Path, PathBuf};

use andon::connect::Connection;
use andon::git::Repository;
use andon::submit::{self, Dedup};
use andon_proto::{GetRunRequest, RerunRequest, Run, Trigger};
use clap::Args;

use super::error::CliError;
use super::farm::FarmArgs;
use super::show::{run_or_latest, split_run, write_junit};
use super::what::{self, At, SourceArgs, WhatArgs, project_name};
use super::{export, follow, out};
use crate::report::exit::Exit;
use crate::report::junit::Form;
use crate::report::listing::branch;
use crate::report::text::cut;
use crate::report::words;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon run                          the files of this working copy as they are\n  andon run \
                        --commit HEAD             only what is committed\n  andon run orders '*::test_place*'    tests whose names hold \
                        that, or are like that\n  andon run =tests/test_a.py::test_x   this test alone\n  andon run --shard 2/4 --suite \
                        reports\n  andon run checkout --repeat 50 --until-fail\n  andon run --repo /srv/git/shop.git --commit main \
                        --junit report.xml\n\nEnds with the run's exit code: 0 all passed, 4 nothing chosen, 100 tests failed, 106 \
                        incomplete, …\nCtrl-C ends the following (130), not the run."
)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    what: WhatArgs,
    #[command(flatten)]
    after: AfterArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon rerun --failed               what failed in the latest run of this project\n  \
                        andon rerun 12 --failed --commit main   the same tests at another commit\n  andon rerun 12 \
                        --not-run\n  andon rerun 12 integration/tests/test_orders.py::test_place\n  andon rerun --from run-12.andon \
                        --failed   a run that `andon export` wrote, here\n\nSame suites, same baseline, and by default the same \
                        commit."
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
    /// A run that `andon export` wrote, on whichever farm, instead of one of this farm
    #[arg(long, value_name = "FILE", conflicts_with_all = ["commit", "repo"])]
    from: Option<PathBuf>,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    after: AfterArgs,
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
    let scratch = what::scratch()?;
    let prepared = args.what.prepare(scratch.path()).await?;
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
    let from = args.from.as_deref();
    // A number is a test's name where the run is a file.
    let (number, tests) = if from.is_some() { (None, args.words.clone()) } else { split_run(&args.words) };
    if !args.failed && !args.not_run && tests.is_empty() {
        return Err(
            CliError::usage("which tests?").hint("--failed, --not-run, or tests as `andon show` prints them")
        );
    }
    let wanted = export::Wanted { failed: args.failed, not_run: args.not_run, tests: &tests };
    if let Some(file) = from {
        let rerun = export::rerun(file, &wanted, args.source.project.as_deref(), farm).await?;
        let exit = after(&rerun.connection, rerun.run, &args.after).await?;
        if !args.after.detach {
            rerun.compare_baselines().await?;
        }
        return Ok(exit);
    }
    let connection = farm.connect().await?;
    let number = run_or_latest(&connection, number, &args.source.of_project()).await?;
    let spec_digest = match &args.commit {
        None => String::new(),
        Some(commit) => {
            let request = GetRunRequest { run: number, with_tests: false };
            let before = connection.farm().get_run(request).await?.into_inner();
            let scratch = what::scratch()?;
            let repo = repository_of(&args.source, &before)?;
            let at = At::Commit(commit.clone());
            let prepared = what::prepare(repo, at, before.project, Trigger::Rerun, scratch.path()).await?;
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
        write_junit(run, Form::Usual, file)?;
    }
    Ok(exit)
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
            return what::open(origin);
        }
    }
    what::open(source.folder())
}
