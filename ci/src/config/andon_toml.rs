//! `andon.toml`: its keys, their types, and what each must look like on its own.
//!
//! What concerns several keys at once is in `check`. A syntax error does not hide the mistakes of other lines.

use std::collections::HashSet;

use toml::de::{DeTable, DeValue};

use super::limits::{self, Limits};
use super::problem::{Findings, Problem, choices};
use super::quick::{ENGINES, Engine};
use super::table::{Table, wrong_type};
use super::{
    Baseline, Build, Config, ConfigErrors, DEFAULT_SEED_TIMEOUT, DEFAULT_TIMEOUT, DEFAULT_WORKDIR,
    FILE_BYTES_MAX, Image, KEEP_FOR_MAX, KEEP_MAX, Keep, Located, Note, Place, Policy, RETRIES_MAX, Rebase,
    RepoPath, SUITES_MAX, Suite, TIMEOUT_MAX, Triggers, all_problems, baseline, check, quarantine, quoted,
    runner,
};

/// The keys of each table, for the hint that a key belongs elsewhere.
pub(super) const HOMES: [(&str, &[&str]); 10] = [
    ("[stack]", &["compose", "quick"]),
    ("[baseline]", &["seed", "inputs", "step", "proof", "seed_timeout", "labels"]),
    ("[[baseline.step]]", &["run", "inputs", "grows", "keep", "name"]),
    ("[[baseline.proof]]", &["service", "run", "engine", "only_reads"]),
    (
        "[[suite]]",
        &[
            "name", "image", "runner", "command", "args", "discover", "run", "timeout", "retries", "rebase",
            "process", "env", "workdir", "docker", "limits", "egress", "reports",
        ],
    ),
    (
        "[policy]",
        &[
            "max_failures",
            "fail_fast",
            "retry_budget",
            "supersede",
            "hedge",
            "merge",
            "keep",
            "keep_max",
            "keep_for",
        ],
    ),
    ("[triggers]", &["branches"]),
    ("[limits]", &["memory", "cpus", "pids", "disk"]),
    ("[[quarantine]]", &["test", "pattern", "suite", "owner", "until", "reason"]),
    ("the top of the file", &["stack", "baseline", "suite", "policy", "triggers", "limits", "quarantine"]),
];

const REBASES: [(&str, Rebase); 5] = [
    ("test", Rebase::Test),
    ("class", Rebase::Class),
    ("file", Rebase::File),
    ("batch", Rebase::Batch),
    ("never", Rebase::Never),
];

const KEEPS: [(&str, Keep); 2] = [("none", Keep::None), ("failed", Keep::Failed)];

/// Reads and checks an `andon.toml`. `file` is its path in the repository, for messages.
///
/// The notes are what a person should know and that is no mistake.
pub fn parse(file: &str, bytes: &[u8]) -> Result<(Config, Vec<Note>), ConfigErrors> {
    let draft = read(file, bytes);
    match all_problems(draft.problems) {
        Some(errors) => Err(errors),
        None => Ok((draft.config, draft.notes)),
    }
}

/// An `andon.toml` as far as it could be read; only right where there are no problems.
pub(crate) struct Draft {
    pub(crate) config: Config,
    pub(crate) problems: Vec<Problem>,
    pub(crate) notes: Vec<Note>,
}

/// Reads as much as can be read, so that mistakes of other files can be reported together with this one's.
pub(crate) fn read(file: &str, bytes: &[u8]) -> Draft {
    let text = match readable(file, bytes) {
        Ok(text) => text,
        Err(problem) => {
            return Draft { config: empty(), problems: vec![problem], notes: Vec::new() };
        }
    };
    let mut findings = Findings::new(file, text);
    let (document, syntax) = DeTable::parse_recoverable(text);
    let broken: Vec<Problem> = syntax
        .iter()
        .map(|error| {
            let place = findings.place(error.span().map_or(0, |span| span.start));
            Problem { place, message: error.message().replace('\n', ", ") }
        })
        .collect();
    let config = top(&mut findings, document.get_ref());
    let Findings { mut problems, notes, .. } = findings;
    if !broken.is_empty() {
        // What was recovered from a broken line is a guess, and what seems to be missing may stand on one.
        let broken_lines: HashSet<u32> = broken.iter().map(|broken| broken.place.line).collect();
        problems.retain(|problem| {
            let line = problem.place.line;
            let about_absence =
                ["has no ", "without a stack"].iter().any(|text| problem.message.contains(text));
            // A value that was made up has no place of its own.
            let made_up =
                (line, problem.place.column) == (1, 1) && !problem.message.starts_with("unknown key");
            !about_absence && !made_up && !broken_lines.contains(&line)
        });
        problems.extend(broken);
    }
    Draft { config, problems, notes }
}

/// The text of a configuration file, or why it is none.
pub(crate) fn readable<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, Problem> {
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes, at most {FILE_BYTES_MAX} are read", bytes.len());
        return Err(Problem { place: Place::start_of(file), message });
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default());
        let place = Findings::new(file, &valid).place(valid.len());
        Problem { place, message: "the file is not UTF-8 from here on".to_owned() }
    })
}

fn empty() -> Config {
    Config {
        compose: None,
        quick: Vec::new(),
        baseline: no_baseline(),
        suites: Vec::new(),
        policy: Policy::default(),
        triggers: Triggers::default(),
        quarantines: Vec::new(),
    }
}

fn no_baseline() -> Baseline {
    Baseline { steps: Vec::new(), seed_timeout: DEFAULT_SEED_TIMEOUT, labels: Vec::new(), proofs: Vec::new() }
}

fn top(findings: &mut Findings<'_>, document: &DeTable<'_>) -> Config {
    let mut table = Table::new("", document, findings.at(1, 1));
    let stack = table.table(findings, "stack", "[stack]");
    let stack_written = stack.is_some();
    let (compose, quick) = stack.map(|table| stack_of(findings, table)).unwrap_or_default();
    let baseline = match table.table(findings, "baseline", "[baseline]") {
        Some(table) => baseline::read(findings, table, stack_written),
        None => no_baseline(),
    };
    let before = findings.problems.len();
    let tables = table.tables(findings, "suite", "[[suite]]");
    if tables.is_empty() && findings.problems.len() == before {
        findings.problem(table.place(), "the project has no suite: write a table under [[suite]]");
    }
    if tables.len() > SUITES_MAX {
        let place = table.place_of(findings, "suite");
        findings.problem(place, format!("{} suites, at most {SUITES_MAX} are taken", tables.len()));
    }
    let mut suites: Vec<Suite> =
        tables.into_iter().take(SUITES_MAX).map(|table| suite(findings, table)).collect();
    if let Some(table) = table.table(findings, "limits", "[limits]") {
        let usual = limits::read(findings, table, &HOMES);
        suites.iter_mut().for_each(|suite| suite.limits = suite.limits.or(usual));
    }
    check::unique_suites(findings, document, &suites);
    let policy = match table.table(findings, "policy", "[policy]") {
        Some(table) => policy(findings, table),
        None => Policy::default(),
    };
    let triggers = match table.table(findings, "triggers", "[triggers]") {
        Some(table) => triggers(findings, table),
        None => Triggers::default(),
    };
    let quarantines = quarantine::read(findings, &mut table, &suites);
    table.finish(findings, &HOMES);
    Config { compose, quick, baseline, suites, policy, triggers, quarantines }
}

type StackKeys = (Option<Located<RepoPath>>, Vec<(Located<String>, Engine)>);

fn stack_of(findings: &mut Findings<'_>, mut table: Table<'_, '_>) -> StackKeys {
    table.require(findings, "compose", "[stack] has no \"compose\": name the compose file of the services");
    let text = table.string(findings, "compose");
    let mut quick = Vec::new();
    for (service, name) in table.string_map(findings, "quick") {
        match ENGINES.iter().find(|(known, _)| *known == name) {
            Some((_, engine)) => quick.push((service, *engine)),
            None => {
                let known = choices(&ENGINES.map(|(known, _)| known));
                let message =
                    format!("quick of {} is {}: write {known}", quoted(&service.value), quoted(&name));
                findings.problem(service.place, message);
            }
        }
    }
    table.finish(findings, &HOMES);
    let compose = text.and_then(|text| {
        let path = check::repo_path(findings, "compose", &RepoPath::root(), &text)?;
        Some(Located { value: path, place: text.place.clone() })
    });
    (compose, quick)
}

fn suite(findings: &mut Findings<'_>, mut table: Table<'_, '_>) -> Suite {
    table.require(findings, "name", "the suite has no \"name\"");
    let name = table.text(findings, "name");
    if let Some(name) = &name {
        check::name(findings, "suite", name);
    }
    let label = name.map_or_else(String::new, |name| name.value);
    let image = suite_image(findings, &mut table);
    let runner = runner::runner(findings, &mut table);
    let timeout = table.duration(findings, "timeout", TIMEOUT_MAX).unwrap_or(DEFAULT_TIMEOUT);
    let retries = table.number(findings, "retries", 0..=RETRIES_MAX).unwrap_or(0);
    let rebase = table.choice(findings, "rebase", &REBASES).unwrap_or(Rebase::Test);
    let process = runner::process(findings, &mut table, &runner, rebase);
    let env = table.string_map(findings, "env");
    let env = check::environment(findings, env);
    let workdir = match table.string(findings, "workdir") {
        Some(path) => check::workdir(findings, path),
        None => DEFAULT_WORKDIR.to_owned(),
    };
    let docker = table.bool(findings, "docker").unwrap_or(false);
    let egress = table.strings(findings, "egress").unwrap_or_default();
    egress.iter().for_each(|line| check::egress(findings, line));
    let egress = egress.into_iter().map(|line| line.value).collect();
    let limits = match table.table(findings, "limits", "limits") {
        Some(table) => limits::read(findings, table, &HOMES),
        None => Limits::default(),
    };
    table.finish(findings, &HOMES);
    Suite {
        name: label,
        image,
        runner,
        timeout,
        retries,
        rebase,
        process,
        env,
        workdir,
        docker,
        limits,
        egress,
    }
}

fn suite_image(findings: &mut Findings<'_>, table: &mut Table<'_, '_>) -> Located<Image> {
    let place = table.place_of(findings, "image");
    let nothing = Image::Reference(String::new());
    let image = match table.any("image") {
        None => {
            let message =
                "the suite has no \"image\": write image = \"name:tag\" or image = { build = \".\" }";
            table.require(findings, "image", message);
            nothing
        }
        Some(value) => match value.get_ref() {
            DeValue::String(text) => {
                let text = Located { value: text.to_string(), place: findings.place(value.span().start) };
                check::image_reference(findings, &text);
                Image::Reference(text.value)
            }
            DeValue::Table(table) => {
                let table = Table::new("image", table, place.clone());
                build(findings, table).map_or(nothing, Image::Build)
            }
            _ => {
                wrong_type(findings, "image", value, "a string or { build = \".\" }");
                nothing
            }
        },
    };
    Located { value: image, place }
}

fn build(findings: &mut Findings<'_>, mut table: Table<'_, '_>) -> Option<Build> {
    table.require(
        findings,
        "build",
        "the image has no \"build\": name the folder to build, \".\" for the root",
    );
    let context = table.string(findings, "build");
    let context = context.and_then(|text| check::repo_path(findings, "build", &RepoPath::root(), &text));
    let dockerfile = match table.string(findings, "dockerfile") {
        Some(text) => check::repo_path(findings, "dockerfile", &RepoPath::root(), &text),
        None => RepoPath::root().join("Dockerfile").ok(),
    };
    let target = table.text(findings, "target").map_or_else(String::new, |text| text.value);
    let args = table.string_map(findings, "args");
    let args = check::build_args(findings, args);
    table.finish(findings, &HOMES);
    Some(Build { context: context?, dockerfile: dockerfile?, target, args })
}

fn policy(findings: &mut Findings<'_>, mut table: Table<'_, '_>) -> Policy {
    let max_failures = table.number(findings, "max_failures", 1..=1_000_000);
    let retry_budget = table.number(findings, "retry_budget", 0..=1_000_000);
    let usual = Policy::default();
    let keep = table.choice(findings, "keep", &KEEPS).unwrap_or(usual.keep);
    let keep_max = table.number(findings, "keep_max", 1..=KEEP_MAX).unwrap_or(usual.keep_max);
    let keep_for = table.duration(findings, "keep_for", KEEP_FOR_MAX).unwrap_or(usual.keep_for);
    let mut switch = |key, usual: bool| table.bool(findings, key).unwrap_or(usual);
    let policy = Policy {
        max_failures,
        fail_fast: switch("fail_fast", usual.fail_fast),
        retry_budget,
        supersede: switch("supersede", usual.supersede),
        hedge: switch("hedge", usual.hedge),
        merge: switch("merge", usual.merge),
        keep,
        keep_max,
        keep_for,
    };
    table.finish(findings, &HOMES);
    policy
}

fn triggers(findings: &mut Findings<'_>, mut table: Table<'_, '_>) -> Triggers {
    let branches = table.strings(findings, "branches");
    table.finish(findings, &HOMES);
    let Some(branches) = branches else { return Triggers::default() };
    for branch in &branches {
        check::branch_pattern(findings, branch);
    }
    Triggers { branches: branches.into_iter().map(|branch| branch.value).collect() }
}
