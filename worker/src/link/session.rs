//! The worker's side of a session, as a pure machine: what came from the coordinator, from the lanes and from the clock
//! goes in, what is to be done comes out. It knows no socket, no task and no clock; [`super::driver`] drives it.
//!
//! ```text
//!           Connected                     Welcome
//!   down ──────────────> up: Hello(held) ─────────> LaneReady ──> Assign ──> Start … Report* ──> Ack
//!    ^                    LaneReady of idle lanes                   heartbeats, each acknowledged
//!    │                    unacknowledged reports                          │
//!    └── Disconnected, or silence for a fence time (HangUp) ──────────────┘
//! ```
//!
//! Happy path: a lane is offered, gets a lease, works; its results leave as they come and stay in the outbox until they
//! are acknowledged; the unit's end is reported before the lane is put back; then the next offer, and its footprint once measured.
//!
//! Ways it fails: the connection breaks: work goes on, and the next session begins with what is held and repeats what was
//! not acknowledged. No heartbeat was acknowledged for 80% of a lease's life, counted from when it was *sent*: the
//! coordinator may give the work to another, so it is cancelled and its results are dropped. `Revoke`, `Superseded`: the
//! same for one lease. The daemon breaks: everything is given back as the farm's failure, lanes wait and are put back.
//!
//! Invariants: time is looked at before anything else, so that a worker that slept does not speak for a lease that is
//! over; a lane that is offered is pristine or untouched; a lease is started once in a session, and not while it is held.

mod events;
mod lane;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use andon_proto::coordinator_message::Body as Word;
use andon_proto::report::Body as Fact;
use andon_proto::work_failed::Class;
use andon_proto::{
    Assign, Heartbeat, Hello, Inexact, LaneReady, Lease, LookCall, UnitEnded, Verified, VerifyBaseline,
    WorkFailed, WorkerMessage, assign, worker_message,
};

use andon_snapshot::Changes;

use self::events::Events;
use super::outbox::Outbox;
use crate::hands::Unfit;
pub(crate) use lane::{Fruit, LaneEvent, PutBack};
use lane::{Kind, Lane, Measured, Working};

/// Part of a lease's life after which its work is cancelled where nothing renewed it: 8 tenths.
const FENCE_TENTHS: u32 = 8;
/// Units whose dirt is still being measured; of more than that the oldest are not told.
const OWED_MAX: usize = 64;
/// How long a coordinator may take to say Welcome.
const WELCOME_LIMIT: Duration = Duration::from_secs(10);
/// Bounds of what Welcome may ask for.
const TTL_MIN: Duration = Duration::from_millis(100);
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
/// So many unacknowledged heartbeats are remembered; the oldest says the least.
const RENEWALS_KEPT: usize = 64;
/// So many leases that ended are remembered in a session, to know a repeated Assign.
const ENDED_LEASES_KEPT: usize = 256;

/// Who this worker is; fixed for its life but for the driver, which probing may change.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) worker: String,
    pub(crate) version: String,
    pub(crate) lanes: u32,
    pub(crate) pool: String,
}

/// Everything that can happen to a session.
#[derive(Debug)]
pub(crate) enum Input {
    /// A stream is open.
    Connected { driver: String },
    /// It is gone.
    Disconnected,
    /// The coordinator said something.
    Heard(Word),
    /// A lane's task said something.
    Lane(u32, LaneEvent),
    /// A stand was not exact.
    Inexact(Inexact),
    /// What the crew saw when it was asked to verify.
    Verified(Verified),
    /// The daemon under the lanes is away.
    DaemonDown { reason: String },
    /// It is back, empty of what ran before.
    DaemonUp,
    /// Give everything back and take nothing more.
    Drain { reason: String },
    /// Time went on.
    Tick,
}

/// Everything that a session can ask for, to be done in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Into the stream.
    Send(Box<WorkerMessage>),
    /// Work on this lane's task.
    Start { lane: u32, lease: Lease, spec_digest: String, work: assign::Work },
    /// End the lane's work; its task then says `Ended`.
    Cancel { lane: u32 },
    /// Put the lane back; its task then says `Settled`.
    Settle { lane: u32 },
    /// The same for a lane whose daemon was replaced: nothing of what stood there is there any more.
    Rebuild { lane: u32 },
    /// Have the crew look, and say [`Input::Verified`].
    Verify(VerifyBaseline),
    /// Show somebody what a test left.
    Look(LookCall),
    /// Drop the connection and dial again.
    HangUp { reason: &'static str },
    /// One line for the operator.
    Warn(String),
}

impl Effect {
    fn send(message: WorkerMessage) -> Self {
        Self::Send(Box::new(message))
    }
}

#[derive(Debug)]
struct Up {
    /// When the coordinator was heard last; the session's beginning where it never was.
    heard: Duration,
    welcomed: bool,
    next_heartbeat: Duration,
    /// Number and time of what renews leases when it is acknowledged.
    renewals: VecDeque<(u64, Duration)>,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    fence: Duration,
    heartbeat: Duration,
}

#[derive(Debug)]
enum Daemon {
    Up,
    Down {
        reason: String,
    },
    /// Back; lanes are being put back.
    Mending {
        reason: String,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    identity: Identity,
    lanes: Vec<Lane>,
    outbox: Outbox,
    events: Events,
    seq: u64,
    up: Option<Up>,
    times: Option<Times>,
    /// When the last acknowledged renewal was sent: leases live from then.
    renewed: Duration,
    ended: VecDeque<u64>,
    /// The highest fence that it was given; `None` until it was welcomed for the first time.
    reached: Option<u64>,
    /// Whose dirt is being measured, by its number.
    owed: BTreeMap<u64, (Lease, Vec<u64>)>,
    daemon: Daemon,
    draining: Option<String>,
    /// What the coordinator was told of this worker's fitness in this session.
    told_unfit: String,
}

impl Session {
    pub(crate) fn new(identity: Identity) -> Self {
        let idle = || Lane::Idle { baseline: String::new(), offered: false };
        let lanes = std::iter::repeat_with(idle).take(identity.lanes as usize).collect();
        Self {
            identity,
            lanes,
            outbox: Outbox::default(),
            events: Events::default(),
            seq: 0,
            up: None,
            times: None,
            renewed: Duration::ZERO,
            ended: VecDeque::new(),
            reached: None,
            owed: BTreeMap::new(),
            daemon: Daemon::Up,
            draining: None,
            told_unfit: String::new(),
        }
    }

    /// Takes one input at a time since some fixed moment, and answers with what follows.
    pub(crate) fn step(&mut self, now: Duration, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        self.fence(now, &mut out);
        match input {
            Input::Connected { driver } => self.connected(now, driver, &mut out),
            Input::Disconnected => self.disconnected(),
            Input::Heard(word) => self.heard(now, word, &mut out),
            Input::Lane(lane, event) => self.lane(lane, event, &mut out),
            Input::Inexact(event) => {
                let seq = self.up.is_some().then(|| self.next_seq());
                out.extend(self.events.push(event, seq).map(Effect::send));
            }
            // Who asked in an earlier session does not wait any more.
            Input::Verified(verified) if self.up.is_some() => {
                self.send(worker_message::Body::Verified(verified), &mut out);
            }
            Input::Verified(_) => {}
            Input::DaemonDown { reason } => self.daemon_down(&reason, &mut out),
            Input::DaemonUp => self.daemon_up(&mut out),
            Input::Drain { reason } => self.drain(&reason, &mut out),
            Input::Tick => {}
        }
        self.keep_alive(now, &mut out);
        self.mended();
        self.tell_fitness(&mut out);
        self.offer(&mut out);
        out
    }

    /// When to step with [`Input::Tick`] if nothing else happens.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        let up = self.up.as_ref();
        let heartbeat = up.filter(|up| up.welcomed).map(|up| up.next_heartbeat);
        let silence = up.map(|up| up.heard + self.patience(up));
        [self.fence_at(), heartbeat, silence].into_iter().flatten().min()
    }

    /// True where no more results should be taken from the lanes until acknowledgements come.
    pub(crate) fn is_full(&self) -> bool {
        self.outbox.is_full()
    }

    /// True where a worker that drains has nothing more to stop or to say.
    pub(crate) fn is_drained(&self) -> bool {
        let at_work = |lane: &Lane| matches!(lane, Lane::Working(_) | Lane::Stopping { .. });
        !self.lanes.iter().any(at_work)
            && (self.outbox.is_empty() && self.events.is_empty() || self.up.is_none())
    }

    // Time.

    fn fence_at(&self) -> Option<Duration> {
        let oldest = self.working().map(|working| self.lives_from(working)).min()?;
        Some(oldest + self.times?.fence)
    }

    /// A lease is given or renewed: the later counts. That the giving took long on its way is not known here; the
    /// coordinator's own clock decides then, and calls the reports void.
    fn lives_from(&self, working: &Working) -> Duration {
        self.renewed.max(working.since)
    }

    fn fence(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let Some(times) = self.times else { return };
        let over = self.working().filter(|working| now >= self.lives_from(working) + times.fence);
        let over: Vec<Lease> = over.map(|working| working.lease).collect();
        if over.is_empty() {
            return;
        }
        let (count, silent) = (over.len(), now.saturating_sub(self.renewed));
        out.push(Effect::Warn(format!(
            "giving up {count} leases: no heartbeat was acknowledged for {silent:.1?}"
        )));
        for lease in over {
            self.stop(lease, &|_| None, out);
        }
    }

    /// How long the coordinator may be silent in a session.
    fn patience(&self, up: &Up) -> Duration {
        self.times.filter(|_| up.welcomed).map_or(WELCOME_LIMIT, |times| times.fence)
    }

    fn keep_alive(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let Some(up) = &self.up else { return };
        if now >= up.heard + self.patience(up) {
            self.disconnected();
            out.push(Effect::HangUp { reason: "the coordinator is silent" });
            return;
        }
        let Some(times) = self.times.filter(|_| up.welcomed && now >= up.next_heartbeat) else { return };
        let held = self.working().map(|working| working.lease).collect();
        let seq = self.send(worker_message::Body::Heartbeat(Heartbeat { held, ..Heartbeat::default() }), out);
        if let Some(up) = &mut self.up {
            up.next_heartbeat = now + times.heartbeat;
            if up.renewals.len() == RENEWALS_KEPT {
                up.renewals.pop_front();
            }
            up.renewals.push_back((seq, now));
        }
    }

    // The connection.

    fn connected(&mut self, now: Duration, driver: String, out: &mut Vec<Effect>) {
        self.disconnected();
        // Repeats come within a session; a coordinator that lost its state begins its numbers anew.
        self.ended = self.outbox.open_leases().iter().map(|lease| lease.fence).collect();
        let mut held: Vec<Lease> = self.working().map(|working| working.lease).collect();
        // What has ended but may not be known to have: not to hold it would say that it was lost.
        held.extend(
            self.outbox.open_leases().into_iter().filter(|lease| !held.contains(lease)).collect::<Vec<_>>(),
        );
        let Identity { worker, version, lanes, pool } = self.identity.clone();
        let hello = Hello { worker, version, lanes, pool, driver, held, reached: self.reached };
        let seq = self.send(worker_message::Body::Hello(hello), out);
        self.up = Some(Up {
            heard: now,
            welcomed: false,
            next_heartbeat: now,
            renewals: VecDeque::from([(seq, now)]),
        });
        self.tell_fitness(out);
        self.offer(out);
        let seq = &mut self.seq;
        let mut next = || {
            *seq += 1;
            *seq
        };
        let again = self.outbox.renumbered(&mut next);
        out.extend(again.into_iter().chain(self.events.renumbered(next)).map(Effect::send));
    }

    fn disconnected(&mut self) {
        self.up = None;
        self.told_unfit.clear();
        self.outbox.disconnected();
        self.events.disconnected();
        for lane in &mut self.lanes {
            if let Lane::Idle { offered, .. } = lane {
                *offered = false;
            }
        }
    }

    fn heard(&mut self, now: Duration, word: Word, out: &mut Vec<Effect>) {
        let Some(up) = &mut self.up else { return };
        up.heard = now;
        match word {
            Word::Welcome(welcome) => {
                let ttl = Duration::from_millis(welcome.lease_ttl_ms).max(TTL_MIN);
                let fence = ttl * FENCE_TENTHS / 10;
                let heartbeat = Duration::from_millis(welcome.heartbeat_ms);
                let heartbeat = heartbeat.clamp(HEARTBEAT_MIN, fence / 2);
                self.times = Some(Times { fence, heartbeat });
                self.reached.get_or_insert(0);
                if !up.welcomed {
                    up.welcomed = true;
                    up.next_heartbeat = now + heartbeat;
                    let sent = up.renewals.front().map_or(now, |(_, sent)| *sent);
                    self.renewed = self.renewed.max(sent);
                }
            }
            Word::VerifyBaseline(ask) => out.push(Effect::Verify(ask)),
            Word::LookCall(call) => out.push(Effect::Look(call)),
            Word::Assign(assign) => self.assigned(now, assign, out),
            Word::Revoke(revoke) => {
                if let Some(lease) = revoke.lease {
                    self.stop(lease, &Working::measured_if_whole, out);
                }
            }
            Word::Superseded(superseded) => {
                if let Some(lease) = superseded.lease {
                    self.stop(lease, &|_| None, out);
                }
            }
            Word::Ack(ack) => {
                self.outbox.acknowledge(ack.seq);
                self.events.acknowledge(ack.seq);
                while let Some((_, sent)) = up.renewals.front().filter(|(seq, _)| *seq <= ack.seq) {
                    self.renewed = self.renewed.max(*sent);
                    up.renewals.pop_front();
                }
            }
        }
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    fn send(&mut self, body: worker_message::Body, out: &mut Vec<Effect>) -> u64 {
        let seq = self.next_seq();
        out.push(Effect::send(WorkerMessage { seq, body: Some(body) }));
        seq
    }

    /// Reports, now or when there is a session again.
    fn report(&mut self, lease: Lease, fact: Fact, out: &mut Vec<Effect>) {
        let seq = self.up.is_some().then(|| self.next_seq());
        if seq.is_none() && matches!(fact, Fact::Notice(_)) {
            return;
        }
        out.extend(self.outbox.push(lease, fact, seq).map(Effect::send));
    }

    fn report_failure(&mut self, lease: Lease, reason: String, out: &mut Vec<Effect>) {
        let class = Class::Infrastructure.into();
        self.report(lease, Fact::WorkFailed(WorkFailed { class, reason, log_zstd: Vec::new() }), out);
    }
}
