//! The core by its decisions: what goes in, what must come out. A small farm stands for the driver.

mod asked;
mod life;
mod loss;
mod policy;
mod storm;
mod tail;
mod together;

use std::collections::BTreeMap;

use crate::asked::Asked;
use crate::ids::{AttemptId, LaneIx, Lease, Now, RunId, TestIx, WorkerId};
use crate::model::{
    Candidate, Ended, Grain, Outcome, Plan, Policy, Record, Report, RunHeader, RunState, Start, SuitePlan,
    Trigger, Verdict, Work,
};
use crate::{Config, Core, Effect, Input};

/// An assignment as a worker got it.
#[derive(Debug, Clone)]
struct Given {
    worker: WorkerId,
    lane: LaneIx,
    lease: Lease,
    work: Work,
}

impl Given {
    fn ids(&self) -> Vec<&str> {
        match &self.work {
            Work::Execute { tests, .. } => tests.iter().map(|(_, _, id)| id.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    fn attempts(&self) -> Vec<AttemptId> {
        match &self.work {
            Work::Execute { tests, .. } => tests.iter().map(|(attempt, _, _)| *attempt).collect(),
            _ => Vec::new(),
        }
    }
}

/// A core with a clock that tests turn, and a ledger of all records as the store would keep them.
struct Farm {
    core: Core,
    now: Now,
    given: Vec<Given>,
    superseded: Vec<Lease>,
    revoked: Vec<Lease>,
    states: BTreeMap<RunId, (RunState, String)>,
    verdicts: BTreeMap<(RunId, TestIx), Verdict>,
    outcomes: BTreeMap<(RunId, AttemptId), Option<Outcome>>,
    names: BTreeMap<(RunId, TestIx), String>,
    notes: Vec<String>,
    accepted: Option<RunId>,
    last_fence: u64,
}

impl Farm {
    fn new() -> Self {
        Self {
            core: Core::new(Config::default()),
            now: Now { mono_ms: 1_000, unix_ms: 1_700_000_000_000 },
            given: Vec::new(),
            superseded: Vec::new(),
            revoked: Vec::new(),
            states: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            names: BTreeMap::new(),
            notes: Vec::new(),
            accepted: None,
            last_fence: 0,
        }
    }

    /// Steps the core and checks what must hold after every step.
    fn step(&mut self, input: Input) {
        for effect in self.core.step(self.now, input) {
            match effect {
                Effect::Persist(record) => self.keep(record),
                Effect::Accepted { run, .. } => self.accepted = Some(run),
                Effect::Assign { worker, lane, lease, work, .. } => {
                    self.given.push(Given { worker, lane, lease, work });
                }
                Effect::Revoke { lease, .. } => self.revoked.push(lease),
                Effect::Superseded { lease, .. } => self.superseded.push(lease),
            }
        }
        self.core.check_indexes();
    }

    fn keep(&mut self, record: Record) {
        match record {
            Record::RunMoved { run, state, reason, .. } => {
                let before = self.states.insert(run, (state, reason));
                assert!(!matches!(before, Some((RunState::Ended(_), _))), "an ended run moved");
            }
            Record::TestsAdded { run, tests, .. } => {
                self.names.extend(tests.into_iter().map(|(ix, id)| ((run, ix), id)));
            }
            Record::Leased { lease, attempts, .. } => {
                assert!(lease.fence.0 > self.last_fence, "a fence was given twice");
                self.last_fence = lease.fence.0;
                for (attempt, ..) in attempts {
                    let before = self.outcomes.insert((lease.run, attempt), None);
                    assert!(before.is_none(), "an attempt was opened twice");
                }
            }
            Record::AttemptEnded { run, attempt, ended, .. } => {
                let before = self.outcomes.insert((run, attempt), Some(ended.outcome));
                assert_eq!(before, Some(None), "an attempt ended that was not open");
            }
            Record::AttemptShared { run, attempt, of, of_attempt, .. } => {
                let shared = self.outcomes[&(of, of_attempt)];
                assert!(shared.is_some(), "an attempt was shared before it ended");
                let before = self.outcomes.insert((run, attempt), shared);
                assert!(before.is_none(), "an attempt was opened twice");
            }
            Record::VerdictGiven { run, test, verdict, .. } => {
                let before = self.verdicts.insert((run, test), verdict);
                assert!(before.is_none(), "a test got two verdicts");
            }
            Record::Noted { text, .. } => self.notes.push(text),
            _ => {}
        }
    }

    fn submit(&mut self, plan: Plan, start: Start) -> RunId {
        self.submit_as(Trigger::Push, plan, start)
    }

    fn submit_as(&mut self, trigger: Trigger, plan: Plan, start: Start) -> RunId {
        self.submit_run(RunHeader { project: "shop".into(), trigger, ..RunHeader::default() }, plan, start)
    }

    fn submit_run(&mut self, header: RunHeader, plan: Plan, start: Start) -> RunId {
        self.step(Input::Submit { ticket: 0, header, plan, start });
        self.accepted.take().expect("a submission is answered")
    }

    fn join(&mut self, name: &str, lanes: u32) {
        self.step(Input::WorkerJoined { worker: worker(name), held: Vec::new(), reached: None });
        for lane in 0..lanes {
            self.ready(name, lane);
        }
    }

    fn ready(&mut self, name: &str, lane: u32) {
        self.step(Input::LaneReady { worker: worker(name), lane: LaneIx(lane), baseline: String::new() });
    }

    /// The oldest assignment that nobody took yet.
    fn take(&mut self) -> Given {
        assert!(!self.given.is_empty(), "nothing was assigned");
        self.given.remove(0)
    }

    fn report(&mut self, given: &Given, report: Report) {
        self.step(Input::Reported { worker: given.worker.clone(), lease: given.lease, report });
    }

    fn end_test(&mut self, given: &Given, place: usize, outcome: Outcome) {
        let ended = Ended { run_ms: 5, ..Ended::without_report(outcome, "") };
        self.report(given, Report::TestEnded { attempt: given.attempts()[place], ended });
    }

    /// Ends a unit with one outcome for all its tests and offers the lane again.
    fn finish(&mut self, given: &Given, outcome: Outcome) {
        for place in 0..given.attempts().len() {
            self.end_test(given, place, outcome);
        }
        self.report(given, Report::UnitEnded);
        self.step(Input::LaneReady { worker: given.worker.clone(), lane: given.lane, baseline: "k".into() });
    }

    fn later(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        self.step(Input::Tick);
    }

    fn verdict(&self, run: RunId, test: u32) -> Option<Verdict> {
        self.verdicts.get(&(run, TestIx(test))).copied()
    }

    fn state(&self, run: RunId) -> RunState {
        self.states.get(&run).map_or(RunState::Queued, |(state, _)| *state)
    }
}

fn worker(name: &str) -> WorkerId {
    WorkerId(name.to_owned())
}

fn plan(retries: u32, grain: Grain) -> Plan {
    Plan {
        suites: vec![SuitePlan { name: "it".into(), retries, grain }],
        policy: Policy::default(),
        baseline_group: Some("group".into()),
        merge_key: None,
        asked: Asked::default(),
        quarantine: Vec::new(),
    }
}

fn candidates(ids: &[&str]) -> Vec<Candidate> {
    ids.iter()
        .map(|id| Candidate { id: (*id).to_owned(), expected_ms: None, failed_last: false, excused: false })
        .collect()
}

impl Core {
    /// What is kept twice, for speed, says the same.
    fn check_indexes(&self) {
        for (fence, held) in &self.leases {
            let run = &self.runs[&held.lease.run];
            assert!(run.leases.contains(fence), "a run knows its leases");
            assert!(
                self.workers.leases(&held.worker).any(|known| known == *fence),
                "a worker knows its leases"
            );
            for (attempt, test) in &held.open {
                assert!(run.out[test].contains(&(*fence, *attempt)), "a run knows where its tests are");
            }
        }
        for run in self.runs.values() {
            assert!(run.leases.iter().all(|fence| self.leases.contains_key(fence)));
            let places: usize = run.out.values().map(Vec::len).sum();
            let open: usize = run.leases.iter().map(|fence| self.leases[fence].open.len()).sum();
            assert_eq!(places, open, "an open attempt is in one place");
            let mut waiting = vec![0; run.tests.len()];
            for pending in run.queue.all() {
                if let crate::queue::PendingKind::Unit { tests, .. } = &pending.kind {
                    tests.iter().for_each(|test| waiting[test.0 as usize] += 1);
                }
            }
            assert!(run.tests.iter().map(|test| test.waiting).eq(waiting), "a test knows how often it waits");
            let undecided = run.tests.iter().filter(|test| test.verdict.is_none()).count();
            assert_eq!(run.open_tests, undecided);
        }
    }
}

/// A run whose tests and baseline are known.
fn chosen(ids: &[&str]) -> Start {
    let tests = candidates(ids).into_iter().map(|candidate| ("it".to_owned(), candidate)).collect();
    Start::Chosen { tests, baseline: Some("k".into()) }
}
