//! The worker as a whole: quarantine, draining, a daemon that breaks.

use super::*;

#[test]
fn a_lane_that_cannot_be_put_back_quarantines_the_worker_and_says_why_again_after_a_reconnect() {
    let mut desk = Desk::joined(2);
    desk.hear(unit(5, 0, &[1]));
    desk.lane(0, unit_ended());
    let unfit = LaneEvent::Settled(Err(Unfit { reason: "3 rebases failed".into() }));
    assert_eq!(desk.lane(0, unfit), ["warn", "unfit \"lane 0: 3 rebases failed\""]);
    assert!(desk.step(Input::Tick).is_empty(), "said once");
    desk.acknowledge_all();
    desk.step(Input::Disconnected);
    assert_eq!(desk.connect(), ["hello[]", "unfit \"lane 0: 3 rebases failed\""]);
    // A lease that was on its way to a sound lane is worked on.
    assert_eq!(desk.hear(unit(6, 1, &[2])), ["start 6 on 1"]);
    assert_eq!(desk.hear(unit(7, 0, &[3])), ["7: failed \"lane 0: 3 rebases failed\""]);
}

#[test]
fn draining_says_so_first_and_gives_every_lease_back() {
    let mut desk = Desk::joined(3);
    desk.hear(unit(5, 0, &[1, 2]));
    desk.lane(0, result(1));
    desk.hear(prepare(6, 1));
    let said = desk.step(Input::Drain { reason: "bye".into() });
    assert_eq!(
        said,
        ["unfit \"bye\"", "cancel 0", "5: failed \"bye\"", "cancel 1", "6: failed \"bye\""],
        "results that are out stay"
    );
    assert_eq!(desk.hear(unit(7, 2, &[3])), ["7: failed \"bye\""]);
    assert!(desk.lane(0, unit_ended()).is_empty(), "the lane is not put back any more");
    assert!(!desk.session.is_drained());
    desk.lane(1, LaneEvent::Ended(Err(WorkFailed::default())));
    assert!(!desk.session.is_drained(), "the coordinator does not know yet");
    desk.acknowledge_all();
    assert!(desk.session.is_drained());
}

#[test]
fn draining_without_a_coordinator_waits_for_the_work_alone() {
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1]));
    desk.step(Input::Disconnected);
    desk.step(Input::Drain { reason: "bye".into() });
    assert!(!desk.session.is_drained());
    desk.lane(0, unit_ended());
    assert!(desk.session.is_drained());
}

#[test]
fn a_broken_daemon_gives_work_back_and_every_lane_is_rebuilt_before_it_is_offered() {
    let mut desk = Desk::joined(3);
    desk.hear(unit(5, 0, &[1]));
    desk.hear(unit(6, 1, &[2]));
    desk.lane(1, unit_ended());
    let down = desk.step(Input::DaemonDown { reason: "dockerd died".into() });
    assert_eq!(down, ["unfit \"dockerd died\"", "cancel 0", "5: failed \"dockerd died\""]);
    assert_eq!(desk.hear(unit(7, 2, &[3])), ["7: failed \"dockerd died\""]);
    // Putting a lane back on a dead daemon fails; that is not the lane's fault.
    assert!(desk.lane(1, LaneEvent::Settled(Err(Unfit { reason: "no daemon".into() }))).is_empty());
    assert!(desk.lane(0, unit_ended()).is_empty());
    assert_eq!(desk.step(Input::DaemonUp), ["rebuild 0", "rebuild 1", "rebuild 2"]);
    assert!(desk.lane(0, settled("")).is_empty());
    assert!(desk.lane(1, settled("")).is_empty());
    assert_eq!(
        desk.lane(2, settled("")),
        ["unfit \"\"", "ready 0 \"\"", "ready 1 \"\"", "ready 2 \"\""],
        "fit again, all offered anew"
    );
}

#[test]
fn a_lane_whose_daemon_broke_and_came_back_while_it_was_put_back_is_put_back_again() {
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1]));
    desk.lane(0, unit_ended());
    desk.step(Input::DaemonDown { reason: "dockerd died".into() });
    assert!(desk.step(Input::DaemonUp).is_empty());
    assert_eq!(desk.lane(0, settled("stale")), ["rebuild 0"]);
    assert_eq!(desk.lane(0, settled("k")), ["unfit \"\"", "ready 0 \"k\""]);
}

#[test]
fn a_quarantined_lane_gets_another_chance_with_a_new_daemon() {
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1]));
    desk.lane(0, unit_ended());
    desk.lane(0, LaneEvent::Settled(Err(Unfit { reason: "stuck".into() })));
    desk.step(Input::DaemonDown { reason: "dockerd died".into() });
    assert_eq!(desk.step(Input::DaemonUp), ["rebuild 0"]);
    assert_eq!(desk.lane(0, settled("k")), ["unfit \"\"", "ready 0 \"k\""]);
}

#[test]
fn a_preparation_stopped_by_a_broken_daemon_does_not_leave_its_lane_for_untouched() {
    let mut desk = Desk::joined(1);
    desk.hear(prepare(5, 0));
    desk.hear(revoke(5));
    desk.step(Input::DaemonDown { reason: "dockerd died".into() });
    desk.step(Input::DaemonUp);
    assert_eq!(desk.lane(0, LaneEvent::Ended(Err(WorkFailed::default()))), ["rebuild 0"]);
}
