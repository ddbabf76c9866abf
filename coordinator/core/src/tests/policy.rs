//! What projects and operators allow and forbid.

use super::*;
use crate::model::RunEnd;

fn push(commit: &str, git_ref: &str) -> RunHeader {
    RunHeader {
        project: "shop".into(),
        commit: commit.into(),
        git_ref: git_ref.into(),
        ..RunHeader::default()
    }
}

fn superseding() -> Plan {
    let mut plan = plan(0, Grain::Test);
    plan.policy.supersede = true;
    plan
}

#[test]
fn a_push_stops_older_pushes_of_its_branch_and_nothing_else() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    let running = farm.submit_run(push("1", "refs/heads/main"), superseding(), chosen(&["a"]));
    let queued = farm.submit_run(push("2", "refs/heads/main"), superseding(), chosen(&["a"]));
    assert_eq!(farm.state(running), RunState::Ended(RunEnd::Incomplete));
    assert!(farm.states[&running].1.contains(&format!("superseded by run {queued} of commit 2")));
    let other = farm.submit_run(push("3", "refs/heads/side"), superseding(), chosen(&["a"]));
    let rerun = RunHeader { trigger: Trigger::Rerun, ..push("1", "refs/heads/main") };
    let rerun = farm.submit_run(rerun, superseding(), chosen(&["a"]));
    let newest = farm.submit_run(push("4", "refs/heads/main"), superseding(), chosen(&["a"]));
    assert_eq!(farm.state(queued), RunState::Ended(RunEnd::Incomplete), "also one that waits");
    assert!([other, rerun, newest].iter().all(|run| farm.core.is_active(*run)));
    let kept = farm.submit_run(push("5", "refs/heads/main"), plan(0, Grain::Test), chosen(&["a"]));
    assert!(
        farm.core.is_active(newest) && farm.core.is_active(kept),
        "not where the project wants every commit"
    );
}

#[test]
fn retries_end_with_the_runs_budget() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    let mut thrifty = plan(3, Grain::Test);
    thrifty.policy.retry_budget = Some(2);
    let run = farm.submit(thrifty, chosen(&["a", "b", "c"]));
    let mut attempts = 0;
    while farm.core.is_active(run) {
        let given = farm.take();
        attempts += 1;
        farm.finish(&given, Outcome::Failed);
    }
    assert_eq!(attempts, 3 + 2);
}

#[test]
fn a_retry_that_was_granted_is_not_taken_back_by_the_farm() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    let mut thrifty = plan(1, Grain::Test);
    thrifty.policy.retry_budget = Some(1);
    let run = farm.submit(thrifty, chosen(&["a"]));
    for outcome in [Outcome::Failed, Outcome::Infrastructure] {
        let given = farm.take();
        farm.finish(&given, outcome);
        assert_eq!(farm.verdict(run, 0), None, "{outcome:?}");
    }
    let given = farm.take();
    farm.finish(&given, Outcome::Passed);
    assert_eq!(farm.verdict(run, 0), Some(Verdict::Flaky));
}

#[test]
fn the_cord_does_not_wait_for_suites_that_are_still_to_be_found() {
    let mut farm = Farm::new();
    let mut two = plan(0, Grain::Test);
    two.suites.push(SuitePlan { name: "late".into(), ..two.suites[0].clone() });
    two.policy.fail_fast = true;
    two.baseline_group = None;
    let run = farm.submit(two, Start::Discover);
    farm.join("w1", 1);
    let discover = farm.take();
    farm.join("w2", 1);
    let late = farm.take();
    farm.report(&discover, Report::Discovered { tests: candidates(&["a"]) });
    farm.ready("w1", 0);
    let given = farm.take();
    farm.finish(&given, Outcome::Failed);
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::Incomplete));
    assert_eq!(farm.revoked, [late.lease]);
}

#[test]
fn a_projects_quota_leaves_lanes_to_others() {
    let mut farm = Farm::new();
    let quotas = [("shop".to_owned(), 2)].into();
    farm.core = Core::new(Config { quotas, ..Config::default() });
    farm.submit(plan(0, Grain::Test), chosen(&["a", "b", "c", "d"]));
    farm.join("w1", 4);
    assert_eq!(farm.given.len(), 2);
    let header = RunHeader { project: "other".into(), ..RunHeader::default() };
    farm.submit_run(header, plan(0, Grain::Test), chosen(&["x", "y", "z"]));
    assert_eq!(farm.given.len(), 4);
    let first = farm.take();
    farm.finish(&first, Outcome::Passed);
    assert_eq!(farm.given.len(), 4, "what ends makes room");
}

#[test]
fn projects_share_lanes_by_time() {
    let mut farm = Farm::new();
    let many: Vec<String> = (0..400).map(|n| n.to_string()).collect();
    let candidates = |ms| {
        let candidate = |id: &String| Candidate {
            id: id.clone(),
            expected_ms: Some(ms),
            failed_last: false,
            excused: false,
        };
        let tests = many.iter().map(|id| ("it".to_owned(), candidate(id))).collect();
        Start::Chosen { tests, baseline: Some("k".into()) }
    };
    farm.submit(plan(0, Grain::Test), candidates(300));
    let header = RunHeader { project: "slow".into(), ..RunHeader::default() };
    let slow = farm.submit_run(header, plan(0, Grain::Test), candidates(900));
    farm.join("w1", 1);
    let mut of_slow = 0;
    for _ in 0..200 {
        let given = farm.take();
        of_slow += usize::from(given.lease.run == slow);
        farm.finish(&given, Outcome::Passed);
    }
    assert!((48..=52).contains(&of_slow), "{of_slow} of 200 units, each three times as long");
}

#[test]
fn batches_are_large_at_first_and_small_at_the_end() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    farm.join("w2", 1);
    let tests = (0..200).map(|n| {
        (
            "it".to_owned(),
            Candidate { id: n.to_string(), expected_ms: Some(100), failed_last: false, excused: false },
        )
    });
    farm.submit(plan(0, Grain::Batch), Start::Chosen { tests: tests.collect(), baseline: Some("k".into()) });
    let mut sizes = Vec::new();
    while !farm.given.is_empty() {
        let given = farm.take();
        sizes.push(given.ids().len());
        farm.finish(&given, Outcome::Passed);
    }
    assert_eq!(sizes.iter().sum::<usize>(), 200);
    assert!(sizes.is_sorted_by(|left, right| left >= right), "{sizes:?}");
    assert!(sizes[0] >= 30 && *sizes.last().unwrap() <= 2, "{sizes:?}");
}

#[test]
fn a_failure_that_was_excused_is_shown_and_blocks_nothing() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    let mut strict = plan(1, Grain::Test);
    strict.policy.max_failures = Some(1);
    let mut start = chosen(&["a", "b"]);
    if let Start::Chosen { tests, .. } = &mut start {
        tests[0].1.excused = true;
    }
    let run = farm.submit(strict, start);
    let mut tries = 0;
    while farm.core.is_active(run) {
        let given = farm.take();
        let outcome = if given.ids() == ["a"] { Outcome::Failed } else { Outcome::Passed };
        tries += u32::from(outcome == Outcome::Failed);
        farm.finish(&given, outcome);
    }
    assert_eq!(tries, 2, "it is retried as any other");
    assert_eq!(
        (farm.verdict(run, 0), farm.verdict(run, 1)),
        (Some(Verdict::Quarantined), Some(Verdict::Passed))
    );
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::Passed), "neither verdict nor cord");
}
