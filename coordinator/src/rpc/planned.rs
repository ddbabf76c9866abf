//! What a run would do, said without running it; and which tests were flaky before. Reads the store and the sessions,
//! changes nothing, stores nothing.

use std::collections::{HashMap, HashSet};

use andon_core::asked::Asked;
use andon_core::forecast::{Forecast, at_best_ms};
use andon_core::model::{Candidate, Plan, SuitePlan};
use andon_proto as wire;
use prost::Message;
use tonic::Status;

use super::internal;
use crate::blobs::Digest;
use crate::driver::Farm;
use crate::plan::plan_of;
use crate::restore;
use crate::store::{Past, RunFilter, RunRow, TestRow};

/// So many of a project's latest runs are looked at …
const RUNS_LOOKED_AT: u32 = 100;
/// … and so many different specifications of them.
const SPECS_LOOKED_AT: usize = 20;
/// Tests that are told of one suite; the rest is counted.
const TESTS_TOLD_MAX: usize = 50_000;
const FLAKY_DEFAULT: u32 = 20;
const FLAKY_MAX: u32 = 1_000;
/// Of so many runs the tests are read to find where a flaky one failed.
const FAILED_RUNS_READ: usize = 20;

/// What a run of this specification would do.
pub(super) async fn run(farm: &Farm, request: wire::PlanRunRequest) -> Result<wire::PlanRunResponse, Status> {
    let mut spec = request.spec.ok_or_else(|| Status::invalid_argument("there is no specification"))?;
    if spec.source_digest.is_empty() {
        // Nothing is run, so there need be no source; all else is checked as for a run.
        spec.source_digest = blake3::hash(b"").to_hex().to_string();
    }
    let plan = plan_of(&spec).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let workers = workers(farm, &plan.asked);
    let lanes = lanes_for(&workers, plan.asked.lanes_max);
    let mut suites = Vec::with_capacity(plan.suites.len());
    for suite in &plan.suites {
        let known = farm.store.history(&spec.project, &suite.name).await.map_err(|error| internal(&error))?;
        suites.push(planned_suite(&plan, suite, &known, lanes));
    }
    let total = suites.iter().map(|suite| suite.expected_ms).sum();
    let longest = suites.iter().map(|suite| suite.longest_unit_ms).max().unwrap_or(0);
    let filter = RunFilter { project: None, commit: None, limit: RUNS_LOOKED_AT };
    let runs = farm.store.runs(&filter).await.map_err(|error| internal(&error))?;
    let waits = |run: &&RunRow| !matches!(run.state, andon_core::model::RunState::Ended(_));
    Ok(wire::PlanRunResponse {
        suites,
        workers,
        baseline: Some(baseline(farm, &spec).await?),
        expected_ms: at_best_ms(total, longest, u64::from(lanes)),
        lanes,
        runs_before: u32::try_from(runs.iter().filter(waits).count()).unwrap_or(u32::MAX),
    })
}

fn workers(farm: &Farm, asked: &Asked) -> Vec<wire::WorkerPlanned> {
    let connected = farm.sessions.list().into_iter().filter(|(_, view)| view.session.is_some());
    let mut workers: Vec<_> = connected
        .map(|(name, view)| wire::WorkerPlanned {
            avoided: asked.workers.is_against(&name),
            name: name.0,
            lanes: view.lanes,
            unfit: view.unfit,
        })
        .collect();
    // A preference that cannot be had does not count.
    if !workers.iter().any(|worker| worker.unfit.is_empty() && !worker.avoided) {
        for worker in &mut workers {
            worker.avoided = false;
        }
    }
    workers
}

fn lanes_for(workers: &[wire::WorkerPlanned], lanes_max: Option<u32>) -> u32 {
    let takes = workers.iter().filter(|worker| worker.unfit.is_empty() && !worker.avoided);
    takes.map(|worker| worker.lanes).sum::<u32>().min(lanes_max.unwrap_or(u32::MAX))
}

/// As far as history knows; in the order of ids, since that of discovery is not kept.
fn planned_suite(
    plan: &Plan,
    suite: &SuitePlan,
    known: &HashMap<String, Past>,
    lanes: u32,
) -> wire::SuitePlanned {
    let mut ids: Vec<&String> = known.keys().collect();
    ids.sort_unstable();
    let has = |id: &&String| plan.asked.selection.has(&suite.name, suite.grain, id);
    let chosen: Vec<&String> = ids.iter().copied().filter(has).collect();
    let candidates: Vec<Candidate> =
        chosen.iter().map(|id| restore::candidate((*id).clone(), Some(known))).collect();
    let forecast = Forecast::of(suite, &candidates, plan.asked.repeat, u64::from(lanes));
    let told = |id: &&String| {
        let past = known[*id];
        wire::TestPlanned {
            id: (*id).clone(),
            expected_ms: past.mean_ms,
            failed_last: past.failed_last,
            flakes: past.flakes,
            runs: past.runs,
        }
    };
    wire::SuitePlanned {
        name: suite.name.clone(),
        tests: chosen.iter().take(TESTS_TOLD_MAX).map(told).collect(),
        left_out: (ids.len() - chosen.len()) as u64,
        units: forecast.units,
        leases: forecast.leases,
        expected_ms: forecast.expected_ms,
        longest_unit_ms: forecast.longest_unit_ms,
    }
}

/// A run that was, as far as its baseline goes.
struct Earlier {
    run: u64,
    key: String,
    spec: wire::RunSpec,
    manifest: Option<wire::BaselineManifest>,
}

async fn baseline(farm: &Farm, spec: &wire::RunSpec) -> Result<wire::BaselinePlanned, Status> {
    if spec.stack.is_none() {
        let fate = wire::BaselineFate::None.into();
        return Ok(wire::BaselinePlanned { fate, ..Default::default() });
    }
    let filter = RunFilter { project: Some(spec.project.clone()), commit: None, limit: RUNS_LOOKED_AT };
    let rows = farm.store.runs(&filter).await.map_err(|error| internal(&error))?;
    let mut earlier: Vec<Earlier> = Vec::new();
    for row in rows.into_iter().filter(|row| !row.baseline_key.is_empty()) {
        if earlier.len() >= SPECS_LOOKED_AT {
            break;
        }
        if earlier.iter().any(|known| known.key == row.baseline_key) {
            continue;
        }
        let Some(known) = spec_of(farm, &row.header.spec_digest).await else { continue };
        let manifest = farm.store.baseline(&row.baseline_key).await.map_err(|error| internal(&error))?;
        let manifest = manifest.and_then(|bytes| wire::BaselineManifest::decode(bytes.as_slice()).ok());
        earlier.push(Earlier { run: row.run.0, key: row.baseline_key, spec: known, manifest });
    }
    Ok(fate(spec, &earlier))
}

async fn spec_of(farm: &Farm, digest: &str) -> Option<wire::RunSpec> {
    let bytes = farm.blobs.read(&Digest::parse(digest).ok()?).await.ok()?;
    wire::RunSpec::decode(bytes.as_slice()).ok()
}

/// What becomes of the baseline, by the latest runs' specifications: the one that shares most steps says it. Only a guess as to
/// images, which may have moved since, or be built from other files: workers alone know those.
fn fate(spec: &wire::RunSpec, earlier: &[Earlier]) -> wire::BaselinePlanned {
    let wanted = spec.baseline.clone().unwrap_or_default();
    let steps = steps_of(&wanted);
    let total = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    let mut best =
        wire::BaselinePlanned { fate: wire::BaselineFate::Built.into(), steps: total, ..Default::default() };
    for known in earlier {
        let Some(manifest) = &known.manifest else { continue };
        let had = known.spec.baseline.clone().unwrap_or_default();
        if !same_root(spec, &wanted, &known.spec, &had) {
            continue;
        }
        let had = steps_of(&had);
        let shared = steps.iter().zip(&had).take_while(|(one, other)| same_step(one, other)).count();
        let is_whole = shared == steps.len() && shared == had.len();
        let whole = (shared == had.len()).then_some(shared);
        let prefixes = manifest.prefixes.iter().map(|prefix| prefix.steps as usize);
        // The longest that was kept of what they share.
        let kept = prefixes.filter(|steps| *steps <= shared).chain(whole).max().unwrap_or(0);
        let done = u32::try_from(kept).unwrap_or(u32::MAX);
        if is_whole {
            return wire::BaselinePlanned {
                fate: wire::BaselineFate::Present.into(),
                key: known.key.clone(),
                of_run: known.run,
                steps_done: done,
                steps: total,
                build_ms: manifest.build_ms,
            };
        }
        if done > best.steps_done {
            best = wire::BaselinePlanned {
                fate: wire::BaselineFate::Derived.into(),
                key: manifest.steps.get(kept - 1).map_or(known.key.clone(), |step| step.key.clone()),
                of_run: known.run,
                steps_done: done,
                steps: total,
                build_ms: manifest.build_ms,
            };
        }
    }
    best
}

fn same_root(
    spec: &wire::RunSpec,
    wanted: &wire::BaselineSpec,
    other: &wire::RunSpec,
    had: &wire::BaselineSpec,
) -> bool {
    // What the compose file says, not its bytes.
    let meaning = |spec: &wire::RunSpec| spec.stack.clone().map(|stack| stack.services);
    // Without steps bound files are among the inputs.
    let inputs =
        |baseline: &wire::BaselineSpec| baseline.steps.is_empty().then(|| baseline.inputs_digest.clone());
    meaning(spec) == meaning(other)
        && wanted.bound_digest == had.bound_digest
        && inputs(wanted) == inputs(had)
        && wanted.proofs == had.proofs
}

/// A seed without steps is one step.
fn steps_of(baseline: &wire::BaselineSpec) -> Vec<wire::BaselineStep> {
    if !baseline.steps.is_empty() || baseline.seed.is_empty() {
        return baseline.steps.clone();
    }
    let (run, inputs_digest) = (baseline.seed.clone(), baseline.inputs_digest.clone());
    vec![wire::BaselineStep { run, inputs_digest, ..Default::default() }]
}

fn same_step(one: &wire::BaselineStep, other: &wire::BaselineStep) -> bool {
    one.run == other.run && one.inputs_digest == other.inputs_digest
}

/// Tests that history calls flaky.
pub(super) async fn flaky(
    farm: &Farm,
    request: wire::ListFlakyRequest,
) -> Result<wire::ListFlakyResponse, Status> {
    let limit = if request.limit == 0 { FLAKY_DEFAULT } else { request.limit.min(FLAKY_MAX) };
    let filter = RunFilter { project: Some(request.project.clone()), commit: None, limit: RUNS_LOOKED_AT };
    let rows = farm.store.runs(&filter).await.map_err(|error| internal(&error))?;
    let mut suites = std::collections::BTreeSet::new();
    for row in rows.iter().take(SPECS_LOOKED_AT) {
        let spec = spec_of(farm, &row.header.spec_digest).await.unwrap_or_default();
        suites.extend(spec.suites.into_iter().map(|suite| suite.name));
    }
    let mut tests = Vec::new();
    for suite in suites {
        let known = farm.store.history(&request.project, &suite).await.map_err(|error| internal(&error))?;
        tests.extend(known.into_iter().filter(|(_, past)| past.flakes > 0).map(|(id, past)| {
            wire::FlakyTest {
                suite: suite.clone(),
                id,
                runs: past.runs,
                flakes: past.flakes,
                failures: past.failures,
                failed_in: 0,
            }
        }));
    }
    tests.sort_by(|one, other| {
        let often = |test: &wire::FlakyTest| std::cmp::Reverse((test.flakes, test.failures));
        (often(one), &one.suite, &one.id).cmp(&(often(other), &other.suite, &other.id))
    });
    tests.truncate(limit as usize);
    find_failures(farm, &rows, &mut tests).await?;
    Ok(wire::ListFlakyResponse { tests })
}

async fn find_failures(farm: &Farm, rows: &[RunRow], flaky: &mut [wire::FlakyTest]) -> Result<(), Status> {
    let with_failures = |row: &&RunRow| row.counts.flaky + row.counts.failed + row.counts.timed_out > 0;
    // Of a rerun, or an experiment, others did not run before a test as they do.
    let whole = rows.iter().filter(|row| !row.forgotten && row.header.rerun_of.is_none());
    for row in whole.filter(with_failures).take(FAILED_RUNS_READ) {
        if flaky.iter().all(|test| test.failed_in > 0) {
            break;
        }
        let tests = farm.store.tests(row.run).await.map_err(|error| internal(&error))?;
        let failed: HashSet<_> =
            tests.iter().filter(|test| has_failed(test)).map(|test| (&test.suite, &test.id)).collect();
        for test in flaky.iter_mut().filter(|test| test.failed_in == 0) {
            if failed.contains(&(&test.suite, &test.id)) {
                test.failed_in = row.run.0;
            }
        }
    }
    Ok(())
}

fn has_failed(test: &TestRow) -> bool {
    use andon_core::model::Outcome;
    test.attempts.iter().any(|a| matches!(a.outcome, Some(Outcome::Failed | Outcome::TimedOut)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(run: &str, inputs: &str) -> wire::BaselineStep {
        wire::BaselineStep { run: vec![run.into()], inputs_digest: inputs.into(), ..Default::default() }
    }

    fn spec(steps: &[(&str, &str)]) -> wire::RunSpec {
        let steps = steps.iter().map(|(run, inputs)| step(run, inputs)).collect();
        wire::RunSpec {
            stack: Some(wire::Stack::default()),
            baseline: Some(wire::BaselineSpec { steps, ..Default::default() }),
            ..Default::default()
        }
    }

    fn earlier(run: u64, key: &str, steps: &[(&str, &str)], kept: &[u32]) -> Earlier {
        let done = |n: usize| wire::BaselineStepDone { key: format!("{key}{n}"), ..Default::default() };
        let prefix = |steps: &u32| wire::BaselinePrefix { steps: *steps, ..Default::default() };
        let manifest = wire::BaselineManifest {
            steps: (1..=steps.len()).map(done).collect(),
            prefixes: kept.iter().map(prefix).collect(),
            build_ms: 7,
            ..Default::default()
        };
        Earlier { run, key: key.into(), spec: spec(steps), manifest: Some(manifest) }
    }

    #[test]
    fn a_baseline_is_there_derived_or_built() {
        let known = [
            earlier(3, "c", &[("schema", "1"), ("load", "1"), ("index", "1")], &[1]),
            earlier(2, "b", &[("schema", "2")], &[]),
        ];
        let of = |steps: &[(&str, &str)]| {
            let planned = fate(&spec(steps), &known);
            (planned.fate(), planned.key.clone(), planned.of_run, planned.steps_done)
        };
        use wire::BaselineFate::{Built, Derived, Present};
        assert_eq!(of(&[("schema", "1"), ("load", "1"), ("index", "1")]), (Present, "c".into(), 3, 3));
        assert_eq!(of(&[("schema", "1"), ("load", "9")]), (Derived, "c1".into(), 3, 1));
        let two_of_three = [("schema", "1"), ("load", "1"), ("index", "9")];
        assert_eq!(
            of(&two_of_three),
            (Derived, "c1".into(), 3, 1),
            "the state after the second was not kept"
        );
        assert_eq!(of(&[("schema", "2"), ("load", "1")]), (Derived, "b1".into(), 2, 1), "built upon whole");
        assert_eq!(of(&[("schema", "9")]), (Built, String::new(), 0, 0));
        let mut other = spec(&[("schema", "2")]);
        other.stack = Some(wire::Stack { compose_digest: "x".into(), ..Default::default() });
        assert_eq!(fate(&other, &known).fate(), Present, "a comment in the compose file");
        other.stack = Some(wire::Stack { services: vec![wire::Service::default()], ..Default::default() });
        assert_eq!(fate(&other, &known).fate(), Built, "another stack");
    }

    #[test]
    fn what_is_published_no_more_is_not_counted_on() {
        let mut gone = earlier(3, "c", &[("schema", "1")], &[]);
        gone.manifest = None;
        assert_eq!(fate(&spec(&[("schema", "1")]), &[gone]).fate(), wire::BaselineFate::Built);
    }

    #[test]
    fn lanes_are_those_of_workers_that_take_work() {
        let worker = |lanes, unfit: &str, avoided| wire::WorkerPlanned {
            name: String::new(),
            lanes,
            unfit: unfit.into(),
            avoided,
        };
        let workers = [worker(4, "", false), worker(2, "no disk", false), worker(3, "", true)];
        assert_eq!(lanes_for(&workers, None), 4);
        assert_eq!(lanes_for(&workers, Some(2)), 2);
        assert_eq!(lanes_for(&[], None), 0);
    }
}
