//! Leases and lanes: what is started, what comes of it, and how it is stopped.

use super::*;
use crate::hands::told_changes;
use crate::runner::UnitNews;

impl Session {
    pub(super) fn working(&self) -> impl Iterator<Item = &Working> {
        self.lanes.iter().filter_map(|lane| match lane {
            Lane::Working(working) => Some(working),
            _ => None,
        })
    }

    /// A lease is started once; one that cannot be started is given back at once rather than left to expire.
    pub(super) fn assigned(&mut self, now: Duration, assign: Assign, out: &mut Vec<Effect>) {
        let Assign { lease: Some(lease), lane, spec_digest, work } = assign else { return };
        self.reached = self.reached.max(Some(lease.fence));
        // Whatever becomes of it, the coordinator has used the lane's credit up.
        if let Some(Lane::Idle { offered, .. }) = self.lanes.get_mut(lane as usize) {
            *offered = false;
        }
        let known = self.working().any(|working| working.lease.fence == lease.fence)
            || self.ended.contains(&lease.fence);
        if known {
            return;
        }
        match self.admit(lane, work) {
            Ok((baseline, work)) => {
                let kind = Kind::of(&work);
                let (reported, told) = (Vec::new(), BTreeSet::new());
                let working = Working { lease, since: now, kind, reported, told, baseline };
                self.lanes[lane as usize] = Lane::Working(working);
                out.push(Effect::Start { lane, lease, spec_digest, work });
            }
            Err(refusal) => {
                self.remember(lease);
                self.report_failure(lease, refusal, out);
            }
        }
    }

    /// The baseline of a lane that may take this work, or why it may not.
    fn admit(&self, lane: u32, work: Option<assign::Work>) -> Result<(String, assign::Work), String> {
        if let Some(reason) = &self.draining {
            return Err(reason.clone());
        }
        let work = work.ok_or("the assignment names no work that this worker knows")?;
        match self.lanes.get(lane as usize) {
            Some(Lane::Idle { baseline, .. }) => Ok((baseline.clone(), work)),
            Some(Lane::Unfit { reason }) => Err(reason.clone()),
            Some(Lane::Waiting) => Err(self.unfit().unwrap_or_else(|| format!("lane {lane} waits"))),
            Some(_) => Err(format!("lane {lane} is busy")),
            None => Err(format!("there is no lane {lane}; there are {}", self.lanes.len())),
        }
    }

    fn remember(&mut self, lease: Lease) {
        if self.ended.len() == ENDED_LEASES_KEPT {
            self.ended.pop_front();
        }
        self.ended.push_back(lease.fence);
    }

    /// Forgets a lease: its work ends, its reports are dropped, nothing more is said of it but perhaps its footprint.
    pub(super) fn stop(
        &mut self,
        lease: Lease,
        measured: &dyn Fn(&Working) -> Measured,
        out: &mut Vec<Effect>,
    ) {
        self.outbox.forget(lease);
        let place = self.lanes.iter().position(|lane| matches!(lane, Lane::Working(w) if w.lease == lease));
        let Some(place) = place else { return };
        self.remember(lease);
        let Lane::Working(working) = &self.lanes[place] else { return };
        let untouched = (working.kind == Kind::Prepare).then(|| working.baseline.clone());
        self.lanes[place] = Lane::Stopping { measured: measured(working), untouched };
        out.push(Effect::Cancel { lane: index(place) });
    }

    pub(super) fn lane(&mut self, lane: u32, event: LaneEvent, out: &mut Vec<Effect>) {
        match event {
            LaneEvent::Notice(text) => {
                if let Some(lease) = self.lease_of(lane) {
                    self.report(lease, Fact::Notice(text), out);
                }
            }
            LaneEvent::News(UnitNews::Output(piece)) => {
                if let Some(lease) = self.lease_of(lane) {
                    self.report(lease, Fact::Output(piece), out);
                }
            }
            LaneEvent::News(UnitNews::Artifacts(artifacts)) => {
                if let Some(lease) = self.lease_of(lane) {
                    self.report(lease, Fact::Artifacts(artifacts), out);
                }
            }
            LaneEvent::News(UnitNews::Footprint(footprint)) => {
                if let Some(Lane::Working(working)) = self.lanes.get_mut(lane as usize) {
                    working.told.extend(footprint.attempts.iter().copied());
                    let lease = working.lease;
                    self.report(lease, Fact::Footprint(footprint), out);
                }
            }
            LaneEvent::News(UnitNews::Result(result)) => {
                if let Some(Lane::Working(working)) = self.lanes.get_mut(lane as usize) {
                    working.reported.push(result.attempt);
                    let lease = working.lease;
                    self.report(lease, Fact::TestResult(result), out);
                }
            }
            LaneEvent::Ended(end) => self.work_ended(lane, end, out),
            LaneEvent::Settled(end) => self.settled(lane, end, out),
            LaneEvent::Measured { id, footprint } => self.measured(id, footprint, out),
        }
    }

    fn lease_of(&self, lane: u32) -> Option<Lease> {
        match self.lanes.get(lane as usize) {
            Some(Lane::Working(working)) => Some(working.lease),
            _ => None,
        }
    }

    fn work_ended(&mut self, lane: u32, end: Result<Fruit, WorkFailed>, out: &mut Vec<Effect>) {
        let Some(place) = self.lanes.get_mut(lane as usize) else { return };
        let (measured, untouched) = match std::mem::replace(place, Lane::Waiting) {
            Lane::Working(working) => {
                let fact = match end {
                    Ok(Fruit::Baseline(ready)) => Fact::BaselineReady(*ready),
                    Ok(Fruit::Tests(found)) => Fact::Discovered(found),
                    Ok(Fruit::Unit) => Fact::UnitEnded(UnitEnded {}),
                    Err(failed) => Fact::WorkFailed(failed),
                };
                self.remember(working.lease);
                self.report(working.lease, fact, out);
                let measured = working.measured();
                (measured, (working.kind == Kind::Prepare).then_some(working.baseline))
            }
            Lane::Stopping { measured, untouched } => (measured, untouched),
            other => {
                self.lanes[lane as usize] = other;
                return;
            }
        };
        self.lanes[lane as usize] = match untouched {
            _ if self.draining.is_some() || self.daemon_is_down() => Lane::Waiting,
            Some(baseline) => Lane::Idle { baseline, offered: false },
            None => {
                // While the daemon is mended, what stopped ran on the old one.
                let mending = matches!(self.daemon, Daemon::Mending { .. });
                out.push(if mending { Effect::Rebuild { lane } } else { Effect::Settle { lane } });
                Lane::Settling { measured, again: false }
            }
        };
    }

    fn settled(&mut self, lane: u32, end: Result<PutBack, Unfit>, out: &mut Vec<Effect>) {
        let Some(place) = self.lanes.get_mut(lane as usize) else { return };
        let (measured, again) = match std::mem::replace(place, Lane::Waiting) {
            Lane::Settling { measured, again } => (measured, again),
            other => {
                self.lanes[lane as usize] = other;
                return;
            }
        };
        if self.daemon_is_down() {
            return;
        }
        if again {
            self.rebuild(lane, out);
            return;
        }
        self.lanes[lane as usize] = match end {
            Ok(settled) => {
                if let (Some(whose), Some(id)) = (measured, settled.measuring) {
                    if self.owed.len() == OWED_MAX {
                        self.owed.pop_first();
                    }
                    self.owed.insert(id, whose);
                }
                Lane::Idle { baseline: settled.baseline_key, offered: false }
            }
            Err(unfit) => {
                let reason = format!("lane {lane}: {unfit}");
                out.push(Effect::Warn(format!("this worker takes no more work: {reason}")));
                Lane::Unfit { reason }
            }
        };
    }

    /// Whose dirt it is was kept when the lane was put back.
    fn measured(&mut self, id: u64, changes: Option<Changes>, out: &mut Vec<Effect>) {
        let (Some((lease, attempts)), Some(changes)) = (self.owed.remove(&id), changes) else { return };
        self.report(lease, Fact::Footprint(told_changes(attempts, changes)), out);
    }

    fn rebuild(&mut self, lane: u32, out: &mut Vec<Effect>) {
        self.lanes[lane as usize] = Lane::Settling { measured: None, again: false };
        out.push(Effect::Rebuild { lane });
    }

    // The worker as a whole.

    fn give_back(&mut self, reason: &str, out: &mut Vec<Effect>) {
        let leases: Vec<Lease> = self.working().map(|working| working.lease).collect();
        for lease in leases {
            // Results that are out already count; only what has none runs elsewhere.
            let place =
                self.lanes.iter().position(|lane| matches!(lane, Lane::Working(w) if w.lease == lease));
            let place = place.expect("looked up just now");
            self.lanes[place] = Lane::Stopping { measured: None, untouched: None };
            self.remember(lease);
            out.push(Effect::Cancel { lane: index(place) });
            self.report_failure(lease, reason.to_owned(), out);
        }
    }

    pub(super) fn drain(&mut self, reason: &str, out: &mut Vec<Effect>) {
        self.draining = Some(reason.to_owned());
        // First that no more is taken, so that what is given back does not come here again.
        self.tell_fitness(out);
        self.give_back(reason, out);
    }

    fn daemon_is_down(&self) -> bool {
        matches!(self.daemon, Daemon::Down { .. })
    }

    pub(super) fn daemon_down(&mut self, reason: &str, out: &mut Vec<Effect>) {
        self.daemon = Daemon::Down { reason: reason.to_owned() };
        self.tell_fitness(out);
        self.give_back(reason, out);
        for lane in &mut self.lanes {
            match lane {
                Lane::Idle { .. } | Lane::Unfit { .. } => *lane = Lane::Waiting,
                // What was untouched is gone with the daemon, too, and there is nothing left to measure.
                Lane::Stopping { measured, untouched } => (*measured, *untouched) = (None, None),
                _ => {}
            }
        }
    }

    pub(super) fn daemon_up(&mut self, out: &mut Vec<Effect>) {
        let Daemon::Down { reason } = &self.daemon else { return };
        self.daemon = Daemon::Mending { reason: reason.clone() };
        if self.draining.is_some() {
            return;
        }
        for place in 0..self.lanes.len() {
            match &mut self.lanes[place] {
                Lane::Waiting => self.rebuild(index(place), out),
                Lane::Settling { again, .. } => *again = true,
                _ => {}
            }
        }
    }

    /// The daemon's failure is over once every lane was put back (or cannot be).
    pub(super) fn mended(&mut self) {
        let over = |lane: &Lane| matches!(lane, Lane::Idle { .. } | Lane::Working(_) | Lane::Unfit { .. });
        if matches!(self.daemon, Daemon::Mending { .. }) && self.lanes.iter().all(over) {
            self.daemon = Daemon::Up;
        }
    }

    /// Why this worker takes no work now.
    fn unfit(&self) -> Option<String> {
        let lane = self.lanes.iter().find_map(|lane| match lane {
            Lane::Unfit { reason } => Some(reason.clone()),
            _ => None,
        });
        let daemon = match &self.daemon {
            Daemon::Up => None,
            Daemon::Down { reason } | Daemon::Mending { reason } => Some(reason.clone()),
        };
        self.draining.clone().or(daemon).or(lane)
    }

    pub(super) fn tell_fitness(&mut self, out: &mut Vec<Effect>) {
        let reason = self.unfit().unwrap_or_default();
        if self.up.is_some() && self.told_unfit != reason {
            self.told_unfit.clone_from(&reason);
            self.send(worker_message::Body::Unfit(andon_proto::Unfit { reason }), out);
        }
    }

    /// Every lane that may take work is a credit, once a session.
    pub(super) fn offer(&mut self, out: &mut Vec<Effect>) {
        if self.up.is_none() || self.is_full() || self.unfit().is_some() {
            return;
        }
        for place in 0..self.lanes.len() {
            if let Lane::Idle { baseline, offered: offered @ false } = &mut self.lanes[place] {
                *offered = true;
                let ready = LaneReady { lane: index(place), baseline_key: baseline.clone() };
                self.send(worker_message::Body::LaneReady(ready), out);
            }
        }
    }
}

fn index(place: usize) -> u32 {
    u32::try_from(place).expect("lanes are counted in 32 bits")
}
