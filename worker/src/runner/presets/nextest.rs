//! The `nextest` preset: `cargo nextest list` and `run` with their JSON.
//!
//! An id is what nextest itself shows: the binary's id, a space, the test's name. Results come as each test ends. Tests that are
//! `#[ignore]`d are not listed. The events name package and binary, not the binary's id; [`Asked`] finds the way back.

use std::collections::HashMap;

use serde::Deserialize;

use crate::runner::event::{Event, EventOutcome};
use crate::runner::preset::{
    Call, CallEnd, Course, Facts, LineCutter, Options, Preset, Source, Surroundings, Unit,
};
use crate::runner::progress::{describe, last_lines};

const COMMAND_DEFAULT: &str = "cargo nextest";
/// Most bytes of the list.
const LISTING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Nextest;

impl Preset for Nextest {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "nextest",
            needs: &[],
            takes: &["command", "args"],
            places: &[],
            shares_process: false,
            files: &[],
        }
    }

    fn discovery(&self, options: &Options, _: &Surroundings) -> Box<dyn Course> {
        let words = ["list", "--message-format", "json"].into_iter().chain(own(options));
        let call = Call::listing(options.script(COMMAND_DEFAULT, words));
        Box::new(Discovery { call: Some(call), stdout: Vec::new() })
    }

    fn unit(&self, options: &Options, _: &Surroundings, unit: &Unit) -> Box<dyn Course> {
        let mut words: Vec<String> = vec!["run".into()];
        words.extend(own(options).map(str::to_owned));
        // One at a time, each once: the farm spreads and retries.
        let usual =
            "--no-fail-fast --test-threads 1 --retries 0 --message-format libtest-json-plus --color never";
        words.extend(usual.split(' ').map(str::to_owned));
        for id in unit.ids() {
            words.extend(["-E".to_owned(), filter(id)]);
        }
        let call = Call::running(options.script(COMMAND_DEFAULT, words))
            .with_env("NEXTEST_EXPERIMENTAL_LIBTEST_JSON", "1");
        let asked = Asked::of(unit.ids());
        Box::new(Execution { call: Some(call), asked, lines: LineCutter::default(), any: false })
    }
}

fn own(options: &Options) -> impl Iterator<Item = &str> {
    options.args.iter().map(String::as_str)
}

/// The expression that selects one test.
fn filter(id: &str) -> String {
    let (binary, name) = id.split_once(' ').unwrap_or((id, ""));
    format!("binary_id(={}) & test(={})", escaped(binary), escaped(name))
}

/// As text of a matcher of nextest's filter language.
fn escaped(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '(' | ')' | ',' | '/') {
            all.push('\\');
        }
        all.push(c);
    }
    all
}

#[derive(Deserialize)]
struct List {
    #[serde(rename = "rust-suites")]
    suites: serde_json::Map<String, serde_json::Value>,
}

struct Discovery {
    call: Option<Call>,
    stdout: Vec<u8>,
}

impl Course for Discovery {
    fn next(&mut self) -> Option<Call> {
        self.call.take()
    }

    fn hear(&mut self, from: Source, bytes: &[u8], _: &mut Vec<Event>) {
        if from == Source::Stdout && self.stdout.len() <= LISTING_BYTES_MAX {
            self.stdout.extend_from_slice(bytes);
        }
    }

    fn ended(&mut self, end: &CallEnd<'_>, events: &mut Vec<Event>) -> Result<(), String> {
        if end.exit.code != 0 {
            return Err(format!("{}\n{}", describe(end.exit), last_lines(&end.text())));
        }
        let list: List = serde_json::from_slice(&self.stdout)
            .map_err(|error| format!("what nextest listed cannot be read: {error}"))?;
        for (binary, suite) in &list.suites {
            let cases = suite.get("testcases").and_then(|cases| cases.as_object());
            for (name, case) in cases.into_iter().flatten() {
                if case["filter-match"]["status"] == "matches" {
                    events.push(Event::Test { id: format!("{binary} {name}") });
                }
            }
        }
        Ok(())
    }
}

/// From what an event names to the id that was asked for.
struct Asked {
    /// By the test's name: binary ids.
    by_name: HashMap<String, Vec<String>>,
}

impl Asked {
    fn of<'a>(ids: impl Iterator<Item = &'a str>) -> Self {
        let mut by_name: HashMap<String, Vec<String>> = HashMap::new();
        for (binary, name) in ids.filter_map(|id| id.split_once(' ')) {
            by_name.entry(name.to_owned()).or_default().push(binary.to_owned());
        }
        Self { by_name }
    }

    /// `package::binary$name`, where the id of a library's binary is the package alone, and of others may have a kind in it.
    fn id_of(&self, event: &str) -> Option<String> {
        let (scope, name) = event.split_once('$')?;
        let (package, binary) = scope.split_once("::")?;
        let asked = self.by_name.get(name)?;
        let fits = |id: &&String| {
            let rest = id.strip_prefix(package).and_then(|rest| rest.strip_prefix("::"));
            rest.is_some_and(|rest| {
                rest == binary || rest.split_once('/').is_some_and(|(_, name)| name == binary)
            })
        };
        let found = asked.iter().find(fits).or_else(|| asked.iter().find(|id| *id == package))?;
        Some(format!("{found} {name}"))
    }
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type")]
    kind: String,
    event: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    exec_time: f64,
    #[serde(default)]
    stdout: String,
}

struct Execution {
    call: Option<Call>,
    asked: Asked,
    lines: LineCutter,
    any: bool,
}

impl Course for Execution {
    fn next(&mut self) -> Option<Call> {
        self.call.take()
    }

    fn hear(&mut self, from: Source, bytes: &[u8], events: &mut Vec<Event>) {
        if from != Source::Stdout {
            return;
        }
        let Self { lines, asked, any, .. } = self;
        lines.push(bytes, |line| {
            let Ok(said) = serde_json::from_slice::<Said>(line) else { return };
            let Some(id) = (said.kind == "test").then(|| asked.id_of(&said.name)).flatten() else { return };
            let outcome = match said.event.as_str() {
                "started" => return events.push(Event::Start { id }),
                "ok" => EventOutcome::Passed,
                "failed" => EventOutcome::Failed,
                "ignored" => EventOutcome::Skipped,
                _ => return,
            };
            *any = true;
            let message =
                if outcome == EventOutcome::Failed { headline(&said.stdout) } else { String::new() };
            events.push(Event::Result {
                id,
                outcome,
                ms: Some(said.exec_time * 1000.0),
                message,
                log: said.stdout,
            });
        });
    }

    fn ended(&mut self, end: &CallEnd<'_>, _: &mut Vec<Event>) -> Result<(), String> {
        if self.any {
            return Ok(());
        }
        Err(format!("nextest ran none of the tests: {}\n{}", describe(end.exit), last_lines(&end.text())))
    }
}

/// From the panic on; without one, the last lines.
pub(super) fn headline(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    let from = lines.iter().position(|line| line.starts_with("thread '") && line.contains(" panicked at "));
    match from {
        Some(from) => {
            let until = |line: &&&str| !line.starts_with("stack backtrace:") && !line.starts_with("note: ");
            lines[from..].iter().take_while(until).copied().collect::<Vec<_>>().join("\n")
        }
        None => last_lines(output),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::played::{Played, unit};

    const LIST: &[u8] = include_bytes!("../../../tests/runners/recorded/nextest-list.json");
    const RUN: &[u8] = include_bytes!("../../../tests/runners/recorded/nextest-run.jsonl");

    fn options() -> Options {
        Options { args: vec!["--features=a b".into()], ..Options::default() }
    }

    #[test]
    fn what_the_real_nextest_listed_is_found() {
        let mut played = Played::new(Nextest.discovery(&options(), &Surroundings::default()));
        assert_eq!(played.script(), "cargo nextest list --message-format json '--features=a b'\n");
        played.play(LIST, 0).unwrap();
        let expected = [
            "shop tests::deceives",
            "shop tests::dies",
            "shop tests::fails",
            "shop tests::panics",
            "shop tests::sells",
            "shop::till sells",
        ];
        assert_eq!(played.tests(), expected);
    }

    #[test]
    fn what_the_real_nextest_ran_is_told_apart_by_binary() {
        let ids = ["shop::till sells", "shop tests::sells", "shop tests::fails", "shop tests::deceives"];
        let mut played = Played::new(Nextest.unit(&options(), &Surroundings::default(), &unit(&ids)));
        let script = played.script();
        assert!(script.contains("-E 'binary_id(=shop::till) & test(=sells)'"), "{script}");
        played.play(RUN, 100).unwrap();
        let mut outcomes = played.outcomes();
        outcomes.sort_by_key(|(id, _)| *id);
        let passed = EventOutcome::Passed;
        let expected = [
            ("shop tests::deceives", passed),
            ("shop tests::fails", EventOutcome::Failed),
            ("shop tests::sells", passed),
            ("shop::till sells", passed),
        ];
        assert_eq!(outcomes, expected);
        let (message, log) = played.said_of("shop tests::fails");
        assert!(message.starts_with("thread 'tests::fails'") && message.contains("stock"), "{message}");
        assert!(log.starts_with("about to fail"), "{log}");
    }

    #[test]
    fn a_name_cannot_leave_its_matcher() {
        assert_eq!(filter(r"a::b x) | all(\,/"), r"binary_id(=a::b) & test(=x\) | all\(\\\,\/)");
    }

    #[test]
    fn a_build_that_fails_is_said() {
        let mut played = Played::new(Nextest.unit(&options(), &Surroundings::default(), &unit(&["a b"])));
        played.call();
        let reason = played.play(b"error[E0425]: cannot find value\n", 101).unwrap_err();
        assert!(reason.contains("E0425") && reason.contains("exit code 101"), "{reason}");
    }
}
