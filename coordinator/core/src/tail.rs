//! The tail of a run: when nothing waits any more and lanes are idle, tests that take much longer than expected are started
//! a second time on another worker. Whichever attempt brings the verdict counts; the other is cancelled and does not.

use crate::Core;
use crate::Effect;
use crate::ids::{Fence, Now};
use crate::queue::PendingKind;
use crate::run::{Held, Run};

/// A unit is left alone for so long …
const OVERDUE_MIN_MS: u64 = 10_000;
/// … and for so many times as long as it was expected to take.
const OVERDUE_TIMES: u64 = 2;

impl Core {
    /// Starts stragglers a second time while lanes are idle.
    pub(crate) fn hedge(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.workers.any_ready() {
            return;
        }
        let mut overdue: Vec<(u64, Fence)> = self
            .leases
            .values()
            .filter_map(|held| {
                let run = self.runs.get(&held.lease.run)?;
                Some((overdue_ms(now, run, held)?, held.lease.fence))
            })
            .collect();
        overdue.sort_unstable_by_key(|(ms, fence)| (std::cmp::Reverse(*ms), *fence));
        for (_, fence) in overdue {
            let held = &self.leases[&fence];
            let (id, work_id) = (held.lease.run, held.lease.work);
            let run = &self.runs[&id];
            if !self.is_within_quota(&run.header.project) || !self.has_lanes_left(run) {
                continue;
            }
            let avoid = self.preferred(run, [held.worker.clone()].into());
            let Some(choice) = self.workers.choose(run.baseline_key(), &avoid, |_| false) else { continue };
            let mut work = held.work.clone();
            if let PendingKind::Unit { tests, .. } = &mut work.kind {
                *tests = held.open.values().copied().collect();
            }
            work.alone = true;
            self.lease(now, id, work_id, work, &choice, out);
        }
    }
}

/// How much too long a unit takes already, where it may be started a second time.
fn overdue_ms(now: Now, run: &Run, held: &Held) -> Option<u64> {
    let is_unit = matches!(held.work.kind, PendingKind::Unit { .. });
    let is_hedged =
        || held.open.values().any(|test| run.out.get(test).is_some_and(|places| places.len() > 1));
    let repeats = run.plan.asked.repeat.is_wanted();
    if repeats
        || !run.plan.policy.hedge
        || !run.queue.is_empty()
        || !is_unit
        || held.open.is_empty()
        || is_hedged()
    {
        return None;
    }
    let patience = OVERDUE_MIN_MS.max(OVERDUE_TIMES * held.work.guess.expected_ms);
    now.mono_ms.checked_sub(held.granted_mono_ms + patience)
}
