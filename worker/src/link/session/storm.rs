//! Random storms beside a small mirror: whatever comes in whatever order, the machine keeps its promises, and once the
//! weather is fair every lane is offered again.

use std::collections::BTreeSet;

use andon_proto::{
    Ack, Discover, Execute, PrepareBaseline, Revoke, Superseded, TestCase, TestResult, Welcome,
};
use proptest::prelude::*;

use super::*;
use crate::runner::UnitNews;

const LANES: u32 = 3;
const TTL_MS: u64 = 1_000;

#[derive(Debug, Clone, Copy)]
enum Blow {
    Connect,
    Disconnect,
    /// A new lease; which work is by the number.
    Assign {
        lane: u32,
        kind: u8,
    },
    /// A lease that was given before, on some lane.
    AssignAgain {
        back: u64,
        lane: u32,
    },
    Revoke {
        back: u64,
    },
    Supersede {
        back: u64,
    },
    /// Acknowledges up to so many below what was sent last.
    Ack {
        back: u64,
    },
    /// The lane's task goes on by a step.
    Progress {
        lane: u32,
        ends: bool,
        well: bool,
    },
    Time {
        ms: u64,
    },
    DaemonDown,
    DaemonUp,
}

fn blow() -> impl Strategy<Value = Blow> {
    let lane = 0..LANES + 1;
    prop_oneof![
        2 => Just(Blow::Connect),
        1 => Just(Blow::Disconnect),
        6 => (lane.clone(), 0..3u8).prop_map(|(lane, kind)| Blow::Assign { lane, kind }),
        1 => (0..4u64, lane.clone()).prop_map(|(back, lane)| Blow::AssignAgain { back, lane }),
        1 => (0..4u64).prop_map(|back| Blow::Revoke { back }),
        1 => (0..4u64).prop_map(|back| Blow::Supersede { back }),
        4 => (0..6u64).prop_map(|back| Blow::Ack { back }),
        10 => (lane, any::<bool>(), prop::bool::weighted(0.9))
            .prop_map(|(lane, ends, well)| Blow::Progress { lane, ends, well }),
        4 => (0..TTL_MS / 2).prop_map(|ms| Blow::Time { ms }),
        1 => Just(Blow::DaemonDown),
        1 => Just(Blow::DaemonUp),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Work(Lease, u8),
    Settle,
}

/// What the world around the session knows.
struct World {
    session: Session,
    now: Duration,
    tasks: Vec<Option<Task>>,
    started: BTreeSet<u64>,
    last_fence: u64,
    last_seq: u64,
    /// Leases of which nothing decisive may be said any more.
    silenced: BTreeSet<u64>,
    up: bool,
    attempts: u64,
}

impl World {
    fn new() -> Self {
        let identity =
            Identity { worker: "w".into(), version: "1".into(), lanes: LANES, pool: "copy".into() };
        Self {
            session: Session::new(identity),
            now: Duration::ZERO,
            tasks: vec![None; LANES as usize],
            started: BTreeSet::new(),
            last_fence: 0,
            last_seq: 0,
            silenced: BTreeSet::new(),
            up: false,
            attempts: 0,
        }
    }

    fn step(&mut self, input: Input) {
        let effects = self.session.step(self.now, input);
        for effect in effects {
            self.check(effect);
        }
        let overdue = self.session.wake_at().is_some_and(|at| at <= self.now);
        assert!(!overdue, "a wake-up that is not in the future would spin");
    }

    fn check(&mut self, effect: Effect) {
        match effect {
            Effect::Send(message) => {
                assert!(self.up, "sent without a session");
                assert_eq!(message.seq, self.last_seq + 1, "numbers grow by one");
                self.last_seq = message.seq;
                self.check_message(message.body.expect("a message has a body"));
            }
            Effect::Start { lane, lease, work, .. } => {
                let kind = match work {
                    assign::Work::PrepareBaseline(_) => 0,
                    assign::Work::Discover(_) => 1,
                    assign::Work::Execute(_) => 2,
                };
                let before = self.tasks[lane as usize].replace(Task::Work(lease, kind));
                assert_eq!(before, None, "one task a lane");
                assert!(self.started.insert(lease.fence), "a lease is started once");
            }
            Effect::Settle { lane } | Effect::Rebuild { lane } => {
                assert_eq!(self.tasks[lane as usize].replace(Task::Settle), None, "one task a lane");
            }
            Effect::Cancel { lane } => {
                let Some(Task::Work(lease, _)) = self.tasks[lane as usize] else {
                    panic!("there is no work to cancel on lane {lane}")
                };
                // Given back or forgotten: in both cases no result follows.
                self.silenced.insert(lease.fence);
            }
            Effect::HangUp { .. } => {
                assert!(self.up, "there is nobody to hang up on");
                self.up = false;
            }
            Effect::Warn(_) | Effect::Verify(_) | Effect::Look(_) => {}
        }
    }

    fn check_message(&mut self, body: worker_message::Body) {
        match body {
            worker_message::Body::LaneReady(ready) => {
                assert_eq!(self.tasks[ready.lane as usize], None, "a lane that is offered is idle");
            }
            worker_message::Body::Heartbeat(beat) => {
                let at_work = |lease: &Lease| {
                    self.tasks.iter().any(|task| matches!(task, Some(Task::Work(known, _)) if known == lease))
                };
                assert!(beat.held.iter().all(at_work), "what is held is worked on");
            }
            worker_message::Body::Report(report) => {
                let fence = report.lease.expect("a report has a lease").fence;
                if let Some(Fact::UnitEnded(_) | Fact::Discovered(_) | Fact::BaselineReady(_)) = report.body {
                    assert!(!self.silenced.contains(&fence), "nothing ends well after it was stopped");
                }
            }
            worker_message::Body::Hello(_)
            | worker_message::Body::Unfit(_)
            | worker_message::Body::Inexact(_)
            | worker_message::Body::Verified(_) => {}
        }
    }

    fn blow(&mut self, blow: Blow) {
        match blow {
            Blow::Connect => {
                self.up = true;
                let held = self.session.working().map(|working| working.lease);
                self.started =
                    held.chain(self.session.outbox.open_leases()).map(|lease| lease.fence).collect();
                self.silenced.retain(|fence| self.started.contains(fence));
                self.step(Input::Connected { driver: String::new() });
                let welcome = Welcome { lease_ttl_ms: TTL_MS, heartbeat_ms: TTL_MS / 5 };
                self.hear(Word::Welcome(welcome));
            }
            Blow::Disconnect => {
                self.up = false;
                self.step(Input::Disconnected);
            }
            Blow::Assign { lane, kind } => {
                self.last_fence += 1;
                self.assign(self.last_fence, lane, kind);
            }
            Blow::AssignAgain { back, lane } => self.assign(self.last_fence.saturating_sub(back), lane, 2),
            Blow::Revoke { back } => {
                let lease = Some(lease(self.last_fence.saturating_sub(back)));
                self.hear(Word::Revoke(Revoke { lease, reason: String::new() }));
            }
            Blow::Supersede { back } => {
                let lease = Some(lease(self.last_fence.saturating_sub(back)));
                self.hear(Word::Superseded(Superseded { lease, reason: String::new() }));
            }
            Blow::Ack { back } => self.hear(Word::Ack(Ack { seq: self.last_seq.saturating_sub(back) })),
            Blow::Progress { lane, ends, well } => self.progress(lane, ends, well),
            Blow::Time { ms } => {
                self.now += Duration::from_millis(ms);
                self.step(Input::Tick);
            }
            Blow::DaemonDown => self.step(Input::DaemonDown { reason: "broke".into() }),
            Blow::DaemonUp => self.step(Input::DaemonUp),
        }
    }

    fn hear(&mut self, word: Word) {
        if self.up {
            self.step(Input::Heard(word));
        }
    }

    fn assign(&mut self, fence: u64, lane: u32, kind: u8) {
        self.attempts += 1;
        let tests = vec![TestCase { attempt: self.attempts, id: String::new() }];
        let work = match kind {
            0 => assign::Work::PrepareBaseline(PrepareBaseline {}),
            1 => assign::Work::Discover(Discover::default()),
            _ => assign::Work::Execute(Execute { tests, ..Execute::default() }),
        };
        let assign = Assign { lease: Some(lease(fence)), lane, spec_digest: String::new(), work: Some(work) };
        self.hear(Word::Assign(assign));
    }

    fn progress(&mut self, lane: u32, ends: bool, well: bool) {
        let Some(Some(task)) = self.tasks.get(lane as usize).copied() else { return };
        let event = match task {
            Task::Work(..) if !ends => LaneEvent::News(UnitNews::Result(TestResult {
                attempt: self.attempts,
                ..TestResult::default()
            })),
            Task::Work(..) if !well => LaneEvent::Ended(Err(WorkFailed::default())),
            Task::Work(_, 0) => LaneEvent::Ended(Ok(Fruit::Baseline(Box::default()))),
            Task::Work(_, 1) => LaneEvent::Ended(Ok(Fruit::Tests(Default::default()))),
            Task::Work(..) => LaneEvent::Ended(Ok(Fruit::Unit)),
            Task::Settle if well => {
                LaneEvent::Settled(Ok(PutBack { baseline_key: String::new(), measuring: None }))
            }
            Task::Settle => LaneEvent::Settled(Err(Unfit { reason: "stuck".into() })),
        };
        if !matches!(event, LaneEvent::News(_)) {
            self.tasks[lane as usize] = None;
        }
        self.step(Input::Lane(lane, event));
    }

    /// Everybody is well again, and what runs comes to its end.
    fn clear_up(&mut self) {
        self.blow(Blow::DaemonDown);
        self.blow(Blow::DaemonUp);
        self.blow(Blow::Connect);
        for _ in 0..4 {
            for lane in 0..LANES {
                self.progress(lane, true, true);
            }
            self.blow(Blow::Ack { back: 0 });
        }
    }
}

fn lease(fence: u64) -> Lease {
    Lease { run: 1, lease: fence, fence }
}

proptest! {
    #[test]
    fn after_any_storm_every_lane_is_offered_and_nothing_is_owed(blows in prop::collection::vec(blow(), 1..120)) {
        let mut world = World::new();
        for blow in blows {
            world.blow(blow);
        }
        world.clear_up();
        let offered = |lane: &Lane| matches!(lane, Lane::Idle { offered: true, .. });
        prop_assert!(world.session.lanes.iter().all(offered), "{:?}", world.session.lanes);
        prop_assert!(world.session.outbox.is_empty());
        prop_assert_eq!(world.session.told_unfit.as_str(), "");
    }
}
