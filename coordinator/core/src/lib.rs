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
//! and takes one unit; each `TestEnded` may give a verdict; the last verdict ends the run.
//!
//! Ways it fails: a worker leaves or its lease expires: what it held is counted as infrastructure and waits for another
//! worker. The same work fails four times by the farm: the test's verdict is *infrastructure*, a baseline or
//! discovery ends the run as incomplete. A report with a fence that is not current: `Superseded`, and nothing changes.
//!
//! Invariants: the records of a step come before its other effects; a fence is given once; an ended attempt and a
//! given verdict never change.

pub mod ids;
pub mod model;
mod place;
mod restore;
mod run;
pub mod units;
pub mod verdict;
mod work;

use std::collections::{BTreeMap, HashMap};

use ids::{AttemptId, Fence, LaneIx, Lease, Now, RunId, WorkerId};
use model::{Candidate, Plan, Record, Report, RunEnd, RunHeader, RunState, Start, Verdict, Work};
use run::{Held, Pending, PendingKind, Run};

pub use restore::Stored;

/// Limits and times that the operator may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How long a lease lives without a heartbeat.
    pub lease_ttl_ms: u64,
    /// How long a lease of before a restart of the coordinator lives until its worker comes back.
    pub restart_grace_ms: u64,
    /// When a run that has no worker says so.
    pub no_worker_notice_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { lease_ttl_ms: 15_000, restart_grace_ms: 30_000, no_worker_notice_ms: 5_000 }
    }
}

/// Everything that can happen to the core.
#[derive(Debug, Clone, PartialEq, Eq)]
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

#[derive(Debug, Default)]
struct WorkerEntry {
    connected: bool,
    unfit: Option<String>,
    /// Lanes with a credit, and the baseline that each holds.
    ready: BTreeMap<LaneIx, String>,
}

impl WorkerEntry {
    fn takes_work(&self) -> bool {
        self.connected && self.unfit.is_none()
    }
}

/// The state of the farm's scheduling, and the only place that changes it.
#[derive(Debug)]
pub struct Core {
    config: Config,
    next_run: u64,
    next_fence: u64,
    runs: BTreeMap<RunId, Run>,
    workers: BTreeMap<WorkerId, WorkerEntry>,
    leases: HashMap<Fence, Held>,
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
            workers: BTreeMap::new(),
            leases: HashMap::new(),
        }
    }

    /// Takes one input and returns what follows from it, in order.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        match input {
            Input::Submit { ticket, header, plan, start } => {
                let run = self.submit(now, header, plan, start, &mut out);
                out.push(Effect::Accepted { ticket, run });
                self.end_if_done(now, run, &mut out);
            }
            Input::Cancel { run, reason } => {
                self.stop(now, run, RunEnd::Incomplete, format!("cancelled: {reason}"), &mut out);
            }
            Input::WorkerJoined { worker, held } => self.join(now, &worker, &held, &mut out),
            Input::WorkerLeft { worker } => {
                if let Some(entry) = self.workers.get_mut(&worker) {
                    entry.connected = false;
                    entry.ready.clear();
                }
            }
            Input::LaneReady { worker, lane, baseline } => {
                if let Some(entry) = self.workers.get_mut(&worker) {
                    entry.ready.insert(lane, baseline);
                }
            }
            Input::Heartbeat { worker, held } => self.renew(now, &worker, &held, &mut out),
            Input::WorkerFitness { worker, unfit } => {
                if let Some(entry) = self.workers.get_mut(&worker) {
                    entry.unfit = unfit;
                }
            }
            Input::Reported { worker, lease, report } => self.report(now, &worker, lease, report, &mut out),
            Input::Tick => self.tick(now, &mut out),
        }
        self.place(now, &mut out);
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
        self.leases.values().filter(|held| held.lease.run == run).map(|held| held.open.len()).sum()
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

    /// Why the worker takes no work, where it does not.
    #[must_use]
    pub fn unfit(&self, worker: &WorkerId) -> Option<&str> {
        self.workers.get(worker)?.unfit.as_deref()
    }

    /// Lanes of this worker that work under a lease.
    #[must_use]
    pub fn busy_lanes(&self, worker: &WorkerId) -> usize {
        self.leases.values().filter(|held| held.worker == *worker).count()
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
        queue_first_work(&mut run);
        self.runs.insert(id, run);
        id
    }

    fn join(&mut self, now: Now, worker: &WorkerId, held: &[Lease], out: &mut Vec<Effect>) {
        let entry = self.workers.entry(worker.clone()).or_default();
        *entry = WorkerEntry { connected: true, ..WorkerEntry::default() };
        self.renew(now, worker, held, out);
        let forgotten: Vec<_> = self
            .leases
            .values()
            .filter(|lease| lease.worker == *worker && !held.contains(&lease.lease))
            .map(|lease| lease.lease.fence)
            .collect();
        for fence in sorted(forgotten) {
            self.lose(now, fence, &format!("worker {worker} came back without its work"), out);
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
        let expired: Vec<_> = self
            .leases
            .values()
            .filter(|held| held.expires_mono_ms <= now.mono_ms)
            .map(|held| held.lease.fence)
            .collect();
        for fence in sorted(expired) {
            let Some(held) = self.leases.get(&fence) else { continue };
            let (worker, lease) = (held.worker.clone(), held.lease);
            self.lose(now, fence, &format!("worker {worker} was lost: no heartbeat"), out);
            out.push(Effect::Revoke { worker, lease, reason: "the lease expired".to_owned() });
        }
        let no_worker = !self.workers.values().any(WorkerEntry::takes_work);
        for run in self.runs.values_mut() {
            let waited = now.mono_ms.saturating_sub(run.created_mono_ms);
            if no_worker && !run.told_no_worker && waited >= self.config.no_worker_notice_ms {
                run.told_no_worker = true;
                let why = self.workers.iter().find_map(|(name, entry)| {
                    entry.unfit.as_ref().map(|reason| format!(" (worker {name}: {reason})"))
                });
                note(run.id, now, format!("waiting: no worker takes work{}", why.unwrap_or_default()), out);
            }
        }
    }

    /// Ends a run before its tests are decided: what has no verdict was not run.
    fn stop(&mut self, now: Now, id: RunId, end: RunEnd, reason: String, out: &mut Vec<Effect>) {
        let held: Vec<_> =
            self.leases.values().filter(|held| held.lease.run == id).map(|held| held.lease.fence).collect();
        let Some(mut run) = self.runs.remove(&id) else { return };
        for fence in sorted(held) {
            let held = self.leases.remove(&fence).expect("collected just now");
            close_lease(now, &held, "the run was stopped", out);
            // A unit whose results are all in ends by itself; there is nothing to stop.
            let is_over = held.open.is_empty() && matches!(held.work.kind, PendingKind::Unit { .. });
            if !is_over {
                out.push(Effect::Revoke { worker: held.worker, lease: held.lease, reason: reason.clone() });
            }
        }
        for (place, test) in run.tests.iter().enumerate() {
            if test.verdict.is_none() {
                let ix = ids::TestIx(u32::try_from(place).expect("discovery limits the number of tests"));
                let verdict = Verdict::NotRun;
                persist(out, Record::VerdictGiven { run: id, test: ix, verdict, run_ms: None });
            }
        }
        move_to(now, &mut run, RunState::Ended(end), reason, out);
    }

    fn end_if_done(&mut self, now: Now, id: RunId, out: &mut Vec<Effect>) {
        if let Some((end, reason)) = self.runs.get(&id).and_then(Run::end) {
            self.stop(now, id, end, reason, out);
        }
    }
}

/// The first work of a run whose tests and baseline are as known as they are.
fn queue_first_work(run: &mut Run) {
    let queue = |kind| Pending { kind, infra_failures: 0, avoid: None };
    if run.baseline_key().is_none() {
        run.queue(queue(PendingKind::Baseline));
    }
    for suite in run.undiscovered.clone() {
        run.queue(queue(PendingKind::Discover(suite)));
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

/// Ends every open attempt of a lease as not run.
fn close_lease(now: Now, held: &Held, why: &str, out: &mut Vec<Effect>) {
    for attempt in held.open.keys() {
        end_attempt(now, held.lease.run, *attempt, model::Outcome::Cancelled, why, out);
    }
    persist(out, Record::LeaseClosed { fence: held.lease.fence });
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

fn sorted(mut fences: Vec<Fence>) -> Vec<Fence> {
    fences.sort_unstable();
    fences
}

#[cfg(test)]
mod tests;
