//! `[baseline]`: its steps, or the one that `seed` and `inputs` are.
//!
//! Must not know what a step's key is made of. Invariant: whatever is written, the rest of the project sees steps alone.

use std::collections::HashMap;

use super::andon_toml::HOMES;
use super::problem::{Findings, Located, quoted};
use super::table::Table;
use super::{Baseline, DEFAULT_SEED_TIMEOUT, STEPS_MAX, Step, TIMEOUT_MAX, check, proof};

pub(super) fn read(findings: &mut Findings<'_>, mut table: Table<'_, '_>, has_stack: bool) -> Baseline {
    let seed = commands(findings, &mut table, "seed", "a seed command");
    let inputs = inputs(findings, &mut table);
    let seed_timeout = table.duration(findings, "seed_timeout", TIMEOUT_MAX).unwrap_or(DEFAULT_SEED_TIMEOUT);
    let labels = table.string_map(findings, "labels");
    let labels = check::labels(findings, labels);
    let written = table.has("step");
    let mut steps = steps(findings, &mut table);
    let proofs = proof::read(findings, &mut table);
    for key in ["seed", "inputs", "step", "proof"] {
        if table.has(key) && !has_stack {
            let place = table.place_of(findings, key);
            findings.problem(place, format!("{key:?} without a stack: name the compose file under [stack]"));
        }
        if !["step", "proof"].contains(&key) && written && table.has(key) {
            let place = table.place_of(findings, key);
            let message = format!("{key:?} beside [[baseline.step]]: write it into the first step");
            findings.problem(place, message);
        }
    }
    let is_step = !seed.is_empty() || !inputs.is_empty();
    if is_step && !written {
        note_without_inputs(findings, &seed, &inputs);
        steps.push(Step { run: seed, inputs, ..Step::default() });
    }
    table.finish(findings, &HOMES);
    Baseline { steps, seed_timeout, labels, proofs }
}

fn steps(findings: &mut Findings<'_>, table: &mut Table<'_, '_>) -> Vec<Step> {
    let tables = table.tables(findings, "step", "[[baseline.step]]");
    if tables.len() > STEPS_MAX {
        let place = table.place_of(findings, "step");
        findings.problem(place, format!("{} steps, at most {STEPS_MAX} are taken", tables.len()));
    }
    let mut names = HashMap::new();
    tables.into_iter().take(STEPS_MAX).map(|table| step(findings, table, &mut names)).collect()
}

fn step(findings: &mut Findings<'_>, mut table: Table<'_, '_>, names: &mut HashMap<String, u32>) -> Step {
    table.require(findings, "run", "the step has no \"run\": write its shell commands, in order");
    let name = table.text(findings, "name");
    if let Some(name) = &name {
        check::name(findings, "step", name);
        if let Some(line) = names.insert(name.value.clone(), name.place.line) {
            let message = format!("step {} is on line {line} already", quoted(&name.value));
            findings.problem(name.place.clone(), message);
        }
    }
    let written = table.has("run");
    let before = findings.problems.len();
    let run = commands(findings, &mut table, "run", "a command of the step");
    if written && run.is_empty() && findings.problems.len() == before {
        let place = table.place_of(findings, "run");
        findings.problem(place, "\"run\" is empty: write the step's shell commands, in order");
    }
    let inputs = inputs(findings, &mut table);
    let grows = table.bool(findings, "grows").unwrap_or(false);
    if grows && inputs.is_empty() {
        let place = table.place_of(findings, "grows");
        let message =
            "\"grows\" without \"inputs\": name the files whose number grows, such as \"migrations/**\"";
        findings.problem(place, message);
    } else {
        note_without_inputs(findings, &run, &inputs);
    }
    let keep = table.bool(findings, "keep");
    table.finish(findings, &HOMES);
    let name = name.map_or_else(String::new, |name| name.value);
    Step { name, run, inputs, grows, keep }
}

fn commands(
    findings: &mut Findings<'_>,
    table: &mut Table<'_, '_>,
    key: &'static str,
    what: &str,
) -> Vec<Located<String>> {
    let commands = table.strings(findings, key).unwrap_or_default();
    for command in &commands {
        check::command(findings, what, command);
    }
    commands
}

fn inputs(findings: &mut Findings<'_>, table: &mut Table<'_, '_>) -> Vec<Located<String>> {
    let inputs = table.strings(findings, "inputs").unwrap_or_default();
    for glob in &inputs {
        check::input_glob(findings, glob);
    }
    inputs
}

fn note_without_inputs(findings: &mut Findings<'_>, run: &[Located<String>], inputs: &[Located<String>]) {
    if let (Some(first), true) = (run.first(), inputs.is_empty()) {
        findings.note(
            first.place.clone(),
            "no \"inputs\": a seed that reads files of the repository is not repeated when they change",
        );
    }
}
