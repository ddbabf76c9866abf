//! A farm that is played: lanes that take what the core assigns, and a clock that jumps from one event to the next.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use andon_core::ids::{AttemptId, LaneIx, Lease, Now, RunId, WorkerId};
use andon_core::model::{
    Candidate, Ended, Grain, Outcome, Plan, Policy, Record, Report, RunHeader, Start, SuitePlan, Verdict,
    Work,
};
use andon_core::{Config, Core, Effect, Input};

/// Lanes of one worker, where there are enough for several workers.
const LANES_A_WORKER: u32 = 4;
const TICK_US: u64 = 1_000_000;
const HEARTBEAT_US: u64 = 5_000_000;
const SUITE: &str = "suite";
const BASELINE: &str = "baseline";

/// One run to be played.
pub(crate) struct Case<'a> {
    pub(crate) ids: &'a [String],
    /// What each test takes.
    pub(crate) us: &'a [u64],
    /// What the core is told that it took before; `None` for a first run.
    pub(crate) history_ms: Option<&'a Vec<u64>>,
    pub(crate) lanes: u32,
    /// What each unit costs besides its tests.
    pub(crate) overhead_us: u64,
    pub(crate) grain: Grain,
}

/// What came of it.
pub(crate) struct Done {
    pub(crate) makespan_us: u64,
    pub(crate) units: u64,
}

/// Those of one time happen in the order in which they were scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    TestEnded { lane: usize, lease: Lease, attempt: AttemptId, us: u64 },
    UnitEnded { lane: usize, lease: Lease },
    Heartbeat,
    Tick,
}

struct Lane {
    worker: WorkerId,
    ix: LaneIx,
    lease: Option<Lease>,
}

pub(crate) struct Farm<'a> {
    case: &'a Case<'a>,
    core: Core,
    now_us: u64,
    lanes: Vec<Lane>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    run: Option<RunId>,
    passed: usize,
    units: u64,
}

impl<'a> Farm<'a> {
    pub(crate) fn new(case: &'a Case<'a>) -> Self {
        let a_worker = LANES_A_WORKER.min(case.lanes.div_ceil(2));
        let lane = |number: u32| Lane {
            worker: WorkerId(format!("w{:03}", number / a_worker)),
            ix: LaneIx(number % a_worker),
            lease: None,
        };
        Self {
            case,
            core: Core::new(Config::default()),
            now_us: 0,
            lanes: (0..case.lanes).map(lane).collect(),
            events: BinaryHeap::new(),
            scheduled: 0,
            run: None,
            passed: 0,
            units: 0,
        }
    }

    /// Plays the run to its end.
    pub(crate) fn run(mut self) -> Result<Done, String> {
        for worker in self.workers() {
            self.step(Input::WorkerJoined { worker, held: Vec::new(), reached: None });
        }
        for lane in 0..self.lanes.len() {
            self.ready(lane);
        }
        self.submit();
        let run = self.run.ok_or("the run was not accepted")?;
        self.schedule(TICK_US, Event::Tick);
        self.schedule(HEARTBEAT_US, Event::Heartbeat);
        while self.core.is_active(run) {
            let Reverse((at_us, _, event)) = self.events.pop().ok_or("the run does not end")?;
            self.now_us = at_us;
            self.happen(event);
        }
        if self.passed != self.case.ids.len() {
            return Err(format!("{} of {} tests passed", self.passed, self.case.ids.len()));
        }
        Ok(Done { makespan_us: self.now_us, units: self.units })
    }

    fn submit(&mut self) {
        let candidate = |(place, id): (usize, &String)| {
            let expected_ms = self.case.history_ms.map(|known| known[place]);
            (SUITE.to_owned(), Candidate { id: id.clone(), expected_ms, failed_last: false, excused: false })
        };
        let tests = self.case.ids.iter().enumerate().map(candidate).collect();
        let plan = Plan {
            suites: vec![SuitePlan { name: SUITE.to_owned(), retries: 0, grain: self.case.grain }],
            // As `andon.toml` has it where it says nothing.
            policy: Policy { hedge: true, ..Policy::default() },
            baseline_group: Some(BASELINE.to_owned()),
            merge_key: None,
            asked: andon_core::asked::Asked::default(),
            quarantine: Vec::new(),
        };
        let header = RunHeader { project: "project".to_owned(), ..RunHeader::default() };
        let start = Start::Chosen { tests, baseline: Some(BASELINE.to_owned()) };
        self.step(Input::Submit { ticket: 0, header, plan, start });
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::TestEnded { lane, lease, attempt, us } if self.lanes[lane].lease == Some(lease) => {
                let ended = Ended { run_ms: us / 1_000, ..Ended::without_report(Outcome::Passed, "") };
                self.report(lane, lease, Report::TestEnded { attempt, ended });
            }
            Event::UnitEnded { lane, lease } if self.lanes[lane].lease == Some(lease) => {
                self.lanes[lane].lease = None;
                self.report(lane, lease, Report::UnitEnded);
                self.ready(lane);
            }
            // Of a lease that was revoked.
            Event::TestEnded { .. } | Event::UnitEnded { .. } => {}
            Event::Heartbeat => {
                for worker in self.workers() {
                    let of_worker = self.lanes.iter().filter(|lane| lane.worker == worker);
                    let held = of_worker.filter_map(|lane| lane.lease).collect();
                    self.step(Input::Heartbeat { worker, held });
                }
                self.schedule(HEARTBEAT_US, Event::Heartbeat);
            }
            Event::Tick => {
                self.step(Input::Tick);
                self.schedule(TICK_US, Event::Tick);
            }
        }
    }

    fn step(&mut self, input: Input) {
        let mono_ms = self.now_us / 1_000;
        for effect in self.core.step(Now { mono_ms, unix_ms: mono_ms }, input) {
            match effect {
                Effect::Accepted { run, .. } => self.run = Some(run),
                Effect::Persist(Record::VerdictGiven { verdict: Verdict::Passed, .. }) => self.passed += 1,
                Effect::Assign { worker, lane, lease, work, .. } => self.start(&worker, lane, lease, work),
                Effect::Revoke { lease, .. } => {
                    if let Some(lane) = self.lanes.iter().position(|lane| lane.lease == Some(lease)) {
                        self.schedule(0, Event::UnitEnded { lane, lease });
                    }
                }
                Effect::Persist(_) | Effect::Superseded { .. } => {}
            }
        }
    }

    fn start(&mut self, worker: &WorkerId, ix: LaneIx, lease: Lease, work: Work) {
        let lane = self.lanes.iter().position(|lane| lane.worker == *worker && lane.ix == ix);
        let lane = lane.expect("the core assigns to lanes that it was offered");
        self.lanes[lane].lease = Some(lease);
        self.units += 1;
        let Work::Execute { tests, .. } = work else { return };
        let mut after_us = self.case.overhead_us;
        for (attempt, test, _) in tests {
            let us = self.case.us[test.0 as usize];
            after_us += us;
            self.schedule(after_us, Event::TestEnded { lane, lease, attempt, us });
        }
        self.schedule(after_us, Event::UnitEnded { lane, lease });
    }

    fn report(&mut self, lane: usize, lease: Lease, report: Report) {
        let worker = self.lanes[lane].worker.clone();
        self.step(Input::Reported { worker, lease, report });
    }

    fn ready(&mut self, lane: usize) {
        let Lane { worker, ix, .. } = &self.lanes[lane];
        let (worker, lane) = (worker.clone(), *ix);
        self.step(Input::LaneReady { worker, lane, baseline: BASELINE.to_owned() });
    }

    fn schedule(&mut self, after_us: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now_us + after_us, self.scheduled, event)));
    }

    fn workers(&self) -> Vec<WorkerId> {
        let distinct: BTreeSet<_> = self.lanes.iter().map(|lane| &lane.worker).collect();
        distinct.into_iter().cloned().collect()
    }
}
