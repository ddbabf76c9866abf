//! The machine's decisions, pair by pair.

use std::time::Duration;

use andon_proto::{
    Ack, Discovered, Execute, OutputPiece, PrepareBaseline, Revoke, Superseded, TestCase, TestResult, Welcome,
};
use andon_snapshot::Footprint as Dirt;

use super::*;
use crate::link::outbox::UNACKED_MAX;
use crate::runner::UnitNews;
use andon_proto::Footprint;

mod whole;

/// A session, its clock, and what it sent.
struct Desk {
    session: Session,
    now: Duration,
}

const TTL: Duration = Duration::from_secs(10);
const FENCE: Duration = Duration::from_secs(8);
const HEARTBEAT: Duration = Duration::from_secs(2);

fn lease(fence: u64) -> Lease {
    Lease { run: 1, lease: fence, fence }
}

fn unit(fence: u64, lane: u32, attempts: &[u64]) -> Word {
    let tests = attempts.iter().map(|attempt| TestCase { attempt: *attempt, id: format!("t{attempt}") });
    let execute = Execute { suite: "s".into(), baseline_key: "k".into(), tests: tests.collect() };
    assign(fence, lane, assign::Work::Execute(execute))
}

fn prepare(fence: u64, lane: u32) -> Word {
    assign(fence, lane, assign::Work::PrepareBaseline(PrepareBaseline {}))
}

fn assign(fence: u64, lane: u32, work: assign::Work) -> Word {
    Word::Assign(Assign { lease: Some(lease(fence)), lane, spec_digest: "d".into(), work: Some(work) })
}

fn ack(seq: u64) -> Word {
    Word::Ack(Ack { seq })
}

fn revoke(fence: u64) -> Word {
    Word::Revoke(Revoke { lease: Some(lease(fence)), reason: "stop".into() })
}

fn superseded(fence: u64) -> Word {
    Word::Superseded(Superseded { lease: Some(lease(fence)), reason: "late".into() })
}

fn result(attempt: u64) -> LaneEvent {
    LaneEvent::News(UnitNews::Result(TestResult { attempt, ..TestResult::default() }))
}

fn unit_ended() -> LaneEvent {
    LaneEvent::Ended(Ok(Fruit::Unit))
}

fn settled(key: &str) -> LaneEvent {
    LaneEvent::Settled(Ok(PutBack { baseline_key: key.into(), measuring: Some(7) }))
}

/// After [`settled`].
fn measured() -> LaneEvent {
    let footprint = Dirt { files: 2, bytes: 4096 };
    LaneEvent::Measured { id: 7, footprint: Some(Changes { footprint, trees: Vec::new() }) }
}

/// What an effect is, in a word or two, for assertions that read.
fn name(effect: &Effect) -> String {
    use worker_message::Body;
    match effect {
        Effect::Send(message) => match message.body.as_ref().expect("a message has a body") {
            Body::Hello(hello) => {
                format!("hello{:?}", hello.held.iter().map(|lease| lease.fence).collect::<Vec<_>>())
            }
            Body::LaneReady(ready) => format!("ready {} {:?}", ready.lane, ready.baseline_key),
            Body::Heartbeat(beat) => {
                format!("beat{:?}", beat.held.iter().map(|lease| lease.fence).collect::<Vec<_>>())
            }
            Body::Unfit(unfit) => format!("unfit {:?}", unfit.reason),
            Body::Inexact(inexact) => format!("inexact {}", inexact.id),
            Body::Verified(verified) => format!("verified {}", verified.request),
            Body::Report(report) => {
                let fence = report.lease.expect("a report has a lease").fence;
                match report.body.as_ref().expect("a report has a body") {
                    Fact::TestResult(result) => format!("{fence}: result {}", result.attempt),
                    Fact::UnitEnded(_) => format!("{fence}: ended"),
                    Fact::WorkFailed(failed) => format!("{fence}: failed {:?}", failed.reason),
                    Fact::Footprint(print) => format!("{fence}: footprint {:?}", print.attempts),
                    Fact::BaselineReady(_) => format!("{fence}: baseline"),
                    Fact::Discovered(_) => format!("{fence}: discovered"),
                    Fact::Notice(text) => format!("{fence}: notice {text}"),
                    Fact::Artifacts(left) => format!("{fence}: artifacts {}", left.files),
                    Fact::Output(piece) => format!("{fence}: output from {}", piece.starts),
                }
            }
        },
        Effect::Start { lane, lease, .. } => format!("start {} on {lane}", lease.fence),
        Effect::Cancel { lane } => format!("cancel {lane}"),
        Effect::Settle { lane } => format!("settle {lane}"),
        Effect::Rebuild { lane } => format!("rebuild {lane}"),
        Effect::Verify(ask) => format!("verify {}", ask.request),
        Effect::Look(call) => format!("look {}", call.ticket),
        Effect::HangUp { .. } => "hang up".into(),
        Effect::Warn(_) => "warn".into(),
    }
}

fn seqs(effects: &[Effect]) -> Vec<u64> {
    effects
        .iter()
        .filter_map(|effect| if let Effect::Send(m) = effect { Some(m.seq) } else { None })
        .collect()
}

impl Desk {
    fn new(lanes: u32) -> Self {
        let identity = Identity { worker: "w".into(), version: "1".into(), lanes, pool: "reflink".into() };
        Self { session: Session::new(identity), now: Duration::from_secs(100) }
    }

    /// Connected, welcomed, every lane offered.
    fn joined(lanes: u32) -> Self {
        let mut desk = Self::new(lanes);
        desk.connect();
        desk
    }

    fn raw(&mut self, input: Input) -> Vec<Effect> {
        self.session.step(self.now, input)
    }

    fn step(&mut self, input: Input) -> Vec<String> {
        self.raw(input).iter().map(name).collect()
    }

    fn connect(&mut self) -> Vec<String> {
        let mut sent = self.step(Input::Connected { driver: "restart".into() });
        let welcome =
            Welcome { lease_ttl_ms: TTL.as_millis() as u64, heartbeat_ms: HEARTBEAT.as_millis() as u64 };
        sent.extend(self.hear(Word::Welcome(welcome)));
        sent
    }

    fn hear(&mut self, word: Word) -> Vec<String> {
        self.step(Input::Heard(word))
    }

    fn lane(&mut self, lane: u32, event: LaneEvent) -> Vec<String> {
        self.step(Input::Lane(lane, event))
    }

    fn later(&mut self, by: Duration) -> Vec<String> {
        self.now += by;
        self.step(Input::Tick)
    }

    fn acknowledge_all(&mut self) {
        let seq = self.session.seq;
        self.hear(ack(seq));
    }
}

#[test]
fn a_session_begins_with_hello_and_every_lane_offered_once() {
    let mut desk = Desk::new(2);
    assert_eq!(desk.connect(), ["hello[]", "ready 0 \"\"", "ready 1 \"\""]);
    assert!(desk.step(Input::Tick).is_empty());
}

#[test]
fn a_unit_reports_each_test_then_its_end_then_puts_the_lane_back_then_offers_it() {
    let mut desk = Desk::joined(1);
    assert_eq!(desk.hear(unit(5, 0, &[1, 2])), ["start 5 on 0"]);
    assert_eq!(desk.lane(0, result(1)), ["5: result 1"]);
    assert_eq!(desk.lane(0, result(2)), ["5: result 2"]);
    assert_eq!(desk.lane(0, unit_ended()), ["5: ended", "settle 0"]);
    assert_eq!(desk.lane(0, settled("k")), ["ready 0 \"k\""]);
    assert_eq!(desk.lane(0, measured()), ["5: footprint [1, 2]"]);
}

#[test]
fn dirt_that_a_rebase_within_the_unit_measured_is_told_once() {
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1, 2, 3]));
    desk.lane(0, result(1));
    desk.lane(0, result(2));
    let within =
        Footprint { attempts: vec![1, 2], dirtied_bytes: 9, dirtied_files: 1, ..Footprint::default() };
    assert_eq!(desk.lane(0, LaneEvent::News(UnitNews::Footprint(within))), ["5: footprint [1, 2]"]);
    desk.lane(0, result(3));
    desk.lane(0, unit_ended());
    desk.lane(0, settled("k"));
    assert_eq!(desk.lane(0, measured()), ["5: footprint [3]"]);
    assert!(desk.lane(0, measured()).is_empty());
}

#[test]
fn a_baseline_is_prepared_beside_the_lane_which_is_offered_as_it_was() {
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1]));
    desk.lane(0, unit_ended());
    desk.lane(0, settled("k"));
    assert_eq!(desk.hear(prepare(6, 0)), ["start 6 on 0"]);
    let end = LaneEvent::Ended(Ok(Fruit::Baseline(Box::default())));
    assert_eq!(desk.lane(0, end), ["6: baseline", "ready 0 \"k\""]);
}

#[test]
fn discovery_puts_the_lane_back_and_measures_nothing() {
    let mut desk = Desk::joined(1);
    let work = assign::Work::Discover(andon_proto::Discover::default());
    desk.hear(assign(5, 0, work));
    let end = LaneEvent::Ended(Ok(Fruit::Tests(Discovered::default())));
    assert_eq!(desk.lane(0, end), ["5: discovered", "settle 0"]);
    assert_eq!(desk.lane(0, settled("k")), ["ready 0 \"k\""]);
}

#[test]
fn failed_work_is_reported_and_the_lane_put_back_and_offered() {
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1, 2]));
    desk.lane(0, result(1));
    let failed = WorkFailed { reason: "no disk".into(), ..WorkFailed::default() };
    assert_eq!(desk.lane(0, LaneEvent::Ended(Err(failed))), ["5: failed \"no disk\"", "settle 0"]);
    assert_eq!(desk.lane(0, settled("k")), ["ready 0 \"k\""]);
    assert_eq!(desk.lane(0, measured()), ["5: footprint [1]"]);
}

#[test]
fn the_same_lease_twice_is_started_once_also_after_it_ended() {
    let mut desk = Desk::joined(2);
    desk.hear(unit(5, 0, &[1]));
    assert!(desk.hear(unit(5, 0, &[1])).is_empty());
    assert_eq!(
        desk.hear(unit(5, 1, &[1])),
        ["ready 1 \"\""],
        "not on another lane either, whose credit is renewed"
    );
    desk.lane(0, unit_ended());
    desk.acknowledge_all();
    assert_eq!(desk.hear(unit(5, 1, &[1])), ["ready 1 \"\""]);
}

#[test]
fn a_coordinator_that_lost_its_state_may_begin_its_numbers_anew() {
    let mut desk = Desk::joined(1);
    desk.hear(prepare(1, 0));
    desk.lane(0, LaneEvent::Ended(Ok(Fruit::Baseline(Box::default()))));
    desk.step(Input::Disconnected);
    desk.connect();
    assert_eq!(desk.hear(prepare(1, 0)), ["ready 0 \"\""], "not while its end is unacknowledged");
    desk.acknowledge_all();
    desk.step(Input::Disconnected);
    desk.connect();
    assert_eq!(desk.hear(prepare(1, 0)), ["start 1 on 0"]);
}

#[test]
fn hello_names_the_last_fence_that_reached_this_life_once_it_was_welcomed() {
    fn reached(effects: &[Effect]) -> Option<u64> {
        let hellos = effects.iter().find_map(|effect| match effect {
            Effect::Send(message) => match &message.body {
                Some(worker_message::Body::Hello(hello)) => Some(hello.reached),
                _ => None,
            },
            _ => None,
        });
        hellos.expect("a session begins with hello")
    }
    let mut desk = Desk::new(1);
    let connected = || Input::Connected { driver: "restart".into() };
    assert_eq!(reached(&desk.raw(connected())), None, "what an earlier life was given is not known");
    desk.hear(Word::Welcome(Welcome::default()));
    assert_eq!(reached(&desk.raw(connected())), Some(0));
    desk.hear(Word::Welcome(Welcome::default()));
    desk.hear(unit(7, 0, &[1]));
    desk.hear(revoke(7));
    assert_eq!(reached(&desk.raw(connected())), Some(7), "also where it is not held any more");
}

#[test]
fn a_lease_for_a_busy_or_unknown_lane_is_given_back_at_once() {
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1]));
    assert_eq!(desk.hear(unit(6, 0, &[2])), ["6: failed \"lane 0 is busy\""]);
    assert_eq!(desk.hear(unit(7, 9, &[2])), ["7: failed \"there is no lane 9; there are 1\""]);
    assert!(desk.hear(unit(7, 9, &[2])).is_empty(), "said once");
    assert_eq!(desk.lane(0, result(1)), ["5: result 1"], "the first lease goes on");
}

#[test]
fn an_assignment_without_known_work_is_given_back() {
    let mut desk = Desk::joined(1);
    let word = Word::Assign(Assign { lease: Some(lease(5)), ..Assign::default() });
    let said = desk.hear(word);
    assert_eq!(said, ["5: failed \"the assignment names no work that this worker knows\"", "ready 0 \"\""]);
}

#[test]
fn a_revoked_lease_is_cancelled_and_nothing_more_is_said_of_it() {
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1, 2]));
    desk.lane(0, result(1));
    assert_eq!(desk.hear(revoke(5)), ["cancel 0"]);
    assert!(desk.hear(revoke(5)).is_empty(), "twice is once");
    assert!(desk.lane(0, result(2)).is_empty());
    assert_eq!(desk.lane(0, unit_ended()), ["settle 0"]);
    assert_eq!(desk.lane(0, settled("k")), ["ready 0 \"k\""]);
    desk.step(Input::Disconnected);
    assert_eq!(desk.connect(), ["hello[]", "ready 0 \"k\""], "its unacknowledged results are dropped");
}

#[test]
fn output_that_was_not_acknowledged_is_sent_again() {
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1]));
    let piece = |starts| LaneEvent::News(UnitNews::Output(OutputPiece { starts, ..OutputPiece::default() }));
    assert_eq!(desk.lane(0, piece(0)), ["5: output from 0"]);
    desk.step(Input::Disconnected);
    assert!(desk.lane(0, piece(9)).is_empty(), "nobody to send to");
    assert_eq!(desk.connect(), ["hello[5]", "5: output from 0", "5: output from 9"]);
}

#[test]
fn a_unit_revoked_after_its_last_result_is_still_measured() {
    // The last verdict of a run ends the run, and with it the lease that brought it.
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1]));
    desk.lane(0, result(1));
    desk.hear(revoke(5));
    desk.lane(0, unit_ended());
    assert_eq!(desk.lane(0, settled("k")), ["ready 0 \"k\""]);
    assert_eq!(desk.lane(0, measured()), ["5: footprint [1]"]);
}

#[test]
fn a_revoke_that_crosses_the_units_end_changes_nothing() {
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1]));
    desk.lane(0, result(1));
    desk.lane(0, unit_ended());
    assert!(desk.hear(revoke(5)).is_empty());
    assert!(desk.hear(superseded(5)).is_empty());
    assert_eq!(desk.lane(0, settled("k")), ["ready 0 \"k\""]);
    assert_eq!(desk.lane(0, measured()), ["5: footprint [1]"]);
}

#[test]
fn a_superseded_lease_is_cancelled_and_its_attempts_are_not_measured() {
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1]));
    desk.lane(0, result(1));
    assert_eq!(desk.hear(superseded(5)), ["cancel 0"]);
    desk.lane(0, unit_ended());
    assert_eq!(desk.lane(0, settled("k")), ["ready 0 \"k\""]);
}

#[test]
fn a_revoked_preparation_leaves_the_lane_as_it_was() {
    let mut desk = Desk::joined(1);
    desk.hear(prepare(5, 0));
    desk.hear(revoke(5));
    let end = LaneEvent::Ended(Err(WorkFailed::default()));
    assert_eq!(desk.lane(0, end), ["ready 0 \"\""]);
}

#[test]
fn exactly_the_unacknowledged_reports_are_sent_again_in_order_under_new_numbers() {
    let mut desk = Desk::joined(2);
    desk.hear(unit(5, 0, &[1, 2, 3]));
    let first = seqs(&desk.raw(Input::Lane(0, result(1))));
    desk.lane(0, result(2));
    desk.hear(ack(first[0]));
    desk.step(Input::Disconnected);
    assert!(desk.lane(0, result(3)).is_empty(), "nobody is there to send to");
    assert!(desk.lane(0, LaneEvent::Notice("lost".into())).is_empty());
    assert_eq!(desk.lane(0, unit_ended()), ["settle 0"]);
    let before = desk.session.seq;
    let again = desk.raw(Input::Connected { driver: "restart".into() });
    let names: Vec<_> = again.iter().map(name).collect();
    assert_eq!(names, ["hello[5]", "ready 1 \"\"", "5: result 2", "5: result 3", "5: ended"]);
    let numbers: Vec<u64> = (before + 1..).take(5).collect();
    assert_eq!(seqs(&again), numbers, "growing by one");

    // The coordinator acknowledges the Hello: that says nothing of the reports after it.
    desk.hear(ack(numbers[0]));
    desk.step(Input::Disconnected);
    assert_eq!(desk.connect()[2..], ["5: result 2", "5: result 3", "5: ended"]);
    desk.acknowledge_all();
    desk.step(Input::Disconnected);
    assert_eq!(desk.connect(), ["hello[]", "ready 1 \"\""]);
}

#[test]
fn work_goes_on_while_the_coordinator_is_briefly_away() {
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1]));
    desk.step(Input::Disconnected);
    assert!(desk.later(FENCE - Duration::from_millis(1)).is_empty());
    assert_eq!(desk.connect(), ["hello[5]"]);
    desk.acknowledge_all();
    assert!(!desk.later(FENCE - Duration::from_millis(1)).contains(&"cancel 0".to_owned()));
}

#[test]
fn without_an_acknowledged_heartbeat_for_eight_tenths_of_the_lease_its_work_is_given_up() {
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1, 2]));
    desk.lane(0, result(1));
    desk.step(Input::Disconnected);
    assert_eq!(desk.session.wake_at(), Some(desk.now + FENCE));
    assert_eq!(desk.later(FENCE), ["warn", "cancel 0"]);
    assert_eq!(desk.session.wake_at(), None);
    desk.lane(0, unit_ended());
    assert_eq!(desk.connect(), ["hello[]"], "neither held nor reported");
    assert_eq!(desk.lane(0, settled("k")), ["ready 0 \"k\""]);
}

#[test]
fn results_of_a_unit_that_had_ended_outlive_the_fence() {
    // The coordinator's grace after its own restart is longer than a lease, and a void report does no harm.
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1]));
    desk.lane(0, result(1));
    desk.lane(0, unit_ended());
    desk.step(Input::Disconnected);
    desk.later(2 * TTL);
    assert_eq!(desk.connect(), ["hello[5]", "5: result 1", "5: ended"]);
}

#[test]
fn a_worker_that_slept_past_its_lease_does_not_report_what_it_finds_on_waking() {
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1]));
    desk.now += 2 * TTL;
    let woken = desk.lane(0, result(1));
    assert_eq!(woken[..2], ["warn", "cancel 0"]);
    assert!(!woken.iter().any(|said| said.contains("result")), "{woken:?}");
}

#[test]
fn a_lease_lives_from_when_the_acknowledged_heartbeat_was_sent() {
    let mut desk = Desk::joined(1);
    desk.hear(unit(5, 0, &[1]));
    desk.now += HEARTBEAT;
    let beat = desk.raw(Input::Tick);
    assert_eq!(beat.iter().map(name).collect::<Vec<_>>(), ["beat[5]"]);
    let sent = desk.now;
    desk.now += HEARTBEAT;
    desk.hear(ack(seqs(&beat)[0]));
    assert_eq!(desk.session.renewed, sent);
}

#[test]
fn a_lease_that_came_later_is_given_up_later() {
    let mut desk = Desk::joined(2);
    desk.hear(unit(5, 0, &[1]));
    desk.later(HEARTBEAT);
    desk.hear(unit(6, 1, &[2]));
    assert_eq!(desk.later(FENCE - HEARTBEAT)[..2], ["warn", "cancel 0"]);
    desk.hear(revoke(99));
    assert_eq!(desk.later(HEARTBEAT)[..2], ["warn", "cancel 1"]);
}

#[test]
fn other_words_than_an_acknowledgement_of_a_heartbeat_renew_nothing() {
    let mut desk = Desk::joined(2);
    desk.hear(unit(5, 0, &[1]));
    for _ in 0..7 {
        desk.later(Duration::from_secs(1));
        desk.hear(revoke(99));
    }
    assert_eq!(desk.later(Duration::from_secs(1))[..2], ["warn", "cancel 0"]);
}

#[test]
fn a_silent_coordinator_is_hung_up_on_and_heartbeats_stop() {
    let mut desk = Desk::joined(1);
    assert_eq!(desk.later(HEARTBEAT), ["beat[]"]);
    assert_eq!(desk.later(FENCE - HEARTBEAT), ["hang up"]);
    assert_eq!(desk.session.wake_at(), None);
    assert!(desk.later(TTL).is_empty());
}

#[test]
fn a_coordinator_that_never_says_welcome_is_hung_up_on() {
    let mut desk = Desk::new(1);
    desk.step(Input::Connected { driver: String::new() });
    assert_eq!(desk.session.wake_at(), Some(desk.now + WELCOME_LIMIT));
    assert_eq!(desk.later(WELCOME_LIMIT), ["hang up"]);
}

#[test]
fn heartbeats_name_what_is_worked_on_and_not_what_has_ended() {
    let mut desk = Desk::joined(2);
    desk.hear(unit(5, 0, &[1]));
    desk.hear(unit(6, 1, &[2]));
    desk.lane(0, unit_ended());
    assert_eq!(desk.later(HEARTBEAT), ["beat[6]"]);
}

#[test]
fn strange_times_in_welcome_are_brought_within_bounds() {
    let mut desk = Desk::new(1);
    desk.step(Input::Connected { driver: String::new() });
    desk.hear(Word::Welcome(Welcome { lease_ttl_ms: 0, heartbeat_ms: 0 }));
    let times = desk.session.times.unwrap();
    assert_eq!((times.fence, times.heartbeat), (TTL_MIN * 8 / 10, HEARTBEAT_MIN));
    desk.hear(Word::Welcome(Welcome { lease_ttl_ms: 10_000, heartbeat_ms: u64::MAX }));
    assert_eq!(desk.session.times.unwrap().heartbeat, FENCE / 2);
}

#[test]
fn a_full_outbox_takes_no_new_work_until_acknowledgements_come() {
    let mut desk = Desk::joined(2);
    desk.hear(unit(5, 0, &[1]));
    desk.hear(unit(6, 1, &[2]));
    for attempt in 0..UNACKED_MAX as u64 {
        assert!(!desk.session.is_full());
        desk.lane(0, result(attempt));
    }
    assert!(desk.session.is_full());
    desk.lane(1, unit_ended());
    assert!(!desk.lane(1, settled("k")).iter().any(|said| said.starts_with("ready")));
    let seq = desk.session.seq;
    assert_eq!(desk.hear(ack(seq)), ["ready 1 \"k\""]);
}

#[test]
fn events_of_lanes_that_do_not_expect_them_change_nothing() {
    let mut desk = Desk::joined(1);
    for event in [result(1), unit_ended(), settled("x"), LaneEvent::Notice("n".into())] {
        assert!(desk.lane(0, event).is_empty());
    }
    assert!(desk.lane(9, unit_ended()).is_empty());
    assert_eq!(desk.hear(unit(5, 0, &[1])), ["start 5 on 0"]);
}

#[test]
fn words_of_a_session_that_is_over_are_not_heard() {
    let mut desk = Desk::joined(1);
    desk.step(Input::Disconnected);
    assert!(desk.hear(unit(5, 0, &[1])).is_empty());
    assert!(!desk.connect().contains(&"start 5 on 0".to_owned()));
}
