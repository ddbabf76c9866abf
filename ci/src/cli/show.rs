//! `andon show`, `list`, `logs`, `cancel`, `watch`: looking at runs.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use andon::connect::Connection;
use andon_proto::{CancelRunRequest, GetLogRequest, ListRunsRequest, Run, Test};
use clap::Args;

use super::error::CliError;
use super::farm::FarmArgs;
use super::{clock, follow, out};
use crate::report::exit::Exit;
use crate::report::{json, junit, listing, summary, text, trace, words};

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
#[command(
    after_help = "Examples:\n  andon logs 12         what the run itself did: baseline, discovery\n  andon logs 12 \
                        tests/test_orders.py::test_place\n  andon logs 12 integration/tests/test_orders.py::test_place \
                        --attempt 3"
)]
pub(crate) struct LogsArgs {
    /// Number of the run [default: the latest], then the test as `show` prints it: `suite/id` or `id`
    #[arg(value_name = "RUN|TEST", num_args = 0..=2)]
    words: Vec<String>,
    /// Which attempt, as `show --json` numbers them [default: the last]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    attempt: Option<u64>,
    /// Bytes as the test wrote them, also on a terminal: escape sequences are obeyed
    #[arg(long)]
    raw: bool,
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
    after_help = "Examples:\n  andon watch           the latest run\n  andon watch 12; echo $?\n\nEnds with the run's \
                        exit code. Ctrl-C ends the watching (130), not the run."
)]
pub(crate) struct WatchArgs {
    /// Number of the run [default: the latest]
    run: Option<u64>,
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
        Some(file) => write_junit(&run, file)?,
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

pub(crate) async fn logs(args: LogsArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let (number, mut tests) = split_run(&args.words);
    let test = tests.pop().unwrap_or_default();
    if !tests.is_empty() {
        return Err(CliError::usage(format!("{:?} is no run: its number comes first", tests[0]))
            .hint("andon logs RUN TEST"));
    }
    let connection = farm.connect().await?;
    let run = run_or_latest(&connection, number, "").await?;
    let request = GetLogRequest { run, test, attempt: args.attempt.unwrap_or(0) };
    let log = connection.farm().get_log(request).await?.into_inner();
    if log.text.is_empty() {
        out::note("nothing was written");
    } else if out::is_terminal() && !args.raw {
        let shown = String::from_utf8_lossy(&log.text);
        out::print(&text::lines(&shown))?;
        if !shown.ends_with('\n') {
            out::line("")?;
        }
    } else {
        out::raw(&log.text)?;
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
    let (exit, run) = follow::to_the_end(&connection, run).await?;
    if let (Some(file), Some(run)) = (&args.junit, &run) {
        write_junit(run, file)?;
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
pub(crate) fn write_junit(run: &Run, file: &Path) -> Result<bool, CliError> {
    if file == Path::new("-") {
        let mut xml = Vec::new();
        junit::write(run, &mut xml)?;
        out::raw(&xml)?;
        return Ok(true);
    }
    let write = || {
        let mut to = BufWriter::new(File::create(file)?);
        junit::write(run, &mut to)?;
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
