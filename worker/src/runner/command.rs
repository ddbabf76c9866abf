//! The `command` preset: any command that lists tests, any command that runs them.
//!
//! With `{junit}` one call runs the whole unit and its report is read; without it each test is a call of its own and the exit
//! code is its outcome. Invariant: ids are quoted in one pass; the report is read as untrusted input.

use std::time::{Duration, Instant};

use andon_proto::{CommandRunner, Outcome, Suite, TestCase};
use tokio_util::sync::CancellationToken;

use super::cell::{Cell, OUT_FOLDER, SharedOutput};
use super::junit::{self, CaseOutcome};
use super::matching::Index;
use super::progress::{Ended, Exit, describe, last_lines, short};
use super::{DISCOVERY_LIMIT, Found, OUTPUT_BYTES_MAX, Reporter, SuiteView, Witness, ids, template};
use crate::clock;
use crate::engine::{EngineError, HeadTail, OutputSink, OutputStream};
use crate::hands::WorkFailure;

/// Most bytes that a discover command may print.
const LISTING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The report, in the out folder.
const JUNIT_FILE: &str = "junit.xml";
/// Longest life of one command; limits of tests are kept by [`call`].
const CALL_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Standard output whole, up to a limit; standard error head and tail.
struct Listing {
    stdout: Vec<u8>,
    overflow: bool,
    all: HeadTail,
}

impl OutputSink for Listing {
    fn write(&mut self, stream: OutputStream, chunk: &[u8]) {
        self.all.push(chunk);
        if stream == OutputStream::Stdout {
            self.overflow |= self.stdout.len() + chunk.len() > LISTING_BYTES_MAX;
            if !self.overflow {
                self.stdout.extend_from_slice(chunk);
            }
        }
    }
}

/// Lists the tests.
pub(crate) async fn discover(
    cell: &Cell,
    suite: &Suite,
    command: &CommandRunner,
    witness: &dyn Witness,
) -> Result<Found, WorkFailure> {
    let mut listing =
        Listing { stdout: Vec::new(), overflow: false, all: HeadTail::with_limit(OUTPUT_BYTES_MAX) };
    let words = cell.shell("discover.sh", &command.discover)?;
    let code = match cell.exec(words, DISCOVERY_LIMIT, &mut listing).await {
        Ok(code) => code,
        Err(EngineError::TimedOut { .. }) => {
            cell.kill().await;
            witness.check().await?;
            let reason =
                format!("discovery of suite `{}` did not end within {DISCOVERY_LIMIT:?}", suite.name);
            return Err(WorkFailure::config(reason).with_log(listing.all.to_bytes()));
        }
        Err(error) => cell.broken(&error).await?.code,
    };
    let log = listing.all.to_bytes();
    let refuse = |reason: String| {
        WorkFailure::config(format!("discovery of suite `{}`: {reason}", suite.name)).with_log(log.clone())
    };
    if code != 0 {
        let exit = cell.exit(code).await?;
        witness.check().await?;
        return Err(refuse(format!("{}\n{}", describe(&exit), last_lines(&listing.all.to_text()))));
    }
    if listing.overflow {
        return Err(refuse(format!("it printed more than {LISTING_BYTES_MAX} bytes")));
    }
    let tests = ids::ids_of_lines(&listing.stdout).map_err(|refused| refuse(refused.to_string()))?;
    Ok(Found { tests, log })
}

/// How a call ended.
enum Call {
    Exit(Exit),
    Overdue,
    Cancelled,
}

/// What one call of the command printed, and how long it took.
struct Called {
    started_unix_ms: u64,
    spent: u64,
    output: Vec<u8>,
}

async fn call(
    cell: &Cell,
    script: &str,
    limit: Duration,
    reporter: &mut Reporter,
    cancel: &CancellationToken,
) -> Result<(Call, Called), WorkFailure> {
    let output = SharedOutput::new();
    let (began, started_unix_ms) = (Instant::now(), clock::unix_ms());
    reporter.started();
    let words = cell.shell("run.sh", script)?;
    let _live = reporter.follow(&output);
    let mut sink = output.clone();
    let rebases = reporter.rebases();
    let deadline = rebases.within(limit);
    let end = tokio::select! {
        ended = cell.exec(words, CALL_LIMIT, &mut sink) => Call::Exit(match ended {
            Ok(code) => cell.exit(code).await?,
            Err(error) => cell.broken(&error).await?,
        }),
        () = rebases.passed(deadline) => {
            cell.kill().await;
            Call::Overdue
        }
        () = cancel.cancelled() => {
            cell.kill().await;
            Call::Cancelled
        }
    };
    Ok((end, Called { started_unix_ms, spent: millis(began.elapsed()), output: output.to_bytes() }))
}

/// Runs a unit.
pub(crate) async fn run(
    cell: &Cell,
    suite: &Suite,
    command: &CommandRunner,
    tests: Vec<TestCase>,
    reporter: &mut Reporter,
    witness: &dyn Witness,
    cancel: &CancellationToken,
) -> Result<(), WorkFailure> {
    if template::writes_junit(&command.run) {
        return run_batch(cell, suite, command, tests, reporter, witness, cancel).await;
    }
    let limit = SuiteView { suite }.timeout();
    for test in tests {
        let script = template::expand(&command.run, [test.id.as_str()], "");
        let mut cell = cell.clone();
        cell.unit_env.insert("ANDON_ATTEMPT".to_owned(), test.attempt.to_string());
        let (end, called) = call(&cell, &script, limit, reporter, cancel).await?;
        let (outcome, message) = match &end {
            Call::Cancelled => return Ok(()),
            Call::Overdue => (Outcome::TimedOut, format!("the time limit of {limit:?} passed")),
            Call::Exit(Exit { code: 0, .. }) => (Outcome::Passed, String::new()),
            Call::Exit(exit) => {
                let printed = String::from_utf8_lossy(&called.output);
                (Outcome::Failed, format!("{}\n{}", describe(exit), last_lines(&printed)))
            }
        };
        let ended = called.ended(&test, outcome, called.spent, &message, called.output.clone());
        reporter.ended(ended, witness).await?;
        if matches!(end, Call::Overdue | Call::Exit(Exit { disk: Some(_), .. })) {
            // The container is dead: the rest of the unit was not run.
            return Ok(());
        }
    }
    Ok(())
}

async fn run_batch(
    cell: &Cell,
    suite: &Suite,
    command: &CommandRunner,
    tests: Vec<TestCase>,
    reporter: &mut Reporter,
    witness: &dyn Witness,
    cancel: &CancellationToken,
) -> Result<(), WorkFailure> {
    let count = u32::try_from(tests.len()).unwrap_or(u32::MAX);
    let limit = SuiteView { suite }.timeout().saturating_mul(count);
    let junit_path = format!("{OUT_FOLDER}/{JUNIT_FILE}");
    let script = template::expand(&command.run, tests.iter().map(|test| test.id.as_str()), &junit_path);
    let (end, called) = call(cell, &script, limit, reporter, cancel).await?;
    let all = match end {
        Call::Cancelled => return Ok(()),
        Call::Overdue => called.overdue(&tests, limit),
        Call::Exit(exit) => {
            let report = match cell.read_out(JUNIT_FILE, junit::FILE_BYTES_MAX) {
                Ok(Some(bytes)) => junit::read(&bytes).map_err(|refused| refused.to_string()),
                Ok(None) => Err(format!("the command wrote no JUnit file to {junit_path}")),
                Err(why) => Err(why),
            };
            called.judge(&tests, &exit, report)
        }
    };
    for ended in all {
        reporter.ended(ended, witness).await?;
    }
    Ok(())
}

impl Called {
    fn ended(&self, test: &TestCase, outcome: Outcome, run_ms: u64, message: &str, log: Vec<u8>) -> Ended {
        let started_unix_ms = self.started_unix_ms;
        Ended { attempt: test.attempt, outcome, run_ms, message: short(message), log, started_unix_ms }
    }

    /// Nobody knows which test hung: the first has timed out, the rest were not run.
    fn overdue(&self, tests: &[TestCase], limit: Duration) -> Vec<Ended> {
        let message = format!("the time limit of {limit:?} for {} test(s) passed", tests.len());
        let first = tests.first();
        first
            .map(|test| self.ended(test, Outcome::TimedOut, self.spent, &message, self.output.clone()))
            .into_iter()
            .collect()
    }

    fn judge(&self, tests: &[TestCase], exit: &Exit, report: Result<junit::Report, String>) -> Vec<Ended> {
        let (report, fault) = match report {
            Ok(report) => (report, None),
            Err(why) => (junit::Report::default(), Some(why)),
        };
        let index = Index::new(&report.cases);
        let mut all = Vec::new();
        for test in tests {
            match index.judge(&test.id) {
                Some(judged) => {
                    let outcome = match judged.outcome {
                        CaseOutcome::Passed => Outcome::Passed,
                        CaseOutcome::Skipped => Outcome::Skipped,
                        CaseOutcome::Failed => Outcome::Failed,
                    };
                    let message = match (judged.outcome, judged.message.is_empty()) {
                        (CaseOutcome::Passed, _) => "",
                        (_, true) => judged.log.as_str(),
                        (_, false) => judged.message.as_str(),
                    };
                    let log = if tests.len() == 1 { self.output.clone() } else { Vec::new() };
                    all.push(self.ended(
                        test,
                        outcome,
                        judged.ms,
                        message,
                        join(judged.log.clone().into_bytes(), log),
                    ));
                }
                // A command that died half-way: what it did not get to goes back to the queue, after one that tells.
                None if exit.code != 0 && (report.cut_short || fault.is_some()) && !all.is_empty() => {}
                None => all.push(self.unreported(test, exit, fault.as_deref(), &report)),
            }
        }
        all
    }

    fn unreported(&self, test: &TestCase, exit: &Exit, fault: Option<&str>, report: &junit::Report) -> Ended {
        let why = match fault {
            Some(why) => format!("{why}; the command ended with {}", describe(exit)),
            None => {
                let names: Vec<String> = report
                    .cases
                    .iter()
                    .take(5)
                    .map(|case| format!("{}.{}", case.classname, case.name))
                    .collect();
                format!(
                    "the command ended with {}, and its JUnit file has no case for this test; it has {}: {}",
                    describe(exit),
                    report.cases.len(),
                    names.join(", ")
                )
            }
        };
        let message = format!("{why}\n{}", last_lines(&String::from_utf8_lossy(&self.output)));
        self.ended(test, Outcome::Failed, self.spent, &message, self.output.clone())
    }
}

fn join(mut log: Vec<u8>, output: Vec<u8>) -> Vec<u8> {
    if !output.is_empty() {
        log.extend_from_slice(b"--- output of the command ---\n");
        log.extend(output);
    }
    log
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests(ids: &[&str]) -> Vec<TestCase> {
        ids.iter()
            .enumerate()
            .map(|(n, id)| TestCase { attempt: n as u64 + 1, id: (*id).to_owned() })
            .collect()
    }

    fn batch() -> Called {
        Called { started_unix_ms: 9, spent: 77, output: b"Segmentation fault\n".to_vec() }
    }

    fn outcomes(all: &[Ended]) -> Vec<(u64, Outcome)> {
        all.iter().map(|one| (one.attempt, one.outcome)).collect()
    }

    const FINE: Exit = Exit { code: 0, out_of_memory: false, memory_bytes: 0, disk: None };
    const CRASHED: Exit = Exit { code: 139, out_of_memory: false, memory_bytes: 0, disk: None };

    #[test]
    fn a_report_gives_each_test_its_own_outcome() {
        let report = junit::read(
            b"<testsuite><testcase name='a' time='0.5'/><testcase name='b'><error message='bad'/></testcase>
              <testcase name='c'><skipped message='no'/></testcase></testsuite>",
        );
        let all = batch().judge(&tests(&["a", "b", "c"]), &FINE, report.map_err(|e| e.to_string()));
        assert_eq!(outcomes(&all), [(1, Outcome::Passed), (2, Outcome::Failed), (3, Outcome::Skipped)]);
        assert_eq!((all[0].run_ms, all[1].message.as_str()), (500, "bad"));
    }

    #[test]
    fn a_test_that_the_report_does_not_know_has_failed_and_says_what_the_report_has() {
        let report = junit::read(b"<testsuite><testcase name='other' classname='K'/></testsuite>");
        let all = batch().judge(&tests(&["a"]), &FINE, report.map_err(|e| e.to_string()));
        assert_eq!(outcomes(&all), [(1, Outcome::Failed)]);
        assert!(all[0].message.contains("K.other"), "{}", all[0].message);
    }

    #[test]
    fn a_crash_without_a_report_fails_the_first_and_leaves_the_rest() {
        let all =
            batch().judge(&tests(&["a", "b", "c"]), &CRASHED, Err("the command wrote no JUnit file".into()));
        assert_eq!(outcomes(&all), [(1, Outcome::Failed)]);
        assert!(all[0].message.contains("SIGSEGV") && all[0].message.contains("Segmentation fault"));
    }

    #[test]
    fn a_batch_over_its_limit_times_out_its_first_test() {
        let all = batch().overdue(&tests(&["a", "b"]), Duration::from_secs(4));
        assert_eq!(outcomes(&all), [(1, Outcome::TimedOut)]);
    }
}
