//! Looks at every step of the core: what went in, what came out, and whether that was allowed. What it knows it has from
//! inputs and records; the core is not asked.

use std::collections::{BTreeMap, BTreeSet};

use andon_core::ids::{AttemptId, Fence, LaneIx, Lease, Now, RunId, WorkerId};
use andon_core::model::{LeaseKind, Outcome, Plan, Record, Report, Start};
use andon_core::{Config, Effect, Input};

use crate::coordinator::SessionId;
use crate::ledger::{Broken, Kept, LeaseBook, Ledger, broken};
use crate::rule::Due;

/// See the module.
#[derive(Debug)]
pub(crate) struct Watch {
    /// All that was decided, durable or not.
    pub(crate) decided: Ledger,
    /// What the store has.
    pub(crate) durable: Ledger,
    pub(crate) plans: BTreeMap<String, Plan>,
    ttl_ms: u64,
    grace_ms: u64,
    credits: BTreeSet<(WorkerId, LaneIx)>,
    unfit: BTreeSet<WorkerId>,
    last_assigned: Fence,
    /// Leases that never reached their workers.
    owed: BTreeSet<Fence>,
    /// Those of them that are told again, and on their way.
    told_again: BTreeSet<Fence>,
    pub(crate) superseded: u64,
    /// What has happened at least once, so that a test can see that the storms are storms.
    pub(crate) seen: BTreeSet<String>,
}

/// An effect, and the session that an assignment was decided for.
type Said = (Effect, Option<SessionId>);

/// What was true before a step.
struct Before {
    /// The lease of a report, where it is the reporter's and is out.
    reported: Option<LeaseBook>,
    /// Leases that the step should take from a worker that came back without them.
    forgotten: Vec<Fence>,
    /// Those that it should leave to it: they never reached it.
    owed: Vec<Fence>,
    /// On a tick: whose each lease is, and when it is over.
    leases: BTreeMap<Fence, (WorkerId, u64)>,
}

impl Watch {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            decided: Ledger::default(),
            durable: Ledger::default(),
            plans: BTreeMap::new(),
            ttl_ms: config.lease_ttl_ms,
            grace_ms: config.restart_grace_ms,
            credits: BTreeSet::new(),
            unfit: BTreeSet::new(),
            last_assigned: Fence(0),
            owed: BTreeSet::new(),
            told_again: BTreeSet::new(),
            superseded: 0,
            seen: BTreeSet::new(),
        }
    }

    /// The coordinator starts again with what is durable. Every lease that is out gets its grace.
    pub(crate) fn restarted(&mut self, now: Now) {
        self.decided = self.durable.clone();
        self.credits.clear();
        self.unfit.clear();
        self.owed.clear();
        self.told_again.clear();
        let over: Vec<_> = self
            .decided
            .leases
            .values()
            .filter(|l| l.kind == LeaseKind::Unit && self.decided.open_attempts(l).is_empty())
            .map(|lease| lease.lease.fence)
            .collect();
        for fence in over {
            self.decided.leases.remove(&fence);
        }
        for lease in self.decided.leases.values_mut() {
            lease.expires_mono_ms = now.mono_ms + self.grace_ms;
        }
    }

    /// These records are in the store.
    pub(crate) fn stored(&mut self, records: &[Record]) -> Kept {
        let plans = &self.plans;
        records.iter().try_for_each(|record| self.durable.record(record, |spec| plans.get(spec).cloned()))
    }

    /// A worker is told of a lease.
    pub(crate) fn assigned(&mut self, lease: Lease) -> Kept {
        if lease.fence.0 > self.durable.last_fence {
            return broken("persist, then act", format!("{lease:?} left before it was durable"));
        }
        if self.told_again.remove(&lease.fence) {
            return Ok(());
        }
        if lease.fence <= self.last_assigned {
            return broken("fences grow", format!("{lease:?} after {:?}", self.last_assigned));
        }
        self.last_assigned = lease.fence;
        Ok(())
    }

    /// A worker was told that this report is durable.
    pub(crate) fn known(&self, worker: &WorkerId, lease: Lease, report: &Report) -> Kept {
        let out = self.durable.current(lease, worker);
        let is_out = match report {
            Report::TestEnded { attempt, .. } => {
                let run = self.durable.runs.get(&lease.run);
                let book = run.and_then(|run| run.attempts.get(attempt));
                book.is_some_and(|book| book.outcome.is_none())
            }
            Report::Footprint { .. } => false,
            Report::UnitEnded | Report::WorkFailed { .. } => {
                let decided =
                    |l: &LeaseBook| l.kind == LeaseKind::Unit && self.durable.open_attempts(l).is_empty();
                out.is_some_and(|lease| !decided(lease))
            }
            _ => out.is_some(),
        };
        if is_out {
            let how = format!("{worker} {lease:?}: {report:?}, which the store does not know");
            return broken("what is acknowledged is durable", how);
        }
        Ok(())
    }

    pub(crate) fn saw(&mut self, what: impl Into<String>) {
        self.seen.insert(what.into());
    }

    fn see(&mut self, record: &Record) {
        match record {
            Record::VerdictGiven { verdict, .. } => self.saw(format!("verdict {verdict:?}")),
            Record::RunMoved { state, .. } => self.saw(format!("run {state:?}")),
            Record::AttemptEnded { ended, .. } => self.saw(format!("attempt {:?}", ended.outcome)),
            Record::AttemptShared { .. } => self.saw("attempt shared"),
            Record::Leased { lease, .. } => {
                let runs = &self.decided.runs;
                let Some(run) = runs.get(&lease.run) else { return };
                if run.tests.values().any(|test| test.open.len() > 1) {
                    let repeats = run.plan.asked.repeat.is_wanted();
                    self.saw(if repeats { "attempt repeated" } else { "attempt hedged" });
                }
            }
            _ => {}
        }
    }

    /// What a step's input says, before it is taken.
    fn before(&self, input: &Input) -> Before {
        let mut before =
            Before { reported: None, forgotten: Vec::new(), owed: Vec::new(), leases: BTreeMap::new() };
        match input {
            Input::Reported { worker, lease, .. } => {
                before.reported = self.decided.current(*lease, worker).cloned();
            }
            Input::WorkerJoined { worker, held, reached } => {
                let theirs = self.decided.leases.values().filter(|lease| lease.worker == *worker);
                let absent =
                    theirs.filter(|lease| !held.contains(&lease.lease)).map(|lease| lease.lease.fence);
                (before.owed, before.forgotten) =
                    absent.partition(|fence| reached.is_some_and(|reached| *fence > reached));
            }
            Input::Tick => {
                let known = self.decided.leases.iter();
                before.leases =
                    known.map(|(fence, l)| (*fence, (l.worker.clone(), l.expires_mono_ms))).collect();
            }
            _ => {}
        }
        before
    }

    /// Takes a step: `input` went in, `records` and `effects` came out.
    pub(crate) fn step(&mut self, now: Now, input: &Input, records: &[Record], effects: &[Said]) -> Kept {
        let before = self.before(input);
        self.hear(now, input, &before);
        self.void(input, &before, records, effects)?;
        self.asked(input, records)?;
        let plans = std::mem::take(&mut self.plans);
        let taken = records.iter().try_for_each(|record| {
            self.consider(now, input, &before, record)?;
            self.decided.record(record, |spec| plans.get(spec).cloned())?;
            if let Record::Leased { lease, .. } = record
                && let Some(book) = self.decided.leases.get_mut(&lease.fence)
            {
                book.expires_mono_ms = now.mono_ms + self.ttl_ms;
            }
            Ok(())
        });
        self.plans = plans;
        taken?;
        records.iter().for_each(|record| self.see(record));
        self.tells_again(now, records, effects)?;
        for (effect, _) in effects {
            if let Effect::Superseded { reason, .. } = effect {
                self.saw(format!("void {reason:?}"));
            }
        }
        self.timely(now, input, &before, records)?;
        self.decisive(records)?;
        if let Some(fence) = before.forgotten.iter().find(|fence| self.decided.leases.contains_key(fence)) {
            return broken("a worker that comes back without its work has lost it", format!("{fence:?}"));
        }
        // Where it lost others it may be trusted no more, and then loses all.
        let is_lost =
            |fence: &&Fence| before.forgotten.is_empty() && !self.decided.leases.contains_key(fence);
        if let Some(fence) = before.owed.iter().find(is_lost) {
            return broken("a lease that never arrived is not lost", format!("{fence:?}"));
        }
        Ok(())
    }

    /// A lease is told again where it never reached its worker, once for each time that the worker came back without it.
    fn tells_again(&mut self, now: Now, records: &[Record], effects: &[Said]) -> Kept {
        let is_new = |of: &Lease| {
            records.iter().any(|record| matches!(record, Record::Leased { lease, .. } if lease == of))
        };
        for (effect, _) in effects {
            let Effect::Assign { worker, lane, lease, .. } = effect else { continue };
            if is_new(lease) {
                continue;
            }
            let how = || format!("{worker} lane {} {lease:?}", lane.0);
            if !self.owed.remove(&lease.fence) {
                return broken("a lease is told again only where it never arrived", how());
            }
            if !self.credits.remove(&(worker.clone(), *lane)) {
                return broken("a lane is leased once each time that it is offered", how());
            }
            let Some(book) = self.decided.leases.get_mut(&lease.fence) else {
                return broken("what is told again is out", how());
            };
            book.expires_mono_ms = now.mono_ms + self.ttl_ms;
            self.told_again.insert(lease.fence);
            self.saw("lease told again");
        }
        Ok(())
    }

    /// Credits, fitness, and leases that live on.
    fn hear(&mut self, now: Now, input: &Input, before: &Before) {
        let expires = now.mono_ms + self.ttl_ms;
        match input {
            Input::WorkerJoined { worker, held, .. } | Input::Heartbeat { worker, held } => {
                if matches!(input, Input::WorkerJoined { .. }) {
                    self.credits.retain(|(name, _)| name != worker);
                    self.unfit.remove(worker);
                    let theirs = &self.decided.leases;
                    self.owed.retain(|fence| theirs.get(fence).is_some_and(|lease| lease.worker != *worker));
                    self.owed.extend(&before.owed);
                }
                for lease in held {
                    if self.decided.current(*lease, worker).is_some()
                        && let Some(book) = self.decided.leases.get_mut(&lease.fence)
                    {
                        book.expires_mono_ms = expires;
                    }
                }
            }
            Input::WorkerLeft { worker } => self.credits.retain(|(name, _)| name != worker),
            Input::LaneReady { worker, lane, .. } => {
                self.credits.insert((worker.clone(), *lane));
            }
            Input::WorkerFitness { worker, unfit: Some(_) } => {
                self.unfit.insert(worker.clone());
            }
            Input::WorkerFitness { worker, unfit: None } => {
                self.unfit.remove(worker);
            }
            Input::Reported { lease, report, .. } => {
                if before.reported.is_some()
                    && !matches!(report, Report::Footprint { .. })
                    && let Some(book) = self.decided.leases.get_mut(&lease.fence)
                {
                    book.expires_mono_ms = expires;
                }
            }
            _ => {}
        }
    }

    /// A report under a lease that is not out, or not the reporter's, changes nothing and is answered so.
    fn void(&mut self, input: &Input, before: &Before, records: &[Record], effects: &[Said]) -> Kept {
        let Input::Reported { worker, lease, report } = input else { return Ok(()) };
        let told = effects.iter().any(|(effect, _)| {
            matches!(effect, Effect::Superseded { worker: to, lease: of, .. } if to == worker && of == lease)
        });
        self.superseded += u64::from(told);
        if before.reported.is_some() {
            return Ok(());
        }
        let changes = records.iter().find(|record| {
            matches!(
                record,
                Record::AttemptEnded { .. }
                    | Record::VerdictGiven { .. }
                    | Record::LeaseClosed { .. }
                    | Record::BaselinePinned { .. }
                    | Record::BaselinePublished { .. }
                    | Record::TestsAdded { .. }
                    | Record::RunMoved { state: andon_core::model::RunState::Ended(_), .. }
            )
        });
        if let Some(change) = changes {
            return broken("a void report changes nothing", format!("{worker} {lease:?}: {change:?}"));
        }
        let needs_word = !matches!(report, Report::Footprint { .. } | Report::UnitEnded);
        if needs_word && !told {
            return broken("a void report is answered", format!("{worker} {lease:?} {report:?}"));
        }
        Ok(())
    }

    /// Every test that was asked for, or found, is added: no more, no fewer, in order.
    fn asked(&self, input: &Input, records: &[Record]) -> Kept {
        let added = |id: Option<RunId>| -> Vec<&str> {
            let added = records.iter().filter_map(move |record| match record {
                Record::TestsAdded { run, tests, .. } if id.is_none_or(|id| id == *run) => Some(tests),
                _ => None,
            });
            added.flatten().map(|(_, id)| id.as_str()).collect()
        };
        let (wanted, got): (Vec<&str>, Vec<&str>) = match input {
            Input::Submit { start: Start::Chosen { tests, .. }, .. } => {
                (tests.iter().map(|(_, test)| test.id.as_str()).collect(), added(None))
            }
            Input::Reported { lease, report: Report::Discovered { tests }, worker } => {
                let is_wanted = self
                    .decided
                    .current(*lease, worker)
                    .is_some_and(|lease| matches!(lease.kind, LeaseKind::Discover(_)));
                let wanted = tests.iter().filter(|_| is_wanted).map(|test| test.id.as_str()).collect();
                (wanted, added(Some(lease.run)))
            }
            _ => (Vec::new(), added(None)),
        };
        if wanted != got {
            return broken("every requested test is known", format!("{wanted:?}, not {got:?}"));
        }
        Ok(())
    }

    /// One record, beside the input that brought it.
    fn consider(&mut self, now: Now, input: &Input, before: &Before, record: &Record) -> Kept {
        match record {
            Record::Leased { lease, worker, lane, .. } => {
                if !self.credits.remove(&(worker.clone(), *lane)) {
                    let how = format!("{worker} lane {} got {lease:?}", lane.0);
                    return broken("a lane is leased once each time that it is offered", how);
                }
                if self.unfit.contains(worker) {
                    return broken("a worker that takes no work gets none", format!("{worker} {lease:?}"));
                }
            }
            Record::AttemptEnded { run, attempt, ended, .. } => {
                self.truthful(now, input, before, (*run, *attempt), ended.outcome)?;
            }
            Record::BaselinePinned { run, .. } => {
                let by = before.reported.as_ref();
                let fits = by.is_some_and(|by| by.lease.run == *run && by.kind == LeaseKind::Baseline);
                if !fits && !matches!(input, Input::Submit { .. }) {
                    return broken("a baseline is who prepared it said", format!("run {run}: {input:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// An attempt ends as the holder of its lease says; or by the farm's fault; or not at all.
    fn truthful(
        &self,
        now: Now,
        input: &Input,
        before: &Before,
        (run, attempt): (RunId, AttemptId),
        outcome: Outcome,
    ) -> Kept {
        let how = || format!("run {run} {attempt:?} {outcome:?} by {input:?} at {}", now.mono_ms);
        let is_theirs = before.reported.as_ref().is_some_and(|by| by.attempts.contains(&attempt));
        let said = match input {
            Input::Reported { lease, report: Report::TestEnded { attempt: of, ended }, .. } => {
                (is_theirs && lease.run == run && *of == attempt).then_some(ended.outcome)
            }
            _ => None,
        };
        match outcome {
            Outcome::Passed | Outcome::Failed | Outcome::Skipped | Outcome::TimedOut
                if said != Some(outcome) =>
            {
                broken("an attempt ends as its holder said", how())
            }
            _ => Ok(()),
        }
    }

    /// Leases end in time, and never before it.
    fn timely(&self, now: Now, input: &Input, before: &Before, records: &[Record]) -> Kept {
        if !matches!(input, Input::Tick) {
            return Ok(());
        }
        if let Some(lease) = self.decided.leases.values().find(|lease| lease.expires_mono_ms <= now.mono_ms) {
            return broken("a lease without a heartbeat is over in time", format!("{:?}", lease.lease));
        }
        let is_over = |(_, expires): &(WorkerId, u64)| *expires <= now.mono_ms;
        let lost: BTreeSet<&WorkerId> = before.leases.values().filter(|l| is_over(l)).map(|l| &l.0).collect();
        let by_the_farm: BTreeSet<_> = records
            .iter()
            .filter_map(|record| match record {
                Record::AttemptEnded { run, attempt, ended, .. }
                    if ended.outcome == Outcome::Infrastructure =>
                {
                    self.decided.runs.get(run)?.attempts.get(attempt).map(|book| book.fence)
                }
                _ => None,
            })
            .collect();
        for fence in by_the_farm {
            // A worker in quarantine loses all it has, with the lease that was one too many.
            if before.leases.get(&fence).is_some_and(|lease| !is_over(lease) && !lost.contains(&lease.0)) {
                return broken(
                    "a lease lives as long as it was given",
                    format!("{fence:?} at {}", now.mono_ms),
                );
            }
        }
        Ok(())
    }

    /// A verdict comes with the attempt that brings it, and so does the cord.
    fn decisive(&self, records: &[Record]) -> Kept {
        let touched: BTreeSet<_> = records
            .iter()
            .filter_map(|record| match record {
                Record::AttemptEnded { run, attempt, .. } => Some((*run, *attempt)),
                _ => None,
            })
            .collect();
        for (id, attempt) in touched {
            let Some(run) = self.decided.runs.get(&id) else { continue };
            let Some(test) = run.attempts.get(&attempt).and_then(|book| run.tests.get(&book.test)) else {
                continue;
            };
            if test.verdict.is_none() && matches!(test.due, Some(Due::Verdict(_))) {
                let how = format!("run {id} {}: {:?}", test.id, test.due);
                return broken("a verdict comes when it is due", how);
            }
        }
        let judged: BTreeSet<_> = records
            .iter()
            .filter_map(|record| match record {
                Record::VerdictGiven { run, .. } => Some(*run),
                _ => None,
            })
            .collect();
        for id in judged {
            let Some(run) = self.decided.runs.get(&id).filter(|run| !run.is_over()) else { continue };
            let policy = &run.plan.policy;
            let pulled = (policy.fail_fast && run.failures > 0)
                || policy.max_failures.is_some_and(|most| run.failures >= most);
            if pulled {
                let how = format!("run {id} goes on after {} failures", run.failures);
                return broken("the cord stops the run", how);
            }
        }
        Ok(())
    }

    /// When all is over: one verdict for each test, nothing out.
    pub(crate) fn at_the_end(&self) -> Kept {
        for (id, run) in &self.durable.runs {
            if !run.is_over() {
                return broken("every run ends", format!("run {id} is {:?}", run.state));
            }
        }
        match self.durable.leases.values().next() {
            Some(lease) => broken("no lease outlives its run", format!("{:?}", lease.lease)),
            None => Ok(()),
        }
    }

    pub(crate) fn lost(&self) -> usize {
        let tests = self.durable.runs.values().flat_map(|run| run.tests.values());
        tests.filter(|test| test.verdict.is_none()).count()
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "broken promise: {} ({})", self.promise, self.how)
    }
}
