//! What workers lose: who is blamed, who is tried again, who is trusted no more.

use super::*;
use crate::ids::{Fence, WorkId};
use crate::model::{FailureClass, LeaseKind, RunEnd, StoredRun};
use crate::restore::Stored;
use crate::verdict::INFRASTRUCTURE_ATTEMPTS_MAX;

impl Farm {
    fn fail(&mut self, given: &Given) {
        let class = FailureClass::Infrastructure;
        self.report(given, Report::WorkFailed { class, reason: "gone".into(), log_zstd: vec![] });
    }
}

#[test]
fn a_poison_test_is_soon_alone_and_the_others_pass() {
    for grain in [Grain::Batch, Grain::File] {
        let mut farm = Farm::new();
        let ids = ["f::a", "f::b", "f::poison", "f::c", "f::d"];
        let run = farm.submit(plan(0, grain), chosen(&ids));
        for round in 0..40 {
            farm.step(Input::Tick);
            let name = format!("w{round}");
            farm.join(&name, 1);
            while !farm.given.is_empty() {
                let given = farm.take();
                let poison = given.ids().iter().position(|id| *id == "f::poison");
                for place in 0..poison.unwrap_or(given.ids().len()) {
                    farm.end_test(&given, place, Outcome::Passed);
                }
                match poison {
                    Some(_) => farm.fail(&given),
                    None => farm.report(&given, Report::UnitEnded),
                }
            }
        }
        for test in [0, 1, 3, 4] {
            assert_eq!(farm.verdict(run, test), Some(Verdict::Passed), "{grain:?} {test}");
        }
        assert_eq!(farm.verdict(run, 2), Some(Verdict::Infrastructure));
        assert_eq!(farm.state(run), RunState::Ended(RunEnd::Incomplete));
        assert!(farm.notes.iter().any(|text| text.contains("f::poison") && text.contains("given up")));
    }
}

#[test]
fn work_that_was_lost_avoids_every_worker_that_lost_it_while_there_is_another() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    farm.submit(plan(0, Grain::Test), chosen(&["a"]));
    let first = farm.take();
    farm.join("w2", 1);
    farm.fail(&first);
    let second = farm.take();
    assert_eq!(second.worker, worker("w2"));
    farm.step(Input::WorkerJoined { worker: worker("w3"), held: vec![], reached: None });
    farm.ready("w1", 0);
    farm.fail(&second);
    farm.ready("w2", 0);
    assert!(farm.given.is_empty(), "w3 takes work, though it has no lane yet");
    farm.ready("w3", 0);
    let third = farm.take();
    assert_eq!(third.worker, worker("w3"));
    farm.fail(&third);
    assert_eq!(farm.take().worker, worker("w1"), "all have lost it: anyone may try");
}

#[test]
fn work_does_not_wait_for_ever_for_a_worker_whose_lanes_never_come() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    farm.submit(plan(0, Grain::Test), chosen(&["a"]));
    let first = farm.take();
    farm.step(Input::WorkerJoined { worker: worker("busy"), held: vec![], reached: None });
    farm.fail(&first);
    farm.ready("w1", 0);
    farm.later(59_000);
    assert!(farm.given.is_empty());
    farm.later(1_000);
    assert_eq!(farm.take().worker, worker("w1"));
}

#[test]
fn a_worker_that_fails_everything_while_others_pass_is_put_in_quarantine() {
    let mut farm = Farm::new();
    let ids: Vec<String> = (0..60).map(|n| format!("{n}.py::x")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    farm.join("good", 1);
    farm.join("rogue", 2);
    let run = farm.submit(plan(0, Grain::Test), chosen(&ids));
    for _ in 0..200 {
        if farm.given.is_empty() {
            break;
        }
        let given = farm.take();
        if given.worker == worker("rogue") && !farm.revoked.contains(&given.lease) {
            farm.fail(&given);
            farm.ready("rogue", given.lane.0);
        } else if given.worker == worker("good") {
            farm.finish(&given, Outcome::Passed);
        }
    }
    assert!(farm.core.unfit(&worker("rogue")).is_some_and(|reason| reason.contains("quarantine")));
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::Passed));
    assert_eq!(farm.core.busy_lanes(&worker("rogue")), 0);
    farm.later(Config::default().quarantine_ms);
    assert_eq!(farm.core.unfit(&worker("rogue")), None);
}

#[test]
fn a_restart_does_not_forget_who_came_to_nothing_with_a_discovery() {
    let mut plan = plan(0, Grain::Test);
    plan.baseline_group = None;
    let lost = |name| (LeaseKind::Discover("it".into()), worker(name));
    let stored = StoredRun {
        run: RunId(1),
        header: RunHeader::default(),
        plan,
        state: RunState::Discovering,
        baseline: Some(String::new()),
        discovered: Vec::new(),
        tests: Vec::new(),
        leases: Vec::new(),
        losses: (1..INFRASTRUCTURE_ATTEMPTS_MAX).map(|_| lost("w1")).collect(),
        last_work: WorkId(3),
    };
    let mut farm = Farm::new();
    let stored = Stored { last_run: 1, last_fence: 3, runs: vec![stored] };
    farm.core = Core::restore(Config::default(), farm.now, stored);
    farm.last_fence = 3;
    farm.step(Input::WorkerJoined { worker: worker("w2"), held: vec![], reached: None });
    farm.join("w1", 1);
    assert!(farm.given.is_empty(), "w2 takes work, though it has no lane yet");
    farm.ready("w2", 0);
    let last = farm.take();
    farm.fail(&last);
    assert_eq!(farm.state(RunId(1)), RunState::Ended(RunEnd::Incomplete));
}

impl Farm {
    fn comes_back(&mut self, name: &str, reached: u64) {
        self.step(Input::WorkerJoined { worker: worker(name), held: vec![], reached: Some(Fence(reached)) });
    }
}

#[test]
fn a_lease_that_never_reached_its_worker_is_told_again_and_costs_no_attempt() {
    let mut farm = Farm::new();
    farm.join("w1", 2);
    let run = farm.submit(plan(0, Grain::Test), chosen(&["a", "b", "c"]));
    let (first, second) = (farm.take(), farm.take());
    // The connection breaks while the second is on its way.
    farm.step(Input::WorkerLeft { worker: worker("w1") });
    farm.step(Input::WorkerJoined {
        worker: worker("w1"),
        held: vec![first.lease],
        reached: Some(first.lease.fence),
    });
    assert!(farm.given.is_empty(), "its lane is not offered yet");
    farm.ready("w1", second.lane.0);
    let again = farm.take();
    assert_eq!((again.lease, again.lane, again.ids()), (second.lease, second.lane, second.ids()));
    assert!(farm.given.is_empty(), "the lane is taken with it");
    farm.finish(&again, Outcome::Passed);
    farm.finish(&first, Outcome::Passed);
    let last = farm.take();
    farm.finish(&last, Outcome::Passed);
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::Passed));
    assert_eq!(farm.outcomes.len(), 3, "one attempt a test: {:?}", farm.outcomes);
}

#[test]
fn what_had_reached_a_worker_and_is_not_held_any_more_is_lost() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    farm.submit(plan(0, Grain::Test), chosen(&["a"]));
    let first = farm.take();
    farm.comes_back("w1", first.lease.fence.0);
    farm.ready("w1", 0);
    let second = farm.take();
    assert!(second.lease.fence > first.lease.fence);
    // Another life of the worker: what reached the one before is not known.
    farm.join("w1", 1);
    assert!(farm.take().lease.fence > second.lease.fence);
}

#[test]
fn what_is_owed_to_a_lane_that_never_comes_is_lost_in_time_and_a_later_offer_brings_other_work() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    farm.submit(plan(0, Grain::Test), chosen(&["a"]));
    let first = farm.take();
    farm.comes_back("w1", 0);
    farm.later(Config::default().lease_ttl_ms);
    farm.comes_back("w1", 0);
    farm.ready("w1", 0);
    assert!(farm.take().lease.fence > first.lease.fence);
}
