//! Placement: which work for which ready lane.
//!
//! Runs are served by trigger (a person's rerun, a person's run, a push), then by age. Within one class a lane
//! that already is a clone of a run's baseline serves that run first, but never before an older run of the class
//! that has no lane at all: moving a lane costs less than starving a run.

use std::collections::{BTreeMap, HashSet};

use crate::ids::{Fence, LaneIx, Lease, Now, RunId, WorkerId};
use crate::model::{Record, RunState, Work};
use crate::run::{Held, PendingKind, Run};
use crate::{Core, Effect, WorkerEntry, move_to, persist};

impl Core {
    /// Gives every ready lane the work that is due to it.
    pub(crate) fn place(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.runs.values().all(|run| run.pending.is_empty()) {
            return;
        }
        let ready: Vec<(WorkerId, LaneIx, String)> = self
            .workers
            .iter()
            .filter(|(_, entry)| entry.takes_work())
            .flat_map(|(worker, entry)| {
                entry.ready.iter().map(|(lane, baseline)| (worker.clone(), *lane, baseline.clone()))
            })
            .collect();
        for (worker, lane, baseline) in ready {
            for run in self.order_of_service(&baseline) {
                if self.give(now, run, &worker, lane, out) {
                    break;
                }
            }
        }
    }

    fn order_of_service(&self, lane_baseline: &str) -> Vec<RunId> {
        let mut lanes: BTreeMap<RunId, usize> = BTreeMap::new();
        for held in self.leases.values() {
            *lanes.entry(held.lease.run).or_default() += 1;
        }
        let mut runs: Vec<&Run> = self.runs.values().filter(|run| !run.pending.is_empty()).collect();
        runs.sort_by_key(|run| {
            let served = lanes.contains_key(&run.id);
            let fits = !lane_baseline.is_empty() && run.baseline_key() == Some(lane_baseline);
            (run.header.trigger, served, !fits, run.id)
        });
        runs.into_iter().map(|run| run.id).collect()
    }

    /// Leases the run's first fitting work to this lane; false where it has none for it.
    fn give(&mut self, now: Now, id: RunId, worker: &WorkerId, lane: LaneIx, out: &mut Vec<Effect>) -> bool {
        let others_are_there =
            self.workers.iter().any(|(name, entry)| name != worker && WorkerEntry::takes_work(entry));
        let being_prepared = self.groups_being_prepared();
        let run = self.runs.get_mut(&id).expect("the order of service names active runs");
        let group = run.plan.baseline_group.as_deref().unwrap_or_default();
        let Some((work_id, pending)) = run.take(worker, others_are_there, !being_prepared.contains(group))
        else {
            return false;
        };
        let lease = Lease { run: id, work: work_id, fence: Fence(self.next_fence) };
        self.next_fence += 1;
        let (work, open) = run.open(&pending);
        let attempts = open
            .iter()
            .map(|(attempt, test)| {
                (*attempt, *test, now.mono_ms.saturating_sub(run.test(*test).queued_mono_ms))
            })
            .collect();
        let kind = run.lease_kind(&pending.kind);
        persist(out, Record::Leased { lease, kind, worker: worker.clone(), lane, attempts });
        let state = state_while(&pending.kind);
        if rank(state) > rank(run.state) {
            move_to(now, run, state, String::new(), out);
        }
        out.push(assign(worker, lane, lease, run, work));
        let expires_mono_ms = now.mono_ms + self.config.lease_ttl_ms;
        let held = Held { lease, worker: worker.clone(), work: pending, open, expires_mono_ms };
        self.leases.insert(lease.fence, held);
        if let Some(entry) = self.workers.get_mut(worker) {
            entry.ready.remove(&lane);
        }
        true
    }

    fn groups_being_prepared(&self) -> HashSet<String> {
        self.leases
            .values()
            .filter(|held| held.work.kind == PendingKind::Baseline)
            .filter_map(|held| self.runs.get(&held.lease.run)?.plan.baseline_group.clone())
            .collect()
    }
}

fn assign(worker: &WorkerId, lane: LaneIx, lease: Lease, run: &Run, work: Work) -> Effect {
    let spec_digest = run.header.spec_digest.clone();
    Effect::Assign { worker: worker.clone(), lane, lease, spec_digest, work }
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
