//! What the presets of JavaScript share: events by the pipe from Andon's own files in the runner, one call a file of tests.
//!
//! An id is `path/file.test.js::outer::inner`, the path relative to the working folder. Invariant: titles reach the runner only as a
//! regular expression or as JSON, quoted; a pattern may match more than was asked for, never less.

use std::collections::VecDeque;

use crate::runner::event::{Event, Lines};
use crate::runner::preset::{Call, CallEnd, Course, Source, Unit};
use crate::runner::progress::{describe, last_lines};
use crate::runner::template::literal;
use crate::runner::{EVENTS_FILE, OUT_FOLDER};

/// Shared by the files of all three.
pub(super) const EVENTS: (&str, &str) =
    ("andon_events.cjs", include_str!("../../../../ci/runners/andon_events.cjs"));
/// Matches no name.
pub(super) const NOTHING: &str = "$.^";

/// A call with what Andon's files need to know.
pub(super) fn told(call: Call, mode: &str) -> Call {
    call.with_env("ANDON_RUNNER_EVENTS", format!("{OUT_FOLDER}/{EVENTS_FILE}"))
        .with_env("ANDON_RUNNER_MODE", mode)
}

/// The file and the ids in it, in the order in which files first come.
pub(super) fn by_file(unit: &Unit) -> Vec<(String, Vec<String>)> {
    let mut files: Vec<(String, Vec<String>)> = Vec::new();
    for id in unit.ids() {
        let file = id.split_once("::").map_or(id, |(file, _)| file);
        match files.iter_mut().find(|(known, _)| known == file) {
            Some((_, ids)) => ids.push(id.to_owned()),
            None => files.push((file.to_owned(), vec![id.to_owned()])),
        }
    }
    files
}

/// A pattern for the full names of these ids, as Jest and Vitest have them: titles with a space between.
pub(super) fn pattern(ids: &[String]) -> String {
    let name = |id: &String| {
        let titles = id.split_once("::").map_or("", |(_, titles)| titles);
        // The number that tells tests of one name apart is no part of it.
        let (name, number) = titles.rsplit_once(" #").unwrap_or((titles, ""));
        let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let form = |text: &str| literal(text).replace("::", "(?:::| )").replace('\u{fffd}', "[\\s\\S]");
        if numbered { format!("{}|{}", form(titles), form(name)) } else { form(titles) }
    };
    format!("^(?:{})$", ids.iter().map(name).collect::<Vec<_>>().join("|"))
}

/// A discovery in one call.
pub(super) struct Listing {
    call: Option<Call>,
    lines: Lines,
    over: bool,
    broken: bool,
}

impl Listing {
    /// By this call.
    pub(super) fn of(call: Call) -> Self {
        Self { call: Some(told(call, "discover")), lines: Lines::default(), over: false, broken: false }
    }
}

impl Course for Listing {
    fn next(&mut self) -> Option<Call> {
        self.call.take()
    }

    fn hear(&mut self, from: Source, bytes: &[u8], events: &mut Vec<Event>) {
        if from == Source::Events {
            for event in self.lines.push(bytes) {
                self.over |= event == Event::End;
                self.broken |= matches!(event, Event::CollectError { .. });
                events.push(event);
            }
        }
    }

    fn ended(&mut self, end: &CallEnd<'_>, _: &mut Vec<Event>) -> Result<(), String> {
        if self.broken {
            return Err(format!("tests cannot be collected: {}", describe(end.exit)));
        }
        if end.exit.code != 0 || !self.over {
            let how = if self.over { "" } else { "the runner ended without Andon's reporter in it: " };
            return Err(format!("{how}{}\n{}", describe(end.exit), last_lines(&end.text())));
        }
        Ok(())
    }
}

/// A unit, a call for each file.
pub(super) struct Files {
    calls: VecDeque<(Vec<String>, Call)>,
    lines: Lines,
    left: Vec<String>,
    any: bool,
    over: bool,
}

impl Files {
    /// Each with the ids that it runs.
    pub(super) fn of(calls: impl IntoIterator<Item = (Vec<String>, Call)>) -> Self {
        let calls = calls.into_iter().map(|(ids, call)| (ids, told(call, "run"))).collect();
        Self { calls, lines: Lines::default(), left: Vec::new(), any: false, over: false }
    }
}

impl Course for Files {
    fn next(&mut self) -> Option<Call> {
        let (ids, call) = self.calls.pop_front()?;
        (self.left, self.any, self.over) = (ids, false, false);
        Some(call)
    }

    fn hear(&mut self, from: Source, bytes: &[u8], events: &mut Vec<Event>) {
        if from != Source::Events {
            return;
        }
        for event in self.lines.push(bytes) {
            match &event {
                Event::Result { id, .. } => {
                    self.any = true;
                    self.left.retain(|left| left != id);
                }
                Event::Start { .. } => self.any = true,
                Event::End => self.over = true,
                _ => {}
            }
            events.push(event);
        }
    }

    fn ended(&mut self, end: &CallEnd<'_>, events: &mut Vec<Event>) -> Result<(), String> {
        if self.over {
            // The runner went through the whole file.
            events.push(Event::Collected { missing: std::mem::take(&mut self.left) });
            return Ok(());
        }
        if self.any {
            return Ok(());
        }
        Err(format!("the file's tests did not run: {}\n{}", describe(end.exit), last_lines(&end.text())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::event::EventOutcome;
    use crate::runner::played::{Played, exit, unit};

    #[test]
    fn a_pattern_is_of_whole_names_and_nothing_in_a_name_is_syntax() {
        let ids = ["a.js::shop::sells (x|y) $(id)".to_owned(), "a.js::t\u{fffd} #2".to_owned()];
        let expected = r"^(?:shop(?:::| )sells \(x\|y\) \$\(id\)|t[\s\S] #2|t[\s\S])$";
        assert_eq!(pattern(&ids), expected);
    }

    #[test]
    fn what_the_whole_file_did_not_have_is_missing_and_a_crash_leaves_it() {
        let unit = unit(&["a.js::x", "a.js::y", "b.js::z"]);
        let calls = by_file(&unit).into_iter().map(|(file, ids)| (ids, Call::running(file)));
        let mut played = Played::new(Box::new(Files::of(calls)));
        assert_eq!(played.script(), "a.js");
        played.hear(Source::Events, b"{\"e\":\"result\",\"id\":\"a.js::x\",\"outcome\":\"passed\",\"message\":\"\",\"log\":\"\"}\n{\"e\":\"end\"}\n");
        played.end(&exit(0), b"").unwrap();
        assert_eq!(played.outcomes(), [("a.js::x", EventOutcome::Passed)]);
        assert_eq!(played.events.last(), Some(&Event::Collected { missing: vec!["a.js::y".into()] }));
        assert_eq!(played.script(), "b.js");
        let reason = played.end(&exit(1), b"SyntaxError: x").unwrap_err();
        assert!(reason.contains("SyntaxError"), "{reason}");
    }

    #[test]
    fn a_reporter_that_was_not_loaded_is_told() {
        let mut played = Played::new(Box::new(Listing::of(Call::listing("x"))));
        played.call();
        let reason = played.end(&exit(0), b"hello").unwrap_err();
        assert!(reason.contains("without Andon's reporter") && reason.contains("hello"), "{reason}");
    }
}
