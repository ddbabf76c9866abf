//! What is on the screen: inputs in, effects out. Must not know how it is drawn.
//!
//! Everything is bounded: tests that are kept, lines of a log, characters of a line. After a lost connection the farm tells the run
//! again; what was known before is replaced, not doubled.

use std::collections::HashMap;
use std::time::Duration;

use andon_proto::run_event::Event;
use andon_proto::{Run, RunEvent, RunState, Test, Verdict, Worker};

use crate::report::progress::Progress;
use crate::report::summary::Paint;
use crate::report::{attempts, exit, ids, text, words};

/// Tests that are kept for the list; of what comes beyond, the counts still tell.
const TESTS_MAX: usize = 5_000;
/// Runs that are kept.
const RUNS_MAX: usize = 50;
/// Workers that are kept.
const WORKERS_MAX: usize = 64;
/// The end of a log: so many lines.
const LOG_LINES_MAX: usize = 500;
/// What is looked at of a log's end.
const LOG_BYTES_MAX: usize = 1 << 20;
/// Of any line.
const LINE_CHARS_MAX: usize = 400;
/// An id that is longer is shown cut, and its log is not asked for.
const ID_BYTES_MAX: usize = 4_096;
/// How far a page goes.
const PAGE: usize = 10;

/// A key, as far as it means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    /// Into what is chosen.
    Enter,
    /// Out of it.
    Back,
    /// To the other list.
    Next,
    /// Failures alone, or all.
    Filter,
    Help,
    /// `q`, Ctrl-C.
    Leave,
}

/// What happens to the screen.
#[derive(Debug)]
pub(crate) enum Input {
    /// Of the run with this number.
    Event(u64, Box<RunEvent>),
    Key(Key),
    /// The latest runs, the latest first.
    Runs(Vec<Run>),
    Workers(Vec<Worker>),
    /// What was fetched, or why it cannot be had.
    Log(Wanted, Result<Vec<u8>, String>),
    /// The farm does not answer; it is asked again.
    Lost,
    /// So long since the following began.
    Now(Duration),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Follow this run from now on, and no other.
    Follow(u64),
    /// Fetch a log, and answer with [`Input::Log`].
    Fetch(Wanted),
    Leave,
}

/// A test's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) run: u64,
    /// `suite/id`.
    pub(crate) test: String,
}

/// Where keys go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Focus {
    Tests,
    Runs,
    Log,
}

/// A test with a verdict, ready to be shown.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) verdict: Verdict,
    pub(super) name: String,
    /// The first line of its message.
    pub(super) why: String,
    wanted: Option<Wanted>,
}

impl Told {
    fn is_news(&self) -> bool {
        words::is_bad(self.verdict) || self.verdict == Verdict::Flaky
    }
}

/// The end of a log.
#[derive(Debug)]
pub(super) struct Log {
    of: Wanted,
    pub(super) name: String,
    /// `None` until it is here.
    pub(super) lines: Option<Vec<String>>,
    /// So many lines up from the end.
    pub(super) up: usize,
}

/// All that is shown.
#[derive(Debug)]
pub(crate) struct Screen {
    number: u64,
    pub(super) run: Option<Run>,
    pub(super) progress: Progress,
    pub(super) now: Duration,
    pub(super) lost: bool,
    pub(super) notice: String,
    pub(super) tests: Vec<Told>,
    known: HashMap<(String, String), usize>,
    pub(super) all_tests: bool,
    pub(super) chosen: Option<usize>,
    pub(super) runs: Vec<Run>,
    pub(super) chosen_run: usize,
    pub(super) workers: Vec<Worker>,
    pub(super) log: Option<Log>,
    pub(super) focus: Focus,
    pub(super) help: bool,
}

impl Screen {
    /// Of a run of which nothing is known yet.
    pub(crate) fn new(run: u64) -> Self {
        Self {
            number: run,
            run: None,
            progress: Progress::new(Paint::Plain),
            now: Duration::ZERO,
            lost: false,
            notice: String::new(),
            tests: Vec::new(),
            known: HashMap::new(),
            all_tests: false,
            chosen: None,
            runs: Vec::new(),
            chosen_run: 0,
            workers: Vec::new(),
            log: None,
            focus: Focus::Tests,
            help: false,
        }
    }

    /// The run that is shown.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether it has come to its end.
    pub(crate) fn is_over(&self) -> bool {
        self.run.as_ref().is_some_and(|run| exit::is_over(run.state()))
    }

    /// Takes what happened, and answers with what is to be done.
    pub(crate) fn step(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Event(run, event) if run == self.number => self.event(*event),
            // Of a run that was left.
            Input::Event(..) => Vec::new(),
            Input::Key(key) => self.key(key),
            Input::Runs(mut runs) => {
                let chosen = self.runs.get(self.chosen_run).map(|run| run.run);
                runs.truncate(RUNS_MAX);
                self.runs = runs;
                let find = |number| self.runs.iter().position(|run| Some(run.run) == number);
                self.chosen_run = find(chosen).or_else(|| find(Some(self.number))).unwrap_or(0);
                Vec::new()
            }
            Input::Workers(mut workers) => {
                workers.sort_by(|a, b| a.name.cmp(&b.name));
                workers.truncate(WORKERS_MAX);
                self.workers = workers;
                Vec::new()
            }
            Input::Log(of, text) => {
                if let Some(log) = self.log.as_mut().filter(|log| log.of == of) {
                    log.lines = Some(match text {
                        Ok(text) => end_of(&text),
                        Err(why) => vec![format!("cannot be had: {}", text::cut(&why, LINE_CHARS_MAX))],
                    });
                }
                Vec::new()
            }
            Input::Lost => {
                self.lost = true;
                Vec::new()
            }
            Input::Now(now) => {
                self.now = now;
                Vec::new()
            }
        }
    }

    /// The tests that the list has now, by their place.
    pub(super) fn listed(&self) -> impl Iterator<Item = usize> + '_ {
        let shown = |told: &Told| self.all_tests || told.is_news();
        self.tests.iter().enumerate().filter(move |(_, told)| shown(told)).map(|(at, _)| at)
    }

    fn event(&mut self, mut event: RunEvent) -> Vec<Effect> {
        self.lost = false;
        let mut effects = Vec::new();
        match &mut event.event {
            Some(Event::Run(run)) => {
                for test in std::mem::take(&mut run.tests) {
                    self.verdict(&test);
                }
                self.run = Some(run.clone());
            }
            Some(Event::Verdict(test)) => self.verdict(test),
            Some(Event::Notice(notice)) => self.notice = text::cut(notice, LINE_CHARS_MAX),
            Some(Event::Counts(_)) | None => {}
        }
        // Its lines are said elsewhere; here it keeps counts and pace.
        let _ = self.progress.event(self.now, event);
        if self.chosen.is_none() {
            let first = self.listed().next();
            effects.extend(self.choose(first));
        }
        effects
    }

    fn verdict(&mut self, test: &Test) {
        let told = Told {
            verdict: test.verdict(),
            name: text::cut(&ids::full(&test.suite, &test.id), LINE_CHARS_MAX),
            why: attempts::speaking(test)
                .and_then(|attempt| text::head(&attempt.message, 1).pop())
                .unwrap_or_default(),
            wanted: (test.id.len() <= ID_BYTES_MAX)
                .then(|| Wanted { run: self.number, test: ids::full(&test.suite, &test.id) }),
        };
        let key = (told.name.clone(), text::cut(&test.id, ID_BYTES_MAX));
        match self.known.get(&key) {
            Some(at) => self.tests[*at] = told,
            None if self.tests.len() < TESTS_MAX => {
                self.known.insert(key, self.tests.len());
                self.tests.push(told);
            }
            None => {}
        }
    }

    fn choose(&mut self, at: Option<usize>) -> Option<Effect> {
        if self.chosen == at {
            return None;
        }
        self.chosen = at;
        self.log = None;
        let told = self.tests.get(at?)?;
        let of = told.wanted.clone()?;
        self.log = Some(Log { of: of.clone(), name: told.name.clone(), lines: None, up: 0 });
        Some(Effect::Fetch(of))
    }

    fn key(&mut self, key: Key) -> Vec<Effect> {
        if key == Key::Leave {
            return vec![Effect::Leave];
        }
        if self.help {
            self.help = false;
            return Vec::new();
        }
        match key {
            Key::Help => self.help = true,
            Key::Filter => {
                self.all_tests = !self.all_tests;
                let chosen = self.chosen;
                let near = self.listed().take_while(|at| Some(*at) <= chosen).last().or(self.listed().next());
                return self.choose(near).into_iter().collect();
            }
            Key::Next => {
                self.focus = if self.focus == Focus::Runs { Focus::Tests } else { Focus::Runs };
            }
            _ => {
                return match self.focus {
                    Focus::Tests => self.key_in_tests(key),
                    Focus::Runs => self.key_in_runs(key),
                    Focus::Log => {
                        self.key_in_log(key);
                        Vec::new()
                    }
                };
            }
        }
        Vec::new()
    }

    fn key_in_tests(&mut self, key: Key) -> Vec<Effect> {
        if key == Key::Enter && self.log.is_some() {
            self.focus = Focus::Log;
            return Vec::new();
        }
        let listed: Vec<usize> = self.listed().collect();
        let at = self.chosen.and_then(|chosen| listed.iter().position(|at| *at == chosen)).unwrap_or(0);
        let to = moved(key, at, listed.len());
        self.choose(listed.get(to).copied()).into_iter().collect()
    }

    fn key_in_runs(&mut self, key: Key) -> Vec<Effect> {
        match key {
            Key::Back => self.focus = Focus::Tests,
            Key::Enter => {
                let Some(number) = self.runs.get(self.chosen_run).map(|run| run.run) else {
                    return Vec::new();
                };
                self.focus = Focus::Tests;
                if number == self.number {
                    return Vec::new();
                }
                let fresh = Self::new(number);
                let (runs, workers) = (std::mem::take(&mut self.runs), std::mem::take(&mut self.workers));
                let (chosen_run, now, all_tests) = (self.chosen_run, self.now, self.all_tests);
                *self = Self { runs, workers, chosen_run, now, all_tests, ..fresh };
                return vec![Effect::Follow(number)];
            }
            _ => self.chosen_run = moved(key, self.chosen_run, self.runs.len()),
        }
        Vec::new()
    }

    fn key_in_log(&mut self, key: Key) {
        if matches!(key, Key::Back | Key::Enter) {
            self.focus = Focus::Tests;
            return;
        }
        let Some(log) = &mut self.log else { return };
        let last = log.lines.as_ref().map_or(0, |lines| lines.len().saturating_sub(1));
        log.up = match key {
            Key::Up => log.up + 1,
            Key::Down => log.up.saturating_sub(1),
            Key::PageUp => log.up + PAGE,
            Key::PageDown => log.up.saturating_sub(PAGE),
            Key::First => last,
            Key::Last => 0,
            _ => log.up,
        }
        .min(last);
    }

    /// The run's state in words.
    pub(super) fn state(&self) -> String {
        let state = self.run.as_ref().map_or(RunState::Unspecified, Run::state);
        if state == RunState::Unspecified { "connecting".to_owned() } else { words::state_said(state) }
    }
}

/// Where a key leads in a list of this length.
fn moved(key: Key, at: usize, len: usize) -> usize {
    let last = len.saturating_sub(1);
    match key {
        Key::Up => at.saturating_sub(1),
        Key::Down => at + 1,
        Key::PageUp => at.saturating_sub(PAGE),
        Key::PageDown => at + PAGE,
        Key::First => 0,
        Key::Last => last,
        _ => at,
    }
    .min(last)
}

/// The last lines, each harmless and cut.
fn end_of(log: &[u8]) -> Vec<String> {
    let from = log.len().saturating_sub(LOG_BYTES_MAX);
    let shown = String::from_utf8_lossy(&log[from..]);
    let lines: Vec<&str> = shown.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES_MAX);
    let tidy = |line: &&str| text::cut(&line.trim_end_matches('\r').replace('\t', "    "), LINE_CHARS_MAX);
    lines[from..].iter().map(tidy).collect()
}

#[cfg(test)]
impl Screen {
    /// Whether what is chosen is in the list; `None` where nothing is.
    pub(super) fn chosen_place(&self) -> Option<bool> {
        let chosen = self.chosen?;
        Some(self.listed().any(|at| at == chosen))
    }
}
