//! Carries a preset's courses out: runs their calls in the container, hands on what they print, keeps time limits.
//!
//! The one place where presets, the container and results meet; must not know any tool. Invariants: a limit that passes kills the
//! whole container; what waits to be heard is bounded; after a container's end no further call is made in it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use andon_proto::{Suite, TestCase};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::cell::{Cell, EVENTS_FILE, JOB_FILE, SharedOutput};
use super::event::Event;
use super::preset::{Call, CallEnd, Course, Limit, Options, Preset, Source, Surroundings, Unit, Words};
use super::progress::{Ended, Exit, Progress, Step};
use super::rebases::{Deadline, Rebases};
use super::{DISCOVERY_LIMIT, Found, Reporter, SuiteView, Witness, ids};
use crate::clock;
use crate::engine::{EngineError, ExecSpec, OutputSink, OutputStream};
use crate::hands::WorkFailure;

/// Longest life of one process, waiting included; limits of tests are kept by [`run`].
const PROCESS_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// A process that waited longer than this is not used any more.
const WARM_AGE_MAX: Duration = Duration::from_secs(12 * 3600);
/// A runner that knows its job says itself when a limit passes, with stacks; this much later it is not waited for.
const OVERDUE_GRACE: Duration = Duration::from_millis(1500);
/// Read from the event pipe at once.
const READ_BYTES: usize = 64 * 1024;
/// Printed and not yet read by the course; what comes beyond it is lost to the course, not to the log.
const HEARD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How many refused ids, and how many collection errors, a message names.
const NAMED_MAX: usize = 10;

/// A process that waits for its job.
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

/// Printed, and not read yet.
#[derive(Debug, Clone, Default)]
struct Heard(Arc<(Mutex<Vec<(Source, Vec<u8>)>>, Notify)>);

impl Heard {
    fn push(&self, stream: OutputStream, chunk: &[u8]) {
        let (queue, news) = &*self.0;
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting: usize = queue.iter().map(|(_, bytes)| bytes.len()).sum();
        if waiting + chunk.len() <= HEARD_BYTES_MAX {
            let source = match stream {
                OutputStream::Stdout => Source::Stdout,
                OutputStream::Stderr => Source::Stderr,
            };
            match queue.last_mut() {
                Some((last, bytes)) if *last == source => bytes.extend_from_slice(chunk),
                _ => queue.push((source, chunk.to_owned())),
            }
        }
        news.notify_one();
    }

    fn take(&self) -> Vec<(Source, Vec<u8>)> {
        std::mem::take(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The log's copy, and the course's.
struct Tee {
    log: SharedOutput,
    heard: Heard,
}

impl OutputSink for Tee {
    fn write(&mut self, stream: OutputStream, chunk: &[u8]) {
        self.log.write(stream, chunk);
        self.heard.push(stream, chunk);
    }
}

#[derive(Debug)]
struct Process {
    exec: JoinHandle<Result<i64, EngineError>>,
    output: SharedOutput,
    heard: Heard,
    events: pipe::Receiver,
    job: Option<pipe::Sender>,
    began: Instant,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.exec.abort();
    }
}

/// What came from the process.
enum News {
    Bytes(Vec<(Source, Vec<u8>)>),
    Ended(Result<i64, EngineError>),
}

impl Process {
    fn launch(cell: &Cell, call: &Call) -> Result<Self, WorkFailure> {
        let pipe_failed = |error: std::io::Error| {
            WorkFailure::infrastructure(format!(
                "cannot open the pipes in {}: {error}",
                cell.out_dir.display()
            ))
        };
        // Read and write, so that neither side sees an end when the other comes and goes.
        let mut options = pipe::OpenOptions::new();
        options.read_write(true);
        let events = options.open_receiver(cell.out_dir.join(EVENTS_FILE)).map_err(pipe_failed)?;
        let job = options.open_sender(cell.out_dir.join(JOB_FILE)).map_err(pipe_failed)?;
        let words = match &call.words {
            Words::Plain(words) => words.clone(),
            Words::Script(name, script) => cell.shell(name, script)?,
        };
        let mut spec = ExecSpec::new(words, PROCESS_LIMIT);
        // Who gets a job finds the unit's environment in it: it may have been started before there was a unit.
        if call.job.is_none() {
            spec.env.extend(cell.unit_env.clone());
        }
        spec.env.extend(call.env.iter().cloned());
        let (output, heard) = (SharedOutput::new(), Heard::default());
        let mut sink = Tee { log: output.clone(), heard: heard.clone() };
        let (engine, container) = (cell.engine.clone(), cell.container.clone());
        let exec = tokio::spawn(async move { engine.exec(&container, &spec, &mut sink).await });
        Ok(Self { exec, output, heard, events, job: Some(job), began: Instant::now() })
    }

    /// Hands the job over in the background: a long one fills the pipe before the runner reads it.
    fn give(&mut self, mut line: Vec<u8>) -> JoinHandle<Option<pipe::Sender>> {
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

    async fn next(&mut self) -> News {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let printed = self.heard.take();
            if !printed.is_empty() {
                return News::Bytes(printed);
            }
            tokio::select! {
                biased;
                read = self.events.read(&mut buffer) => {
                    let count = read.unwrap_or(0);
                    if count > 0 {
                        return News::Bytes(vec![(Source::Events, buffer[..count].to_vec())]);
                    }
                }
                () = self.heard.0.1.notified() => {}
                ended = &mut self.exec => {
                    return News::Ended(ended.unwrap_or_else(|error| Err(EngineError::Protocol {
                        what: "run a test runner".to_owned(),
                        message: error.to_string(),
                    })));
                }
            }
        }
    }

    /// What the process said before it ended and was not read yet.
    fn rest(&mut self) -> Vec<(Source, Vec<u8>)> {
        let mut all = self.heard.take();
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count) = self.events.try_read(&mut buffer) {
            if count == 0 {
                break;
            }
            all.push((Source::Events, buffer[..count].to_vec()));
        }
        all
    }
}

fn hear(course: &mut dyn Course, bytes: Vec<(Source, Vec<u8>)>) -> Vec<Event> {
    let mut events = Vec::new();
    for (from, bytes) in bytes {
        course.hear(from, &bytes, &mut events);
    }
    events
}

/// How the process ended, and whether the container did with it.
async fn exit_of(cell: &Cell, ended: Result<i64, EngineError>) -> Result<(Exit, bool), WorkFailure> {
    match ended {
        Ok(code) => {
            let exit = cell.exit(code).await?;
            let is_over = exit.disk.is_some();
            Ok((exit, is_over))
        }
        Err(error) => cell.broken(&error).await.map(|exit| (exit, true)),
    }
}

fn conclude(
    cell: &Cell,
    course: &mut dyn Course,
    process: &Process,
    exit: &Exit,
    events: &mut Vec<Event>,
) -> Result<(), String> {
    let output = process.output.to_bytes();
    let read_out = |name: &str, bytes_max: u64| cell.read_out(name, bytes_max);
    let spent_ms = u64::try_from(process.began.elapsed().as_millis()).unwrap_or(u64::MAX);
    course.ended(&CallEnd { exit, spent_ms, output: &output, read_out: &read_out }, events)
}

fn surroundings(cell: &Cell) -> Surroundings {
    Surroundings {
        python_path: cell.python_path.clone(),
        env: cell.unit_env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}

/// Starts what can be started before the unit is known. `None` where nothing can.
pub(super) fn warm_up(cell: &Cell, preset: &dyn Preset, options: &Options) -> Option<Warm> {
    let call = preset.warm(options, &surroundings(cell))?;
    Some(Warm { process: Process::launch(cell, &call), since: Instant::now() })
}

/// Of a call: the process that waits, where there is one, else a new one.
fn start(cell: &Cell, call: &Call, warm: &mut Option<Warm>) -> Result<Process, WorkFailure> {
    match warm.take().filter(|_| call.job.is_some()) {
        Some(warm) => warm.process,
        None => Process::launch(cell, call),
    }
}

/// Lists the tests.
pub(super) async fn discover(
    cell: &Cell,
    preset: &dyn Preset,
    suite: &Suite,
    options: &Options,
    mut warm: Option<Warm>,
    witness: &dyn Witness,
) -> Result<Found, WorkFailure> {
    let mut course = preset.discovery(options, &surroundings(cell));
    let mut found = Listing::default();
    let mut log = Vec::new();
    let deadline = tokio::time::Instant::now() + DISCOVERY_LIMIT;
    while let Some(call) = course.next() {
        let mut process = start(cell, &call, &mut warm)?;
        let _job = call.job.clone().map(|job| process.give(job));
        let listening = async {
            loop {
                match process.next().await {
                    News::Bytes(bytes) => found.take(hear(course.as_mut(), bytes)),
                    News::Ended(ended) => break ended,
                }
            }
        };
        let Ok(ended) = tokio::time::timeout_at(deadline, listening).await else {
            cell.kill().await;
            witness.check().await?;
            let reason =
                format!("discovery of suite `{}` did not end within {DISCOVERY_LIMIT:?}", suite.name);
            return Err(WorkFailure::config(reason).with_log(process.output.to_bytes()));
        };
        let rest = process.rest();
        found.take(hear(course.as_mut(), rest));
        let (exit, _) = exit_of(cell, ended).await?;
        let mut events = Vec::new();
        let concluded = conclude(cell, course.as_mut(), &process, &exit, &mut events);
        found.take(events);
        log = process.output.to_bytes();
        if let Err(reason) = concluded {
            witness.check().await?;
            let reason = format!("discovery of suite `{}`: {}", suite.name, found.explain(reason));
            return Err(WorkFailure::config(reason).with_log(log));
        }
    }
    found.finish().map(|tests| Found { tests, log: log.clone() }).map_err(|reason| {
        WorkFailure::config(format!("discovery of suite `{}`: {reason}", suite.name)).with_log(log)
    })
}

/// What a discovery has found so far.
#[derive(Debug, Default)]
struct Listing {
    tests: Vec<String>,
    refused: Vec<String>,
    errors: Vec<String>,
}

impl Listing {
    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                // One more than is allowed is enough to refuse.
                Event::Test { id } if self.tests.len() <= ids::IDS_MAX => self.tests.push(id),
                Event::Refused { id, why } if self.refused.len() < NAMED_MAX => {
                    self.refused.push(format!("  {id} {why}"));
                }
                Event::CollectError { id, message, .. } if self.errors.len() < NAMED_MAX => {
                    self.errors.push(format!("{id}: {message}"));
                }
                _ => {}
            }
        }
    }

    /// A failure, with what could not be collected.
    fn explain(&self, reason: String) -> String {
        if self.errors.is_empty() { reason } else { format!("{reason}\n{}", self.errors.join("\n")) }
    }

    fn finish(self) -> Result<Vec<String>, String> {
        if !self.refused.is_empty() {
            return Err(format!("test id(s) are refused:\n{}", self.refused.join("\n")));
        }
        ids::check(self.tests.iter().map(String::as_bytes)).map_err(|refused| refused.to_string())
    }
}

/// A unit and where it runs.
pub(super) struct Work<'a> {
    /// The container.
    pub(super) cell: &'a Cell,
    /// As in the specification.
    pub(super) suite: &'a Suite,
    /// Of its runner.
    pub(super) options: &'a Options,
    /// In order.
    pub(super) tests: Vec<TestCase>,
}

/// Runs a unit.
pub(super) async fn run(
    work: Work<'_>,
    preset: &dyn Preset,
    warm: Option<Warm>,
    reporter: &mut Reporter,
    witness: &dyn Witness,
    cancel: &CancellationToken,
) -> Result<(), WorkFailure> {
    let Work { cell, suite, options, tests } = work;
    let view = SuiteView { suite };
    let timeout_ms = u64::try_from(view.timeout().as_millis()).unwrap_or(u64::MAX);
    let unit = Unit { tests: tests.clone(), timeout_ms, rebase: suite.rebase_within };
    let course = preset.unit(options, &surroundings(cell), &unit);
    let rebases = reporter.rebases();
    let progress = Progress::new(tests.clone());
    let tests = tests.len();
    let mut drive =
        Drive { cell, view, tests, course, progress, rebases, reporter, witness, cancel, last: None };
    drive.run(warm).await
}

struct Drive<'a> {
    cell: &'a Cell,
    view: SuiteView<'a>,
    /// How many.
    tests: usize,
    course: Box<dyn Course>,
    progress: Progress,
    rebases: Rebases,
    reporter: &'a mut Reporter,
    witness: &'a dyn Witness,
    cancel: &'a CancellationToken,
    /// How the last call ended that no test's end came with, and what it printed.
    last: Option<(Exit, Vec<u8>)>,
}

/// Whether the unit goes on.
#[derive(PartialEq, Eq)]
enum Then {
    NextCall,
    Over,
}

impl Drive<'_> {
    async fn run(&mut self, mut warm: Option<Warm>) -> Result<(), WorkFailure> {
        while let Some(call) = self.course.next() {
            let process = start(self.cell, &call, &mut warm)?;
            if self.attend(&call, process).await? == Then::Over {
                break;
            }
            if self.progress.is_complete() {
                return Ok(());
            }
        }
        // Where nothing has come of the whole unit, something must.
        if let Some((exit, output)) = self.last.take() {
            let ended = self.progress.exited(&exit, clock::unix_ms(), output);
            self.report(ended).await?;
        }
        Ok(())
    }

    fn limit(&self, call: &Call) -> Duration {
        match call.limit {
            Limit::Each if call.job.is_some() => self.view.timeout() + OVERDUE_GRACE,
            Limit::Each => self.view.timeout(),
            Limit::Whole(tests) => self.view.timeout().saturating_mul(tests),
        }
    }

    /// From the beginning of a call to its end.
    async fn attend(&mut self, call: &Call, mut process: Process) -> Result<Then, WorkFailure> {
        let _job = call.job.clone().map(|job| process.give(job));
        let _live = self.reporter.follow(&process.output);
        let mut deadline = self.rebases.within(match call.limit {
            Limit::Each => self.view.startup_limit(),
            Limit::Whole(_) => self.limit(call),
        });
        if call.limit != Limit::Each {
            self.reporter.started();
        }
        if let Some(id) = &call.alone {
            let begin = vec![Event::Start { id: id.clone() }];
            self.take(begin, call, &process, &mut deadline).await?;
        }
        loop {
            let cancel = self.cancel;
            let rebases = self.rebases.clone();
            let news = tokio::select! {
                () = cancel.cancelled() => {
                    self.cell.kill().await;
                    return Ok(Then::Over);
                }
                news = process.next() => news,
                () = rebases.passed(deadline) => {
                    self.cell.kill().await;
                    self.overdue(call, process.output.to_bytes()).await?;
                    return Ok(Then::Over);
                }
            };
            let (bytes, ended) = match news {
                News::Bytes(bytes) => (bytes, None),
                News::Ended(ended) => (process.rest(), Some(ended)),
            };
            let events = hear(self.course.as_mut(), bytes);
            let then = self.take(events, call, &process, &mut deadline).await?;
            if then == Then::Over || self.progress.is_complete() {
                // What a finished process would still do at its exit is of no use: its container goes.
                return Ok(Then::Over);
            }
            if let Some(ended) = ended {
                return self.conclude(call, process, ended).await;
            }
        }
    }

    /// Events into results.
    async fn take(
        &mut self,
        events: Vec<Event>,
        call: &Call,
        process: &Process,
        deadline: &mut Deadline,
    ) -> Result<Then, WorkFailure> {
        for event in events {
            match self.progress.take(event, clock::unix_ms()) {
                Step::Nothing => continue,
                Step::Started => self.reporter.started(),
                Step::Ended(all) => self.report(all).await?,
                Step::Overdue(state) => {
                    self.cell.kill().await;
                    let mut log = state.into_bytes();
                    log.extend_from_slice(b"\n--- output of the runner ---\n");
                    log.extend(process.output.to_bytes());
                    self.overdue(call, log).await?;
                    return Ok(Then::Over);
                }
            }
            if call.limit == Limit::Each {
                *deadline = self.rebases.within(self.limit(call));
            }
        }
        Ok(Then::NextCall)
    }

    async fn report(&mut self, all: impl IntoIterator<Item = Ended>) -> Result<(), WorkFailure> {
        for one in all {
            self.reporter.ended(one, self.witness).await?;
        }
        Ok(())
    }

    async fn overdue(&mut self, call: &Call, log: Vec<u8>) -> Result<(), WorkFailure> {
        let limit = match call.limit {
            Limit::Each => self.view.timeout(),
            Limit::Whole(_) => self.limit(call),
        };
        let whole = matches!(call.limit, Limit::Whole(_)).then_some(self.tests);
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let ended = self.progress.overdue(limit_ms, whole, log);
        self.report(ended).await
    }

    async fn conclude(
        &mut self,
        call: &Call,
        process: Process,
        ended: Result<i64, EngineError>,
    ) -> Result<Then, WorkFailure> {
        let (exit, is_over) = exit_of(self.cell, ended).await?;
        let mut events = Vec::new();
        let concluded = conclude(self.cell, self.course.as_mut(), &process, &exit, &mut events);
        let mut no_deadline = self.rebases.within(PROCESS_LIMIT);
        self.take(events, call, &process, &mut no_deadline).await?;
        let (now, output) = (clock::unix_ms(), process.output.to_bytes());
        if let Err(reason) = &concluded {
            let ended = self.progress.refused(reason, now, output);
            self.report(ended).await?;
            return Ok(Then::Over);
        }
        if self.progress.is_running() {
            let ended = self.progress.exited(&exit, now, output);
            self.report(ended).await?;
        } else {
            self.last = Some((exit, output));
        }
        Ok(if is_over { Then::Over } else { Then::NextCall })
    }
}
