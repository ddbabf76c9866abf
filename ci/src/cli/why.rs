//! `andon why`: a failure run again under several conditions, and what that says of it.
//!
//! Which conditions, and what their outcomes amount to, is decided by `andon::why`; the farm carries them out (`lab`).

mod lab;

use std::collections::BTreeMap;

use andon::connect::Connection;
use andon::why::bisect::Bisection;
use andon::why::finding::{Evidence, Finding, TRIES_MIN, judge, probe_fails};
use andon::why::past::{self, Name};
use andon::why::tally::Tally;
use andon_proto::{Attempt, ListFlakyRequest, ListWorkersRequest, Run, TellCauseRequest, Test, Trigger};
use clap::Args;

use super::error::CliError;
use super::farm::FarmArgs;
use super::show::{run_or_latest, split_run};
use super::what::SourceArgs;
use super::{follow, out};
use crate::report::exit::Exit;
use crate::report::text::cut;
use crate::report::why::{self as report, Culprits, Probe, Report, Tried};
use crate::report::words;
use lab::{Lab, Started, Where};

/// Of those that ran before a failure so many are tried, the nearest.
const PREDECESSORS_MAX: usize = 2_000;
/// Experiments of one search for a polluter.
const PROBES_MAX: u32 = 60;
/// Tests of one `andon why --flaky`.
const FLAKY_MAX: u32 = 50;
/// Longest name on a line of progress.
const NAME_CHARS_MAX: usize = 120;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  andon why 12 tests/test_orders.py::test_place\n  andon why 12 \
                  integration/tests/test_orders.py::test_place --times 20 --json\n  andon why --flaky --limit 5      each test \
                  that was flaky before, with other work going first\n\nFindings: a real failure, flaky, polluted by an earlier test, \
                  worker-specific; or that there is not\nenough to tell. Ends with 0 where something was found, 106 where \
                  not. Ctrl-C cancels what was started (130).")]
pub(crate) struct WhyArgs {
    /// Number of the run [default: the latest], then the test as `show` prints it: `suite/id` or `id`
    #[arg(value_name = "RUN|TEST", num_args = 0..=2)]
    words: Vec<String>,
    /// Run it so often under each condition
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(i64::from(TRIES_MIN)..=200))]
    times: u32,
    /// Which attempt, as `show --json` numbers them [default: the first that failed]
    #[arg(long, value_name = "N", conflicts_with = "flaky", value_parser = clap::value_parser!(u64).range(1..))]
    attempt: Option<u64>,
    /// Instead, the tests of this project that were flaky before, the most often flaky first
    #[arg(long, conflicts_with = "words")]
    flaky: bool,
    /// With --flaky: so many tests
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(FLAKY_MAX)))]
    limit: u32,
    #[command(flatten)]
    source: SourceArgs,
    /// As JSON; progress goes to stderr
    #[arg(long)]
    json: bool,
}

/// One failure to look into.
struct Case {
    run: u64,
    test: String,
    attempt: Option<u64>,
    times: u32,
    trigger: Trigger,
}

pub(crate) async fn why(args: WhyArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let connection = farm.connect().await?;
    let started = Started::default();
    let looking = async {
        if args.flaky {
            look_into_flaky(&connection, &started, &args).await
        } else {
            look_into_one(&connection, &started, &args).await
        }
    };
    let ended = tokio::select! {
        ended = looking => ended,
        _ = tokio::signal::ctrl_c() => {
            let count = started.cancel(&connection, "andon why was interrupted").await;
            out::note(&format!("\n{} cancelled", words::plural(count as u64, "run")));
            return Ok(Exit::Interrupted);
        }
    };
    if ended.is_err() {
        started.cancel(&connection, "andon why ended early").await;
    }
    ended
}

async fn look_into_one(connection: &Connection, started: &Started, args: &WhyArgs) -> Result<Exit, CliError> {
    let (number, mut tests) = split_run(&args.words);
    let Some(test) = tests.pop().filter(|_| tests.is_empty()) else {
        return Err(CliError::usage("which test's failure?").hint("andon why RUN TEST, or andon why --flaky"));
    };
    let run = run_or_latest(connection, number, &args.source.of_project()).await?;
    let (attempt, times, trigger) = (args.attempt, args.times, Trigger::Rerun);
    let case = Case { run, test, attempt, times, trigger };
    let report = look_into(connection, started, &case).await?;
    if args.json {
        out::json(&report::json(&report))?;
    } else {
        out::print(&report::text(&report))?;
    }
    Ok(exit_of([&report.finding].into_iter()))
}

async fn look_into_flaky(
    connection: &Connection,
    started: &Started,
    args: &WhyArgs,
) -> Result<Exit, CliError> {
    let project = args.source.of_project();
    if project.is_empty() {
        return Err(CliError::usage("which project's tests?").hint("name it by --project"));
    }
    let request = ListFlakyRequest { project: project.clone(), limit: args.limit };
    let flaky = connection.farm().list_flaky(request).await?.into_inner().tests;
    let mut reports = Vec::new();
    for test in flaky.iter().filter(|test| test.failed_in > 0) {
        let name = Name { suite: test.suite.clone(), id: test.id.clone() }.full();
        let (run, times, trigger) = (test.failed_in, args.times, Trigger::Scheduled);
        let case = Case { run, test: name, attempt: None, times, trigger };
        let report = look_into(connection, started, &case).await?;
        if !args.json {
            out::line(&report::line(&report))?;
        }
        reports.push(report);
    }
    if args.json {
        out::json(&reports.iter().map(report::json).collect::<Vec<_>>())?;
    } else if reports.is_empty() {
        let project = cut(&project, NAME_CHARS_MAX);
        out::line(&format!("no test of {project} was flaky in runs that are kept"))?;
    }
    Ok(exit_of(reports.iter().map(|report| &report.finding)))
}

fn exit_of<'f>(mut findings: impl Iterator<Item = &'f Finding>) -> Exit {
    if findings.any(|finding| matches!(finding, Finding::Unclear(_))) {
        Exit::Incomplete
    } else {
        Exit::Passed
    }
}

async fn look_into(connection: &Connection, started: &Started, case: &Case) -> Result<Report, CliError> {
    let run = follow::whole_run(connection, case.run).await?;
    let test = the_test(&run, &case.test)?;
    let failed = past::failure(test, case.attempt).ok_or_else(|| no_failure(test, case))?;
    let mut before = past::predecessors(&run, failed);
    let left_out = before.len().saturating_sub(PREDECESSORS_MAX);
    before.drain(..left_out);
    let name = Name::of(test);
    progress(&format!(
        "{} failed in run {} on {}, after {} in its unit",
        cut(&name.full(), NAME_CHARS_MAX),
        run.run,
        cut(&failed.worker, NAME_CHARS_MAX),
        words::plural(before.len() as u64, "test"),
    ));
    let lab = Lab::open(connection, started, &run, name.clone(), case.times, case.trigger).await?;
    let mut report = Report::new(run.run, failed, name, before.len(), left_out);
    let evidence = experiments(connection, &lab, failed, &before, &mut report).await?;
    report.finding = judge(&evidence);
    if let Finding::Polluted { after, alone } = report.finding {
        report.culprits =
            Some(search(&lab, &failed.worker, &before, after, alone, &mut report.probes).await?);
    }
    tell(connection, &report).await;
    Ok(report)
}

/// Has the farm remember it, for the test's page. What was found stands also where that does not go well.
async fn tell(connection: &Connection, report: &Report) {
    let request = TellCauseRequest {
        run: report.run,
        suite: report.test.suite.clone(),
        id: report.test.id.clone(),
        finding: report::word(&report.finding).to_owned(),
        said: report::said(report),
    };
    if let Err(status) = connection.farm().tell_cause(request).await {
        out::note(&format!("the farm does not remember it: {}", cut(status.message(), 200)));
    }
}

fn the_test<'r>(run: &'r Run, name: &str) -> Result<&'r Test, CliError> {
    if run.forgotten {
        return Err(CliError::usage(format!(
            "the tests of run {} were deleted: it ended too long ago",
            run.run
        )));
    }
    match *past::named(run, name) {
        [test] => Ok(test),
        [] => Err(CliError::usage(format!("run {} has no test {name:?}", run.run))
            .hint("tests are named as `andon show` prints them, `suite/id` or `id`")),
        _ => Err(CliError::usage(format!("several suites of run {} have a test {name:?}", run.run))
            .hint("name the suite, too: `suite/id`")),
    }
}

fn no_failure(test: &Test, case: &Case) -> CliError {
    let failed: Vec<String> = test
        .attempts
        .iter()
        .filter(|a| past::failure(test, Some(a.attempt)).is_some())
        .map(|a| a.attempt.to_string())
        .collect();
    let said = match case.attempt {
        Some(number) => format!("attempt {number} of {:?} did not fail in run {}", case.test, case.run),
        None => format!("{:?} did not fail in run {}", case.test, case.run),
    };
    if failed.is_empty() {
        CliError::usage(said)
    } else {
        CliError::usage(said).hint(format!("attempts that failed: {}", failed.join(", ")))
    }
}

/// Alone on its worker, and alone on another where there is one, beside each other; then after those that ran before it, where it
/// can matter: what fails each time alone needs nobody.
async fn experiments(
    connection: &Connection,
    lab: &Lab<'_>,
    failed: &Attempt,
    before: &[Name],
    report: &mut Report,
) -> Result<Evidence, CliError> {
    let (here, elsewhere) = places(connection, &failed.worker).await?;
    let alone = async {
        let tried = lab.try_after(&[], here.clone()).await?;
        say("alone, on a pristine baseline", &tried);
        Ok::<_, CliError>(tried)
    };
    let other = async {
        let Some(elsewhere) = elsewhere else { return Ok(None) };
        let tried = lab.try_after(&[], elsewhere).await?;
        say("the same on another worker", &tried);
        Ok::<_, CliError>(Some(tried))
    };
    let (alone, other) = tokio::try_join!(alone, other)?;
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for (worker, tally) in
        [Some(&alone), other.as_ref()].into_iter().flatten().flat_map(|tried| &tried.tallies)
    {
        *tallies.entry(worker.clone()).or_default() += *tally;
    }
    report.alone = Some(alone);
    report.elsewhere = other;
    let needs_nobody = tallies.values().all(|tally| tally.passed == 0);
    let mut after = None;
    if !before.is_empty() && !needs_nobody {
        let tried = lab.try_after(before, here).await?;
        say("after those that ran before it, without a rebase between", &tried);
        after = Some(tried.sum());
        report.after = Some(tried);
    }
    report.alone_by_worker.clone_from(&tallies);
    Ok(Evidence { failed_on: failed.worker.clone(), alone: tallies, after, predecessors: before.len() })
}

/// The worker of the failure, and any other; as far as they take work.
async fn places(connection: &Connection, failed_on: &str) -> Result<(Where, Option<Where>), CliError> {
    let workers = connection.farm().list_workers(ListWorkersRequest {}).await?.into_inner().workers;
    let fit: Vec<_> =
        workers.into_iter().filter(|worker| worker.connected && worker.unfit.is_empty()).collect();
    let is_there = fit.iter().any(|worker| worker.name == failed_on);
    let has_other = fit.iter().any(|worker| worker.name != failed_on);
    let on = if is_there { vec![failed_on.to_owned()] } else { Vec::new() };
    let here = Where { on, off: Vec::new() };
    let other = Where { on: Vec::new(), off: vec![failed_on.to_owned()] };
    Ok((here, (is_there && has_other).then_some(other)))
}

/// Who of those before it makes it fail.
async fn search(
    lab: &Lab<'_>,
    worker: &str,
    before: &[Name],
    after: Tally,
    alone: Tally,
    probes: &mut Vec<Probe>,
) -> Result<Culprits, CliError> {
    let mut search = Bisection::new(before.len(), PROBES_MAX);
    let at = Where { on: vec![worker.to_owned()], off: Vec::new() };
    let mut seen = after;
    while let Some(places) = search.next() {
        let some: Vec<Name> = places.iter().map(|place| before[*place].clone()).collect();
        let tried = lab.try_after(&some, at.clone()).await?;
        let tally = tried.sum();
        say(&format!("after {} of {}", some.len(), words::plural(before.len() as u64, "test")), &tried);
        probes.push(Probe { run: tried.run, before: some, tally });
        if tally.tries() < TRIES_MIN {
            search.give_up();
            break;
        }
        let fails = probe_fails(tally, after, alone);
        if fails {
            seen = tally;
        }
        search.answer(fails);
    }
    let tests = search.suspects().iter().map(|place| before[*place].clone()).collect();
    Ok(Culprits { tests, is_minimal: search.is_minimal(), is_sure: seen.is_worse_than(alone), seen })
}

fn say(what: &str, tried: &Tried) {
    let tally = tried.sum();
    let on: Vec<String> = tried.tallies.keys().map(|name| cut(name, NAME_CHARS_MAX)).collect();
    let on = if on.is_empty() { String::new() } else { format!(" on {}", on.join(", ")) };
    let why = if tally.tries() == 0 { format!(": {}", cut(&tried.reason, 200)) } else { String::new() };
    progress(&format!("{what}: {}{on} (run {}){why}", report::of_tries(tally), tried.run));
}

fn progress(line: &str) {
    out::note(line);
}
