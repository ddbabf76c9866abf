//! The `--json` shapes. They are an interface: fields are added, never renamed or removed (docs/user-guide.md).
//!
//! Times are milliseconds unless the name says `_us`; moments are UTC milliseconds since 1970; what is not known
//! yet, or does not apply, is `null`.

use std::collections::BTreeMap;

use andon_proto::{Attempt, BaselineManifest, BaselineTree, Counts, Run, Test, Worker};
use serde::Serialize;

use super::exit::{self, Exit};
use super::stats::Stats;
use super::words;

#[derive(Debug, Serialize)]
pub(crate) struct RunJson {
    pub(crate) run: u64,
    pub(crate) project: String,
    pub(crate) repository: String,
    pub(crate) commit: String,
    #[serde(rename = "ref")]
    pub(crate) git_ref: Option<String>,
    pub(crate) trigger: &'static str,
    pub(crate) requested_by: Option<String>,
    pub(crate) rerun_of: Option<u64>,
    pub(crate) state: &'static str,
    pub(crate) over: bool,
    pub(crate) exit_code: Option<u8>,
    pub(crate) reason: Option<String>,
    pub(crate) forgotten: bool,
    pub(crate) baseline_key: Option<String>,
    pub(crate) spec_digest: String,
    pub(crate) created_unix_ms: u64,
    pub(crate) started_unix_ms: Option<u64>,
    pub(crate) ended_unix_ms: Option<u64>,
    pub(crate) wall_ms: Option<u64>,
    pub(crate) counts: CountsJson,
    /// Only with `show`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) figures: Option<FiguresJson>,
    /// Only with `show`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tests: Option<Vec<TestJson>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct CountsJson {
    pub(crate) total: u32,
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) flaky: u32,
    pub(crate) timed_out: u32,
    pub(crate) skipped: u32,
    pub(crate) infrastructure: u32,
    pub(crate) not_run: u32,
    pub(crate) quarantined: u32,
    pub(crate) open: u32,
    pub(crate) running: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct FiguresJson {
    pub(crate) testing_ms: u64,
    pub(crate) tests_per_minute: f64,
    pub(crate) tests_per_minute_while_testing: f64,
    pub(crate) rebases: Vec<RebasesJson>,
    pub(crate) lanes: Vec<LaneJson>,
    /// Busiest lane over the mean.
    pub(crate) balance: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RebasesJson {
    pub(crate) driver: String,
    pub(crate) count: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct LaneJson {
    pub(crate) worker: String,
    pub(crate) lane: u32,
    pub(crate) attempts: u64,
    pub(crate) busy_ms: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct TestJson {
    pub(crate) suite: String,
    pub(crate) id: String,
    pub(crate) verdict: &'static str,
    /// Who owns its file, by CODEOWNERS at the run's commit.
    pub(crate) owners: Vec<String>,
    /// The quarantine that it is in, whether that holds or not: the verdict says so.
    pub(crate) quarantine: Option<QuarantineJson>,
    pub(crate) attempts: Vec<AttemptJson>,
}

#[derive(Debug, Serialize)]
pub(crate) struct QuarantineJson {
    pub(crate) owner: String,
    /// It has ended from then on.
    pub(crate) until_unix_ms: u64,
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct AttemptJson {
    pub(crate) attempt: u64,
    pub(crate) unit: u64,
    pub(crate) worker: String,
    pub(crate) lane: u32,
    pub(crate) driver: Option<String>,
    pub(crate) outcome: &'static str,
    pub(crate) started_unix_ms: Option<u64>,
    pub(crate) queue_ms: u64,
    pub(crate) prepare_ms: u64,
    /// Of that, the runner's start.
    pub(crate) start_ms: u64,
    /// 0 for the later tests of a unit: one rebase serves the whole unit.
    pub(crate) rebase_us: u64,
    pub(crate) run_ms: u64,
    pub(crate) report_us: u64,
    /// `null` until the rebase after the attempt has measured it.
    pub(crate) dirtied_bytes: Option<u64>,
    pub(crate) message: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct WorkerJson {
    pub(crate) name: String,
    pub(crate) connected: bool,
    pub(crate) connected_unix_ms: Option<u64>,
    pub(crate) lanes: u32,
    pub(crate) lanes_busy: u32,
    pub(crate) version: String,
    pub(crate) pool: String,
    pub(crate) driver: String,
    pub(crate) unfit: Option<String>,
    /// Rebases that did not put everything back, of those that are remembered.
    inexact: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct BaselineJson {
    pub(crate) key: String,
    pub(crate) built_unix_ms: u64,
    pub(crate) build_ms: u64,
    pub(crate) bytes: u64,
    /// All blobs that it is put together from.
    pub(crate) blob_bytes: u64,
    pub(crate) project: Option<String>,
    pub(crate) parent_key: Option<String>,
    pub(crate) root_key: Option<String>,
    /// Where it lies in a registry; null where it is in the coordinator's blob store.
    pub(crate) artifact: Option<String>,
    pub(crate) steps: Vec<BaselineStepJson>,
    pub(crate) services: Vec<BaselineServiceJson>,
    pub(crate) trees: Vec<BaselineTreeJson>,
    pub(crate) proofs: Vec<ProvenJson>,
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ProvenJson {
    service: String,
    run: String,
    /// Of what it printed.
    digest: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct BaselineStepJson {
    pub(crate) key: String,
    pub(crate) name: Option<String>,
    pub(crate) run: Vec<String>,
    pub(crate) took_ms: u64,
    pub(crate) grows: bool,
    /// Known where the step grows.
    pub(crate) files: Option<usize>,
    /// Whether the state after it was kept on the way, and can be built upon.
    pub(crate) kept: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct BaselineServiceJson {
    pub(crate) name: String,
    pub(crate) reference: String,
    pub(crate) image_id: String,
    pub(crate) build_key: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct BaselineTreeJson {
    pub(crate) name: String,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// All of its layers.
    pub(crate) blob_bytes: u64,
    /// From the bottom: a whole tree, then changes.
    pub(crate) layers: Vec<BaselineLayerJson>,
    pub(crate) tree_digest: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct BaselineLayerJson {
    pub(crate) blob_digest: String,
    pub(crate) blob_bytes: u64,
    /// Where it is in a registry.
    pub(crate) sha256: Option<String>,
}

/// A run without its tests, as `list --json` writes each.
pub(crate) fn run_line(run: &Run) -> RunJson {
    let over = exit::is_over(run.state());
    RunJson {
        run: run.run,
        project: run.project.clone(),
        repository: run.repository.clone(),
        commit: run.commit.clone(),
        git_ref: given(&run.git_ref),
        trigger: words::trigger(run.trigger()),
        requested_by: given(&run.requested_by),
        rerun_of: non_zero(run.rerun_of),
        state: words::state(run.state()),
        over,
        exit_code: exit::of_run(run).map(Exit::code),
        reason: given(&run.reason),
        forgotten: run.forgotten,
        baseline_key: given(&run.baseline_key),
        spec_digest: run.spec_digest.clone(),
        created_unix_ms: run.created_unix_ms,
        started_unix_ms: non_zero(run.started_unix_ms),
        ended_unix_ms: non_zero(run.ended_unix_ms),
        wall_ms: over.then(|| run.ended_unix_ms.saturating_sub(run.created_unix_ms)),
        counts: counts(&run.counts.unwrap_or_default()),
        figures: None,
        tests: None,
    }
}

/// A run with its tests and figures, as `show --json` writes it. `keep` chooses the tests that are listed.
pub(crate) fn run_whole(run: &Run, keep: impl Fn(&Test) -> bool) -> RunJson {
    RunJson {
        figures: Some(figures(&Stats::of(run))),
        tests: Some(run.tests.iter().filter(|test| keep(test)).map(test).collect()),
        ..run_line(run)
    }
}

fn counts(counts: &Counts) -> CountsJson {
    // In full, so that a count that comes anew is not forgotten here.
    let Counts {
        total,
        passed,
        failed,
        flaky,
        timed_out,
        skipped,
        infrastructure,
        not_run,
        quarantined,
        open,
        running,
    } = *counts;
    CountsJson {
        total,
        passed,
        failed,
        flaky,
        timed_out,
        skipped,
        infrastructure,
        not_run,
        quarantined,
        open,
        running,
    }
}

fn figures(stats: &Stats) -> FiguresJson {
    let rebases = stats.rebases.iter().map(|of| RebasesJson {
        driver: of.driver.clone(),
        count: of.count,
        p50_us: of.p50_us,
        p99_us: of.p99_us,
        max_us: of.max_us,
    });
    let lanes = stats.lanes.iter().map(|lane| LaneJson {
        worker: lane.worker.clone(),
        lane: lane.lane,
        attempts: lane.attempts,
        busy_ms: lane.busy_ms,
    });
    FiguresJson {
        testing_ms: stats.testing_ms,
        tests_per_minute: hundredths(stats.per_minute),
        tests_per_minute_while_testing: hundredths(stats.per_minute_testing),
        rebases: rebases.collect(),
        lanes: lanes.collect(),
        balance: stats.balance().map(hundredths),
    }
}

fn test(test: &Test) -> TestJson {
    TestJson {
        suite: test.suite.clone(),
        id: test.id.clone(),
        verdict: words::verdict(test.verdict()),
        owners: test.owners.clone(),
        quarantine: test.quarantine.as_ref().map(|of| QuarantineJson {
            owner: of.owner.clone(),
            until_unix_ms: of.until_unix_ms,
            reason: given(&of.reason),
        }),
        attempts: test.attempts.iter().map(attempt).collect(),
    }
}

fn attempt(attempt: &Attempt) -> AttemptJson {
    AttemptJson {
        attempt: attempt.attempt,
        unit: attempt.unit,
        worker: attempt.worker.clone(),
        lane: attempt.lane,
        driver: given(&attempt.driver),
        outcome: words::outcome(attempt.outcome()),
        started_unix_ms: non_zero(attempt.started_unix_ms),
        queue_ms: attempt.queue_ms,
        prepare_ms: attempt.prepare_ms,
        start_ms: attempt.start_ms,
        rebase_us: attempt.rebase_us,
        run_ms: attempt.run_ms,
        report_us: attempt.report_us,
        dirtied_bytes: attempt.dirt_known.then_some(attempt.dirtied_bytes),
        message: given(&attempt.message),
    }
}

/// A worker, as `worker list --json` writes it.
pub(crate) fn worker(worker: &Worker) -> WorkerJson {
    WorkerJson {
        name: worker.name.clone(),
        connected: worker.connected,
        connected_unix_ms: non_zero(worker.connected_unix_ms),
        lanes: worker.lanes,
        lanes_busy: worker.lanes_busy,
        version: worker.version.clone(),
        pool: worker.pool.clone(),
        driver: worker.driver.clone(),
        unfit: given(&worker.unfit),
        inexact: worker.inexact,
    }
}

/// A baseline, as `baseline list --json` and `baseline inspect --json` write it.
pub(crate) fn baseline(manifest: &BaselineManifest) -> BaselineJson {
    let services = manifest.services.iter().map(|service| BaselineServiceJson {
        name: service.name.clone(),
        reference: service.reference.clone(),
        image_id: service.image_id.clone(),
        build_key: given(&service.build_key),
    });
    let trees = manifest.trees.iter().map(|tree| BaselineTreeJson {
        name: tree.name.clone(),
        files: tree.files,
        bytes: tree.bytes,
        blob_bytes: packed(tree),
        layers: layers(tree).collect(),
        tree_digest: tree.tree_digest.clone(),
    });
    let steps = manifest.steps.iter().enumerate().map(|(place, step)| BaselineStepJson {
        key: step.key.clone(),
        name: given(&step.name),
        run: step.run.clone(),
        took_ms: step.took_ms,
        grows: step.grows,
        files: step.grows.then_some(step.files.len()),
        kept: is_kept(manifest, place + 1),
    });
    let proofs = manifest.proofs.iter().map(|proven| ProvenJson {
        service: proven.service.clone(),
        run: proven.run.clone(),
        digest: proven.digest.clone(),
    });
    BaselineJson {
        key: manifest.key.clone(),
        built_unix_ms: manifest.built_unix_ms,
        build_ms: manifest.build_ms,
        bytes: manifest.trees.iter().map(|tree| tree.bytes).sum(),
        blob_bytes: manifest.trees.iter().map(packed).sum(),
        project: given(&manifest.project),
        parent_key: given(&manifest.parent_key),
        root_key: given(&manifest.root_key),
        artifact: given(&manifest.artifact),
        steps: steps.collect(),
        services: services.collect(),
        trees: trees.collect(),
        proofs: proofs.collect(),
        labels: manifest.labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect(),
    }
}

fn layers(tree: &BaselineTree) -> impl Iterator<Item = BaselineLayerJson> {
    let lower = tree.lower.iter().map(|layer| (&layer.blob_digest, layer.blob_size, &layer.sha256));
    let layers = lower.chain([(&tree.blob_digest, tree.blob_size, &tree.sha256)]);
    layers.map(|(digest, bytes, sha256)| BaselineLayerJson {
        blob_digest: digest.clone(),
        blob_bytes: bytes,
        sha256: given(sha256),
    })
}

/// Bytes of all blobs that a tree is put together from.
pub(crate) fn packed(tree: &BaselineTree) -> u64 {
    tree.lower.iter().map(|layer| layer.blob_size).sum::<u64>() + tree.blob_size
}

/// Whether the state after so many steps can be built upon: the last one always can.
pub(crate) fn is_kept(manifest: &BaselineManifest, steps: usize) -> bool {
    steps == manifest.steps.len() || manifest.prefixes.iter().any(|prefix| prefix.steps as usize == steps)
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn non_zero(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

/// Two decimals are enough for a rate, and stable to compare.
fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_whole_run_has_the_documented_shape() {
        let mut run = sample::mixed();
        run.tests.truncate(1);
        run.tests[0].attempts[0].dirt_known = false;
        run.tests[0].owners.push("@shop/orders".to_owned());
        let json = serde_json::to_string_pretty(&run_whole(&run, |_| true)).unwrap();
        insta::assert_snapshot!(json, @r#"
        {
          "run": 12,
          "project": "shop",
          "repository": "/srv/git/shop.git",
          "commit": "4f2a9c1b7d3e8f60112233445566778899aabbcc",
          "ref": "refs/heads/main",
          "trigger": "push",
          "requested_by": "ann",
          "rerun_of": null,
          "state": "failed",
          "over": true,
          "exit_code": 100,
          "reason": null,
          "forgotten": false,
          "baseline_key": "b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1",
          "spec_digest": "5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d",
          "created_unix_ms": 1700000000000,
          "started_unix_ms": 1700000000500,
          "ended_unix_ms": 1700000090000,
          "wall_ms": 90000,
          "counts": {
            "total": 7,
            "passed": 1,
            "failed": 1,
            "flaky": 1,
            "timed_out": 1,
            "skipped": 1,
            "infrastructure": 1,
            "not_run": 1,
            "quarantined": 0,
            "open": 0,
            "running": 0
          },
          "figures": {
            "testing_ms": 900,
            "tests_per_minute": 0.67,
            "tests_per_minute_while_testing": 66.67,
            "rebases": [
              {
                "driver": "restart",
                "count": 1,
                "p50_us": 601000,
                "p99_us": 601000,
                "max_us": 601000
              }
            ],
            "lanes": [
              {
                "worker": "w0",
                "lane": 0,
                "attempts": 1,
                "busy_ms": 1541
              }
            ],
            "balance": null
          },
          "tests": [
            {
              "suite": "integration",
              "id": "tests/test_orders.py::TestOrders::test_place[1-b]",
              "verdict": "passed",
              "owners": [
                "@shop/orders"
              ],
              "quarantine": null,
              "attempts": [
                {
                  "attempt": 1,
                  "unit": 1,
                  "worker": "w0",
                  "lane": 0,
                  "driver": "restart",
                  "outcome": "passed",
                  "started_unix_ms": 1700000011000,
                  "queue_ms": 120,
                  "prepare_ms": 40,
                  "start_ms": 30,
                  "rebase_us": 601000,
                  "run_ms": 900,
                  "report_us": 700,
                  "dirtied_bytes": null,
                  "message": null
                }
              ]
            }
          ]
        }
        "#);
    }

    #[test]
    fn a_run_that_is_not_over_has_no_exit_code_and_no_wall_time() {
        let run = Run { state: andon_proto::RunState::Running.into(), ended_unix_ms: 0, ..sample::mixed() };
        let json = serde_json::to_value(run_line(&run)).unwrap();
        assert_eq!(json["exit_code"], serde_json::Value::Null);
        assert_eq!(json["wall_ms"], serde_json::Value::Null);
        assert_eq!(json["over"], false);
        assert!(json.get("tests").is_none());
    }

    #[test]
    fn names_stay_as_they_are_in_json() {
        let json = serde_json::to_string(&run_whole(&sample::mixed(), |_| true)).unwrap();
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["tests"][5]["id"], "tests/test_evil.py::test_\u{1b}[2J\u{202e}x");
    }
}
