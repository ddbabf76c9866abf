//! What a preset is: how tests of one tool are listed and run, as data for whoever runs commands (`drive.rs`).
//!
//! A preset must not know processes, containers or clocks. It answers with a [`Course`]: a sequence of [`Call`]s, a reader of
//! what they print while they run, and a judge of each when it has ended. So each is tested on recorded output alone.
//!
//! ```text
//!   Preset ──discovery──> Course ─┐      next() ──> Call ──(runs)──> hear(bytes)… ──> ended(end) ──> next() …
//!          ──unit───────> Course ─┘                                    │ events        │ events
//! ```
//!
//! Invariants: ids reach a tool as words of their own or quoted for the shell, never bare; what a course says of tests that
//! were not asked for is dropped by `progress.rs`.

use std::fmt;

use andon_proto::{Suite, TestCase, suite::Runner as SuiteRunner};

use super::event::Event;
use super::progress::Exit;
use super::template::quote;

/// What is known of a preset without running it. The keys are those of `[[suite]]` in `andon.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// As `runner = "…"` says it.
    pub name: &'static str,
    /// Must be written.
    pub needs: &'static [&'static str],
    /// May be written.
    pub takes: &'static [&'static str],
    /// Places for the ids in `run`, and for the report: the first of them or one of the other ids' is needed.
    pub places: &'static [&'static str],
    /// Whether a process can have the stack put back between its tests (`process = "shared"`).
    pub shares_process: bool,
    /// Put where tests find them ([`super::RUNNERS_FOLDER`]): name and content.
    pub files: &'static [(&'static str, &'static str)],
}

/// One way to find and run tests. A new one is a file in `presets/` and a line in `presets.rs`.
pub(crate) trait Preset: fmt::Debug + Send + Sync {
    /// What it is called and what it takes.
    fn facts(&self) -> &'static Facts;

    /// Lists the tests: its events are [`Event::Test`]s.
    fn discovery(&self, options: &Options, surroundings: &Surroundings) -> Box<dyn Course>;

    /// Runs a unit's tests: its events are of the tests by their ids.
    fn unit(&self, options: &Options, surroundings: &Surroundings, unit: &Unit) -> Box<dyn Course>;

    /// A process that can be started before its job is known, and that then waits for it on a pipe: it serves as the first call
    /// of a course whose call has a job.
    fn warm(&self, _options: &Options, _surroundings: &Surroundings) -> Option<Call> {
        None
    }
}

/// A suite's own words on its runner; what is not written is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// How the tool is called.
    pub command: String,
    /// Added to every call.
    pub args: Vec<String>,
    /// Lists ids, one a line.
    pub discover: String,
    /// Runs ids.
    pub run: String,
    /// Patterns of report files.
    pub reports: Vec<String>,
}

impl Options {
    /// The preset's name and the options, as the specification has them.
    pub(crate) fn of(suite: &Suite) -> Option<(&str, Self)> {
        Some(match suite.runner.as_ref()? {
            SuiteRunner::Pytest(own) => {
                let options =
                    Self { command: own.command.clone(), args: own.args.clone(), ..Self::default() };
                ("pytest", options)
            }
            SuiteRunner::Command(own) => {
                let options =
                    Self { discover: own.discover.clone(), run: own.run.clone(), ..Self::default() };
                ("command", options)
            }
            SuiteRunner::Preset(own) => {
                let options = Self {
                    command: own.command.clone(),
                    args: own.args.clone(),
                    discover: own.discover.clone(),
                    run: own.run.clone(),
                    reports: own.reports.clone(),
                };
                (own.name.as_str(), options)
            }
        })
    }

    /// The tool with words after it, each quoted: a script for a shell.
    pub(crate) fn script<S: AsRef<str>>(&self, usual: &str, words: impl IntoIterator<Item = S>) -> String {
        let mut script = if self.command.is_empty() { usual.to_owned() } else { self.command.clone() };
        for word in words {
            script.push(' ');
            script.push_str(&quote(word.as_ref()));
        }
        script.push('\n');
        script
    }
}

/// The container around.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// `PYTHONPATH` of the image or the suite.
    pub python_path: String,
    /// Known with the unit.
    pub env: Vec<(String, String)>,
}

/// What is to be run.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    /// In order.
    pub tests: Vec<TestCase>,
    /// Of one test.
    pub timeout_ms: u64,
    /// The stack is to be put back before each test but the first, by the process itself.
    pub rebase: bool,
}

impl Unit {
    /// The ids, in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().map(|test| test.id.as_str())
    }
}

/// How long a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// A test's limit from each event to the next; longer up to the first.
    Each,
    /// So many times a test's limit, for all of it: nobody hears from it before its end.
    Whole(u32),
}

/// What a call runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Words {
    /// As they are, no shell in between.
    Plain(Vec<String>),
    /// A shell's script; it goes by a file of this name, because one word of a command line has at most 128 KiB.
    Script(&'static str, String),
}

/// One command in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// What.
    pub words: Words,
    /// Added to the unit's environment.
    pub env: Vec<(String, String)>,
    /// Handed over by the job pipe, with a line's end.
    pub job: Option<Vec<u8>>,
    /// See [`Limit`].
    pub limit: Limit,
    /// The one test that it is for: it starts with the call, which has its attempt in its environment.
    pub alone: Option<String>,
}

impl Call {
    /// A script of this name.
    pub(crate) fn script(name: &'static str, text: impl Into<String>) -> Self {
        let words = Words::Script(name, text.into());
        Self { words, env: Vec::new(), job: None, limit: Limit::Each, alone: None }
    }

    /// For a listing.
    pub(crate) fn listing(text: impl Into<String>) -> Self {
        Self::script("discover.sh", text)
    }

    /// For a unit.
    pub(crate) fn running(text: impl Into<String>) -> Self {
        Self::script("run.sh", text)
    }

    /// With a variable.
    #[must_use]
    pub(crate) fn with_env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// With another limit.
    #[must_use]
    pub(crate) fn within(mut self, limit: Limit) -> Self {
        self.limit = limit;
        self
    }
}

/// Where bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The events pipe.
    Events,
}

/// A file that was read back; `None` where there is none.
pub(crate) type ReadBack = Result<Option<Vec<u8>>, String>;

/// A call that ended by itself.
pub(crate) struct CallEnd<'a> {
    /// How.
    pub exit: &'a Exit,
    /// How long it took.
    pub spent_ms: u64,
    /// All that it printed, head and tail.
    pub output: &'a [u8],
    /// Reads a plain file of the out folder, up to so many bytes.
    pub read_out: &'a dyn Fn(&str, u64) -> ReadBack,
}

impl CallEnd<'_> {
    /// What it printed, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.output).into_owned()
    }
}

/// A discovery, or a unit's way through the tool.
pub(crate) trait Course: Send {
    /// The next call, asked for when the one before has ended.
    fn next(&mut self) -> Option<Call>;

    /// Takes what the running call prints, as it comes.
    fn hear(&mut self, _from: Source, _bytes: &[u8], _events: &mut Vec<Event>) {}

    /// Takes the end of the running call. `Err`: why nothing can be had of it, in words; a unit's tests that it was to run
    /// have failed with that.
    fn ended(&mut self, end: &CallEnd<'_>, events: &mut Vec<Event>) -> Result<(), String>;
}

/// Lines from chunks of bytes, each within a limit; a longer one is dropped.
#[derive(Debug, Default)]
pub(crate) struct LineCutter {
    partial: Vec<u8>,
    overlong: bool,
}

impl LineCutter {
    /// Takes a chunk; hands each line that it completes on, without its end.
    pub(crate) fn push(&mut self, chunk: &[u8], mut each: impl FnMut(&[u8])) {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let ends = piece.ends_with(b"\n");
            if self.partial.len() + piece.len() > super::event::LINE_BYTES_MAX {
                self.overlong = true;
                self.partial.clear();
            }
            if !self.overlong {
                self.partial.extend_from_slice(piece);
            }
            if ends {
                if !std::mem::take(&mut self.overlong) {
                    let line = self.partial.strip_suffix(b"\n").unwrap_or(&self.partial);
                    each(line.strip_suffix(b"\r").unwrap_or(line));
                }
                self.partial.clear();
            }
        }
    }

    /// What no line's end followed.
    pub(crate) fn rest(&mut self, mut each: impl FnMut(&[u8])) {
        if !self.partial.is_empty() && !std::mem::take(&mut self.overlong) {
            each(&std::mem::take(&mut self.partial));
        }
    }

    /// Held back now.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.partial.len()
    }
}
