//! `andon show`, `list`, `cancel`, `watch`: looking at runs.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use andon::connect::Connection;
use andon_proto::{CancelRunRequest, ListRunsRequest, Run, Test};
use clap::Args;

use super::error::CliError;
use super::farm::FarmArgs;
use super::{clock, follow, out, screen};
use crate::report::exit::Exit;
use crate::report::junit::Form;
use crate::report::{json, junit, listing, summary, trace, words};

/// Who asked for an experiment of `andon why`, after the person's name: such a run is never meant by "the latest".
pub(crate) const BY_WHY: &str = " by andon why";
/// The latest run is looked for among so many.
const LATEST_OF: u32 = 100;
/// Most runs that `list` asks for.
const LIST_MAX: u32 = 1_000;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon show            the latest run\n  andon show 12 --failed\n  andon show 12 \
                        --json | jq '.tests[] | select(.verdict == \"failed\") | .id'\n  andon show 12 --junit \
                        report.xml\n  andon show 12 --trace run.json   to be opened in https://ui.perfetto.dev"
)]
pub(crate) struct ShowArgs {
    /// Number of the run [default: the latest]
    run: Option<u64>,
    /// The whole run as JSON: tests, attempts, times, figures
    #[arg(long)]
    json: bool,
    /// Write JUnit XML to this file; `-` is stdout
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// JUnit XML without the tests' files, as validators by the schema of Jenkins' xunit plugin want it
    #[arg(long, requires = "junit")]
    strict: bool,
    /// Write what each lane did when to this file, as a trace that Perfetto opens; `-` is stdout
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Only the tests that failed, timed out, or that the farm could not run, all of them
    #[arg(long)]
    failed: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  andon list\n  andon list --project shop --limit 5 --json")]
pub(crate) struct ListArgs {
    /// Only this project's runs
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// At most so many, the latest first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIST_MAX)))]
    limit: u32,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  andon cancel 12")]
pub(crate) struct CancelArgs {
    /// Number of the run
    run: u64,
    /// Shown with the run
    #[arg(long, default_value = "cancelled by a person")]
    reason: String,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon watch           the latest run\n  andon watch 12; echo $?\n  andon watch --plain\n\nOn a \
                  terminal it fills the screen and stays until `q`; `?` shows the keys. Ends with the run's exit code; left before the \
                  run's end, with 130: the run goes on."
)]
pub(crate) struct WatchArgs {
    /// Number of the run [default: the latest]
    run: Option<u64>,
    /// Lines instead of a whole screen, as where stdout is no terminal
    #[arg(long)]
    plain: bool,
    /// Write JUnit XML to this file when the run is over
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

pub(crate) async fn show(args: ShowArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let connection = farm.connect().await?;
    let number = run_or_latest(&connection, args.run, "").await?;
    let run = follow::whole_run(&connection, number).await?;
    if run.forgotten && (args.junit.is_some() || args.trace.is_some() || args.failed) {
        return Err(CliError::usage(format!(
            "the tests of run {number} were deleted: it ended too long ago"
        ))
        .hint("`andon show` still has its counts"));
    }
    let keep = |test: &Test| !args.failed || words::is_bad(test.verdict());
    let junit_on_stdout = match &args.junit {
        Some(file) => write_junit(&run, if args.strict { Form::Strict } else { Form::Usual }, file)?,
        None => false,
    };
    let trace_on_stdout = match &args.trace {
        Some(file) => write_trace(&run, file)?,
        None => false,
    };
    if args.json {
        out::json(&json::run_whole(&run, keep))?;
    } else if args.failed {
        let paint = out::paint();
        for test in run.tests.iter().filter(|test| keep(test)) {
            out::print(&summary::listed(run.run, test, paint))?;
        }
    } else if !junit_on_stdout && !trace_on_stdout {
        out::print(&summary::summary(&run, out::paint()))?;
    }
    Ok(Exit::Passed)
}

pub(crate) async fn list(args: ListArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let connection = farm.connect().await?;
    let request = ListRunsRequest {
        project: args.project.unwrap_or_default(),
        limit: args.limit,
        commit: String::new(),
    };
    let runs = connection.farm().list_runs(request).await?.into_inner().runs;
    if args.json {
        let runs: Vec<_> = runs.iter().map(json::run_line).collect();
        out::json(&runs)?;
    } else {
        out::print(&listing::runs(&runs, clock::unix_ms()))?;
    }
    Ok(Exit::Passed)
}

pub(crate) async fn cancel(args: CancelArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let connection = farm.connect().await?;
    let request = CancelRunRequest { run: args.run, reason: args.reason };
    let was_running = connection.farm().cancel_run(request).await?.into_inner().was_running;
    let said = if was_running { "cancelled" } else { "was over already" };
    out::line(&format!("run {} {said}", args.run))?;
    Ok(Exit::Passed)
}

pub(crate) async fn watch(args: WatchArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let connection = farm.connect().await?;
    let run = run_or_latest(&connection, args.run, "").await?;
    let (exit, run) = if !args.plain && screen::is_possible() {
        let shown_last = Box::pin(screen::show(&connection, run)).await?;
        follow::as_it_stands(&connection, shown_last).await?
    } else {
        follow::to_the_end(&connection, run).await?
    };
    if let (Some(file), Some(run)) = (&args.junit, &run) {
        write_junit(run, Form::Usual, file)?;
    }
    Ok(exit)
}

/// The run that was asked for, or the latest of the project (of any where none is named).
pub(crate) async fn run_or_latest(
    connection: &Connection,
    asked: Option<u64>,
    project: &str,
) -> Result<u64, CliError> {
    if let Some(run) = asked {
        return Ok(run);
    }
    let request = ListRunsRequest { project: project.to_owned(), limit: LATEST_OF, commit: String::new() };
    let runs = connection.farm().list_runs(request).await?.into_inner().runs;
    runs.iter()
        .find(|run| !run.requested_by.ends_with(BY_WHY))
        .or(runs.first())
        .map(|run| run.run)
        .ok_or_else(|| CliError::usage("there is no run yet").hint("`andon run` in a project starts one"))
}

/// The run's number, where the first word is one, and the tests after it.
pub(crate) fn split_run(words: &[String]) -> (Option<u64>, Vec<String>) {
    match words.split_first() {
        Some((first, tests)) if first.parse::<u64>().is_ok() => (first.parse().ok(), tests.to_vec()),
        _ => (None, words.to_vec()),
    }
}

/// Writes the report; `-` is stdout, which is answered with true.
pub(crate) fn write_junit(run: &Run, form: Form, file: &Path) -> Result<bool, CliError> {
    if file == Path::new("-") {
        let mut xml = Vec::new();
        junit::write(run, form, &mut xml)?;
        out::raw(&xml)?;
        return Ok(true);
    }
    let write = || {
        let mut to = BufWriter::new(File::create(file)?);
        junit::write(run, form, &mut to)?;
        to.flush()
    };
    write().map_err(|error| {
        CliError::usage(format!("cannot write the JUnit report {}", file.display())).because(&error)
    })?;
    Ok(false)
}

/// Writes the trace; `-` is stdout, which is answered with true.
fn write_trace(run: &Run, file: &Path) -> Result<bool, CliError> {
    let trace = trace::of(run);
    if trace.left_out() > 0 {
        out::note(&format!("{} events found no room in the trace", words::thousands(trace.left_out())));
    }
    if file == Path::new("-") {
        out::line(&trace.to_json())?;
        return Ok(true);
    }
    std::fs::write(file, trace.to_json()).map_err(|error| {
        CliError::usage(format!("cannot write the trace {}", file.display())).because(&error)
    })?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_word_that_is_a_number_is_the_run() {
        let split = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            split_run(&words)
        };
        assert_eq!(split(&[]), (None, vec![]));
        assert_eq!(split(&["12"]), (Some(12), vec![]));
        assert_eq!(split(&["12", "a", "13"]), (Some(12), vec!["a".into(), "13".into()]));
        assert_eq!(split(&["a.py::x"]), (None, vec!["a.py::x".into()]));
        assert_eq!(split(&["99999999999999999999"]), (None, vec!["99999999999999999999".into()]));
    }
}
