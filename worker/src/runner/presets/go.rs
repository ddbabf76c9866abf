//! The `go` preset: `go test -list` and `go test -json`.
//!
//! An id is `import/path::TestName`; `import/path::TestName/subtest` can be asked for, though subtests are only known when
//! they run and so are not listed: they are part of their test. Results come as each test ends, but for the last of a package, which waits
//! for the package's own verdict (`TestMain` may still fail it). One call a package.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;

use crate::engine::HeadTail;
use crate::runner::OUTPUT_BYTES_MAX;
use crate::runner::event::{Event, EventOutcome};
use crate::runner::preset::{
    Call, CallEnd, Course, Facts, LineCutter, Options, Preset, Source, Surroundings, Unit,
};
use crate::runner::progress::{describe, last_lines};
use crate::runner::template::{alternatives, literal};

const COMMAND_DEFAULT: &str = "go test";
/// What is listed: fuzz tests run their seeds.
const KINDS: [&str; 3] = ["Test", "Example", "Fuzz"];
/// Kept of what is about no test.
const REST_BYTES_MAX: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Go;

impl Preset for Go {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "go",
            needs: &[],
            takes: &["command", "args"],
            places: &[],
            shares_process: false,
            files: &[],
        }
    }

    fn discovery(&self, options: &Options, _: &Surroundings) -> Box<dyn Course> {
        let (flags, packages) = split(&options.args);
        let mut words: Vec<&str> = vec!["-json"];
        words.extend(flags);
        words.extend(["-list", "^(Test|Example|Fuzz)"]);
        if packages.is_empty() {
            words.push("./...");
        } else {
            words.extend(packages);
        }
        let call = Call::listing(options.script(COMMAND_DEFAULT, words));
        Box::new(Discovery { call: Some(call), said: Said::default() })
    }

    fn unit(&self, options: &Options, _: &Surroundings, unit: &Unit) -> Box<dyn Course> {
        Box::new(Execution { options: options.clone(), groups: groups(unit), current: None })
    }
}

/// Flags, and packages: what is a path or an import path by its look.
fn split(args: &[String]) -> (Vec<&str>, Vec<&str>) {
    let is_flag = |arg: &&str| arg.starts_with('-') || !(arg.starts_with('.') || arg.contains('/'));
    args.iter().map(String::as_str).partition(is_flag)
}

/// One line of `go test -json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    action: String,
    #[serde(default)]
    package: String,
    #[serde(default)]
    test: String,
    #[serde(default)]
    output: String,
    #[serde(default)]
    elapsed: f64,
}

/// The stream, and what of it is about no test: errors of the build, a package's own words.
#[derive(Default)]
struct Said {
    stdout: LineCutter,
    stderr: LineCutter,
    rest: String,
}

impl Said {
    fn hear(&mut self, from: Source, bytes: &[u8], mut each: impl FnMut(&Line)) {
        let Self { stdout, stderr, rest } = self;
        let cutter = match from {
            Source::Stdout => stdout,
            Source::Stderr => stderr,
            Source::Events => return,
        };
        let mut keep = |text: &str| {
            if rest.len() < REST_BYTES_MAX {
                rest.push_str(text);
            }
        };
        cutter.push(bytes, |line| match serde_json::from_slice::<Line>(line) {
            Ok(line) => {
                if line.test.is_empty() && line.action.ends_with("output") {
                    keep(&line.output);
                }
                each(&line);
            }
            Err(_) => keep(&format!("{}\n", String::from_utf8_lossy(line))),
        });
    }
}

struct Discovery {
    call: Option<Call>,
    said: Said,
}

impl Course for Discovery {
    fn next(&mut self) -> Option<Call> {
        self.call.take()
    }

    fn hear(&mut self, from: Source, bytes: &[u8], events: &mut Vec<Event>) {
        self.said.hear(from, bytes, |line| {
            let name = line.output.trim_end_matches('\n');
            let is_name = line.action == "output"
                && KINDS.iter().any(|kind| name.starts_with(kind))
                && name.chars().all(|c| c.is_alphanumeric() || c == '_');
            if is_name {
                events.push(Event::Test { id: format!("{}::{name}", line.package) });
            }
        });
    }

    fn ended(&mut self, end: &CallEnd<'_>, _: &mut Vec<Event>) -> Result<(), String> {
        if end.exit.code == 0 {
            return Ok(());
        }
        Err(format!("go cannot list the tests: {}\n{}", describe(end.exit), last_lines(&self.said.rest)))
    }
}

/// Tests of one package that one call can run.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    package: String,
    pattern: String,
    /// As `-json` names them.
    names: Vec<String>,
}

fn groups(unit: &Unit) -> VecDeque<Group> {
    let mut whole: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut parts = Vec::new();
    for (package, name) in unit.ids().filter_map(|id| id.split_once("::")) {
        if name.contains('/') {
            let levels: Vec<String> = name.split('/').map(|level| format!("^{}$", literal(level))).collect();
            let names = vec![name.to_owned()];
            parts.push(Group { package: package.to_owned(), pattern: levels.join("/"), names });
        } else if let Some((_, names)) = whole.iter_mut().find(|(known, _)| *known == package) {
            names.push(name);
        } else {
            whole.push((package, vec![name]));
        }
    }
    let group = |(package, names): (&str, Vec<&str>)| Group {
        package: package.to_owned(),
        pattern: alternatives(&names),
        names: names.into_iter().map(str::to_owned).collect(),
    };
    whole.into_iter().map(group).chain(parts).collect()
}

struct Execution {
    options: Options,
    groups: VecDeque<Group>,
    current: Option<Running>,
}

/// A call that runs.
struct Running {
    group: Group,
    said: Said,
    logs: BTreeMap<String, HeadTail>,
    ended: Vec<String>,
    any_failed: bool,
    /// The last test's result: it waits for the package's.
    held: Option<Event>,
}

impl Course for Execution {
    fn next(&mut self) -> Option<Call> {
        let group = self.groups.pop_front()?;
        let (flags, _) = split(&self.options.args);
        let mut words: Vec<&str> = vec!["-json"];
        words.extend(flags);
        // Time limits are the farm's; what ran once is to run again; one test runs at a time.
        words.extend(["-timeout=0", "-count=1", "-parallel=1", "-run", &group.pattern, &group.package]);
        let call = Call::running(self.options.script(COMMAND_DEFAULT, words));
        self.current = Some(Running {
            group,
            said: Said::default(),
            logs: BTreeMap::new(),
            ended: Vec::new(),
            any_failed: false,
            held: None,
        });
        Some(call)
    }

    fn hear(&mut self, from: Source, bytes: &[u8], events: &mut Vec<Event>) {
        if let Some(running) = &mut self.current {
            let Running { group, said, logs, ended, any_failed, held } = running;
            said.hear(from, bytes, |line| {
                take(line, &mut Taken { group, logs, ended, any_failed, held, events });
            });
        }
    }

    fn ended(&mut self, end: &CallEnd<'_>, events: &mut Vec<Event>) -> Result<(), String> {
        if let Some(running) = self.current.take() {
            running.conclude(end, events);
        }
        Ok(())
    }
}

/// Where a line's meaning goes.
struct Taken<'a> {
    group: &'a Group,
    logs: &'a mut BTreeMap<String, HeadTail>,
    ended: &'a mut Vec<String>,
    any_failed: &'a mut bool,
    held: &'a mut Option<Event>,
    events: &'a mut Vec<Event>,
}

fn take(line: &Line, to: &mut Taken<'_>) {
    // A subtest's words are its test's, too.
    let mine = |name: &&String| {
        line.test == **name || line.test.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('/'))
    };
    let Some(name) = to.group.names.iter().find(mine) else { return };
    let id = || format!("{}::{name}", to.group.package);
    let outcome = match line.action.as_str() {
        "output" => {
            let log = to.logs.entry(name.clone()).or_insert_with(|| HeadTail::with_limit(OUTPUT_BYTES_MAX));
            return log.push(line.output.as_bytes());
        }
        _ if line.test != *name => return,
        "run" | "cont" => {
            let id = id();
            return to.events.push(Event::Start { id });
        }
        "pass" => EventOutcome::Passed,
        "fail" => EventOutcome::Failed,
        "skip" => EventOutcome::Skipped,
        _ => return,
    };
    *to.any_failed |= outcome == EventOutcome::Failed;
    let log = to.logs.remove(name).map(|log| log.to_text()).unwrap_or_default();
    let message = if outcome == EventOutcome::Passed { String::new() } else { essence(&log) };
    to.ended.push(name.clone());
    let result = Event::Result { id: id(), outcome, ms: Some(line.elapsed * 1000.0), message, log };
    if to.ended.len() < to.group.names.len() {
        to.events.push(result);
    } else {
        to.events.extend(to.held.replace(result));
    }
}

/// Before Go 1.20 a verdict is no event where the test's own output does not end its line: it stands in that line.
fn verdict_within(name: &str, log: &str) -> Option<EventOutcome> {
    let last = log.lines().next_back()?;
    let kinds =
        [("PASS", EventOutcome::Passed), ("FAIL", EventOutcome::Failed), ("SKIP", EventOutcome::Skipped)];
    let found = kinds.iter().find(|(word, _)| {
        last.rsplit_once(&format!("--- {word}: {name} (")).is_some_and(|(_, rest)| rest.ends_with("s)"))
    });
    found.map(|(_, outcome)| *outcome)
}

/// A test's output without go's own lines about what runs.
fn essence(log: &str) -> String {
    let framing = ["=== RUN ", "=== PAUSE ", "=== CONT ", "=== NAME ", "--- PASS: ", "--- SKIP: "];
    let kept = |line: &&str| !framing.iter().any(|frame| line.trim_start().starts_with(frame));
    let lines: Vec<&str> = log.lines().filter(kept).collect();
    let own = lines.iter().filter(|line| !line.trim_start().starts_with("--- FAIL: ")).count();
    let told = |line: &&&str| own == 0 || !line.trim_start().starts_with("--- FAIL: ");
    lines.iter().filter(told).map(|line| line.trim()).collect::<Vec<_>>().join("\n")
}

impl Running {
    /// What never ended: where the package failed, the test that ran has; without any end all have.
    fn conclude(mut self, end: &CallEnd<'_>, events: &mut Vec<Event>) {
        let own = last_lines(&self.said.rest);
        let unexplained = end.exit.code != 0 && !self.any_failed;
        let left: Vec<String> =
            self.group.names.iter().filter(|name| !self.ended.contains(name)).cloned().collect();
        if unexplained && left.is_empty() {
            // Every test passed, and the package did not.
            if let Some(Event::Result { id, ms, log, .. }) = self.held.take() {
                let message = format!("the package failed after its tests: {}\n{own}", describe(end.exit));
                let outcome = EventOutcome::Failed;
                events.push(Event::Result { id, outcome, ms, message, log: format!("{log}{own}\n") });
            }
        }
        events.extend(self.held.take());
        let none_ended = self.ended.is_empty();
        for name in left {
            let log = self.logs.remove(&name).map(|log| log.to_text());
            let id = format!("{}::{name}", self.group.package);
            if let Some((log, outcome)) =
                log.as_ref().and_then(|log| Some((log, verdict_within(&name, log)?)))
            {
                let message = if outcome == EventOutcome::Passed { String::new() } else { essence(log) };
                events.push(Event::Result { id, outcome, ms: None, message, log: log.clone() });
                continue;
            }
            let message = match (end.exit.code, &log) {
                (0, _) => "go does not find this test any more".to_owned(),
                (_, Some(log)) => {
                    format!("the test's process ended while it ran: {}\n{}", describe(end.exit), essence(log))
                }
                (_, None) if none_ended => format!("no test ran: {}\n{own}", describe(end.exit)),
                // Not reached: it goes back to the queue.
                (_, None) => continue,
            };
            let log = format!("{}{}", log.unwrap_or_default(), self.said.rest);
            events.push(Event::Result { id, outcome: EventOutcome::Failed, ms: None, message, log });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::played::{Played, exit, unit};

    const LIST: &[u8] = include_bytes!("../../../tests/runners/recorded/go-list.jsonl");
    const RUN: &[u8] = include_bytes!("../../../tests/runners/recorded/go-run.jsonl");
    const DIES: &[u8] = include_bytes!("../../../tests/runners/recorded/go-dies.jsonl");
    const P: &str = "example.com/shop";

    fn unit_of(ids: &[&str]) -> Played {
        Played::new(Go.unit(&Options::default(), &Surroundings::default(), &unit(ids)))
    }

    #[test]
    fn what_the_real_go_listed_is_found_with_its_package() {
        let options =
            Options { args: ["-tags", "db", "./..."].map(str::to_owned).to_vec(), ..Options::default() };
        let mut played = Played::new(Go.discovery(&options, &Surroundings::default()));
        assert_eq!(played.script(), "go test -json -tags db -list '^(Test|Example|Fuzz)' ./...\n");
        played.play(LIST, 0).unwrap();
        let tests = played.tests();
        assert_eq!((tests.len(), tests[0].as_str()), (10, "example.com/shop::TestSells"));
        assert!(tests.contains(&"example.com/shop/stock::TestSells".to_owned()));
    }

    #[test]
    fn what_the_real_go_ran_comes_test_by_test_and_a_subtest_is_its_tests() {
        let names = ["TestSells", "TestFails", "TestSkips", "TestTable", "TestParallelA", "TestNoNewline"];
        let ids: Vec<String> = names.iter().map(|name| format!("{P}::{name}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut played = unit_of(&ids);
        assert!(played.script().contains("-parallel=1 -run '^(TestSells|TestFails|"));
        played.play(RUN, 1).unwrap();
        let by_name: Vec<(&str, EventOutcome)> = played
            .outcomes()
            .into_iter()
            .map(|(id, outcome)| (id.strip_prefix("example.com/shop::").unwrap(), outcome))
            .collect();
        let (passed, failed) = (EventOutcome::Passed, EventOutcome::Failed);
        let expected = [
            ("TestSells", passed),
            ("TestFails", failed),
            ("TestSkips", EventOutcome::Skipped),
            ("TestTable", failed),
            ("TestParallelA", passed),
            ("TestNoNewline", passed),
        ];
        assert_eq!(by_name, expected);
        let (message, _) = played.said_of("example.com/shop::TestTable");
        assert_eq!(message, "shop_test.go:22: bad it's");
        assert_eq!(played.said_of("example.com/shop::TestSkips").0, "shop_test.go:16: not now");
        assert!(played.said_of("example.com/shop::TestNoNewline").1.contains("no newline at the end"));
    }

    #[test]
    fn a_test_that_takes_the_process_with_it_has_failed_and_the_rest_is_left() {
        let mut played = unit_of(&[
            "example.com/shop::TestSells",
            "example.com/shop::TestDies",
            "example.com/shop::TestNoNewline",
        ]);
        played.call();
        played.play(DIES, 1).unwrap();
        let expected = [
            ("example.com/shop::TestSells", EventOutcome::Passed),
            ("example.com/shop::TestDies", EventOutcome::Failed),
        ];
        assert_eq!(played.outcomes(), expected);
    }

    #[test]
    fn a_package_that_fails_after_its_tests_is_no_success() {
        let mut played = unit_of(&["p::TestA"]);
        played.call();
        let said = b"{\"Action\":\"run\",\"Package\":\"p\",\"Test\":\"TestA\"}\n{\"Action\":\"pass\",\"Package\":\"p\",\"Test\":\"TestA\"}\n{\"Action\":\"output\",\"Package\":\"p\",\"Output\":\"found unexpected goroutines\\n\"}\n";
        played.play(said, 1).unwrap();
        assert_eq!(played.outcomes(), [("p::TestA", EventOutcome::Failed)]);
        assert!(played.said_of("p::TestA").0.contains("unexpected goroutines"));
    }

    #[test]
    fn a_package_that_does_not_build_fails_each_of_its_tests_with_the_reason() {
        let mut played = unit_of(&["p::TestA", "p::TestB", "q::TestC"]);
        played.call();
        played.hear(Source::Stderr, b"# p [p.test]\n./a_test.go:5:34: undefined: x\n");
        played.hear(Source::Stdout, b"FAIL\tp [build failed]\n");
        played.end(&exit(2), b"").unwrap();
        assert_eq!(
            played.outcomes(),
            [("p::TestA", EventOutcome::Failed), ("p::TestB", EventOutcome::Failed)]
        );
        assert!(played.said_of("p::TestB").0.contains("undefined: x"));
        assert!(played.script().ends_with("'^(TestC)$' q\n"));
    }

    #[test]
    fn a_subtest_is_run_by_its_levels_and_no_name_is_a_pattern() {
        let mut played = unit_of(&["p::TestT/a_b/it's+$(id)"]);
        let script = played.script();
        assert!(script.contains(r"-run '^TestT$/^a_b$/^it'\''s\+\$\(id\)$' p"), "{script}");
        played
            .play(b"{\"Action\":\"pass\",\"Package\":\"p\",\"Test\":\"TestT/a_b/it's+$(id)\"}\n", 0)
            .unwrap();
        assert_eq!(played.outcomes(), [("p::TestT/a_b/it's+$(id)", EventOutcome::Passed)]);
    }
}
