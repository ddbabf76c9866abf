//! The scheduling core of the farm. Pure: time and reports come in as [`Input`], decisions go out as [`Effect`].
//! It knows no clock, no randomness, no IO, no wire; so each of its decisions can be tested by itself.
//!
//! ```text
//!            Submit                PrepareBaseline leased        first Discover leased     first unit leased
//!   (none) ────────> Queued ─────────────> Preparing ─────────────> Discovering ───────────────> Running
//!                      │                      │                          │                          │
//!                      └── cancel, no worker  ├── BaselineFailed         ├── ConfigError, NoTests   ├── all tests decided,
//!                                             └── Incomplete (farm)      └── Incomplete             │   the cord, cancel
//!                                                                                                   v
//!                                                                                         Ended(RunEnd), for ever
//! ```
//!
//! Happy path: a run is submitted; one ready lane gets `PrepareBaseline`; its report pins the run to a baseline; each
//! suite is discovered on a lane; units queue, failed ones first and longest first; each ready lane is a credit
//! and takes one unit; each `TestEnded` may give a verdict; the last verdict ends the run. Runs share the lanes as
//! `shares.rs` says. A straggler may have a second attempt (`tail.rs`), and a test may count for two runs (`together.rs`).
//!
//! Ways it fails: a worker leaves or its lease expires: what it held is counted as infrastructure and waits for another
//! worker. The same work fails four times by the farm: the test's verdict is *infrastructure*, a baseline or
//! discovery ends the run as incomplete. A report with a fence that is not current: `Superseded`, and nothing changes.
//!
//! Invariants: the records of a step come before its other effects; a fence is given once; an ended attempt and a
//! given verdict never change.

pub mod asked;
mod config;
mod estimate;
pub mod forecast;
pub mod ids;
pub mod inexact;
mod lanes;
pub mod model;
mod place;
pub mod quarantine;
mod queue;
mod restore;
mod run;
mod shares;
mod tail;
mod together;
mod trust;
pub mod units;
pub mod verdict;
mod work;

use std::collections::BTreeMap;

use ids::{AttemptId, Fence, LaneIx, Lease, Now, RunId, WorkerId};
use lanes::Workers;
use model::{Candidate, Plan, Record, Report, RunEnd, RunHeader, RunState, Start, Trigger, Verdict, Work};
use queue::PendingKind;
use run::{Held, Run};
use shares::Shares;

pub use config::Config;
pub use restore::Stored;

/// Everything that can happen to the core.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "inputs are moved once; what is large is a run that is asked for, and rare"
)]
pub enum Input {
    /// A run is asked for. Answered by [`Effect::Accepted`] with the same ticket.
    Submit {
        /// The caller's own number for this request.
        ticket: u64,
        /// What the store keeps of it.
        header: RunHeader,
        /// What is to be done.
        plan: Plan,
        /// Where it begins.
        start: Start,
    },
    /// A person stops a run.
    Cancel {
        /// Which.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// A worker has a session, new or again.
    WorkerJoined {
        /// Its name.
        worker: WorkerId,
        /// What it still works on.
        held: Vec<Lease>,
        /// The last fence that reached it in its life; `None` where that is not known: in a life that begins.
        reached: Option<Fence>,
    },
    /// The session is gone. Leases live on until they expire: it may come back.
    WorkerLeft {
        /// Its name.
        worker: WorkerId,
    },
    /// One credit.
    LaneReady {
        /// Whose.
        worker: WorkerId,
        /// Which lane.
        lane: LaneIx,
        /// What it is a clone of; empty for nothing yet.
        baseline: String,
    },
    /// The worker lives, and works on these.
    Heartbeat {
        /// Its name.
        worker: WorkerId,
        /// What it works on.
        held: Vec<Lease>,
    },
    /// The worker takes no more work, or does again.
    WorkerFitness {
        /// Its name.
        worker: WorkerId,
        /// Why not; `None` where it does again.
        unfit: Option<String>,
    },
    /// Something came of a lease.
    Reported {
        /// By whom.
        worker: WorkerId,
        /// Under which grant.
        lease: Lease,
        /// What.
        report: Report,
    },
    /// Time went on.
    Tick,
}

/// Everything that the core can ask for. Records first; the driver makes them durable before it does the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make this durable.
    Persist(Record),
    /// The run exists.
    Accepted {
        /// Of the [`Input::Submit`].
        ticket: u64,
        /// Its number.
        run: RunId,
    },
    /// Hand this work to a worker.
    Assign {
        /// To whom.
        worker: WorkerId,
        /// On which lane.
        lane: LaneIx,
        /// The grant.
        lease: Lease,
        /// The run's specification in the blob store.
        spec_digest: String,
        /// What to do.
        work: Work,
    },
    /// Tell a worker to stop.
    Revoke {
        /// Whom.
        worker: WorkerId,
        /// Which grant.
        lease: Lease,
        /// Why.
        reason: String,
    },
    /// Tell a worker that its report was void.
    Superseded {
        /// Whom.
        worker: WorkerId,
        /// Under which grant it reported.
        lease: Lease,
        /// Why it is void.
        reason: Void,
    },
}

/// Why a report is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Void {
    /// No such lease is out: it ended, expired, was revoked, or never was.
    NotCurrent,
    /// The lease is another worker's.
    NotYours,
    /// The lease does not cover this attempt, or is not for this kind of work.
    NotCovered,
}

/// The state of the farm's scheduling, and the only place that changes it.
#[derive(Debug)]
pub struct Core {
    config: Config,
    next_run: u64,
    next_fence: u64,
    runs: BTreeMap<RunId, Run>,
    workers: Workers,
    leases: BTreeMap<Fence, Held>,
    shares: Shares,
}

impl Core {
    /// An empty farm.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            next_run: 1,
            next_fence: 1,
            runs: BTreeMap::new(),
            workers: Workers::default(),
            leases: BTreeMap::new(),
            shares: Shares::default(),
        }
    }

    /// Takes one input and returns what follows from it, in order.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        let is_tick = input == Input::Tick;
        match input {
            Input::Submit { ticket, header, plan, start } => {
                let run = self.submit(now, header, plan, start, &mut out);
                out.push(Effect::Accepted { ticket, run });
                self.end_if_done(now, run, &mut out);
            }
            Input::Cancel { run, reason } => {
                self.stop(now, run, RunEnd::Incomplete, format!("cancelled: {reason}"), &mut out);
            }
            Input::WorkerJoined { worker, held, reached } => {
                self.join(now, &worker, &held, reached, &mut out);
            }
            Input::WorkerLeft { worker } => self.workers.leave(&worker),
            Input::LaneReady { worker, lane, baseline } => {
                self.workers.offer(&worker, lane, baseline);
                self.tell_again(now, &worker, lane, &mut out);
            }
            Input::Heartbeat { worker, held } => self.renew(now, &worker, &held, &mut out),
            Input::WorkerFitness { worker, unfit } => self.workers.set_unfit(&worker, unfit),
            Input::Reported { worker, lease, report } => self.report(now, &worker, lease, report, &mut out),
            Input::Tick => self.tick(now, &mut out),
        }
        self.place(now, &mut out);
        if is_tick {
            // After placement: a lane is idle where nothing waits for it.
            self.hedge(now, &mut out);
        }
        out
    }

    /// True where the run has not ended.
    #[must_use]
    pub fn is_active(&self, run: RunId) -> bool {
        self.runs.contains_key(&run)
    }

    /// The runs that have not ended, with the project of each.
    pub fn active(&self) -> impl Iterator<Item = (RunId, &RunHeader)> {
        self.runs.values().map(|run| (run.id, &run.header))
    }

    /// Tests that are on a lane now, of one run.
    #[must_use]
    pub fn running_tests(&self, run: RunId) -> usize {
        self.runs.get(&run).map_or(0, |run| run.out.len())
    }

    /// The project and suite that a lease is to discover.
    #[must_use]
    pub fn discovery(&self, lease: Lease) -> Option<(&str, &str)> {
        let held = self.leases.get(&lease.fence).filter(|held| held.lease == lease)?;
        let run = self.runs.get(&lease.run)?;
        match held.work.kind {
            PendingKind::Discover(suite) => Some((&run.header.project, &run.suite(suite).name)),
            PendingKind::Baseline | PendingKind::Unit { .. } => None,
        }
    }

    /// What a run that has not ended is, what is to be done in it, and its baseline; that is empty while it is not known.
    #[must_use]
    pub fn run_of(&self, run: RunId) -> Option<(&RunHeader, &Plan, &str)> {
        let run = self.runs.get(&run)?;
        Some((&run.header, &run.plan, run.baseline.as_deref().unwrap_or_default()))
    }

    /// Whether the worker works under this grant.
    #[must_use]
    pub fn holds(&self, worker: &WorkerId, lease: Lease) -> bool {
        self.leases.get(&lease.fence).is_some_and(|held| held.lease == lease && held.worker == *worker)
    }

    /// Why the worker takes no work, where it does not.
    #[must_use]
    pub fn unfit(&self, worker: &WorkerId) -> Option<&str> {
        self.workers.unfit(worker)
    }

    /// Lanes of this worker that work under a lease.
    #[must_use]
    pub fn busy_lanes(&self, worker: &WorkerId) -> usize {
        self.workers.busy_lanes(worker)
    }

    fn submit(
        &mut self,
        now: Now,
        header: RunHeader,
        plan: Plan,
        start: Start,
        out: &mut Vec<Effect>,
    ) -> RunId {
        let id = RunId(self.next_run);
        self.next_run += 1;
        persist(out, Record::RunCreated { run: id, header: header.clone(), at_unix_ms: now.unix_ms });
        let mut run = Run::new(id, header, plan, now.mono_ms);
        match start {
            Start::Discover => run.undiscovered.extend(0..run.plan.suites.len()),
            Start::Chosen { tests, baseline } => {
                run.baseline = baseline;
                if let Some(key) = &run.baseline {
                    persist(out, Record::BaselinePinned { run: id, key: key.clone() });
                }
                for suite in 0..run.plan.suites.len() {
                    let name = run.suite(suite).name.clone();
                    let chosen = tests.iter().filter(|(suite, _)| *suite == name);
                    let chosen = chosen.map(|(_, candidate)| candidate.clone()).collect();
                    add_tests(&mut run, suite, chosen, now, out);
                }
            }
        }
        queue_first_work(now.mono_ms, &mut run);
        self.supersede(now, &run, out);
        self.runs.insert(id, run);
        id
    }

    /// A push makes older pushes of its branch pointless, where the project says so.
    fn supersede(&mut self, now: Now, newer: &Run, out: &mut Vec<Effect>) {
        let header = &newer.header;
        if !newer.plan.policy.supersede || header.trigger != Trigger::Push || header.git_ref.is_empty() {
            return;
        }
        let is_pointless = |older: &&Run| {
            older.header.trigger == Trigger::Push
                && older.header.project == header.project
                && older.header.git_ref == header.git_ref
                && older.header.commit != header.commit
        };
        let pointless: Vec<_> = self.runs.values().filter(is_pointless).map(|older| older.id).collect();
        for id in pointless {
            let reason = format!("superseded by run {} of commit {}", newer.id, header.commit);
            self.stop(now, id, RunEnd::Incomplete, reason, out);
        }
    }

    /// What it does not hold it has lost; but for what never reached it, which is told again when the lane is offered: fences
    /// grow, and reach a worker in their order.
    fn join(
        &mut self,
        now: Now,
        worker: &WorkerId,
        held: &[Lease],
        reached: Option<Fence>,
        out: &mut Vec<Effect>,
    ) {
        self.workers.join(worker);
        self.renew(now, worker, held, out);
        let known: Vec<_> = self.workers.leases(worker).collect();
        for fence in known {
            let Some(known) = self.leases.get(&fence).filter(|known| !held.contains(&known.lease)) else {
                continue;
            };
            if reached.is_some_and(|reached| fence > reached) {
                self.workers.owe(worker, known.lane, fence);
            } else {
                self.lose(now, fence, &format!("worker {worker} came back without its work"), out);
            }
        }
    }

    fn renew(&mut self, now: Now, worker: &WorkerId, held: &[Lease], out: &mut Vec<Effect>) {
        for lease in held {
            match self.check(worker, *lease) {
                Ok(()) => {
                    let held = self.leases.get_mut(&lease.fence).expect("checked just now");
                    held.expires_mono_ms = now.mono_ms + self.config.lease_ttl_ms;
                }
                Err(reason) => {
                    out.push(Effect::Superseded { worker: worker.clone(), lease: *lease, reason });
                }
            }
        }
    }

    fn check(&self, worker: &WorkerId, lease: Lease) -> Result<(), Void> {
        match self.leases.get(&lease.fence) {
            Some(held) if held.lease != lease => Err(Void::NotCurrent),
            Some(held) if held.worker != *worker => Err(Void::NotYours),
            Some(_) => Ok(()),
            None => Err(Void::NotCurrent),
        }
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.workers.forgive(now.mono_ms);
        let Self { shares, runs, .. } = self;
        shares.keep(|flow| runs.values().any(|run| run.flow() == *flow));
        let is_over = |held: &&Held| held.expires_mono_ms <= now.mono_ms;
        let expired: Vec<_> = self.leases.values().filter(is_over).map(|held| held.lease.fence).collect();
        for fence in expired {
            let Some(held) = self.leases.get(&fence) else { continue };
            let (worker, lease) = (held.worker.clone(), held.lease);
            self.lose(now, fence, &format!("worker {worker} was lost: no heartbeat"), out);
            out.push(Effect::Revoke { worker, lease, reason: "the lease expired".to_owned() });
        }
        if self.workers.nobody_takes_work() {
            self.tell_that_nobody_works(now, out);
        }
    }

    fn tell_that_nobody_works(&mut self, now: Now, out: &mut Vec<Effect>) {
        let why = self.workers.any_unfit().map(|(name, reason)| format!(" (worker {name}: {reason})"));
        let why = why.unwrap_or_default();
        for run in self.runs.values_mut() {
            let waited = now.mono_ms.saturating_sub(run.created_mono_ms);
            if !run.told_no_worker && waited >= self.config.no_worker_notice_ms {
                run.told_no_worker = true;
                note(run.id, now, format!("waiting: no worker takes work{why}"), out);
            }
        }
    }

    /// Ends a run before its tests are decided: what has no verdict was not run.
    fn stop(&mut self, now: Now, id: RunId, end: RunEnd, reason: String, out: &mut Vec<Effect>) {
        let Some(leases) = self.runs.get(&id).map(|run| run.leases.clone()) else { return };
        for fence in leases {
            let Some(held) = self.close(fence, out) else { continue };
            for attempt in held.open.keys() {
                end_attempt(now, id, *attempt, model::Outcome::Cancelled, "the run was stopped", out);
            }
            // A unit whose results are all in ends by itself; there is nothing to stop.
            let is_over = held.open.is_empty() && matches!(held.work.kind, PendingKind::Unit { .. });
            if !is_over {
                out.push(Effect::Revoke { worker: held.worker, lease: held.lease, reason: reason.clone() });
            }
        }
        let Some(mut run) = self.runs.remove(&id) else { return };
        for (place, test) in run.tests.iter().enumerate() {
            if test.verdict.is_none() {
                let ix = ids::TestIx(u32::try_from(place).expect("discovery limits the number of tests"));
                let verdict = Verdict::NotRun;
                persist(out, Record::VerdictGiven { run: id, test: ix, verdict, run_ms: None });
            }
        }
        move_to(now, &mut run, RunState::Ended(end), reason, out);
        for (follower, test) in run.followers.into_values().flatten() {
            self.release(now, follower, test);
        }
    }

    fn end_if_done(&mut self, now: Now, id: RunId, out: &mut Vec<Effect>) {
        if let Some((end, reason)) = self.runs.get(&id).and_then(Run::end) {
            self.stop(now, id, end, reason, out);
        }
    }
}

/// The first work of a run whose tests and baseline are as known as they are.
fn queue_first_work(now_mono_ms: u64, run: &mut Run) {
    if run.baseline_key().is_none() {
        run.queue_first(now_mono_ms, PendingKind::Baseline, Vec::new());
    }
    for suite in run.undiscovered.clone() {
        run.queue_first(now_mono_ms, PendingKind::Discover(suite), Vec::new());
    }
}

fn add_tests(run: &mut Run, suite: usize, candidates: Vec<Candidate>, now: Now, out: &mut Vec<Effect>) {
    let named: Vec<_> = candidates.iter().map(|candidate| candidate.id.clone()).collect();
    let places = run.add_tests(suite, candidates, now.mono_ms);
    let tests = places.iter().copied().zip(named).collect();
    persist(out, Record::TestsAdded { run: run.id, suite: run.suite(suite).name.clone(), tests });
    run.queue_tests(suite, &places);
}

fn persist(out: &mut Vec<Effect>, record: Record) {
    out.push(Effect::Persist(record));
}

fn note(run: RunId, now: Now, text: String, out: &mut Vec<Effect>) {
    persist(out, Record::Noted { run, text, log_zstd: Vec::new(), at_unix_ms: now.unix_ms });
}

fn move_to(now: Now, run: &mut Run, state: RunState, reason: String, out: &mut Vec<Effect>) {
    run.state = state;
    persist(out, Record::RunMoved { run: run.id, state, reason, at_unix_ms: now.unix_ms });
}

fn end_attempt(
    now: Now,
    run: RunId,
    attempt: AttemptId,
    outcome: model::Outcome,
    why: &str,
    out: &mut Vec<Effect>,
) {
    let ended = model::Ended::without_report(outcome, why);
    persist(out, Record::AttemptEnded { run, attempt, ended, at_unix_ms: now.unix_ms });
}

#[cfg(test)]
mod tests;
