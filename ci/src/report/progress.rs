//! What is said while a run goes on: a pure function from events to lines.
//!
//! `event` turns each event of the farm into the lines that a person should read at once (changes of state,
//! failures, notices); `line` is the state of the whole in one line, for the bar and for plain output. Both are
//! given the time since the following began. After a lost connection the farm sends the run again: what was said
//! before is not said twice.

use std::collections::HashSet;
use std::time::Duration;

use andon_proto::run_event::Event;
use andon_proto::{Counts, Run, RunEvent, RunState, Test, Verdict};

use super::exit;
use super::summary::{MESSAGE_LINES, Paint};
use super::text::{cut, head, one_line};
use super::{attempts, ids, words};

/// Failures that are said as they come; the summary and `show --failed` have them all.
const FAILURES_SAID_MAX: usize = 50;
/// Plain output says how far the run is at most this often.
pub(crate) const LINE_EVERY: Duration = Duration::from_secs(5);
/// Where nothing changes, plain output still says so this often, so that a CI system sees life.
const ALIVE_EVERY: Duration = Duration::from_secs(60);

/// Follows one run.
#[derive(Debug)]
pub(crate) struct Progress {
    paint: Paint,
    run: Option<Run>,
    counts: Counts,
    /// Decided tests and the time when the first counts arrived: the rate is of what was seen.
    since: Option<(u32, Duration)>,
    said: HashSet<(String, String)>,
    failures: usize,
    last_line: Duration,
    last_counts: Counts,
}

impl Progress {
    /// Nothing seen yet.
    pub(crate) fn new(paint: Paint) -> Self {
        Self {
            paint,
            run: None,
            counts: Counts::default(),
            since: None,
            said: HashSet::new(),
            failures: 0,
            last_line: Duration::ZERO,
            last_counts: Counts::default(),
        }
    }

    /// The lines that this event is worth.
    pub(crate) fn event(&mut self, elapsed: Duration, event: RunEvent) -> Vec<String> {
        match event.event {
            Some(Event::Run(run)) => self.run(elapsed, run),
            Some(Event::Verdict(test)) => self.verdict(&test),
            Some(Event::Notice(notice)) => vec![self.paint.dim(&format!("· {}", cut(&notice, 1_000)))],
            Some(Event::Counts(counts)) => {
                self.count(elapsed, counts);
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// Whether the run has come to its end.
    pub(crate) fn is_over(&self) -> bool {
        self.run.as_ref().is_some_and(|run| exit::is_over(run.state()))
    }

    /// Decided and total.
    pub(crate) fn position(&self) -> (u64, u64) {
        let decided = self.counts.total.saturating_sub(self.counts.open);
        (u64::from(decided), u64::from(self.counts.total))
    }

    /// The state of the whole in one line.
    pub(crate) fn line(&self, elapsed: Duration) -> String {
        let state = self.run.as_ref().map_or(RunState::Unspecified, Run::state);
        if self.counts.total == 0 {
            return match state {
                RunState::Unspecified => "connecting".to_owned(),
                RunState::Preparing => "preparing the baseline".to_owned(),
                RunState::Discovering => "discovering tests".to_owned(),
                other => words::state_said(other),
            };
        }
        let (decided, total) = self.position();
        let bad = [
            (self.counts.failed, "failed"),
            (self.counts.timed_out, "timed out"),
            (self.counts.quarantined, "quarantined"),
            (self.counts.flaky, "flaky"),
            (self.counts.infrastructure, "infrastructure"),
        ];
        let mut parts = vec![format!("{}/{} tests", words::thousands(decided), words::thousands(total))];
        parts.extend(bad.iter().filter(|(n, _)| *n > 0).map(|(n, name)| format!("{n} {name}")));
        if self.counts.running > 0 {
            parts.push(format!("{} running", self.counts.running));
        }
        if let Some(rate) = self.per_minute(elapsed) {
            parts.push(format!("{} tests/min", words::thousands(rate.round() as u64)));
            let left = f64::from(self.counts.open) / rate * 60_000.0;
            if self.counts.open > 0 && left.is_finite() {
                parts.push(format!("about {} left", words::seconds((left / 1_000.0).ceil() as u64)));
            }
        }
        parts.join(", ")
    }

    /// The line for plain output, where it is time for one.
    pub(crate) fn plain_line(&mut self, elapsed: Duration) -> Option<String> {
        let waited = elapsed.saturating_sub(self.last_line);
        let changed = self.counts != self.last_counts;
        if waited < LINE_EVERY || (!changed && waited < ALIVE_EVERY) || self.is_over() {
            return None;
        }
        self.last_line = elapsed;
        self.last_counts = self.counts;
        Some(self.line(elapsed))
    }

    fn run(&mut self, elapsed: Duration, run: Run) -> Vec<String> {
        let before = self.run.as_ref().map(Run::state);
        let mut lines: Vec<String> = Vec::new();
        if before != Some(run.state()) {
            lines.extend(state_line(&run));
        }
        if let Some(counts) = run.counts {
            self.count(elapsed, counts);
        }
        // The first event carries what is decided already.
        for test in &run.tests {
            lines.extend(self.verdict(test));
        }
        self.run = Some(Run { tests: Vec::new(), ..run });
        lines
    }

    fn count(&mut self, elapsed: Duration, counts: Counts) {
        self.counts = counts;
        if self.since.is_none() && counts.total > 0 {
            self.since = Some((counts.total.saturating_sub(counts.open), elapsed));
        }
    }

    fn per_minute(&self, elapsed: Duration) -> Option<f64> {
        let (decided_then, then) = self.since?;
        let decided = self.counts.total.saturating_sub(self.counts.open).saturating_sub(decided_then);
        let minutes = elapsed.saturating_sub(then).as_secs_f64() / 60.0;
        (decided > 0 && minutes > 0.0).then(|| f64::from(decided) / minutes)
    }

    fn verdict(&mut self, test: &Test) -> Vec<String> {
        let verdict = test.verdict();
        if !words::is_bad(verdict) && verdict != Verdict::Flaky {
            return Vec::new();
        }
        if !self.said.insert((test.suite.clone(), test.id.clone())) {
            return Vec::new();
        }
        self.failures += 1;
        match self.failures {
            1..=FAILURES_SAID_MAX => self.failure(test, verdict),
            n if n == FAILURES_SAID_MAX + 1 => {
                vec![format!("more than {FAILURES_SAID_MAX} failures: the others are in the summary")]
            }
            _ => Vec::new(),
        }
    }

    fn failure(&self, test: &Test, verdict: Verdict) -> Vec<String> {
        let word = words::verdict(verdict).replace('_', " ").to_uppercase();
        let word = if matches!(verdict, Verdict::Failed | Verdict::TimedOut) {
            self.paint.bad(&word)
        } else {
            self.paint.warn(&word)
        };
        let mut lines = vec![format!("{word} {}", one_line(&ids::full(&test.suite, &test.id)))];
        if let Some(attempt) = attempts::speaking(test) {
            lines.extend(head(&attempt.message, MESSAGE_LINES).iter().map(|line| format!("    {line}")));
        }
        lines
    }
}

/// What a change of state means to a person; an end is said by the summary.
fn state_line(run: &Run) -> Option<String> {
    let total = run.counts.map_or(0, |counts| counts.total);
    match run.state() {
        RunState::Queued => Some(format!(
            "run {}: {} {} queued",
            run.run,
            cut(&run.project, 60),
            cut(words::short(&run.commit), 60)
        )),
        RunState::Preparing => Some(format!("run {}: preparing the baseline", run.run)),
        RunState::Discovering => {
            Some(format!("run {}: discovering tests, baseline {}", run.run, short_key(run)))
        }
        RunState::Running if total > 0 => Some(format!(
            "run {}: running {}, baseline {}",
            run.run,
            words::plural(u64::from(total), "test"),
            short_key(run)
        )),
        RunState::Running => Some(format!("run {}: running, baseline {}", run.run, short_key(run))),
        RunState::Unspecified
        | RunState::Passed
        | RunState::Failed
        | RunState::NoTests
        | RunState::ConfigError
        | RunState::BaselineFailed
        | RunState::Incomplete => None,
    }
}

fn short_key(run: &Run) -> String {
    if run.baseline_key.is_empty() { "none".to_owned() } else { cut(words::short(&run.baseline_key), 60) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn run_event(state: RunState, counts: Counts) -> RunEvent {
        let run = Run { state: state.into(), counts: Some(counts), tests: vec![], ..sample::mixed() };
        RunEvent { event: Some(Event::Run(run)) }
    }

    fn counts_event(total: u32, open: u32, failed: u32) -> RunEvent {
        let counts =
            Counts { total, open, failed, passed: total - open - failed, running: 2, ..Counts::default() };
        RunEvent { event: Some(Event::Counts(counts)) }
    }

    fn verdict_event(at: usize) -> RunEvent {
        RunEvent { event: Some(Event::Verdict(sample::mixed().tests[at].clone())) }
    }

    #[test]
    fn a_change_of_state_is_said_once() {
        let mut progress = Progress::new(Paint::Plain);
        let said = progress.event(at(0), run_event(RunState::Preparing, Counts::default()));
        assert_eq!(said, ["run 12: preparing the baseline"]);
        assert!(progress.event(at(1), run_event(RunState::Preparing, Counts::default())).is_empty());
        let running = run_event(RunState::Running, Counts { total: 7, open: 7, ..Counts::default() });
        let said = progress.event(at(2), running);
        assert_eq!(said, ["run 12: running 7 tests, baseline b1b1b1b1b1b1"]);
    }

    #[test]
    fn a_failure_is_said_as_it_comes_and_never_twice() {
        let mut progress = Progress::new(Paint::Plain);
        assert!(progress.event(at(0), verdict_event(0)).is_empty(), "passed");
        assert_eq!(
            progress.event(at(0), verdict_event(1)),
            [
                "FAILED integration/tests/test_orders.py::TestOrders::test_cancel",
                "    AssertionError: assert 2 == 3",
                "      stock was 2"
            ]
        );
        assert!(progress.event(at(1), verdict_event(1)).is_empty(), "sent again after a reconnect");
    }

    #[test]
    fn hostile_names_and_notices_are_escaped() {
        let mut progress = Progress::new(Paint::Plain);
        let said = progress.event(at(0), verdict_event(5));
        assert_eq!(said[0], "INFRASTRUCTURE integration/tests/test_evil.py::test_\\x1b[2J\\u{202e}x");
        let notice = RunEvent { event: Some(Event::Notice("a\x1b[2Jb".into())) };
        assert_eq!(progress.event(at(0), notice), ["· a\\x1b[2Jb"]);
    }

    #[test]
    fn only_so_many_failures_are_said_as_they_come() {
        let mut progress = Progress::new(Paint::Plain);
        let mut lines = 0;
        for n in 0..500 {
            let test = Test { id: format!("t{n}"), ..sample::mixed().tests[1].clone() };
            lines += progress.event(at(0), RunEvent { event: Some(Event::Verdict(test)) }).len();
        }
        assert_eq!(lines, FAILURES_SAID_MAX * 3 + 1);
    }

    #[test]
    fn plain_output_says_how_far_it_is_at_most_every_five_seconds() {
        let mut progress = Progress::new(Paint::Plain);
        progress.event(at(0), run_event(RunState::Running, Counts::default()));
        progress.event(at(1), counts_event(100, 90, 0));
        assert_eq!(progress.plain_line(at(4)), None);
        let line = progress.plain_line(at(5)).unwrap();
        assert_eq!(line, "10/100 tests, 2 running");
        progress.event(at(6), counts_event(100, 80, 1));
        assert_eq!(progress.plain_line(at(9)), None);
        let line = progress.plain_line(at(11)).unwrap();
        assert_eq!(line, "20/100 tests, 1 failed, 2 running, 60 tests/min, about 1m 20s left");
        assert_eq!(progress.plain_line(at(17)), None, "nothing changed");
        assert!(progress.plain_line(at(71)).is_some(), "a sign of life");
    }

    #[test]
    fn without_counts_the_line_says_what_goes_on() {
        let mut progress = Progress::new(Paint::Plain);
        assert_eq!(progress.line(at(0)), "connecting");
        progress.event(at(0), run_event(RunState::Discovering, Counts::default()));
        assert_eq!(progress.line(at(0)), "discovering tests");
        assert!(!progress.is_over());
        progress.event(at(0), run_event(RunState::Passed, Counts::default()));
        assert!(progress.is_over());
    }
}
