//! What a run would do, for a person and as JSON: a function of the specification and of what the farm knows.

use std::fmt::Write as _;

use andon_proto as wire;
use serde::Serialize;
use wire::image::Source;

use super::listing::{branch, table};
use super::text::cut;
use super::words;

/// Longest name that is shown.
const NAME_CHARS_MAX: usize = 80;
/// Steps, services and inputs that are shown of each kind.
const SHOWN_MAX: usize = 20;

/// The whole plan.
#[derive(Debug, Serialize)]
pub(crate) struct PlanJson {
    project: String,
    commit: String,
    #[serde(rename = "ref")]
    git_ref: Option<String>,
    /// Uncommitted work on top of this commit.
    base_commit: Option<String>,
    baseline: BaselineJson,
    suites: Vec<SuiteJson>,
    workers: Vec<WorkerJson>,
    lanes: u32,
    /// At best, of the tests whose duration is known; `null` where none is.
    expected_ms: Option<u64>,
    /// Runs that have not ended and share the lanes.
    runs_before: u32,
}

#[derive(Debug, Serialize)]
struct BaselineJson {
    /// `none`, `present`, `derived`, `built`.
    fate: &'static str,
    /// Of what is there, or is built upon.
    key: Option<String>,
    of_run: Option<u64>,
    steps_done: u32,
    steps: u32,
    build_ms: Option<u64>,
    /// What makes the key.
    inputs: Vec<InputJson>,
}

/// One thing that would make another baseline.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct InputJson {
    /// `stack`, `image`, `bound`, `step`, `proof`.
    kind: &'static str,
    /// Of the service or the step.
    name: String,
    /// What is written.
    value: String,
    /// Over the files that it names; `null` where it names none.
    digest: Option<String>,
}

#[derive(Debug, Serialize)]
struct SuiteJson {
    name: String,
    rebase: &'static str,
    /// No run has told of its tests yet.
    needs_discovery: bool,
    left_out: u64,
    units: u64,
    leases: u64,
    expected_ms: u64,
    longest_unit_ms: u64,
    tests: Vec<TestJson>,
}

#[derive(Debug, Serialize)]
struct TestJson {
    id: String,
    expected_ms: u64,
    failed_last: bool,
    flakes: u32,
    runs: u32,
}

#[derive(Debug, Serialize)]
struct WorkerJson {
    name: String,
    lanes: u32,
    unfit: Option<String>,
    avoided: bool,
}

const fn fate(fate: wire::BaselineFate) -> &'static str {
    match fate {
        wire::BaselineFate::Unspecified => "unknown",
        wire::BaselineFate::None => "none",
        wire::BaselineFate::Present => "present",
        wire::BaselineFate::Derived => "derived",
        wire::BaselineFate::Built => "built",
    }
}

const fn rebase(unit: wire::RebaseUnit) -> &'static str {
    match unit {
        wire::RebaseUnit::Unspecified | wire::RebaseUnit::Test => "test",
        wire::RebaseUnit::Class => "class",
        wire::RebaseUnit::File => "file",
        wire::RebaseUnit::Batch => "batch",
        wire::RebaseUnit::Never => "never",
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn image(image: Option<&wire::Image>) -> String {
    match image.and_then(|image| image.source.as_ref()) {
        Some(Source::Reference(reference)) => reference.clone(),
        Some(Source::Build(build)) => format!("built from {} and its base images", build.context),
        None => "none".to_owned(),
    }
}

/// What makes the baseline's key, in the order in which it does. Of images the content counts, not the name.
fn inputs(spec: &wire::RunSpec) -> Vec<InputJson> {
    let Some(stack) = &spec.stack else { return Vec::new() };
    let baseline = spec.baseline.clone().unwrap_or_default();
    let input = |kind, name: &str, value: String, digest: &str| InputJson {
        kind,
        name: name.to_owned(),
        value,
        digest: some(digest),
    };
    let services =
        format!("{}, as the compose file means them", words::plural(stack.services.len() as u64, "service"));
    let mut made = vec![input("stack", "", services, "")];
    made.extend(stack.services.iter().map(|of| input("image", &of.name, image(of.image.as_ref()), "")));
    let has_seed = !baseline.seed.is_empty() || !baseline.steps.is_empty();
    if !baseline.bound_digest.is_empty() {
        made.push(input("bound", "", "files bound into services".to_owned(), &baseline.bound_digest));
    }
    if baseline.steps.is_empty() && has_seed {
        let commands = words::plural(baseline.seed.len() as u64, "command");
        let value = with_globs(commands, &baseline.inputs);
        made.push(input("step", "seed", value, &baseline.inputs_digest));
    }
    for (place, step) in baseline.steps.iter().enumerate() {
        let name = if step.name.is_empty() { format!("{}", place + 1) } else { step.name.clone() };
        let commands = words::plural(step.run.len() as u64, "command");
        made.push(input("step", &name, with_globs(commands, &step.inputs), &step.inputs_digest));
    }
    made.extend(baseline.proofs.iter().map(|proof| input("proof", &proof.service, proof.run.clone(), "")));
    made
}

fn with_globs(commands: String, globs: &[String]) -> String {
    if globs.is_empty() { commands } else { format!("{commands}, {}", globs.join(" ")) }
}

/// The whole as data.
pub(crate) fn json(spec: &wire::RunSpec, planned: &wire::PlanRunResponse) -> PlanJson {
    let baseline = planned.baseline.clone().unwrap_or_default();
    let rebase_of = |name: &str| {
        spec.suites.iter().find(|suite| suite.name == name).map_or("test", |s| rebase(s.rebase()))
    };
    let suites = planned.suites.iter().map(|suite| SuiteJson {
        name: suite.name.clone(),
        rebase: rebase_of(&suite.name),
        needs_discovery: suite.tests.is_empty() && suite.left_out == 0,
        left_out: suite.left_out,
        units: suite.units,
        leases: suite.leases,
        expected_ms: suite.expected_ms,
        longest_unit_ms: suite.longest_unit_ms,
        tests: suite
            .tests
            .iter()
            .map(|test| TestJson {
                id: test.id.clone(),
                expected_ms: test.expected_ms,
                failed_last: test.failed_last,
                flakes: test.flakes,
                runs: test.runs,
            })
            .collect(),
    });
    let workers = planned.workers.iter().map(|worker| WorkerJson {
        name: worker.name.clone(),
        lanes: worker.lanes,
        unfit: some(&worker.unfit),
        avoided: worker.avoided,
    });
    PlanJson {
        project: spec.project.clone(),
        commit: spec.commit.clone(),
        git_ref: some(&spec.git_ref),
        base_commit: spec.working_tree.as_ref().map(|tree| tree.base_commit.clone()),
        suites: suites.collect(),
        workers: workers.collect(),
        lanes: planned.lanes,
        expected_ms: (planned.expected_ms > 0).then_some(planned.expected_ms),
        runs_before: planned.runs_before,
        baseline: BaselineJson {
            fate: fate(baseline.fate()),
            key: some(&baseline.key),
            of_run: (baseline.of_run > 0).then_some(baseline.of_run),
            steps_done: baseline.steps_done,
            steps: baseline.steps,
            build_ms: (baseline.build_ms > 0).then_some(baseline.build_ms),
            inputs: inputs(spec),
        },
    }
}

/// The whole for a person.
pub(crate) fn text(spec: &wire::RunSpec, planned: &wire::PlanRunResponse, with_tests: bool) -> String {
    let plan = json(spec, planned);
    let of_branch =
        plan.git_ref.as_deref().map(|git_ref| format!(" ({})", cut(branch(git_ref), NAME_CHARS_MAX)));
    let mut said = format!(
        "{} {}{}\n\n",
        cut(&plan.project, NAME_CHARS_MAX),
        words::short(&plan.commit),
        of_branch.unwrap_or_default()
    );
    baseline_text(&plan.baseline, &mut said);
    suites_text(&plan, with_tests, &mut said);
    lanes_text(&plan, &mut said);
    said
}

fn baseline_text(baseline: &BaselineJson, said: &mut String) {
    let key = baseline.key.as_deref().map(|key| cut(words::short(key), 12)).unwrap_or_default();
    let of_run = baseline.of_run.unwrap_or_default();
    let took = baseline.build_ms.map(|ms| format!(", built in {}", words::millis(ms))).unwrap_or_default();
    let fate = match baseline.fate {
        "none" => "none: the project has no stack".to_owned(),
        "present" => format!("there: {key}, as in run {of_run}{took}"),
        "derived" => format!(
            "derived from {key} of run {of_run}: {} of {} are there, the rest is run",
            baseline.steps_done,
            words::plural(u64::from(baseline.steps), "step")
        ),
        _ => format!("built: no run has had it, {} to run", words::plural(u64::from(baseline.steps), "step")),
    };
    let mut line = |line: String| writeln!(said, "{line}").expect("a string takes every write");
    line(format!("baseline  {fate}"));
    let (kinds, names): (Vec<_>, Vec<_>) = baseline
        .inputs
        .iter()
        .take(SHOWN_MAX)
        .map(|input| {
            let digest = input.digest.as_deref().map(|digest| format!(" {}", cut(words::short(digest), 12)));
            let name = cut(&input.name, NAME_CHARS_MAX);
            let name = if name.is_empty() { name } else { format!("{name}: ") };
            let value = cut(&input.value, NAME_CHARS_MAX);
            (input.kind.replace('_', " "), format!("{name}{value}{}", digest.unwrap_or_default()))
        })
        .unzip();
    let width = kinds.iter().map(String::len).max().unwrap_or(0);
    for (place, (kind, name)) in kinds.iter().zip(&names).enumerate() {
        let begins = if place == 0 { "made of" } else { "" };
        line(format!("{begins:<9} {kind:<width$}  {name}"));
    }
    let more = baseline.inputs.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        line(format!("{:<9} and {more} more", ""));
    }
    line(String::new());
}

fn suites_text(plan: &PlanJson, with_tests: bool, said: &mut String) {
    let mut rows = Vec::new();
    for suite in &plan.suites {
        let name = cut(&suite.name, NAME_CHARS_MAX);
        let tests = match (suite.needs_discovery, suite.left_out) {
            (true, _) => "not known: to be discovered".to_owned(),
            (false, 0) => words::thousands(suite.tests.len() as u64),
            (false, out) => format!(
                "{} ({} not chosen)",
                words::thousands(suite.tests.len() as u64),
                words::thousands(out)
            ),
        };
        let mut row = vec![name, suite.rebase.to_owned(), tests];
        if !suite.needs_discovery {
            row.extend([
                words::thousands(suite.units),
                words::thousands(suite.leases),
                words::millis(suite.expected_ms),
                words::millis(suite.longest_unit_ms),
            ]);
        }
        rows.push(row);
    }
    let header = ["suite", "rebase", "tests", "units", "leases", "on one lane", "longest unit"];
    said.push_str(&table(&header, &rows));
    if with_tests {
        for suite in &plan.suites {
            let row = |test: &TestJson| {
                let note = if test.failed_last {
                    "failed the last time".to_owned()
                } else if test.flakes > 0 {
                    format!("flaky in {} of {}", test.flakes, words::plural(u64::from(test.runs), "run"))
                } else {
                    String::new()
                };
                let name = cut(&format!("{}/{}", suite.name, test.id), 200);
                vec![name, words::millis(test.expected_ms), note]
            };
            let rows: Vec<_> = suite.tests.iter().map(row).collect();
            if !rows.is_empty() {
                said.push('\n');
                said.push_str(&table(&["test", "expected", ""], &rows));
            }
        }
    }
    said.push('\n');
}

fn lanes_text(plan: &PlanJson, said: &mut String) {
    let takes = |worker: &&WorkerJson| worker.unfit.is_none() && !worker.avoided;
    let named: Vec<String> = plan
        .workers
        .iter()
        .filter(takes)
        .map(|worker| format!("{} ({})", cut(&worker.name, NAME_CHARS_MAX), worker.lanes))
        .collect();
    let mut line = |line: String| writeln!(said, "{line}").expect("a string takes every write");
    if named.is_empty() {
        line("lanes     none: no worker takes work".to_owned());
    } else {
        let on = words::plural(named.len() as u64, "worker");
        line(format!("lanes     {} on {on}: {}", plan.lanes, named.join(", ")));
    }
    for worker in &plan.workers {
        if let Some(why) = &worker.unfit {
            let name = cut(&worker.name, NAME_CHARS_MAX);
            line(format!("          {name} takes no work: {}", cut(why, 200)));
        }
    }
    if plan.runs_before > 0 {
        let others = words::plural(u64::from(plan.runs_before), "other run");
        line(format!("          shared with {others}"));
    }
    match plan.expected_ms {
        Some(ms) if plan.lanes > 0 => line(format!(
            "time      {} at best for the tests that are known, rebases and baseline not counted",
            words::millis(ms)
        )),
        _ => line("time      not known".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> wire::RunSpec {
        let image = |name: &str| Some(wire::Image { source: Some(Source::Reference(name.into())) });
        let suite = |name: &str, unit: wire::RebaseUnit| wire::Suite {
            name: name.into(),
            image: image("python:3"),
            rebase: unit.into(),
            ..Default::default()
        };
        let step = |name: &str, inputs: &str| wire::BaselineStep {
            name: name.into(),
            run: vec!["x".into()],
            inputs: vec![inputs.into()],
            inputs_digest: "f".repeat(64),
            ..Default::default()
        };
        wire::RunSpec {
            project: "shop".into(),
            commit: "c".repeat(40),
            git_ref: "refs/heads/main".into(),
            stack: Some(wire::Stack {
                services: vec![wire::Service {
                    name: "db".into(),
                    image: image("mysql:9"),
                    ..Default::default()
                }],
                compose_digest: "a".repeat(64),
            }),
            baseline: Some(wire::BaselineSpec {
                seed: vec!["x".into(), "x".into()],
                steps: vec![step("schema", "db/schema/**"), step("", "db/load/**")],
                ..Default::default()
            }),
            suites: vec![suite("it", wire::RebaseUnit::Test), suite("new", wire::RebaseUnit::Batch)],
            ..Default::default()
        }
    }

    fn planned() -> wire::PlanRunResponse {
        let test = wire::TestPlanned {
            id: "tests/a.py::x\u{1b}[2J".into(),
            expected_ms: 1_400,
            failed_last: true,
            flakes: 1,
            runs: 9,
        };
        wire::PlanRunResponse {
            suites: vec![
                wire::SuitePlanned {
                    name: "it".into(),
                    tests: vec![test],
                    left_out: 3,
                    units: 1,
                    leases: 1,
                    expected_ms: 1_400,
                    longest_unit_ms: 1_400,
                },
                wire::SuitePlanned { name: "new".into(), ..Default::default() },
            ],
            workers: vec![
                wire::WorkerPlanned { name: "w1".into(), lanes: 2, ..Default::default() },
                wire::WorkerPlanned { name: "w2".into(), lanes: 2, unfit: "no disk".into(), avoided: false },
            ],
            baseline: Some(wire::BaselinePlanned {
                fate: wire::BaselineFate::Derived.into(),
                key: "b".repeat(64),
                of_run: 7,
                steps_done: 1,
                steps: 2,
                build_ms: 0,
            }),
            expected_ms: 1_400,
            lanes: 2,
            runs_before: 1,
        }
    }

    #[test]
    fn a_person_reads_what_would_run_where_and_why() {
        let text = text(&spec(), &planned(), true);
        for said in [
            "shop cccccccccccc (main)\n",
            "derived from bbbbbbbbbbbb of run 7: 1 of 2 steps are there",
            "db: mysql:9",
            "schema: 1 command, db/schema/** ffffffffffff",
            "1 (3 not chosen)",
            "not known: to be discovered",
            "it/tests/a.py::x\\x1b[2J",
            "failed the last time",
            "2 on 1 worker: w1 (2)",
            "w2 takes no work: no disk",
            "shared with 1 other run",
            "1.4 s at best",
        ] {
            assert!(text.contains(said), "{text}\nhas no {said:?}");
        }
    }

    #[test]
    fn json_says_it_all() {
        let json = serde_json::to_value(json(&spec(), &planned())).unwrap();
        assert_eq!(json["baseline"]["fate"], "derived");
        assert_eq!(json["suites"][0]["tests"][0]["expected_ms"], 1_400);
        assert_eq!(
            (&json["suites"][0]["needs_discovery"], &json["suites"][1]["needs_discovery"]),
            (&false.into(), &true.into())
        );
        assert_eq!(json["workers"][1]["unfit"], "no disk");
        let kinds: Vec<_> =
            json["baseline"]["inputs"].as_array().unwrap().iter().map(|i| &i["kind"]).collect();
        assert_eq!(kinds, ["stack", "image", "step", "step"]);
    }
}
