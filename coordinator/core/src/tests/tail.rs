//! The tail: stragglers are started a second time, and one attempt counts.

use super::*;

/// A run of one test on `w1`, overdue, with an idle lane on `w2`; both assignments.
fn straggling(grain: Grain, ids: &[&str]) -> (Farm, RunId, Given, Given) {
    let mut farm = Farm::new();
    let mut hedging = plan(0, grain);
    hedging.policy.hedge = true;
    farm.join("w1", 1);
    let run = farm.submit(hedging, chosen(ids));
    let slow = farm.take();
    farm.join("w2", 1);
    farm.alive_for(&slow, 9_000);
    assert!(farm.given.is_empty(), "not yet");
    farm.alive_for(&slow, 2_000);
    let second = farm.take();
    assert_eq!((second.worker.0.as_str(), second.ids()), ("w2", slow.ids()));
    (farm, run, slow, second)
}

impl Farm {
    /// Time passes while the worker of this assignment says that it lives.
    fn alive_for(&mut self, given: &Given, ms: u64) {
        for _ in 0..ms / 1_000 {
            self.step(Input::Heartbeat { worker: given.worker.clone(), held: vec![given.lease] });
            self.later(1_000);
        }
    }
}

#[test]
fn the_quicker_attempt_counts_and_the_other_is_cancelled() {
    for quicker in [0, 1] {
        let (mut farm, run, slow, second) = straggling(Grain::Test, &["a"]);
        let (winner, loser) = if quicker == 0 { (slow, second) } else { (second, slow) };
        farm.end_test(&winner, 0, Outcome::Failed);
        assert_eq!(farm.verdict(run, 0), Some(Verdict::Failed));
        assert_eq!(farm.outcomes[&(run, loser.attempts()[0])], Some(Outcome::Cancelled));
        assert_eq!(farm.revoked, [loser.lease]);
        farm.end_test(&loser, 0, Outcome::Passed);
        assert_eq!(farm.superseded, [loser.lease], "what comes later is void");
    }
}

#[test]
fn a_unit_keeps_what_its_second_start_has_not_brought() {
    let (mut farm, run, slow, second) = straggling(Grain::File, &["f::a", "f::b"]);
    farm.end_test(&second, 0, Outcome::Passed);
    assert!(farm.revoked.is_empty(), "f::b is still out in both");
    farm.end_test(&slow, 0, Outcome::Failed);
    assert!(farm.superseded.is_empty(), "its lease is alive");
    assert_eq!(farm.verdict(run, 0), Some(Verdict::Passed), "the first that came counts");
    farm.end_test(&slow, 1, Outcome::Passed);
    assert_eq!(farm.revoked, [second.lease]);
    assert!(!farm.core.is_active(run));
}

#[test]
fn a_worker_lost_with_one_attempt_leaves_the_other_as_the_retry() {
    let (mut farm, run, slow, second) = straggling(Grain::Test, &["a"]);
    farm.step(Input::WorkerLeft { worker: slow.worker.clone() });
    farm.alive_for(&second, 20_000);
    assert!(farm.given.is_empty(), "it is out already");
    farm.end_test(&second, 0, Outcome::Passed);
    assert_eq!(farm.verdict(run, 0), Some(Verdict::Passed));
}

#[test]
fn nothing_is_started_twice_while_something_waits_or_where_the_project_forbids_it() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    farm.submit(plan(0, Grain::Test), chosen(&["a"]));
    let slow = farm.take();
    farm.join("w2", 1);
    farm.alive_for(&slow, 60_000);
    assert!(farm.given.is_empty());
}
