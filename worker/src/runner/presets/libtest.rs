//! The `libtest` preset: what `cargo test` has without anything beside it.
//!
//! `cargo test --no-run` builds and names the binaries; each lists its tests (`--list --format terse`), and each test is a
//! process of its own (`--exact`), as nextest does it, so that no parsing decides who failed. Ids are nextest's: binary's id, space,
//! name. Documentation tests have no binary and are not found.

use std::collections::HashMap;

use serde::Deserialize;

use super::nextest::headline;
use crate::runner::each::{self, One};
use crate::runner::event::{Event, EventOutcome};
use crate::runner::preset::{
    Call, CallEnd, Course, Facts, LineCutter, Options, Preset, Source, Surroundings, Unit,
};
use crate::runner::progress::{describe, last_lines};
use crate::runner::template::quote;

const COMMAND_DEFAULT: &str = "cargo test";

/// See the module.
#[derive(Debug)]
pub(crate) struct Libtest;

impl Preset for Libtest {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "libtest",
            needs: &[],
            takes: &["command", "args"],
            places: &[],
            shares_process: false,
            files: &[],
        }
    }

    fn discovery(&self, options: &Options, _: &Surroundings) -> Box<dyn Course> {
        Box::new(Discovery {
            build: Some(build(options, Call::listing)),
            built: Built::default(),
            list: None,
            left: Vec::new(),
        })
    }

    fn unit(&self, options: &Options, _: &Surroundings, unit: &Unit) -> Box<dyn Course> {
        Box::new(Execution {
            build: Some(build(options, Call::running)),
            built: Built::default(),
            unit: unit.clone(),
            reader: None,
            missing: Vec::new(),
        })
    }
}

fn build(options: &Options, call: fn(String) -> Call) -> Call {
    let words = ["--no-run", "--message-format", "json"].into_iter();
    let own = options.args.iter().map(String::as_str);
    call(options.script(COMMAND_DEFAULT, words.chain(own)))
}

#[derive(Deserialize)]
struct Artifact {
    package_id: String,
    manifest_path: String,
    target: Target,
    executable: Option<String>,
    profile: Profile,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// A test binary.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Binary {
    id: String,
    path: String,
    package: String,
    folder: String,
}

impl Binary {
    fn of(artifact: Artifact) -> Option<Self> {
        let path = artifact.executable.filter(|_| artifact.profile.test)?;
        let package = package_of(&artifact.package_id).to_owned();
        let kind = artifact.target.kind.first().map_or("lib", String::as_str);
        let name = &artifact.target.name;
        // As nextest names them.
        let id = match kind {
            "test" => format!("{package}::{name}"),
            "bin" | "example" | "bench" => format!("{package}::{kind}/{name}"),
            _ => package.clone(),
        };
        let folder = artifact.manifest_path.rsplit_once('/').map_or("/", |(folder, _)| folder).to_owned();
        Some(Self { id, path, package, folder })
    }

    /// As cargo calls it: in its package's folder, with its package's name.
    fn commands(&self, words: &str) -> String {
        let Self { path, package, folder, .. } = self;
        let (path, package, folder) = (quote(path), quote(package), quote(folder));
        format!(
            "cd {folder} && CARGO_MANIFEST_DIR={folder} CARGO_PKG_NAME={package} RUST_BACKTRACE=\"${{RUST_BACKTRACE:-0}}\" {path} {words}"
        )
    }
}

/// `path+file:///a/shop#0.1.0`, `path+file:///a/b#shop@0.1.0`, and before Rust 1.77 `shop 0.1.0 (path+file:///a/b)`.
fn package_of(id: &str) -> &str {
    match id.split_once('#') {
        Some((place, version)) => match version.split_once('@') {
            Some((name, _)) => name,
            None => place.trim_end_matches('/').rsplit_once('/').map_or(place, |(_, name)| name),
        },
        None => id.split_once(' ').map_or(id, |(name, _)| name),
    }
}

/// What the build said.
#[derive(Default)]
struct Built {
    lines: LineCutter,
    binaries: Vec<Binary>,
    /// Compiler messages, which come as JSON too.
    errors: String,
}

impl Built {
    fn hear(&mut self, bytes: &[u8]) {
        let Self { lines, binaries, errors } = self;
        lines.push(bytes, |line| {
            if let Ok(artifact) = serde_json::from_slice::<Artifact>(line) {
                binaries.extend(Binary::of(artifact));
            } else if let Ok(other) = serde_json::from_slice::<serde_json::Value>(line)
                && let Some(rendered) = other["message"]["rendered"].as_str()
                && other["message"]["level"] == "error"
                && errors.len() < crate::runner::OUTPUT_BYTES_MAX
            {
                errors.push_str(rendered);
            }
        });
    }

    fn ended(&mut self, end: &CallEnd<'_>) -> Result<(), String> {
        // cargo names them as they are ready.
        self.binaries.sort_by(|a, b| a.id.cmp(&b.id));
        if end.exit.code == 0 {
            return Ok(());
        }
        let why = if self.errors.is_empty() { last_lines(&end.text()) } else { self.errors.clone() };
        Err(format!("the tests cannot be built: {}\n{why}", describe(end.exit)))
    }
}

struct Discovery {
    build: Option<Call>,
    built: Built,
    /// The binary that lists now, and what it printed.
    list: Option<(Binary, LineCutter)>,
    left: Vec<Binary>,
}

impl Course for Discovery {
    fn next(&mut self) -> Option<Call> {
        if let Some(build) = self.build.take() {
            return Some(build);
        }
        let binary = self.left.pop()?;
        let call = Call::listing(binary.commands("--list --format terse"));
        self.list = Some((binary, LineCutter::default()));
        Some(call)
    }

    fn hear(&mut self, from: Source, bytes: &[u8], events: &mut Vec<Event>) {
        if from != Source::Stdout {
            return;
        }
        match &mut self.list {
            None => self.built.hear(bytes),
            Some((binary, lines)) => lines.push(bytes, |line| {
                if let Some(name) = line.strip_suffix(b": test") {
                    let name = String::from_utf8_lossy(name);
                    events.push(Event::Test { id: format!("{} {name}", binary.id) });
                }
            }),
        }
    }

    fn ended(&mut self, end: &CallEnd<'_>, _: &mut Vec<Event>) -> Result<(), String> {
        if let Some((binary, _)) = self.list.take() {
            if end.exit.code == 0 {
                return Ok(());
            }
            let last = last_lines(&end.text());
            return Err(format!("`{}` does not list its tests: {}\n{last}", binary.id, describe(end.exit)));
        }
        self.built.ended(end)?;
        self.left = std::mem::take(&mut self.built.binaries);
        self.left.reverse();
        Ok(())
    }
}

struct Execution {
    build: Option<Call>,
    built: Built,
    unit: Unit,
    reader: Option<each::Reader>,
    /// Asked for, and of no binary that there is.
    missing: Vec<String>,
}

impl Course for Execution {
    fn next(&mut self) -> Option<Call> {
        if let Some(build) = self.build.take() {
            return Some(build);
        }
        if self.reader.is_some() {
            return None;
        }
        let by_id: HashMap<&str, &Binary> =
            self.built.binaries.iter().map(|binary| (binary.id.as_str(), binary)).collect();
        let mut tests = Vec::new();
        for test in &self.unit.tests {
            match test.id.split_once(' ').and_then(|(binary, name)| Some((by_id.get(binary)?, name))) {
                Some((binary, name)) => {
                    let commands = binary.commands(&format!("--exact {}", quote(name)));
                    tests.push(One { id: test.id.clone(), attempt: test.attempt, commands });
                }
                None => self.missing.push(test.id.clone()),
            }
        }
        self.reader = Some(each::Reader::of(&tests));
        Some(Call::running(each::script(&tests)))
    }

    fn hear(&mut self, from: Source, bytes: &[u8], events: &mut Vec<Event>) {
        if !self.missing.is_empty() {
            events.push(Event::Collected { missing: std::mem::take(&mut self.missing) });
        }
        match (&mut self.reader, from) {
            (Some(reader), Source::Stdout) => reader.hear(bytes, judge, events),
            (None, Source::Stdout) => self.built.hear(bytes),
            _ => {}
        }
    }

    fn ended(&mut self, end: &CallEnd<'_>, events: &mut Vec<Event>) -> Result<(), String> {
        match self.reader {
            None => self.built.ended(end),
            Some(_) => {
                events.push(Event::Collected { missing: std::mem::take(&mut self.missing) });
                Ok(())
            }
        }
    }
}

/// The exit code decides; the summary tells only what of a success was none.
fn judge(code: i64, output: &str) -> (EventOutcome, String) {
    if code != 0 {
        let exit = crate::runner::progress::Exit { code, out_of_memory: false, memory_bytes: 0, disk: None };
        // 101 is what a failed test of libtest ends with.
        let how = if code == 101 { String::new() } else { format!("{}\n", describe(&exit)) };
        return (EventOutcome::Failed, format!("{how}{}", headline(output)));
    }
    let summary = output.lines().rev().find_map(|line| line.strip_prefix("test result: ok. "));
    match summary {
        Some(counts) if counts.starts_with("0 passed; 0 failed; 0 ignored;") => {
            (EventOutcome::Failed, "its binary does not know this test any more".to_owned())
        }
        Some(counts) if counts.starts_with("0 passed; 0 failed;") => (EventOutcome::Skipped, ignored(output)),
        _ => (EventOutcome::Passed, String::new()),
    }
}

/// `test name ... ignored, why`.
fn ignored(output: &str) -> String {
    let line = output.lines().find_map(|line| line.split_once(" ... ignored"));
    line.map_or("", |(_, why)| why.trim_start_matches([',', ' '])).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::played::{Played, unit};

    const BUILD: &[u8] = include_bytes!("../../../tests/runners/recorded/libtest-build.jsonl");

    #[test]
    fn binaries_are_named_as_nextest_names_them() {
        let mut built = Built::default();
        BUILD.chunks(11).for_each(|chunk| built.hear(chunk));
        built.binaries.sort_by(|a, b| a.id.cmp(&b.id));
        let ids: Vec<&str> = built.binaries.iter().map(|binary| binary.id.as_str()).collect();
        assert_eq!(ids, ["shop", "shop::till"]);
        let forms =
            ["path+file:///a/shop#0.1.0", "path+file:///a/b#shop@0.1.0", "shop 0.1.0 (path+file:///a/b)"];
        assert!(forms.iter().all(|form| package_of(form) == "shop"));
    }

    #[test]
    fn each_binary_lists_its_own() {
        let mut played = Played::new(Libtest.discovery(&Options::default(), &Surroundings::default()));
        assert_eq!(played.script(), "cargo test --no-run --message-format json\n");
        played.play(BUILD, 0).unwrap();
        assert!(played.script().contains("/deps/shop-"));
        played.play(b"tests::a: test\ntests::speed: benchmark\nnoise\n", 0).unwrap();
        played.call();
        played.play(b"sells: test\n", 0).unwrap();
        assert!(played.next().is_none());
        assert_eq!(played.tests(), ["shop tests::a", "shop::till sells"]);
    }

    #[test]
    fn the_exit_code_decides_whatever_a_test_prints() {
        let fake = "test a ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured\n";
        assert_eq!(judge(101, fake).0, EventOutcome::Failed);
        assert_eq!(judge(134, fake).1.lines().next(), Some("exit code 134 (SIGABRT)"));
        let skipped =
            "test a ... ignored, not now\n\ntest result: ok. 0 passed; 0 failed; 1 ignored; 0 measured\n";
        assert_eq!(judge(0, skipped), (EventOutcome::Skipped, "not now".to_owned()));
        let gone = "\nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured\n";
        assert_eq!(judge(0, gone).0, EventOutcome::Failed);
        assert_eq!(judge(0, "a harness of its own").0, EventOutcome::Passed);
    }

    #[test]
    fn a_test_of_a_binary_that_is_gone_has_failed_and_the_others_run() {
        let ids = ["other x", "shop tests::it's $(id)"];
        let mut played =
            Played::new(Libtest.unit(&Options::default(), &Surroundings::default(), &unit(&ids)));
        played.call();
        played.play(BUILD, 0).unwrap();
        let script = played.script();
        assert!(script.contains(r"--exact 'tests::it'\''s $(id)'"), "{script}");
        played
            .play(b"\n==== andon: test 0 begins ====\nrunning 1 test\n\n==== andon: test 0 ends 0 ====\n", 0)
            .unwrap();
        assert!(played.events.contains(&Event::Collected { missing: vec!["other x".into()] }));
        assert_eq!(played.outcomes(), [("shop tests::it's $(id)", EventOutcome::Passed)]);
    }

    #[test]
    fn errors_of_the_compiler_are_said() {
        let mut played =
            Played::new(Libtest.unit(&Options::default(), &Surroundings::default(), &unit(&["a b"])));
        played.call();
        let message = br#"{"reason":"compiler-message","message":{"level":"error","rendered":"error[E0425]: no such value\n"}}"#;
        let reason = played.play(&[message, &b"\n"[..]].concat(), 101).unwrap_err();
        assert!(reason.contains("E0425"), "{reason}");
    }
}
