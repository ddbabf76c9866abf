//! The `pytest` preset: Andon's plugin inside pytest, a job in by one named pipe, events out by another.
//!
//! A process can be started before its unit is known ([`warm_up`]): it has loaded Python and pytest and waits on the job pipe,
//! with none of the project's code imported. Invariant: ids travel as JSON, never by a command line.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use andon_proto::{PytestRunner, Suite, TestCase};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::cell::{Cell, EVENTS_FILE, JOB_FILE, OUT_FOLDER, RUNNERS_FOLDER, SharedOutput};
use super::event::{Event, Job, Lines};
use super::progress::{Exit, Progress, Step, describe, last_lines};
use super::{DISCOVERY_LIMIT, Found, Reporter, SuiteView, Witness, ids};
use crate::clock;
use crate::engine::{EngineError, ExecSpec};
use crate::hands::WorkFailure;

/// The plugin's file in the runners folder.
pub const PLUGIN_FILE: &str = "andon_pytest.py";
/// The plugin.
pub const PLUGIN_SOURCE: &str = include_str!("../../../ci/runners/andon_pytest.py");

/// How pytest is called where the suite does not say.
const COMMAND_DEFAULT: &str = "python3 -m pytest";
/// Longest life of one pytest process, waiting included; limits of tests are kept by [`run`].
const PROCESS_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// A process that waited longer than this is not used any more.
const WARM_AGE_MAX: Duration = Duration::from_secs(12 * 3600);
/// The plugin says itself when a limit passes, with stacks; this much later it is not waited for.
const OVERDUE_GRACE: Duration = Duration::from_millis(1500);
/// Read from the event pipe at once.
const READ_BYTES: usize = 64 * 1024;

/// A pytest process that waits for its job.
#[derive(Debug)]
pub struct Warm {
    process: Result<Process, WorkFailure>,
    since: Instant,
}

impl Warm {
    /// Whether it can still be used.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.since.elapsed() < WARM_AGE_MAX
            && self.process.as_ref().is_ok_and(|process| !process.exec.is_finished())
    }
}

#[derive(Debug)]
struct Process {
    exec: JoinHandle<Result<i64, EngineError>>,
    output: SharedOutput,
    events: pipe::Receiver,
    job: Option<pipe::Sender>,
    lines: Lines,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.exec.abort();
    }
}

/// Starts pytest up to the point where it needs to know its job.
pub(crate) fn warm_up(cell: &Cell, pytest: &PytestRunner) -> Warm {
    Warm { process: launch(cell, pytest), since: Instant::now() }
}

fn launch(cell: &Cell, pytest: &PytestRunner) -> Result<Process, WorkFailure> {
    let pipe_failed = |error: std::io::Error| {
        WorkFailure::infrastructure(format!("cannot open the pipes in {}: {error}", cell.out_dir.display()))
    };
    // Read and write, so that neither side sees an end when the other comes and goes.
    let mut options = pipe::OpenOptions::new();
    options.read_write(true);
    let events = options.open_receiver(cell.out_dir.join(EVENTS_FILE)).map_err(pipe_failed)?;
    let job = options.open_sender(cell.out_dir.join(JOB_FILE)).map_err(pipe_failed)?;
    let command = if pytest.command.is_empty() { COMMAND_DEFAULT } else { &pytest.command };
    let mut words = vec!["sh".to_owned(), "-c".to_owned(), format!("{command} \"$@\""), "sh".to_owned()];
    words.extend(["-p", "andon_pytest"].map(str::to_owned));
    words.extend(pytest.args.iter().cloned());
    let mut spec = ExecSpec::new(words, PROCESS_LIMIT);
    let python_path = match cell.python_path.as_str() {
        "" => RUNNERS_FOLDER.to_owned(),
        kept => format!("{RUNNERS_FOLDER}:{kept}"),
    };
    spec.env.push(("PYTHONPATH".to_owned(), python_path));
    spec.env.push(("ANDON_PYTEST_JOB".to_owned(), format!("{OUT_FOLDER}/{JOB_FILE}")));
    let output = SharedOutput::new();
    let (engine, container, mut sink) = (cell.engine.clone(), cell.container.clone(), output.clone());
    let exec = tokio::spawn(async move { engine.exec(&container, &spec, &mut sink).await });
    Ok(Process { exec, output, events, job: Some(job), lines: Lines::default() })
}

/// What came from the process.
enum Heard {
    Events(Vec<Event>),
    Ended(Result<i64, EngineError>),
}

impl Process {
    /// Hands the job over in the background: a long one fills the pipe before pytest reads it.
    fn give(&mut self, job: &Job<'_>) -> JoinHandle<Option<pipe::Sender>> {
        let mut line = serde_json::to_vec(job).expect("a job is plain data");
        line.push(b'\n');
        let mut pipe = self.job.take();
        tokio::spawn(async move {
            if let Some(pipe) = &mut pipe
                && let Err(error) = pipe.write_all(&line).await
            {
                tracing::warn!(%error, "writing a job to a runner");
            }
            // Kept open by who holds the handle.
            pipe
        })
    }

    async fn next(&mut self) -> Heard {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            tokio::select! {
                biased;
                read = self.events.read(&mut buffer) => {
                    let count = read.unwrap_or(0);
                    let events = self.lines.push(&buffer[..count]);
                    if !events.is_empty() {
                        return Heard::Events(events);
                    }
                }
                ended = &mut self.exec => {
                    return Heard::Ended(ended.unwrap_or_else(|error| Err(EngineError::Protocol {
                        what: "run pytest".to_owned(),
                        message: error.to_string(),
                    })));
                }
            }
        }
    }

    /// What the process wrote before it ended and was not read yet.
    fn rest(&mut self) -> Vec<Event> {
        let mut buffer = vec![0; READ_BYTES];
        let mut events = Vec::new();
        while let Ok(count) = self.events.try_read(&mut buffer) {
            if count == 0 {
                break;
            }
            events.extend(self.lines.push(&buffer[..count]));
        }
        events
    }
}

async fn exit_of(cell: &Cell, ended: Result<i64, EngineError>) -> Result<Exit, WorkFailure> {
    match ended {
        Ok(code) => cell.exit(code).await,
        Err(error) => cell.broken(&error).await,
    }
}

fn job<'a>(cell: &'a Cell, mode: &'static str, events: &'a str) -> Job<'a> {
    let env: BTreeMap<&str, &str> =
        cell.unit_env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Job { mode, events, tests: Vec::new(), attempts: Vec::new(), timeout_ms: 0, rebase: false, env }
}

/// Lists the tests.
pub(crate) async fn discover(cell: &Cell, warm: Warm, witness: &dyn Witness) -> Result<Found, WorkFailure> {
    let mut process = warm.process?;
    let events_path = format!("{OUT_FOLDER}/{EVENTS_FILE}");
    let _job = process.give(&job(cell, "discover", &events_path));
    let mut discovery = Discovery::default();
    let listening = async {
        loop {
            match process.next().await {
                Heard::Events(events) => events.into_iter().for_each(|event| discovery.take(event)),
                Heard::Ended(ended) => break ended,
            }
        }
    };
    let ended = tokio::time::timeout(DISCOVERY_LIMIT, listening).await;
    let Ok(ended) = ended else {
        cell.kill().await;
        witness.check().await?;
        return Err(WorkFailure::config(format!(
            "pytest did not finish collecting within {DISCOVERY_LIMIT:?}"
        ))
        .with_log(process.output.to_bytes()));
    };
    process.rest().into_iter().for_each(|event| discovery.take(event));
    let exit = exit_of(cell, ended).await?;
    match discovery.finish(&exit, &process.output.to_text()) {
        Ok(tests) => Ok(Found { tests, log: process.output.to_bytes() }),
        Err(reason) => {
            witness.check().await?;
            Err(WorkFailure::config(reason).with_log(process.output.to_bytes()))
        }
    }
}

/// Exit code of pytest for a collection that found nothing.
const EXIT_NO_TESTS: i64 = 5;

#[derive(Debug, Default)]
struct Discovery {
    tests: Vec<String>,
    refused: Vec<String>,
    errors: Vec<String>,
    over: bool,
}

impl Discovery {
    fn take(&mut self, event: Event) {
        match event {
            // One more than is allowed is enough to refuse.
            Event::Test { id } if self.tests.len() <= ids::IDS_MAX => self.tests.push(id),
            Event::Refused { id, why } if self.refused.len() < 10 => {
                self.refused.push(format!("  {id} {why}"));
            }
            Event::CollectError { id, message, .. } if self.errors.len() < 5 => {
                self.errors.push(format!("{id}: {message}"));
            }
            Event::End => self.over = true,
            _ => {}
        }
    }

    fn finish(self, exit: &Exit, output: &str) -> Result<Vec<String>, String> {
        if exit.code == EXIT_NO_TESTS && self.tests.is_empty() {
            return Ok(Vec::new());
        }
        if exit.code != 0 {
            let why = if self.errors.is_empty() { last_lines(output) } else { self.errors.join("\n") };
            return Err(format!("pytest cannot collect the tests: {}\n{why}", describe(exit)));
        }
        if !self.over {
            return Err(format!(
                "the suite's pytest command ended without Andon's plugin in it\n{}",
                last_lines(output)
            ));
        }
        if !self.refused.is_empty() {
            return Err(format!("test id(s) are refused:\n{}", self.refused.join("\n")));
        }
        ids::check(self.tests.iter().map(String::as_bytes)).map_err(|refused| refused.to_string())
    }
}

/// Runs a unit.
pub(crate) async fn run(
    cell: &Cell,
    suite: &Suite,
    warm: Warm,
    tests: Vec<TestCase>,
    reporter: &mut Reporter,
    witness: &dyn Witness,
    cancel: &CancellationToken,
) -> Result<(), WorkFailure> {
    let mut process = warm.process?;
    let view = SuiteView { suite };
    let limit = view.timeout();
    let events_path = format!("{OUT_FOLDER}/{EVENTS_FILE}");
    let mut job = job(cell, "run", &events_path);
    job.tests = tests.iter().map(|test| test.id.as_str()).collect();
    job.attempts = tests.iter().map(|test| test.attempt).collect();
    job.timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    job.rebase = suite.rebase_within;
    let limit_ms = job.timeout_ms;
    let _job = process.give(&job);
    let _live = reporter.follow(&process.output);
    let mut unit = Progress::new(tests.clone());
    let rebases = reporter.rebases();
    let mut deadline = rebases.within(view.startup_limit());
    loop {
        let heard = tokio::select! {
            () = cancel.cancelled() => {
                cell.kill().await;
                return Ok(());
            }
            heard = process.next() => heard,
            () = rebases.passed(deadline) => {
                cell.kill().await;
                let log = process.output.to_bytes();
                return late(unit.overdue(limit_ms, log), reporter, witness).await;
            }
        };
        let (events, ended) = match heard {
            Heard::Events(events) => (events, None),
            Heard::Ended(ended) => (process.rest(), Some(ended)),
        };
        for event in events {
            match unit.take(event, clock::unix_ms()) {
                Step::Nothing => continue,
                Step::Started => reporter.started(),
                Step::Ended(all) => {
                    for one in all {
                        reporter.ended(one, witness).await?;
                    }
                }
                Step::Overdue(state) => {
                    cell.kill().await;
                    let mut log = state.into_bytes();
                    log.extend_from_slice(b"\n--- output of the runner ---\n");
                    log.extend(process.output.to_bytes());
                    return late(unit.overdue(limit_ms, log), reporter, witness).await;
                }
            }
            deadline = rebases.within(limit + OVERDUE_GRACE);
        }
        if unit.is_complete() {
            // What a finished process would still do at its exit is of no use: its container goes.
            return Ok(());
        }
        if let Some(ended) = ended {
            let exit = exit_of(cell, ended).await?;
            return late(unit.exited(&exit, clock::unix_ms(), process.output.to_bytes()), reporter, witness)
                .await;
        }
    }
}

async fn late(
    ended: Option<super::progress::Ended>,
    reporter: &mut Reporter,
    witness: &dyn Witness,
) -> Result<(), WorkFailure> {
    match ended {
        Some(ended) => reporter.ended(ended, witness).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Exit = Exit { code: 0, out_of_memory: false, memory_bytes: 0, disk: None };

    fn found(ids: &[&str]) -> Discovery {
        let mut discovery = Discovery::default();
        ids.iter().for_each(|id| discovery.take(Event::Test { id: (*id).to_owned() }));
        discovery.take(Event::End);
        discovery
    }

    #[test]
    fn found_ids_keep_their_order() {
        assert_eq!(found(&["b", "a"]).finish(&FINE, "").unwrap(), ["b", "a"]);
    }

    #[test]
    fn finding_nothing_is_an_empty_list_and_failing_is_not() {
        let nothing = Exit { code: 5, out_of_memory: false, memory_bytes: 0, disk: None };
        assert_eq!(found(&[]).finish(&nothing, ""), Ok(Vec::new()));
        let failed = Exit { code: 2, out_of_memory: false, memory_bytes: 0, disk: None };
        let mut discovery = found(&["a"]);
        discovery.take(Event::CollectError {
            id: "t.py".into(),
            message: "ImportError".into(),
            log: String::new(),
        });
        let reason = discovery.finish(&failed, "noise").unwrap_err();
        assert!(reason.contains("exit code 2") && reason.contains("t.py: ImportError"), "{reason}");
    }

    #[test]
    fn a_command_that_does_not_load_the_plugin_is_told_so() {
        let reason = Discovery::default().finish(&FINE, "hello").unwrap_err();
        assert!(reason.contains("without Andon's plugin") && reason.contains("hello"), "{reason}");
    }

    #[test]
    fn a_name_that_cannot_be_carried_refuses_the_list_by_name() {
        let mut discovery = found(&["a"]);
        discovery.take(Event::Refused { id: "'b\\udcff'".into(), why: "its name is not UTF-8".into() });
        assert!(discovery.finish(&FINE, "").unwrap_err().contains("'b\\udcff' its name is not UTF-8"));
    }
}
