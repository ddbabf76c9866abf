use std::collections::BTreeSet;

use andon_core::ids::{AttemptId, RunId, TestIx};
use andon_core::model::{Ended, RunEnd};
use andon_proto::KeyValue;

use super::*;
use crate::views::{Line, WorkerLine};

fn idle() -> Overview {
    let worker = WorkerLine {
        name: "w\"1\n".into(),
        connected: true,
        connected_unix_ms: 0,
        lanes: 2,
        lanes_busy: 1,
        version: String::new(),
        pool: String::new(),
        driver: String::new(),
        unfit: String::new(),
        inexact: 0,
        disk_free_bytes: Some(5),
        disk_bytes: Some(7),
    };
    Overview {
        now_unix_ms: 0,
        line: Line { state: LineState::Idle, reasons: Vec::new() },
        runs_queued: 0,
        runs_running: 0,
        tests_open: 0,
        tests_running: 0,
        workers_connected: 1,
        lanes: 2,
        lanes_busy: 1,
        active: Vec::new(),
        workers: vec![worker],
        cords: Vec::new(),
        recent: Vec::new(),
        projects: Vec::new(),
    }
}

fn ended(driver: &str) -> Record {
    let ended = Ended {
        rebase_us: 2_000,
        run_ms: 30,
        driver: driver.into(),
        ..Ended::without_report(Outcome::Passed, "")
    };
    Record::AttemptEnded { run: RunId(1), attempt: AttemptId(1), ended, at_unix_ms: 0 }
}

fn published(key: &str, built_for: &str) -> Record {
    let labels = vec![KeyValue { key: BUILT_FOR.into(), value: built_for.into() }];
    let manifest = BaselineManifest { labels, ..BaselineManifest::default() }.encode_to_vec();
    Record::BaselinePublished { key: key.into(), manifest, at_unix_ms: 0, replaces: false }
}

fn pinned(run: u64, key: &str) -> Record {
    Record::BaselinePinned { run: RunId(run), key: key.into() }
}

#[test]
fn what_is_durable_is_counted_and_labels_are_from_closed_sets() {
    let meters = Meters::default();
    meters.count(&[
        ended("restart"),
        ended("no such driver"),
        Record::VerdictGiven { run: RunId(1), test: TestIx(0), verdict: Verdict::Flaky, run_ms: None },
        Record::RunMoved { run: RunId(1), state: RunState::Running, reason: String::new(), at_unix_ms: 0 },
        Record::RunMoved {
            run: RunId(1),
            state: RunState::Ended(RunEnd::Passed),
            reason: String::new(),
            at_unix_ms: 0,
        },
    ]);
    let text = meters.text(&idle());
    for line in [
        "andon_tests_total{verdict=\"flaky\"} 1",
        "andon_tests_total{verdict=\"failed\"} 0",
        "andon_runs_total{state=\"passed\"} 1",
        "andon_attempts_total{outcome=\"passed\"} 2",
        "andon_rebase_seconds_count{driver=\"restart\"} 1",
        "andon_rebase_seconds_count{driver=\"other\"} 1",
        "andon_worker_disk_free_bytes{worker=\"w\\\"1\\n\"} 5",
        "andon_lanes_busy 1",
    ] {
        assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_baseline_that_was_built_for_another_run_is_a_hit() {
    let meters = Meters::default();
    meters.count(&[published("k", "1"), pinned(1, "k"), published("k", "1"), pinned(2, "k"), pinned(3, "k")]);
    assert_eq!((meters.baseline_builds.get(), meters.baseline_hits.get()), (1, 2));
}

/// What the dashboard and the alerts ask for, as words that begin like ours.
fn named() -> BTreeSet<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/monitoring");
    let mut names = BTreeSet::new();
    for file in ["grafana.json", "alerts.yaml"] {
        let text =
            std::fs::read_to_string(format!("{folder}/{file}")).expect("the file is part of the repository");
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        names.extend(words.filter(|word| word.starts_with("andon_")).map(str::to_owned));
    }
    names
}

#[test]
fn every_metric_of_the_dashboard_and_the_alerts_is_told() {
    let meters = Meters::default();
    meters.count(&[
        ended("rewind"),
        Record::RunMoved {
            run: RunId(1),
            state: RunState::Ended(RunEnd::Passed),
            reason: String::new(),
            at_unix_ms: 0,
        },
    ]);
    let text = meters.text(&idle());
    let told: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let named = named();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        assert!(told.contains(name.as_str()), "{name} is asked for and not told:\n{text}");
    }
}
