//! One unit's way through its tests: events and endings in, results out.
//!
//! Pure. Must not know processes, containers or clocks (times come in).
//!
//! ```text
//!   expected ──start──> running ──result──> ended          Each test ends at most once; what never ended was not run.
//!      │                   ├──overdue──> ended (timed out)
//!      │                   └──exit─────> ended (failed)
//!      └──missing──> ended (failed)
//! ```
//!
//! Invariants: a unit that ends without being cancelled has at least one result, so that what is queued again shrinks; only
//! expected tests get results, whatever the project's code claims.

use std::collections::HashMap;
use std::fmt;

use andon_proto::{Outcome, TestCase};

use super::event::{Event, EventOutcome};

/// Longest message, in lines.
pub(crate) const MESSAGE_LINES_MAX: usize = 20;
/// Longest message, in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4096;

/// A test that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Of the lease.
    pub attempt: u64,
    /// How.
    pub outcome: Outcome,
    /// How long it ran.
    pub run_ms: u64,
    /// First lines of a failure.
    pub message: String,
    /// What it printed, uncompressed.
    pub log: Vec<u8>,
    /// When it started; 0 where it never did.
    pub started_unix_ms: u64,
}

/// What an event amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing to do.
    Nothing,
    /// A test runs now: its limit starts.
    Started,
    /// Results.
    Ended(Vec<Ended>),
    /// The running test is over its limit, says the runner itself; with stacks and output.
    Overdue(String),
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exit {
    /// 128 and the signal's number where one ended it.
    pub code: i64,
    /// The kernel killed something in the container for want of memory.
    pub out_of_memory: bool,
    /// The container's limit; 0 for none of its own.
    pub memory_bytes: u64,
    /// The unit was ended because its lane had written more than it may.
    pub disk: Option<Overrun>,
}

/// A lane wrote more than its limit while a unit ran on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overrun {
    /// What the suite says.
    pub(crate) limit_bytes: u64,
    /// What was found.
    pub(crate) written_bytes: u64,
    /// Where most of it is, in words.
    pub(crate) mostly: String,
}

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit_bytes, written_bytes, mostly } = self;
        let (limit, written) = (limit_bytes >> 20, written_bytes >> 20);
        write!(f, "disk limit of the lane: {limit} MiB; {written} MiB were written, most of it in {mostly}")
    }
}

/// The state of a unit.
#[derive(Debug)]
pub(crate) struct Progress {
    tests: Vec<TestCase>,
    places: HashMap<String, usize>,
    ended: Vec<bool>,
    any_ended: bool,
    running: Option<Running>,
    collect_errors: String,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    place: usize,
    started_unix_ms: u64,
}

impl Progress {
    /// Nothing has started.
    #[must_use]
    pub(crate) fn new(tests: Vec<TestCase>) -> Self {
        let places = tests.iter().enumerate().rev().map(|(place, test)| (test.id.clone(), place)).collect();
        let ended = vec![false; tests.len()];
        Self { tests, places, ended, any_ended: false, running: None, collect_errors: String::new() }
    }

    /// Whether every test has a result.
    #[must_use]
    pub(crate) fn is_complete(&self) -> bool {
        self.ended.iter().all(|ended| *ended)
    }

    /// Whether a test runs now.
    #[must_use]
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Takes what the runner says.
    pub(crate) fn take(&mut self, event: Event, now_unix_ms: u64) -> Step {
        match event {
            Event::Start { id } => match self.open_place(&id) {
                Some(place) => {
                    self.running = Some(Running { place, started_unix_ms: now_unix_ms });
                    Step::Started
                }
                None => Step::Nothing,
            },
            Event::Result { id, outcome, ms, message, log } => {
                let Some(place) = self.open_place(&id) else { return Step::Nothing };
                let outcome = match outcome {
                    EventOutcome::Passed => Outcome::Passed,
                    EventOutcome::Failed => Outcome::Failed,
                    EventOutcome::Skipped => Outcome::Skipped,
                };
                let since = self.running.filter(|running| running.place == place);
                let spent = since.map_or(0, |running| now_unix_ms.saturating_sub(running.started_unix_ms));
                // A float to integer cast saturates; a process may say anything.
                let ms = ms.map_or(spent, |ms| ms.max(0.0).round() as u64);
                let ended = self.end(place, outcome, ms, &message, log.into_bytes());
                Step::Ended(vec![ended])
            }
            Event::CollectError { id, message, log } => {
                if self.collect_errors.len() < super::OUTPUT_BYTES_MAX {
                    self.collect_errors.push_str(&format!("cannot collect {id}: {message}\n\n{log}\n"));
                }
                Step::Nothing
            }
            Event::Collected { missing } => {
                let places: Vec<usize> = missing.iter().filter_map(|id| self.open_place(id)).collect();
                Step::Ended(places.into_iter().map(|place| self.end_missing(place)).collect())
            }
            Event::Timeout { id, log } => match self.running {
                Some(running) if self.tests[running.place].id == id => Step::Overdue(log),
                _ => Step::Nothing,
            },
            Event::Test { .. } | Event::Refused { .. } | Event::End => Step::Nothing,
        }
    }

    /// The limit passed. Ends the running test, or the next one where none runs. `None` where all had ended.
    /// `whole`: it was the limit of so many tests together, and nobody knows which of them hung.
    pub(crate) fn overdue(&mut self, limit_ms: u64, whole: Option<usize>, log: Vec<u8>) -> Option<Ended> {
        let at_all = if self.running.is_some() || whole.is_some() { "" } else { "no test started and " };
        let of = whole.map(|tests| format!(" for {tests} test(s)")).unwrap_or_default();
        let place = self.running.map_or_else(|| self.next_place(), |running| Some(running.place))?;
        let message = format!("{at_all}the time limit of {}{of} passed", seconds(limit_ms));
        Some(self.end(place, Outcome::TimedOut, limit_ms, &message, log))
    }

    /// The runner's process ended. What ran then has failed; where nothing had started or ended, the first test has.
    pub(crate) fn exited(&mut self, exit: &Exit, now_unix_ms: u64, output: Vec<u8>) -> Option<Ended> {
        if let Some(running) = self.running {
            let message = format!("the test's process ended while it ran: {}", describe(exit));
            let spent = now_unix_ms.saturating_sub(running.started_unix_ms);
            return Some(self.end(running.place, Outcome::Failed, spent, &message, output));
        }
        if self.any_ended {
            return None;
        }
        let place = self.next_place()?;
        let text = String::from_utf8_lossy(&output).into_owned();
        let message =
            format!("the runner ended before any test started: {}\n{}", describe(exit), last_lines(&text));
        Some(self.end(place, Outcome::Failed, 0, &message, output))
    }

    /// The course can make nothing of how a call ended. What ran has failed with that, or the next test has.
    pub(crate) fn refused(&mut self, reason: &str, now_unix_ms: u64, output: Vec<u8>) -> Option<Ended> {
        let (place, since) = match self.running {
            Some(running) => (running.place, running.started_unix_ms),
            None => (self.next_place()?, now_unix_ms),
        };
        Some(self.end(place, Outcome::Failed, now_unix_ms.saturating_sub(since), reason, output))
    }

    fn open_place(&self, id: &str) -> Option<usize> {
        self.places.get(id).copied().filter(|place| !self.ended[*place])
    }

    fn next_place(&self) -> Option<usize> {
        self.ended.iter().position(|ended| !ended)
    }

    fn end_missing(&mut self, place: usize) -> Ended {
        let errors = self.collect_errors.clone();
        let message = if errors.is_empty() {
            "the runner does not find this test any more: does its name change from one collection to the next?"
        } else {
            errors.as_str()
        };
        self.end(place, Outcome::Failed, 0, message, errors.clone().into_bytes())
    }

    fn end(&mut self, place: usize, outcome: Outcome, run_ms: u64, message: &str, log: Vec<u8>) -> Ended {
        self.ended[place] = true;
        self.any_ended = true;
        let started_unix_ms = match self.running {
            Some(running) if running.place == place => {
                self.running = None;
                running.started_unix_ms
            }
            _ => 0,
        };
        let attempt = self.tests[place].attempt;
        Ended { attempt, outcome, run_ms, message: short(message), log, started_unix_ms }
    }
}

/// A message within its limits.
#[must_use]
pub(crate) fn short(text: &str) -> String {
    let mut lines: Vec<&str> = text.trim_matches('\n').lines().take(MESSAGE_LINES_MAX + 1).collect();
    if lines.len() > MESSAGE_LINES_MAX {
        lines.truncate(MESSAGE_LINES_MAX);
    }
    let mut message = lines.join("\n");
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    message
}

/// The last lines of an output, for a message.
#[must_use]
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let from = lines.len().saturating_sub(MESSAGE_LINES_MAX - 4);
    let kept = lines[from..].join("\n");
    let cut = kept.len().saturating_sub(MESSAGE_BYTES_MAX - 512);
    let mut start = cut;
    while !kept.is_char_boundary(start) {
        start += 1;
    }
    kept[start..].to_owned()
}

/// An exit in words.
#[must_use]
pub(crate) fn describe(exit: &Exit) -> String {
    let signal = match exit.code {
        129 => " (SIGHUP)",
        130 => " (SIGINT)",
        132 => " (SIGILL)",
        134 => " (SIGABRT)",
        135 => " (SIGBUS)",
        136 => " (SIGFPE)",
        137 => " (SIGKILL)",
        139 => " (SIGSEGV)",
        143 => " (SIGTERM)",
        _ => "",
    };
    let memory = match (exit.out_of_memory, exit.memory_bytes) {
        (false, _) => String::new(),
        (true, 0) => ", out of memory".to_owned(),
        (true, bytes) => format!(", out of memory: limit {} MiB", bytes >> 20),
    };
    let disk = exit.disk.as_ref().map(|overrun| format!(", {overrun}")).unwrap_or_default();
    format!("exit code {}{signal}{memory}{disk}", exit.code)
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{} s", ms / 1000) } else { format!("{:.3} s", ms as f64 / 1000.0) }
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
