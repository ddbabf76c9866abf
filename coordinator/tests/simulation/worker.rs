//! A worker, as faithful to `worker/src/link/session.rs` as the simulation needs: lanes, an outbox that keeps what is not
//! acknowledged and says it again in the next session, a Hello that names what is held, and the fence at 80 % of a
//! lease's life. Times are of the worker's own clock, in milliseconds.

use std::collections::VecDeque;

use andon_core::ids::{AttemptId, Fence, LaneIx, Lease, WorkerId};
use andon_core::model::{FailureClass, Report, Work};

use crate::wire::{Body, Said, Word};

const FENCE_TENTHS: u64 = 8;
const WELCOME_LIMIT_MS: u64 = 10_000;
const RENEWALS_KEPT: usize = 64;
const ENDED_LEASES_KEPT: usize = 256;

/// What a worker does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    Send(Said),
    /// The lane's task begins, or turns to something else: work, stopping, settling.
    Turn(LaneIx),
    HangUp,
    /// The lane was busy.
    Refused(Lease),
    /// The coordinator says that this is durable.
    Known(Lease, Report),
}

/// Work in progress.
#[derive(Debug, Clone)]
pub(crate) struct Working {
    pub(crate) lease: Lease,
    pub(crate) work: Work,
    since: u64,
    /// Tests that have ended.
    pub(crate) next: usize,
    reported: Vec<AttemptId>,
    baseline: String,
}

#[derive(Debug, Clone)]
pub(crate) enum Lane {
    Idle { baseline: String, offered: bool },
    Working(Working),
    Stopping { untouched: Option<String> },
    Settling { baseline: String, measured: Option<(Lease, Vec<AttemptId>)> },
}

#[derive(Debug)]
struct Entry {
    seq: Option<u64>,
    lease: Lease,
    report: Report,
}

#[derive(Debug)]
struct Up {
    heard: u64,
    welcomed: bool,
    next_heartbeat: u64,
    renewals: VecDeque<(u64, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    fence_ms: u64,
    heartbeat_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) name: WorkerId,
    pub(crate) lanes: Vec<Lane>,
    outbox: VecDeque<Entry>,
    seq: u64,
    up: Option<Up>,
    times: Option<Times>,
    renewed: u64,
    ended: VecDeque<Fence>,
    reached: Option<Fence>,
    unfit: Option<String>,
    told_unfit: Option<String>,
}

impl Worker {
    pub(crate) fn new(name: WorkerId, lanes: u32) -> Self {
        let idle = || Lane::Idle { baseline: String::new(), offered: false };
        Self {
            name,
            lanes: std::iter::repeat_with(idle).take(lanes as usize).collect(),
            outbox: VecDeque::new(),
            seq: 0,
            up: None,
            times: None,
            renewed: 0,
            ended: VecDeque::new(),
            reached: None,
            unfit: None,
            told_unfit: None,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.is_some()
    }

    /// Nothing runs, nothing is owed.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.outbox.is_empty() && self.lanes.iter().all(|lane| matches!(lane, Lane::Idle { .. }))
    }

    pub(crate) fn working(&self) -> impl Iterator<Item = &Working> {
        self.lanes.iter().filter_map(|lane| match lane {
            Lane::Working(working) => Some(working),
            _ => None,
        })
    }

    fn held(&self) -> Vec<Lease> {
        self.working().map(|working| working.lease).collect()
    }

    // What comes in. Each looks at the clock first, as a worker that slept must.

    pub(crate) fn tick(&mut self, now: u64) -> Vec<Act> {
        self.step(now, |_, _| {})
    }

    pub(crate) fn connected(&mut self, now: u64) -> Vec<Act> {
        self.step(now, |worker, out| worker.hello(now, out))
    }

    pub(crate) fn disconnected(&mut self, now: u64) -> Vec<Act> {
        self.step(now, |worker, _| worker.hang_up())
    }

    pub(crate) fn hears(&mut self, now: u64, word: Word) -> Vec<Act> {
        self.step(now, |worker, out| worker.heard(now, word, out))
    }

    /// A report of the lane's work; one that ends it, where `ends`.
    pub(crate) fn reports(&mut self, now: u64, lane: LaneIx, report: Report, ends: bool) -> Vec<Act> {
        self.step(now, |worker, out| {
            let Some(Lane::Working(working)) = worker.lanes.get_mut(lane.0 as usize) else { return };
            let lease = working.lease;
            if let Report::TestEnded { attempt, .. } = &report {
                working.reported.push(*attempt);
                working.next += 1;
            }
            worker.report(lease, report, out);
            if ends {
                worker.work_ended(lane, out);
            }
        })
    }

    /// The task of a lane that was stopped has ended, or the lane was put back.
    pub(crate) fn lane_done(&mut self, now: u64, lane: LaneIx) -> Vec<Act> {
        self.step(now, |worker, out| match worker.lanes[lane.0 as usize].clone() {
            Lane::Stopping { untouched: Some(baseline) } => {
                worker.lanes[lane.0 as usize] = Lane::Idle { baseline, offered: false };
            }
            Lane::Stopping { untouched: None } => {
                let settling = Lane::Settling { baseline: String::new(), measured: None };
                worker.lanes[lane.0 as usize] = settling;
                out.push(Act::Turn(lane));
            }
            Lane::Settling { baseline, measured } => {
                worker.lanes[lane.0 as usize] = Lane::Idle { baseline, offered: false };
                if let Some((lease, attempts)) = measured {
                    worker.report(
                        lease,
                        Report::Footprint { attempts, dirtied_bytes: 7, changes: String::new() },
                        out,
                    );
                }
            }
            Lane::Idle { .. } | Lane::Working(_) => {}
        })
    }

    /// The daemon broke, or is back: all is given back, and nothing is taken meanwhile.
    pub(crate) fn fitness(&mut self, now: u64, unfit: Option<String>) -> Vec<Act> {
        self.step(now, |worker, out| {
            worker.unfit = unfit;
            worker.tell_fitness(out);
            let Some(reason) = worker.unfit.clone() else { return };
            for lease in worker.held() {
                worker.turn_away(lease, None, out);
                worker.report(lease, failure(&reason), out);
            }
        })
    }

    pub(crate) fn wake_at(&self) -> Option<u64> {
        let up = self.up.as_ref();
        let heartbeat = up.filter(|up| up.welcomed).map(|up| up.next_heartbeat);
        let silence = up.map(|up| up.heard + self.patience(up));
        [self.fence_at(), heartbeat, silence].into_iter().flatten().min()
    }

    // What follows.

    fn step(&mut self, now: u64, change: impl FnOnce(&mut Self, &mut Vec<Act>)) -> Vec<Act> {
        let mut out = Vec::new();
        self.fence(now, &mut out);
        change(self, &mut out);
        self.keep_alive(now, &mut out);
        self.tell_fitness(&mut out);
        self.offer(&mut out);
        out
    }

    fn lives_from(&self, working: &Working) -> u64 {
        self.renewed.max(working.since)
    }

    fn fence_at(&self) -> Option<u64> {
        let oldest = self.working().map(|working| self.lives_from(working)).min()?;
        Some(oldest + self.times?.fence_ms)
    }

    fn fence(&mut self, now: u64, out: &mut Vec<Act>) {
        let Some(times) = self.times else { return };
        let over = self.working().filter(|working| now >= self.lives_from(working) + times.fence_ms);
        for lease in over.map(|working| working.lease).collect::<Vec<_>>() {
            self.stop(lease, out);
        }
    }

    fn patience(&self, up: &Up) -> u64 {
        self.times.filter(|_| up.welcomed).map_or(WELCOME_LIMIT_MS, |times| times.fence_ms)
    }

    fn keep_alive(&mut self, now: u64, out: &mut Vec<Act>) {
        let Some(up) = &self.up else { return };
        if now >= up.heard + self.patience(up) {
            self.hang_up();
            out.push(Act::HangUp);
            return;
        }
        let Some(times) = self.times.filter(|_| up.welcomed && now >= up.next_heartbeat) else { return };
        let held = self.held();
        let seq = self.send(Body::Heartbeat { held }, out);
        if let Some(up) = &mut self.up {
            up.next_heartbeat = now + times.heartbeat_ms;
            if up.renewals.len() == RENEWALS_KEPT {
                up.renewals.pop_front();
            }
            up.renewals.push_back((seq, now));
        }
    }

    fn hello(&mut self, now: u64, out: &mut Vec<Act>) {
        self.hang_up();
        let mut open: Vec<Lease> = Vec::new();
        for entry in self.outbox.iter().filter(|entry| !matches!(entry.report, Report::Footprint { .. })) {
            if !open.contains(&entry.lease) {
                open.push(entry.lease);
            }
        }
        self.ended = open.iter().map(|lease| lease.fence).collect();
        let mut held = self.held();
        open.retain(|lease| !held.contains(lease));
        held.extend(open);
        let seq = self.send(Body::Hello { held, reached: self.reached }, out);
        let renewals = VecDeque::from([(seq, now)]);
        self.up = Some(Up { heard: now, welcomed: false, next_heartbeat: now, renewals });
        self.tell_fitness(out);
        self.offer(out);
        for place in 0..self.outbox.len() {
            self.seq += 1;
            let seq = self.seq;
            let entry = &mut self.outbox[place];
            entry.seq = Some(seq);
            let body = Body::Report { lease: entry.lease, report: entry.report.clone() };
            out.push(Act::Send(Said { seq, body }));
        }
    }

    fn hang_up(&mut self) {
        self.up = None;
        self.told_unfit = None;
        for entry in &mut self.outbox {
            entry.seq = None;
        }
        for lane in &mut self.lanes {
            if let Lane::Idle { offered, .. } = lane {
                *offered = false;
            }
        }
    }

    fn heard(&mut self, now: u64, word: Word, out: &mut Vec<Act>) {
        let Some(up) = &mut self.up else { return };
        up.heard = now;
        match word {
            Word::Welcome { lease_ttl_ms, heartbeat_ms } => {
                self.times = Some(Times { fence_ms: lease_ttl_ms * FENCE_TENTHS / 10, heartbeat_ms });
                self.reached.get_or_insert(Fence(0));
                if !up.welcomed {
                    up.welcomed = true;
                    up.next_heartbeat = now + heartbeat_ms;
                    let sent = up.renewals.front().map_or(now, |(_, sent)| *sent);
                    self.renewed = self.renewed.max(sent);
                }
            }
            Word::Assign { lease, lane, work } => self.assigned(now, lease, lane, work, out),
            Word::Revoke { lease } | Word::Superseded { lease } => self.stop(lease, out),
            Word::Ack { seq } => {
                while let Some((_, sent)) = up.renewals.front().filter(|(of, _)| *of <= seq) {
                    self.renewed = self.renewed.max(*sent);
                    up.renewals.pop_front();
                }
                while self.outbox.front().and_then(|entry| entry.seq).is_some_and(|sent| sent <= seq) {
                    let entry = self.outbox.pop_front().expect("looked at just now");
                    out.push(Act::Known(entry.lease, entry.report));
                }
            }
        }
    }

    fn assigned(&mut self, now: u64, lease: Lease, lane: LaneIx, work: Work, out: &mut Vec<Act>) {
        self.reached = self.reached.max(Some(lease.fence));
        let place = lane.0 as usize;
        if let Some(Lane::Idle { offered, .. }) = self.lanes.get_mut(place) {
            *offered = false;
        }
        let is_known = self.working().any(|working| working.lease.fence == lease.fence)
            || self.ended.contains(&lease.fence);
        if is_known {
            return;
        }
        let refusal = match self.lanes.get(place) {
            Some(Lane::Idle { .. }) => self.unfit.clone(),
            _ => {
                out.push(Act::Refused(lease));
                Some(format!("lane {} is busy", lane.0))
            }
        };
        match (refusal, self.lanes.get(place)) {
            (None, Some(Lane::Idle { baseline, .. })) => {
                let baseline = baseline.clone();
                let working = Working { lease, work, since: now, next: 0, reported: Vec::new(), baseline };
                self.lanes[place] = Lane::Working(working);
                out.push(Act::Turn(lane));
            }
            (refusal, _) => {
                self.remember(lease);
                self.report(lease, failure(&refusal.unwrap_or_default()), out);
            }
        }
    }

    fn remember(&mut self, lease: Lease) {
        if self.ended.len() == ENDED_LEASES_KEPT {
            self.ended.pop_front();
        }
        self.ended.push_back(lease.fence);
    }

    /// Forgets a lease: its work ends, its reports are dropped.
    fn stop(&mut self, lease: Lease, out: &mut Vec<Act>) {
        self.outbox.retain(|entry| entry.lease != lease || matches!(entry.report, Report::Footprint { .. }));
        let held = self.working().find(|working| working.lease == lease);
        let Some(working) = held else { return };
        let untouched = (working.work == Work::PrepareBaseline).then(|| working.baseline.clone());
        self.turn_away(lease, untouched, out);
    }

    fn turn_away(&mut self, lease: Lease, untouched: Option<String>, out: &mut Vec<Act>) {
        let at = self.lanes.iter().position(|lane| matches!(lane, Lane::Working(w) if w.lease == lease));
        let Some(at) = at else { return };
        self.remember(lease);
        self.lanes[at] = Lane::Stopping { untouched };
        out.push(Act::Turn(LaneIx(u32::try_from(at).expect("few lanes"))));
    }

    fn work_ended(&mut self, lane: LaneIx, out: &mut Vec<Act>) {
        let Lane::Working(working) = self.lanes[lane.0 as usize].clone() else { return };
        self.remember(working.lease);
        self.lanes[lane.0 as usize] = match &working.work {
            Work::PrepareBaseline => Lane::Idle { baseline: working.baseline, offered: false },
            Work::Discover { baseline, .. } | Work::Execute { baseline, .. } => {
                let measured = (!working.reported.is_empty()).then_some((working.lease, working.reported));
                out.push(Act::Turn(lane));
                Lane::Settling { baseline: baseline.clone(), measured }
            }
        };
    }

    fn report(&mut self, lease: Lease, report: Report, out: &mut Vec<Act>) {
        let seq = self.up.is_some().then(|| {
            self.seq += 1;
            self.seq
        });
        if let Some(seq) = seq {
            out.push(Act::Send(Said { seq, body: Body::Report { lease, report: report.clone() } }));
        }
        self.outbox.push_back(Entry { seq, lease, report });
    }

    fn send(&mut self, body: Body, out: &mut Vec<Act>) -> u64 {
        self.seq += 1;
        out.push(Act::Send(Said { seq: self.seq, body }));
        self.seq
    }

    /// Sends what the machine would never send.
    pub(crate) fn lies(&mut self, body: Body) -> Vec<Act> {
        let mut out = Vec::new();
        if self.up.is_some() {
            self.send(body, &mut out);
        }
        out
    }

    fn tell_fitness(&mut self, out: &mut Vec<Act>) {
        if self.up.is_some() && self.told_unfit != self.unfit {
            self.told_unfit.clone_from(&self.unfit);
            self.send(Body::Unfit { reason: self.unfit.clone() }, out);
        }
    }

    fn offer(&mut self, out: &mut Vec<Act>) {
        if self.up.is_none() || self.unfit.is_some() {
            return;
        }
        for place in 0..self.lanes.len() {
            if let Lane::Idle { baseline, offered: offered @ false } = &mut self.lanes[place] {
                *offered = true;
                let lane = LaneIx(u32::try_from(place).expect("few lanes"));
                let body = Body::LaneReady { lane, baseline: baseline.clone() };
                self.send(body, out);
            }
        }
    }
}

/// The farm's fault.
pub(crate) fn failure(reason: &str) -> Report {
    let class = FailureClass::Infrastructure;
    Report::WorkFailed { class, reason: reason.to_owned(), log_zstd: Vec::new() }
}
