//! The workers as placement sees them: who takes work, which lanes have a credit, what each lane is a clone of.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Fence, LaneIx, WorkerId};

#[derive(Debug, Default)]
struct Worker {
    connected: bool,
    unfit: Option<String>,
    quarantine: Option<Quarantine>,
    /// Lanes with a credit, and the baseline that each holds.
    ready: BTreeMap<LaneIx, String>,
    leases: BTreeSet<Fence>,
    /// Those that never reached it, and their lanes.
    owed: BTreeMap<LaneIx, Fence>,
}

#[derive(Debug)]
struct Quarantine {
    reason: String,
    until_mono_ms: u64,
}

impl Worker {
    fn takes_work(&self) -> bool {
        self.connected && self.unfit.is_none() && self.quarantine.is_none()
    }

    fn lanes(&self) -> usize {
        self.ready.len() + self.leases.len()
    }
}

/// A lane that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) worker: WorkerId,
    pub(crate) lane: LaneIx,
    /// It is a clone of the baseline already.
    pub(crate) fits: bool,
}

/// All workers that are known.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    known: BTreeMap<WorkerId, Worker>,
    /// Those that take work.
    takers: BTreeSet<WorkerId>,
    /// Their lanes, ready or busy.
    lanes: usize,
    /// Their ready lanes, by baseline; no entry is empty.
    ready: BTreeMap<String, BTreeSet<(WorkerId, LaneIx)>>,
}

impl Workers {
    /// A session began: nothing is offered yet, and what was said of fitness in the one before is over.
    pub(crate) fn join(&mut self, name: &WorkerId) {
        self.change(name, |worker| {
            worker.connected = true;
            worker.unfit = None;
            worker.ready.clear();
            worker.owed.clear();
        });
    }

    /// A lease never reached its lane: it is to be told of it when that is offered.
    pub(crate) fn owe(&mut self, name: &WorkerId, lane: LaneIx, fence: Fence) {
        self.change_known(name, |worker| {
            worker.owed.insert(lane, fence);
        });
    }

    /// What is owed to a lane; from here on nothing is.
    pub(crate) fn owed(&mut self, name: &WorkerId, lane: LaneIx) -> Option<Fence> {
        self.known.get_mut(name)?.owed.remove(&lane)
    }

    pub(crate) fn leave(&mut self, name: &WorkerId) {
        self.change_known(name, |worker| {
            worker.connected = false;
            worker.ready.clear();
        });
    }

    pub(crate) fn offer(&mut self, name: &WorkerId, lane: LaneIx, baseline: String) {
        self.change_known(name, |worker| {
            worker.ready.insert(lane, baseline);
        });
    }

    /// The credit is used up.
    pub(crate) fn take(&mut self, name: &WorkerId, lane: LaneIx) {
        let Some(worker) = self.known.get_mut(name) else { return };
        let Some(baseline) = worker.ready.remove(&lane) else { return };
        self.lanes -= usize::from(worker.takes_work());
        if let Some(lanes) = self.ready.get_mut(&baseline) {
            lanes.remove(&(name.clone(), lane));
            if lanes.is_empty() {
                self.ready.remove(&baseline);
            }
        }
    }

    pub(crate) fn set_unfit(&mut self, name: &WorkerId, unfit: Option<String>) {
        self.change_known(name, |worker| worker.unfit = unfit);
    }

    pub(crate) fn lease(&mut self, name: &WorkerId, fence: Fence) {
        let worker = self.known.entry(name.clone()).or_default();
        let is_new = worker.leases.insert(fence);
        self.lanes += usize::from(is_new && worker.takes_work());
    }

    pub(crate) fn release(&mut self, name: &WorkerId, fence: Fence) {
        if let Some(worker) = self.known.get_mut(name) {
            let was_there = worker.leases.remove(&fence);
            worker.owed.retain(|_, owed| *owed != fence);
            self.lanes -= usize::from(was_there && worker.takes_work());
        }
    }

    /// The leases that a worker holds, as this side knows it.
    pub(crate) fn leases(&self, name: &WorkerId) -> impl Iterator<Item = Fence> {
        self.known.get(name).into_iter().flat_map(|worker| worker.leases.iter().copied())
    }

    pub(crate) fn busy_lanes(&self, name: &WorkerId) -> usize {
        self.known.get(name).map_or(0, |worker| worker.leases.len())
    }

    /// Why the worker takes no work, where it does not.
    pub(crate) fn unfit(&self, name: &WorkerId) -> Option<&str> {
        let worker = self.known.get(name)?;
        worker.unfit.as_deref().or_else(|| worker.quarantine.as_ref().map(|found| found.reason.as_str()))
    }

    /// The first reason that any worker gives for taking no work.
    pub(crate) fn any_unfit(&self) -> Option<(&WorkerId, &str)> {
        self.known.keys().find_map(|name| Some((name, self.unfit(name)?)))
    }

    pub(crate) fn nobody_takes_work(&self) -> bool {
        self.takers.is_empty()
    }

    pub(crate) fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Lanes of those who take work, ready or busy.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Those who take work.
    pub(crate) fn takers(&self) -> impl Iterator<Item = &WorkerId> {
        self.takers.iter()
    }

    /// True where somebody else than these takes work.
    pub(crate) fn others_than(&self, these: &BTreeSet<WorkerId>) -> bool {
        self.takers.len() > these.len() || self.takers.iter().any(|name| !these.contains(name))
    }

    /// A ready lane: one that is a clone of `baseline`; else an empty one; else one whose baseline nobody else waits for;
    /// else any. A stack costs less to raise than to wait for.
    pub(crate) fn choose(
        &self,
        baseline: Option<&str>,
        avoid: &BTreeSet<WorkerId>,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Option<Choice> {
        let first = |key: &str, fits: bool| {
            let lanes = self.ready.get(key)?;
            let (worker, lane) = lanes.iter().find(|(worker, _)| !avoid.contains(worker))?;
            Some(Choice { worker: worker.clone(), lane: *lane, fits })
        };
        let fitting = baseline.and_then(|key| first(key, true));
        fitting.or_else(|| first("", false)).or_else(|| {
            let (wanted, idle): (Vec<_>, Vec<_>) = self.ready.keys().partition(|key| is_wanted(key));
            idle.into_iter().chain(wanted).find_map(|key| first(key, false))
        })
    }

    /// This worker is not trusted: it gets nothing until then.
    pub(crate) fn quarantine(&mut self, name: &WorkerId, reason: String, until_mono_ms: u64) {
        self.change_known(name, |worker| worker.quarantine = Some(Quarantine { reason, until_mono_ms }));
    }

    /// Ends quarantines that are over.
    pub(crate) fn forgive(&mut self, now_mono_ms: u64) {
        let over = |worker: &Worker| {
            worker.quarantine.as_ref().is_some_and(|quarantine| quarantine.until_mono_ms <= now_mono_ms)
        };
        let names: Vec<_> =
            self.known.iter().filter(|(_, w)| over(w)).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.change_known(&name, |worker| worker.quarantine = None);
        }
    }

    fn change_known(&mut self, name: &WorkerId, change: impl FnOnce(&mut Worker)) {
        if self.known.contains_key(name) {
            self.change(name, change);
        }
    }

    /// Every change of what decides whether a worker's lanes are on offer goes through here.
    fn change(&mut self, name: &WorkerId, change: impl FnOnce(&mut Worker)) {
        let worker = self.known.entry(name.clone()).or_default();
        if worker.takes_work() {
            self.lanes -= worker.lanes();
            for (lane, baseline) in &worker.ready {
                if let Some(lanes) = self.ready.get_mut(baseline) {
                    lanes.remove(&(name.clone(), *lane));
                    if lanes.is_empty() {
                        self.ready.remove(baseline);
                    }
                }
            }
        }
        change(worker);
        if worker.takes_work() {
            self.takers.insert(name.clone());
            self.lanes += worker.lanes();
            for (lane, baseline) in &worker.ready {
                self.ready.entry(baseline.clone()).or_default().insert((name.clone(), *lane));
            }
        } else {
            self.takers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> WorkerId {
        WorkerId(name.to_owned())
    }

    fn farm() -> Workers {
        let mut workers = Workers::default();
        for (worker, baseline) in [("w1", "a"), ("w2", ""), ("w3", "b")] {
            workers.join(&name(worker));
            workers.offer(&name(worker), LaneIx(0), baseline.to_owned());
        }
        workers
    }

    fn chosen(workers: &Workers, baseline: &str, avoid: &[&str]) -> Option<String> {
        let avoid = avoid.iter().map(|worker| name(worker)).collect();
        workers.choose(Some(baseline), &avoid, |key| key == "a").map(|choice| choice.worker.0)
    }

    #[test]
    fn a_lane_that_fits_then_an_empty_one_then_one_that_nobody_wants() {
        let mut workers = farm();
        assert_eq!(chosen(&workers, "a", &[]).unwrap(), "w1");
        assert_eq!(chosen(&workers, "b", &[]).unwrap(), "w3");
        assert_eq!(chosen(&workers, "c", &[]).unwrap(), "w2");
        workers.take(&name("w2"), LaneIx(0));
        assert_eq!(chosen(&workers, "c", &[]).unwrap(), "w3", "somebody waits for w1's baseline");
        assert_eq!(chosen(&workers, "c", &["w3"]).unwrap(), "w1");
        assert_eq!(chosen(&workers, "c", &["w1", "w3"]), None);
    }

    #[test]
    fn lanes_of_who_takes_no_work_are_not_on_offer_and_come_back() {
        let mut workers = farm();
        workers.set_unfit(&name("w1"), Some("no disk".into()));
        assert_eq!(chosen(&workers, "a", &[]).unwrap(), "w2");
        assert_eq!(workers.any_unfit(), Some((&name("w1"), "no disk")));
        workers.set_unfit(&name("w1"), None);
        assert_eq!(chosen(&workers, "a", &[]).unwrap(), "w1");
        workers.leave(&name("w1"));
        workers.join(&name("w1"));
        assert_eq!(chosen(&workers, "a", &[]).unwrap(), "w2", "a credit is of one session");
    }

    #[test]
    fn lanes_are_counted_ready_or_busy_while_their_worker_takes_work() {
        let mut workers = farm();
        assert_eq!(workers.lanes(), 3);
        workers.take(&name("w1"), LaneIx(0));
        workers.lease(&name("w1"), Fence(1));
        assert_eq!(workers.lanes(), 3);
        workers.lease(&name("nobody"), Fence(2));
        workers.set_unfit(&name("w2"), Some("no disk".into()));
        assert_eq!(workers.lanes(), 2);
        workers.release(&name("w1"), Fence(1));
        workers.join(&name("nobody"));
        assert_eq!(workers.lanes(), 2);
    }

    #[test]
    fn a_quarantine_outlives_a_session_and_ends_by_itself() {
        let mut workers = farm();
        workers.quarantine(&name("w1"), "fails everything".into(), 100);
        workers.leave(&name("w1"));
        workers.join(&name("w1"));
        workers.offer(&name("w1"), LaneIx(0), "a".into());
        workers.forgive(99);
        assert_eq!(workers.unfit(&name("w1")), Some("fails everything"));
        assert_eq!(chosen(&workers, "a", &[]).unwrap(), "w2");
        workers.forgive(100);
        assert_eq!(chosen(&workers, "a", &[]).unwrap(), "w1");
    }
}
