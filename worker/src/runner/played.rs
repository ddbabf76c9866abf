//! A course played without a process: recorded output in, events out.

use std::collections::BTreeMap;

use andon_proto::TestCase;

use super::event::{Event, EventOutcome};
use super::preset::{Call, CallEnd, Course, Source, Unit, Words};
use super::progress::Exit;

/// An end by this code.
pub(crate) fn exit(code: i64) -> Exit {
    Exit { code, out_of_memory: false, memory_bytes: 0, disk: None }
}

/// A unit of these tests, with a minute for each.
pub(crate) fn unit(ids: &[&str]) -> Unit {
    let case = |(n, id): (usize, &&str)| TestCase { attempt: n as u64 + 1, id: (*id).to_owned() };
    Unit { tests: ids.iter().enumerate().map(case).collect(), timeout_ms: 60_000, rebase: false }
}

/// See the module.
pub(crate) struct Played {
    course: Box<dyn Course>,
    pub(crate) events: Vec<Event>,
    /// What lies in the out folder.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl Played {
    pub(crate) fn new(course: Box<dyn Course>) -> Self {
        Self { course, events: Vec::new(), files: BTreeMap::new() }
    }

    pub(crate) fn next(&mut self) -> Option<Call> {
        self.course.next()
    }

    /// The next call; there must be one.
    pub(crate) fn call(&mut self) -> Call {
        self.course.next().expect("the course goes on")
    }

    /// The script of the next call.
    pub(crate) fn script(&mut self) -> String {
        match self.call().words {
            Words::Script(_, script) => script,
            Words::Plain(words) => panic!("it is no script: {words:?}"),
        }
    }

    pub(crate) fn hear(&mut self, from: Source, bytes: &[u8]) {
        self.course.hear(from, bytes, &mut self.events);
    }

    pub(crate) fn end(&mut self, exit: &Exit, output: &[u8]) -> Result<(), String> {
        let files = &self.files;
        let read_out = |name: &str, _: u64| Ok(files.get(name).cloned());
        let end = CallEnd { exit, spent_ms: 77, output, read_out: &read_out };
        self.course.ended(&end, &mut self.events)
    }

    /// Prints it in pieces of an awkward size and ends.
    pub(crate) fn play(&mut self, stdout: &[u8], code: i64) -> Result<(), String> {
        for piece in stdout.chunks(7) {
            self.hear(Source::Stdout, piece);
        }
        self.end(&exit(code), stdout)
    }

    /// Ids that were found.
    pub(crate) fn tests(&self) -> Vec<String> {
        let id = |event: &Event| match event {
            Event::Test { id } => Some(id.clone()),
            _ => None,
        };
        self.events.iter().filter_map(id).collect()
    }

    /// Results in order: id, outcome.
    pub(crate) fn outcomes(&self) -> Vec<(&str, EventOutcome)> {
        let result = |event| match event {
            &Event::Result { ref id, outcome, .. } => Some((id.as_str(), outcome)),
            _ => None,
        };
        self.events.iter().filter_map(result).collect()
    }

    /// Message and log of a test's result.
    pub(crate) fn said_of(&self, wanted: &str) -> (&str, &str) {
        let found = self.events.iter().find_map(|event| match event {
            Event::Result { id, message, log, .. } if id == wanted => Some((message.as_str(), log.as_str())),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("{wanted} has no result: {:?}", self.outcomes()))
    }
}
