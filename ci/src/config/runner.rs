//! The runner of a suite: which presets there are, which keys belong to each, and what `run` must hold.
//!
//! Which presets there are is what the worker says ([`andon_worker::runner::catalogue`]), so that a new one is known here at
//! once. Invariant: a key that the suite's preset does not take is a mistake, never ignored.

use andon_worker::runner::{Facts, catalogue};

use super::check::command;
use super::problem::{Findings, Located, choices, nearest};
use super::table::Table;
use super::{Preset, Process, Rebase, Runner};

/// Every key that some preset takes.
pub(super) const KEYS: [&str; 5] = ["command", "args", "discover", "run", "reports"];
/// The place of a report's path: no place of ids.
const JUNIT: &str = "junit";
/// The most patterns of report files.
pub(super) const REPORTS_MAX: usize = 16;

/// What is known of a runner.
impl Runner {
    /// The name in `runner = "…"`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Pytest { .. } => "pytest",
            Self::Command { .. } => "command",
            Self::Preset(preset) => &preset.name,
        }
    }

    fn facts(&self) -> Option<&'static Facts> {
        catalogue().find(|facts| facts.name == self.name())
    }
}

/// The runner of a suite, as far as it is not wrong.
fn no_runner() -> Runner {
    Runner::Command { discover: String::new(), run: String::new() }
}

/// The runner and the keys that belong to it.
pub(crate) fn runner(findings: &mut Findings<'_>, table: &mut Table<'_, '_>) -> Runner {
    let written = table.has("runner");
    let known: Vec<(&'static str, &'static Facts)> = catalogue().map(|facts| (facts.name, facts)).collect();
    let chosen = table.choice(findings, "runner", &known);
    let by_command = table.has("discover") || table.has("run");
    let usual = table.string(findings, "command").map_or_else(String::new, |text| text.value);
    let args = table.strings(findings, "args").unwrap_or_default();
    let discover = table.text(findings, "discover");
    let run = table.text(findings, "run");
    let reports = table.strings(findings, "reports").unwrap_or_default();
    let facts = match chosen {
        Some(facts) => facts,
        None if written => return no_runner(),
        None if !by_command => {
            let message = "the suite has no runner: write runner = \"pytest\", or \"discover\" and \"run\"";
            table.require(findings, "runner", message);
            return no_runner();
        }
        None => catalogue().find(|facts| facts.name == "command").expect("`command` is a preset"),
    };
    belongs(findings, table, facts);
    for key in facts.needs {
        table.require(findings, key, &format!("the suite has no {key:?}, which its runner needs"));
    }
    // Of a key that is none of the runner's no more is said.
    if let Some(text) = discover.as_ref().filter(|_| facts.needs.contains(&"discover")) {
        command(findings, "\"discover\"", text);
        no_places(findings, facts, text);
    }
    if let Some(text) = run.as_ref().filter(|_| facts.needs.contains(&"run")) {
        command(findings, "\"run\"", text);
        places(findings, facts, text);
    }
    reports.iter().for_each(|pattern| report_pattern(findings, pattern));
    if let Some(one) = reports.get(REPORTS_MAX) {
        findings.problem(one.place.clone(), format!("more than {REPORTS_MAX} patterns of reports"));
    }
    let text = |text: Option<Located<String>>| text.map_or_else(String::new, |text| text.value);
    let all = |lines: Vec<Located<String>>| lines.into_iter().map(|line| line.value).collect();
    match facts.name {
        "pytest" => Runner::Pytest { command: usual, args: all(args) },
        "command" => Runner::Command { discover: text(discover), run: text(run) },
        name => Runner::Preset(Preset {
            name: name.to_owned(),
            command: usual,
            args: all(args),
            discover: text(discover),
            run: text(run),
            reports: all(reports),
        }),
    }
}

/// `process`, as far as the runner and the unit allow it.
pub(super) fn process(
    findings: &mut Findings<'_>,
    table: &mut Table<'_, '_>,
    runner: &Runner,
    rebase: Rebase,
) -> Process {
    const PROCESSES: [(&str, Process); 2] = [("unit", Process::Unit), ("shared", Process::Shared)];
    let place = table.place_of(findings, "process");
    let process = table.choice(findings, "process", &PROCESSES).unwrap_or(Process::Unit);
    if process == Process::Unit {
        return process;
    }
    let why_not = if !runner.facts().is_some_and(|facts| facts.shares_process) {
        let able: Vec<&str> =
            catalogue().filter(|facts| facts.shares_process).map(|facts| facts.name).collect();
        format!("runner = {}; other runners ask for a rebase themselves", choices(&able))
    } else if rebase != Rebase::Test {
        "rebase = \"test\"".to_owned()
    } else {
        return process;
    };
    findings.problem(place, format!("process = \"shared\" needs {why_not}"));
    Process::Unit
}

fn belongs(findings: &mut Findings<'_>, table: &Table<'_, '_>, facts: &Facts) {
    let own = || facts.needs.iter().chain(facts.takes).copied();
    for key in KEYS.iter().filter(|key| table.has(key) && !own().any(|own| own == **key)) {
        let place = table.place_of(findings, key);
        let keys: Vec<String> = own().map(|key| format!("{key:?}")).collect();
        findings.problem(
            place,
            format!("{key:?} is no key of the runner {:?}, whose own are {}", facts.name, keys.join(", ")),
        );
    }
}

fn no_places(findings: &mut Findings<'_>, facts: &Facts, discover: &Located<String>) {
    for place in facts.places {
        if discover.value.contains(&format!("{{{place}}}")) {
            let message = format!("\"discover\" has {{{place}}}, which only \"run\" has");
            findings.problem(discover.place.clone(), message);
        }
    }
}

/// One place for ids, once and bare; `{junit}` at most once; nothing that is nearly one of them.
fn places(findings: &mut Findings<'_>, facts: &Facts, run: &Located<String>) {
    let place = || run.place.clone();
    let count = |word: &str| {
        let plain = run.value.matches(&format!("{{{word}}}")).count();
        // With a word before each id.
        plain + if word == "tests" { run.value.matches("{tests:").count() } else { 0 }
    };
    let of_ids: Vec<&str> = facts.places.iter().copied().filter(|place| *place != JUNIT).collect();
    match of_ids.iter().map(|word| count(word)).sum::<usize>() {
        0 => {
            let words: Vec<String> = of_ids.iter().map(|word| format!("{{{word}}}")).collect();
            let message = format!("\"run\" has no {}, the place of the tests' ids", words.join(" or "));
            findings.problem(place(), message);
        }
        1 => {
            for word in &of_ids {
                let quoted = |quote: char| run.value.contains(&format!("{quote}{{{word}}}{quote}"));
                if quoted('\'') || quoted('"') {
                    let message =
                        format!("\"run\" has {{{word}}} in quotes: each id is quoted already, write it bare");
                    findings.problem(place(), message);
                }
            }
        }
        _ if of_ids.len() == 1 => findings.problem(place(), "\"run\" has {tests} more than once"),
        _ => findings.problem(place(), "\"run\" has more than one place of the tests' ids"),
    }
    if count(JUNIT) > 1 {
        findings.problem(place(), "\"run\" has {junit} more than once");
    }
    for (at, _) in run.value.match_indices('{') {
        // `${NAME}` is the shell's.
        let shell = run.value[..at].ends_with('$');
        let inside = run.value[at + 1..].split_once('}').map_or("", |(inside, _)| inside);
        let word = !inside.is_empty() && inside.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
        if shell || !word || facts.places.contains(&inside) {
            continue;
        }
        if let Some(near) = nearest(inside, facts.places) {
            let message = format!("\"run\" has {{{inside}}}, did you mean {{{near}}}?");
            findings.problem(place(), message);
        }
    }
}

/// A pattern of a shell over the paths beneath the working folder: it is expanded there, so it must be no more than that.
fn report_pattern(findings: &mut Findings<'_>, pattern: &Located<String>) {
    let text = pattern.value.as_str();
    let fit = |c: char| c.is_ascii_alphanumeric() || "_-./*?[]+@=,".contains(c);
    let outside = text.starts_with('/') || text.starts_with('-') || text.split('/').any(|part| part == "..");
    if text.is_empty() || outside || !text.chars().all(fit) {
        let message = format!(
            "reports {}: write a pattern beneath the working folder, such as \"build/test-results/*/*.xml\"",
            super::quoted(text)
        );
        findings.problem(pattern.place.clone(), message);
    }
}
