//! Placement: which work for which ready lane.
//!
//! Flows (a project's runs of one class) share the lanes as `shares.rs` says. Within a flow the oldest run goes first: what
//! began first ends first. Within a run: what failed before, then longest first. A lane that already is a clone of the run's
//! baseline is taken before any other, and moving another is charged to the flow.

use std::collections::{BTreeMap, BTreeSet};

use crate::estimate::ClassIx;
use crate::ids::{AttemptId, Fence, LaneIx, Lease, Now, RunId, TestIx, WorkId, WorkerId};
use crate::lanes::Choice;
use crate::model::{Grain, Record, RunState};
use crate::queue::{Pending, PendingKind, Rank};
use crate::run::{Held, Run};
use crate::shares::Bid;
use crate::{Core, Effect, move_to, persist};

/// What making a lane a clone of another baseline is taken to cost.
const MOVE_COST_MS: u64 = 3_000;
/// So much of a run's queue is looked through for work that a ready lane may have.
const LOOK_MAX: usize = 64;
/// A batch is as many tests as are expected to take this long …
const BATCH_TARGET_MS: u64 = 5_000;
/// … or less near the end, so that no lane waits long for the last one, but at least this long …
const BATCH_MIN_MS: u64 = 250;
/// … and never more tests than this.
pub(crate) const BATCH_TESTS_MAX: usize = 100;
/// All lanes are to be fed so many times more before the queue is empty.
const BATCHES_TO_COME: u64 = 3;

/// A piece of work and a lane that may have it.
struct Match {
    run: RunId,
    rank: Rank,
    choice: Choice,
    cost_ms: u64,
}

impl Core {
    /// Gives ready lanes the work that is due to them.
    pub(crate) fn place(&mut self, now: Now, out: &mut Vec<Effect>) {
        while self.workers.any_ready() {
            let Some(found) = self.next_match(now) else { return };
            self.give(now, found, out);
        }
    }

    /// One candidate per flow; the shares decide among them.
    fn next_match(&mut self, now: Now) -> Option<Match> {
        let mut flows: BTreeMap<_, Vec<RunId>> = BTreeMap::new();
        for run in self.runs.values().filter(|run| !run.queue.is_empty()) {
            flows.entry((run.header.trigger, run.header.project.as_str())).or_default().push(run.id);
        }
        let mut found = Vec::new();
        for ((_, project), runs) in flows {
            if !self.is_within_quota(project) {
                continue;
            }
            found.extend(runs.into_iter().find_map(|run| self.match_for(now, run)));
        }
        let bids: Vec<_> = found
            .iter()
            .map(|found| {
                let flow = self.runs[&found.run].flow();
                let of_project = self.config.weights.get(&flow.project).copied().unwrap_or(1);
                Bid { weight: flow.weight(of_project), flow, cost_ms: found.cost_ms }
            })
            .collect();
        let place = self.shares.serve(&bids)?;
        Some(found.swap_remove(place))
    }

    pub(crate) fn is_within_quota(&self, project: &str) -> bool {
        let Some(quota) = self.config.quotas.get(project) else { return true };
        let runs = self.runs.values().filter(|run| run.header.project == project);
        runs.map(|run| run.leases.len()).sum::<usize>() < *quota as usize
    }

    /// The run's first work that may start now on some ready lane.
    fn match_for(&self, now: Now, id: RunId) -> Option<Match> {
        let run = &self.runs[&id];
        if !self.has_lanes_left(run) {
            return None;
        }
        let is_wanted = |baseline: &str| {
            let wants = |run: &Run| !run.queue.is_empty() && run.baseline_key() == Some(baseline);
            self.runs.values().any(wants)
        };
        run.queue.iter().take(LOOK_MAX).find_map(|(rank, work)| {
            if !self.may_start(run, &work.kind) {
                return None;
            }
            let mut avoided = run.avoided(now.mono_ms, work);
            if matches!(work.kind, PendingKind::Unit { .. }) {
                avoided = self.preferred(run, avoided);
            }
            if !self.workers.others_than(&avoided) {
                avoided.clear();
            }
            let choice = self.workers.choose(run.baseline_key(), &avoided, is_wanted)?;
            let cost_ms = work.guess.expected_ms + if choice.fits { 0 } else { MOVE_COST_MS };
            Some(Match { run: id, rank, choice, cost_ms })
        })
    }

    /// Whether a run holds fewer lanes than it was asked to take.
    pub(crate) fn has_lanes_left(&self, run: &Run) -> bool {
        run.plan.asked.lanes_max.is_none_or(|most| run.leases.len() < most as usize)
    }

    /// Those to avoid, and those that whoever asked for the run does not want, while that leaves somebody.
    pub(crate) fn preferred(&self, run: &Run, avoided: BTreeSet<WorkerId>) -> BTreeSet<WorkerId> {
        let preference = &run.plan.asked.workers;
        if preference.is_none() {
            return avoided;
        }
        let mut both = avoided.clone();
        both.extend(self.workers.takers().filter(|worker| preference.is_against(worker)).cloned());
        if self.workers.others_than(&both) { both } else { avoided }
    }

    fn may_start(&self, run: &Run, work: &PendingKind) -> bool {
        match work {
            // Runs of one group share a baseline: the others wait for the first, and then find it.
            PendingKind::Baseline => !self.leases.values().any(|held| {
                held.work.kind == PendingKind::Baseline
                    && self
                        .runs
                        .get(&held.lease.run)
                        .is_some_and(|other| other.plan.baseline_group == run.plan.baseline_group)
            }),
            PendingKind::Discover(_) | PendingKind::Unit { .. } => run.baseline_key().is_some(),
        }
    }

    fn give(&mut self, now: Now, found: Match, out: &mut Vec<Effect>) {
        let Match { run: id, rank, choice, .. } = found;
        let lanes = self.workers.lanes() as u64;
        let run = self.runs.get_mut(&id).expect("matches are of active runs");
        let (work_id, mut work) = run.queue.take(rank).expect("matches are of waiting work");
        let lanes = run.plan.asked.lanes_max.map_or(lanes, |most| lanes.min(u64::from(most)));
        pack(run, &mut work, lanes);
        if let PendingKind::Unit { tests, .. } = &mut work.kind {
            for test in &*tests {
                run.test_mut(*test).waiting -= 1;
            }
            // A test that is repeated may have its verdict while further repeats wait.
            tests.retain(|test| run.test(*test).verdict.is_none());
            if tests.is_empty() {
                return;
            }
            let own = self.follow(now, id, tests, out);
            if own.is_empty() {
                return;
            }
            *tests = own;
        }
        self.lease(now, id, work_id, work, &choice, out);
    }

    /// Leases this work to this lane: a new fence, an attempt for each test.
    pub(crate) fn lease(
        &mut self,
        now: Now,
        id: RunId,
        work_id: WorkId,
        work: Pending,
        choice: &Choice,
        out: &mut Vec<Effect>,
    ) {
        let run = self.runs.get_mut(&id).expect("only active runs are leased");
        let fence = Fence(self.next_fence);
        self.next_fence += 1;
        let lease = Lease { run: id, work: work_id, fence };
        let tests: &[TestIx] = match &work.kind {
            PendingKind::Unit { tests, .. } => tests,
            PendingKind::Baseline | PendingKind::Discover(_) => &[],
        };
        let open = run.open(fence, tests);
        let waited = |test: &TestIx| now.mono_ms.saturating_sub(run.test(*test).queued_mono_ms);
        let attempts = open.iter().map(|(attempt, test)| (*attempt, *test, waited(test))).collect();
        let kind = run.lease_kind(&work.kind);
        let (worker, lane) = (choice.worker.clone(), choice.lane);
        persist(out, Record::Leased { lease, kind, worker: worker.clone(), lane, attempts });
        let state = state_while(&work.kind);
        if rank(state) > rank(run.state) {
            move_to(now, run, state, String::new(), out);
        }
        run.leases.insert(fence);
        let ends = |open: &BTreeMap<AttemptId, TestIx>| {
            Some((*open.first_key_value()?.0, *open.last_key_value()?.0))
        };
        let held = Held {
            lease,
            worker: worker.clone(),
            lane,
            work,
            covers: ends(&open),
            open,
            granted_mono_ms: now.mono_ms,
            expires_mono_ms: now.mono_ms + self.config.lease_ttl_ms,
        };
        out.push(assignment(run, &held));
        self.workers.take(&worker, lane);
        self.workers.lease(&worker, fence);
        self.leases.insert(fence, held);
    }

    /// A lane is offered whose last lease never reached it: it is told of it again, and nothing else of the lease changes.
    pub(crate) fn tell_again(&mut self, now: Now, worker: &WorkerId, lane: LaneIx, out: &mut Vec<Effect>) {
        let Some(fence) = self.workers.owed(worker, lane) else { return };
        let Some(held) = self.leases.get_mut(&fence) else { return };
        let Some(run) = self.runs.get(&held.lease.run) else { return };
        if matches!(held.work.kind, PendingKind::Unit { .. }) && held.open.is_empty() {
            // All its tests were decided meanwhile, elsewhere.
            let run = held.lease.run;
            self.close(fence, out);
            self.end_if_done(now, run, out);
            return;
        }
        held.expires_mono_ms = now.mono_ms + self.config.lease_ttl_ms;
        out.push(assignment(run, held));
        self.workers.take(worker, lane);
    }
}

/// What the worker of a lease is told of it.
fn assignment(run: &Run, held: &Held) -> Effect {
    Effect::Assign {
        worker: held.worker.clone(),
        lane: held.lane,
        lease: held.lease,
        spec_digest: run.header.spec_digest.clone(),
        work: run.work(&held.work.kind, &held.open),
    }
}

/// How long a batch should take while so much waits.
pub(crate) fn batch_target_ms(waiting_ms: u64, lanes: u64) -> u64 {
    (waiting_ms / (lanes.max(1) * BATCHES_TO_COME)).clamp(BATCH_MIN_MS, BATCH_TARGET_MS)
}

/// Fills a batch with what comes next in the queue. Near the end of the queue batches get smaller.
fn pack(run: &mut Run, work: &mut Pending, lanes: u64) {
    let PendingKind::Unit { suite, tests } = &mut work.kind else { return };
    let suite = *suite;
    if run.suite(suite).grain != Grain::Batch || work.alone {
        return;
    }
    let target = batch_target_ms(run.queue.expected_ms() + work.guess.expected_ms, lanes);
    let fits = |next: &Pending| {
        matches!(next.kind, PendingKind::Unit { suite: of, .. } if of == suite) && !next.alone
    };
    // Of a class of which little has been seen a batch takes no more than that: its tests may all be long.
    let mut new_of: BTreeMap<ClassIx, usize> = work.line.into_iter().map(|class| (class, 1)).collect();
    while tests.len() < BATCH_TESTS_MAX {
        let room = target.saturating_sub(work.guess.claim_ms);
        let is_enough = |class| new_of.get(&class).is_some_and(|taken| *taken >= run.seen_of(class));
        let next = run
            .queue
            .iter()
            .take(LOOK_MAX)
            .find(|(_, next)| !next.line.is_some_and(is_enough))
            .filter(|(_, next)| fits(next) && next.guess.claim_ms <= room)
            .map(|(rank, _)| rank);
        let Some(rank) = next else { break };
        let Some((_, next)) = run.queue.take(rank) else { break };
        work.guess += next.guess;
        if let Some(class) = next.line {
            *new_of.entry(class).or_default() += 1;
        }
        if let PendingKind::Unit { tests: more, .. } = next.kind {
            tests.extend(more);
        }
    }
    // In the order of discovery, as a person would run them.
    let in_order: BTreeSet<_> = tests.drain(..).collect();
    tests.extend(in_order);
}

fn state_while(work: &PendingKind) -> RunState {
    match work {
        PendingKind::Baseline => RunState::Preparing,
        PendingKind::Discover(_) => RunState::Discovering,
        PendingKind::Unit { .. } => RunState::Running,
    }
}

/// Runs only go forward.
fn rank(state: RunState) -> u8 {
    match state {
        RunState::Queued => 0,
        RunState::Preparing => 1,
        RunState::Discovering => 2,
        RunState::Running => 3,
        RunState::Ended(_) => 4,
    }
}
