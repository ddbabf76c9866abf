//! Carries a preset's courses out: runs their calls in the container, hands on what they print, keeps time limits.
//!
//! The one place where presets, the container and results meet; must not know any tool. Invariants: a limit that passes kills the
//! whole container; after a container's end no further call is made in it.

use std::time::{Duration, Instant};

use andon_proto::{Suite, TestCase};
use tokio_util::sync::CancellationToken;

use super::cell::Cell;
use super::event::Event;
use super::preset::{Call, CallEnd, Course, Limit, Options, Preset, Source, Surroundings, Unit};
use super::process::{News, PROCESS_LIMIT, Process, Warm};
use super::progress::{Ended, Exit, Progress, Step};
use super::rebases::{Deadline, Rebases};
use super::{DISCOVERY_LIMIT, Found, Reporter, SuiteView, Witness, ids};
use crate::clock;
use crate::engine::EngineError;
use crate::hands::WorkFailure;

/// A runner that knows its job says itself when a limit passes, with stacks; this much later it is not waited for.
const OVERDUE_GRACE: Duration = Duration::from_millis(1500);
/// How many refused ids, and how many collection errors, a message names.
const NAMED_MAX: usize = 10;

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
fn start(cell: &Cell, call: &Call, warm: &mut Option<Warm>) -> Result<Box<Process>, WorkFailure> {
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
    async fn attend(&mut self, call: &Call, mut process: Box<Process>) -> Result<Then, WorkFailure> {
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
        process: Box<Process>,
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
