//! The life of runs, one claim a test.

use super::*;
use crate::model::{FailureClass, RunEnd, StoredLease, StoredRun, StoredTest};
use crate::{Stored, ids::WorkId};

#[test]
fn a_run_goes_from_baseline_over_discovery_to_its_verdicts() {
    let mut farm = Farm::new();
    farm.join("w1", 2);
    let run = farm.submit(plan(0, Grain::Test), Start::Discover);
    let prepare = farm.take();
    assert_eq!(prepare.work, Work::PrepareBaseline);
    assert_eq!(farm.state(run), RunState::Preparing);
    assert!(farm.given.is_empty(), "nothing else starts before the baseline is there");

    farm.report(&prepare, Report::BaselineReady { key: "k".into(), manifest: vec![], replaces: false });
    farm.ready("w1", prepare.lane.0);
    let discover = farm.take();
    assert_eq!(discover.work, Work::Discover { suite: "it".into(), baseline: "k".into() });
    farm.report(&discover, Report::Discovered { tests: candidates(&["a", "b", "c"]) });
    farm.ready("w1", discover.lane.0);
    let (first, second) = (farm.take(), farm.take());
    assert_eq!((first.ids(), second.ids()), (vec!["a"], vec!["b"]));
    farm.finish(&first, Outcome::Passed);
    farm.finish(&second, Outcome::Skipped);
    let third = farm.take();
    farm.finish(&third, Outcome::Passed);
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::Passed));
    assert!(!farm.core.is_active(run));
}

#[test]
fn longest_first_after_what_failed_before() {
    let mut farm = Farm::new();
    let known = [("short", 10, false), ("long", 900, false), ("failed", 20, true), ("middle", 100, false)];
    let tests = known.map(|(id, ms, failed_last)| {
        ("it".to_owned(), Candidate { id: id.into(), expected_ms: Some(ms), failed_last, excused: false })
    });
    farm.submit(plan(0, Grain::Test), Start::Chosen { tests: tests.to_vec(), baseline: Some("k".into()) });
    farm.join("w1", 4);
    let order: Vec<_> = farm.given.iter().flat_map(Given::ids).collect();
    assert_eq!(order, ["failed", "long", "middle", "short"]);
}

#[test]
fn a_retry_that_passes_is_flaky_and_shown() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    let run = farm.submit(plan(1, Grain::Test), chosen(&["a"]));
    let first = farm.take();
    farm.finish(&first, Outcome::Failed);
    assert_eq!(farm.verdict(run, 0), None);
    let second = farm.take();
    assert_ne!(first.attempts(), second.attempts());
    farm.finish(&second, Outcome::Passed);
    assert_eq!(farm.verdict(run, 0), Some(Verdict::Flaky));
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::Passed));
}

#[test]
fn a_dead_workers_tests_run_elsewhere_once_its_lease_is_over() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    let run = farm.submit(plan(0, Grain::File), chosen(&["a.py::x", "a.py::y"]));
    let lost = farm.take();
    farm.end_test(&lost, 0, Outcome::Passed);
    farm.join("w2", 1);
    farm.step(Input::WorkerLeft { worker: worker("w1") });
    assert!(farm.given.is_empty(), "it may come back");
    farm.later(Config::default().lease_ttl_ms);
    let again = farm.take();
    assert_eq!((again.worker.clone(), again.ids()), (worker("w2"), vec!["a.py::y"]));
    farm.finish(&again, Outcome::Passed);
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::Passed));

    farm.end_test(&lost, 1, Outcome::Failed);
    assert_eq!(farm.superseded, [lost.lease], "a late report is void");
    assert_eq!(farm.verdict(run, 1), Some(Verdict::Passed));
}

#[test]
fn heartbeats_keep_a_lease_and_a_worker_that_comes_back_goes_on() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    farm.submit(plan(0, Grain::Test), chosen(&["a"]));
    let given = farm.take();
    for _ in 0..10 {
        farm.later(Config::default().lease_ttl_ms - 1);
        farm.step(Input::Heartbeat { worker: worker("w1"), held: vec![given.lease] });
    }
    farm.step(Input::WorkerLeft { worker: worker("w1") });
    farm.step(Input::WorkerJoined { worker: worker("w1"), held: vec![given.lease], reached: None });
    assert!(farm.superseded.is_empty() && farm.revoked.is_empty());
    farm.end_test(&given, 0, Outcome::Passed);
    assert!(farm.superseded.is_empty());
}

#[test]
fn four_failures_of_the_farm_are_infrastructure_and_never_a_failed_test() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    let run = farm.submit(plan(3, Grain::Test), chosen(&["a"]));
    for _ in 0..4 {
        let given = farm.take();
        let class = FailureClass::Infrastructure;
        let failed = Report::WorkFailed { class, reason: "daemon gone".into(), log_zstd: vec![] };
        farm.report(&given, failed);
        farm.ready("w1", 0);
    }
    assert_eq!(farm.verdict(run, 0), Some(Verdict::Infrastructure));
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::Incomplete));
}

#[test]
fn an_infrastructure_retry_prefers_another_worker() {
    let mut farm = Farm::new();
    farm.join("w1", 2);
    farm.submit(plan(0, Grain::Test), chosen(&["a"]));
    let given = farm.take();
    farm.step(Input::WorkerJoined { worker: worker("w2"), held: vec![], reached: None });
    farm.report(
        &given,
        Report::WorkFailed { class: FailureClass::Infrastructure, reason: "disk".into(), log_zstd: vec![] },
    );
    assert!(farm.given.is_empty(), "w1 has a ready lane, but w2 takes work too");
    farm.ready("w2", 0);
    assert_eq!(farm.take().worker, worker("w2"));
}

#[test]
fn a_unit_that_ends_early_sends_the_rest_back_without_blame() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    let run = farm.submit(plan(0, Grain::File), chosen(&["f::a", "f::b", "f::c"]));
    let unit = farm.take();
    farm.end_test(&unit, 0, Outcome::TimedOut);
    farm.report(&unit, Report::UnitEnded);
    farm.ready("w1", 0);
    assert_eq!(farm.verdict(run, 0), Some(Verdict::TimedOut));
    let rest = farm.take();
    assert_eq!(rest.ids(), ["f::b", "f::c"]);
    farm.finish(&rest, Outcome::Passed);
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::Failed));
}

#[test]
fn the_cord_stops_the_run_and_what_did_not_run_is_not_run() {
    let mut farm = Farm::new();
    farm.join("w1", 2);
    let mut stopping = plan(0, Grain::Test);
    stopping.policy.max_failures = Some(2);
    let run = farm.submit(stopping, chosen(&["a", "b", "c", "d"]));
    let (first, second) = (farm.take(), farm.take());
    farm.finish(&first, Outcome::Failed);
    let third = farm.take();
    farm.finish(&second, Outcome::Failed);
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::Incomplete));
    assert!(farm.states[&run].1.contains("cord"));
    assert_eq!(farm.revoked, [third.lease]);
    assert_eq!(farm.verdict(run, 3), Some(Verdict::NotRun));
}

#[test]
fn a_seed_that_fails_and_a_discovery_that_fails_end_the_run_by_their_names() {
    for (class, end) in
        [(FailureClass::Baseline, RunEnd::BaselineFailed), (FailureClass::Config, RunEnd::ConfigError)]
    {
        let mut farm = Farm::new();
        farm.join("w1", 1);
        let run = farm.submit(plan(0, Grain::Test), Start::Discover);
        let prepare = farm.take();
        farm.report(&prepare, Report::WorkFailed { class, reason: "seed 2".into(), log_zstd: vec![] });
        assert_eq!(farm.states[&run], (RunState::Ended(end), "seed 2".into()));
    }
}

#[test]
fn a_suite_without_tests_is_no_success() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    let mut bare = plan(0, Grain::Test);
    bare.baseline_group = None;
    let run = farm.submit(bare, Start::Discover);
    let discover = farm.take();
    assert_eq!(discover.work, Work::Discover { suite: "it".into(), baseline: String::new() });
    farm.report(&discover, Report::Discovered { tests: vec![] });
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::NoTests));
}

#[test]
fn one_baseline_is_prepared_once_for_runs_that_share_it() {
    let mut farm = Farm::new();
    farm.join("w1", 2);
    let first = farm.submit(plan(0, Grain::Test), Start::Discover);
    farm.submit(plan(0, Grain::Test), Start::Discover);
    let prepare = farm.take();
    assert_eq!(prepare.lease.run, first);
    assert!(farm.given.is_empty(), "the second run waits for the first one's baseline");
    farm.report(&prepare, Report::BaselineReady { key: "k".into(), manifest: vec![], replaces: false });
    assert_eq!(farm.given.len(), 1);
}

#[test]
fn a_person_comes_before_a_push_and_what_began_first_ends_first() {
    let mut farm = Farm::new();
    let push = farm.submit(plan(0, Grain::Test), chosen(&["p1", "p2"]));
    let other = farm.submit(plan(0, Grain::Test), chosen(&["o1", "o2"]));
    let rerun = farm.submit_as(Trigger::Rerun, plan(0, Grain::Test), chosen(&["r"]));
    farm.join("w1", 4);
    let order: Vec<_> = farm.given.iter().map(|given| given.lease.run).collect();
    assert_eq!(order, [rerun, push, push, other]);
}

#[test]
fn foreign_and_forged_reports_change_nothing() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    farm.join("w2", 0);
    let run = farm.submit(plan(0, Grain::Test), chosen(&["a"]));
    let given = farm.take();
    let passed =
        Report::TestEnded { attempt: given.attempts()[0], ended: Ended::without_report(Outcome::Passed, "") };
    let mut forged = given.lease;
    forged.work = WorkId(99);
    for (name, lease) in [("w2", given.lease), ("w1", forged)] {
        farm.step(Input::Reported { worker: worker(name), lease, report: passed.clone() });
    }
    farm.report(&given, Report::Discovered { tests: candidates(&["x"]) });
    let foreign = AttemptId(given.attempts()[0].0 + 1);
    let ended = Ended::without_report(Outcome::Passed, "");
    farm.report(&given, Report::TestEnded { attempt: foreign, ended });
    assert_eq!(farm.superseded.len(), 4);
    assert_eq!((farm.verdict(run, 0), farm.names.len()), (None, 1));
}

#[test]
fn the_same_report_twice_counts_once() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    let run = farm.submit(plan(1, Grain::File), chosen(&["f::a", "f::b"]));
    let given = farm.take();
    farm.end_test(&given, 0, Outcome::Failed);
    farm.end_test(&given, 0, Outcome::Failed);
    assert_eq!(farm.verdict(run, 0), None, "one failure, one retry left");
    assert!(farm.superseded.is_empty());
}

#[test]
fn after_a_restart_leases_that_were_out_get_a_grace_and_the_rest_is_queued() {
    let lease = Lease { run: RunId(4), work: WorkId(2), fence: crate::ids::Fence(9) };
    let stored_test = |id: &str, attempts: Vec<(AttemptId, Option<Outcome>)>, verdict| StoredTest {
        suite: "it".into(),
        candidate: candidates(&[id]).remove(0),
        verdict,
        attempts,
    };
    let stored = StoredRun {
        run: RunId(4),
        header: RunHeader::default(),
        plan: plan(1, Grain::Test),
        state: RunState::Running,
        baseline: Some("k".into()),
        discovered: vec!["it".into()],
        tests: vec![
            stored_test("done", vec![(AttemptId(1), Some(Outcome::Passed))], Some(Verdict::Passed)),
            stored_test("out", vec![(AttemptId(2), None)], None),
            stored_test("failed once", vec![(AttemptId(3), Some(Outcome::Failed))], None),
        ],
        leases: vec![StoredLease {
            lease,
            kind: crate::model::LeaseKind::Unit,
            worker: worker("w1"),
            lane: LaneIx(0),
            open: vec![(AttemptId(2), TestIx(1))],
        }],
        losses: Vec::new(),
        last_work: WorkId(2),
    };
    let restart = || {
        let mut farm = Farm::new();
        let stored = Stored { last_run: 4, last_fence: 9, runs: vec![stored.clone()] };
        farm.core = Core::restore(Config::default(), farm.now, stored);
        farm.last_fence = 9;
        farm.outcomes.insert((RunId(4), AttemptId(2)), None);
        farm
    };

    let mut farm = restart();
    farm.step(Input::WorkerJoined { worker: worker("w1"), held: vec![lease], reached: None });
    farm.ready("w1", 1);
    let retry = farm.take();
    assert_eq!((retry.ids(), retry.attempts()), (vec!["failed once"], vec![AttemptId(4)]));
    let adopted = Given { worker: worker("w1"), lane: LaneIx(0), lease, work: Work::PrepareBaseline };
    let ended = Ended::without_report(Outcome::Passed, "");
    farm.report(&adopted, Report::TestEnded { attempt: AttemptId(2), ended });
    farm.finish(&retry, Outcome::Passed);
    assert_eq!(farm.state(RunId(4)), RunState::Ended(RunEnd::Passed));
    assert_eq!(farm.verdict(RunId(4), 2), Some(Verdict::Flaky), "the failure of before the restart counts");

    let mut farm = restart();
    farm.join("w2", 2);
    let retry = farm.take();
    assert_eq!(retry.ids(), ["failed once"]);
    farm.finish(&retry, Outcome::Passed);
    farm.later(Config::default().restart_grace_ms - 1);
    assert!(farm.given.is_empty(), "the other worker has its grace");
    farm.later(1);
    assert_eq!(farm.take().ids(), ["out"]);
}
