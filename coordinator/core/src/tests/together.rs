//! Runs that ask for the same execute their tests once.

use super::*;
use crate::model::RunEnd;

fn merging(retries: u32) -> Plan {
    Plan { merge_key: Some("same".into()), ..plan(retries, Grain::Test) }
}

#[test]
fn a_test_that_is_out_for_one_run_counts_for_the_other_too() {
    let mut farm = Farm::new();
    farm.join("w1", 2);
    let first = farm.submit(merging(0), chosen(&["a", "b"]));
    let (a, b) = (farm.take(), farm.take());
    let second = farm.submit_as(Trigger::Person, merging(0), chosen(&["a", "b"]));
    farm.join("w2", 2);
    assert!(farm.given.is_empty(), "both are out already");
    farm.finish(&a, Outcome::Passed);
    farm.finish(&b, Outcome::Failed);
    for run in [first, second] {
        assert_eq!(
            (farm.verdict(run, 0), farm.verdict(run, 1)),
            (Some(Verdict::Passed), Some(Verdict::Failed))
        );
        assert_eq!(farm.state(run), RunState::Ended(RunEnd::Failed));
    }
    assert_eq!(farm.outcomes.keys().filter(|(run, _)| *run == second).count(), 2, "with the attempts");
}

#[test]
fn what_the_first_run_has_not_begun_each_may_begin() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    let first = farm.submit(merging(0), chosen(&["a", "b"]));
    let second = farm.submit_as(Trigger::Person, merging(0), chosen(&["a", "b"]));
    let a = farm.take();
    farm.join("w2", 1);
    let b = farm.take();
    assert_eq!((b.lease.run, b.ids()), (second, vec!["b"]), "a person's run comes first");
    farm.finish(&a, Outcome::Passed);
    farm.finish(&b, Outcome::Passed);
    assert!(farm.given.is_empty());
    for run in [first, second] {
        assert_eq!(farm.state(run), RunState::Ended(RunEnd::Passed));
    }
}

#[test]
fn retries_are_shared_and_so_is_what_they_show() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    farm.submit(merging(1), chosen(&["a"]));
    let second = farm.submit(merging(1), chosen(&["a"]));
    let given = farm.take();
    farm.ready("w1", 1);
    farm.finish(&given, Outcome::Failed);
    let retry = farm.take();
    farm.finish(&retry, Outcome::Passed);
    assert_eq!(farm.verdict(second, 0), Some(Verdict::Flaky));
}

#[test]
fn what_a_run_saw_itself_is_not_hidden_by_what_it_shares() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    let first = farm.submit(merging(1), chosen(&["a"]));
    let failed = farm.take();
    let second = farm.submit_as(Trigger::Person, merging(1), chosen(&["a"]));
    farm.finish(&failed, Outcome::Failed);
    let given = farm.take();
    assert_eq!(given.lease.run, second, "a person's run comes first");
    farm.join("w2", 1);
    assert!(farm.given.is_empty(), "the first run's retry follows");
    farm.finish(&given, Outcome::Passed);
    assert_eq!(farm.verdict(second, 0), Some(Verdict::Passed));
    assert_eq!(farm.verdict(first, 0), Some(Verdict::Flaky));
}

#[test]
fn a_run_that_is_stopped_sends_its_followers_their_own_way() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    let first = farm.submit(merging(0), chosen(&["a"]));
    let second = farm.submit(merging(0), chosen(&["a"]));
    let given = farm.take();
    farm.ready("w1", 1);
    assert!(farm.given.is_empty());
    farm.step(Input::Cancel { run: first, reason: "by me".into() });
    assert_eq!(farm.revoked, [given.lease]);
    let own = farm.take();
    assert_eq!(own.lease.run, second);
    farm.finish(&own, Outcome::Passed);
    assert_eq!(farm.state(second), RunState::Ended(RunEnd::Passed));
}

#[test]
fn other_keys_other_projects_and_no_key_share_nothing() {
    let mut farm = Farm::new();
    farm.join("w1", 4);
    farm.submit(merging(0), chosen(&["a"]));
    farm.submit(plan(0, Grain::Test), chosen(&["a"]));
    farm.submit(Plan { merge_key: Some("other".into()), ..merging(0) }, chosen(&["a"]));
    let header = RunHeader { project: "elsewhere".into(), ..RunHeader::default() };
    farm.submit_run(header, merging(0), chosen(&["a"]));
    assert_eq!(farm.given.len(), 4);
}
