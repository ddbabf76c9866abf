//! What comes of a lease: reports, and its loss.

use std::collections::BTreeSet;

use crate::ids::{AttemptId, Fence, Lease, Now, RunId, TestIx, WorkerId};
use crate::model::{Candidate, Ended, FailureClass, Outcome, Record, Report, RunEnd};
use crate::queue::PendingKind;
use crate::run::{Held, Run};
use crate::verdict::{Decision, INFRASTRUCTURE_ATTEMPTS_MAX};
use crate::{Core, Effect, Void, add_tests, end_attempt, note, persist};

/// So many workers are named where a test took them down.
const NAMED_MAX: usize = 8;

/// Attempts that ended under one lease, all in one way.
#[derive(Clone, Copy)]
struct Counted<'a> {
    attempts: &'a [(AttemptId, TestIx)],
    outcome: Outcome,
    run_ms: Option<u64>,
    worker: &'a WorkerId,
}

impl Core {
    pub(crate) fn report(
        &mut self,
        now: Now,
        worker: &WorkerId,
        lease: Lease,
        report: Report,
        out: &mut Vec<Effect>,
    ) {
        if let Report::Footprint { attempts, dirtied_bytes, changes } = report {
            let worker = worker.clone();
            persist(out, Record::Footprint { lease, worker, attempts, dirtied_bytes, changes });
            return;
        }
        if report == Report::UnitEnded && !self.leases.contains_key(&lease.fence) {
            // Its last result may have ended the run, and the lease with it.
            return;
        }
        let accepted = self.check(worker, lease).and_then(|()| self.accept(now, lease, report, out));
        if let Err(reason) = accepted {
            out.push(Effect::Superseded { worker: worker.clone(), lease, reason });
        }
    }

    fn accept(&mut self, now: Now, lease: Lease, report: Report, out: &mut Vec<Effect>) -> Result<(), Void> {
        let held = self.leases.get_mut(&lease.fence).ok_or(Void::NotCurrent)?;
        held.expires_mono_ms = now.mono_ms + self.config.lease_ttl_ms;
        match (&held.work.kind, report) {
            (PendingKind::Baseline, Report::BaselineReady { key, manifest, replaces }) => {
                let at_unix_ms = now.unix_ms;
                persist(out, Record::BaselinePublished { key: key.clone(), manifest, at_unix_ms, replaces });
                self.close(lease.fence, out);
                self.baseline_ready(lease.run, key, out);
            }
            (PendingKind::Discover(suite), Report::Discovered { tests }) => {
                let suite = *suite;
                self.close(lease.fence, out);
                self.discovered(now, lease.run, suite, tests, out);
            }
            (PendingKind::Unit { .. }, Report::TestEnded { attempt, ended }) => {
                self.test_ended(now, lease.fence, attempt, ended, out)?;
            }
            (PendingKind::Unit { .. }, Report::UnitEnded) => self.unit_ended(now, lease.fence, out),
            (_, Report::WorkFailed { class, reason, log_zstd }) => {
                let run = lease.run;
                if !log_zstd.is_empty() {
                    let text = format!("output of what failed: {reason}");
                    persist(out, Record::Noted { run, text, log_zstd, at_unix_ms: now.unix_ms });
                }
                self.work_failed(now, lease, class, reason, out);
            }
            _ => return Err(Void::NotCovered),
        }
        self.end_if_done(now, lease.run, out);
        Ok(())
    }

    /// Takes a lease away; its open attempts are the caller's to end.
    pub(crate) fn close(&mut self, fence: Fence, out: &mut Vec<Effect>) -> Option<Held> {
        let held = self.leases.remove(&fence)?;
        self.workers.release(&held.worker, fence);
        if let Some(run) = self.runs.get_mut(&held.lease.run) {
            run.leases.remove(&fence);
            for test in held.open.values() {
                run.take_in(*test, fence);
            }
        }
        persist(out, Record::LeaseClosed { fence });
        Some(held)
    }

    fn baseline_ready(&mut self, id: RunId, key: String, out: &mut Vec<Effect>) {
        if let Some(run) = self.runs.get_mut(&id) {
            persist(out, Record::BaselinePinned { run: id, key: key.clone() });
            run.baseline = Some(key);
        }
    }

    fn discovered(
        &mut self,
        now: Now,
        id: RunId,
        suite: usize,
        tests: Vec<Candidate>,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.undiscovered.remove(&suite);
        let plan = run.suite(suite).clone();
        let selection = &run.plan.asked.selection;
        let tests: Vec<_> =
            tests.into_iter().filter(|test| selection.has(&plan.name, plan.grain, &test.id)).collect();
        // A suite of which nothing was chosen is not an empty one.
        if tests.is_empty() && selection.is_all() {
            run.empty_suites.push(plan.name);
        }
        add_tests(run, suite, tests, now, out);
    }

    fn test_ended(
        &mut self,
        now: Now,
        fence: Fence,
        attempt: AttemptId,
        ended: Ended,
        out: &mut Vec<Effect>,
    ) -> Result<(), Void> {
        let held = self.leases.get_mut(&fence).ok_or(Void::NotCurrent)?;
        if !held.covers(attempt) {
            return Err(Void::NotCovered);
        }
        let (id, worker) = (held.lease.run, held.worker.clone());
        // A resent report of an attempt that has ended under this very lease is heard twice and counted once; so is one
        // of a test whose other attempt was quicker.
        let Some(test) = held.open.remove(&attempt) else { return Ok(()) };
        if let Some(run) = self.runs.get_mut(&id) {
            run.take_in(test, fence);
        }
        let (outcome, run_ms) = (ended.outcome, Some(ended.run_ms));
        persist(out, Record::AttemptEnded { run: id, attempt, ended, at_unix_ms: now.unix_ms });
        let counted = Counted { attempts: &[(attempt, test)], outcome, run_ms, worker: &worker };
        self.decide(now, id, counted, out);
        Ok(())
    }

    fn unit_ended(&mut self, now: Now, fence: Fence, out: &mut Vec<Effect>) {
        let Some(held) = self.close(fence, out) else { return };
        self.end_open(now, &held, Outcome::Cancelled, "its unit ended before it", out);
    }

    fn work_failed(
        &mut self,
        now: Now,
        lease: Lease,
        class: FailureClass,
        reason: String,
        out: &mut Vec<Effect>,
    ) {
        match class {
            FailureClass::Infrastructure => self.lose(now, lease.fence, &reason, out),
            FailureClass::Baseline => self.stop(now, lease.run, RunEnd::BaselineFailed, reason, out),
            FailureClass::Config => self.stop(now, lease.run, RunEnd::ConfigError, reason, out),
        }
    }

    /// A lease came to nothing by the farm's fault: its attempts count as infrastructure, its work goes elsewhere.
    pub(crate) fn lose(&mut self, now: Now, fence: Fence, reason: &str, out: &mut Vec<Effect>) {
        let Some(held) = self.close(fence, out) else { return };
        let id = held.lease.run;
        match held.work.kind {
            PendingKind::Unit { .. } => {
                if !held.open.is_empty() {
                    note(id, now, format!("{} tests to run again: {reason}", held.open.len()), out);
                }
                self.end_open(now, &held, Outcome::Infrastructure, reason, out);
            }
            PendingKind::Baseline | PendingKind::Discover(_) => self.requeue(now, held, reason, out),
        }
        self.end_if_done(now, id, out);
    }

    /// Ends all open attempts of a closed lease in one way.
    fn end_open(&mut self, now: Now, held: &Held, outcome: Outcome, why: &str, out: &mut Vec<Effect>) {
        let id = held.lease.run;
        for attempt in held.open.keys() {
            end_attempt(now, id, *attempt, outcome, why, out);
        }
        let attempts: Vec<_> = held.open.iter().map(|(attempt, test)| (*attempt, *test)).collect();
        let counted = Counted { attempts: &attempts, outcome, run_ms: None, worker: &held.worker };
        self.decide(now, id, counted, out);
    }

    fn requeue(&mut self, now: Now, held: Held, reason: &str, out: &mut Vec<Effect>) {
        let id = held.lease.run;
        let Some(run) = self.runs.get_mut(&id) else { return };
        let infra_failures = held.work.infra_failures + 1;
        let kind = run.lease_kind(&held.work.kind);
        persist(out, Record::WorkLost { run: id, kind, worker: held.worker.clone() });
        if infra_failures >= INFRASTRUCTURE_ATTEMPTS_MAX {
            let reason = format!("given up after {infra_failures} workers: {reason}");
            self.stop(now, id, RunEnd::Incomplete, reason, out);
            return;
        }
        run.queue_first_again(now.mono_ms, held.work, held.worker);
        note(id, now, format!("to be tried again: {reason}"), out);
    }

    /// Counts ended attempts of one unit for their tests; queues together and in order those that must run again.
    fn decide(&mut self, now: Now, id: RunId, counted: Counted<'_>, out: &mut Vec<Effect>) {
        let Counted { attempts, outcome, run_ms, worker } = counted;
        let (mut again, mut led) = (Vec::new(), Vec::new());
        for (attempt, test) in attempts {
            let Some(run) = self.runs.get_mut(&id) else { return };
            if outcome == Outcome::Infrastructure {
                run.lost_on.entry(*test).or_default().insert(worker.clone());
            }
            match run.count(*test, *attempt, outcome, run_ms) {
                Decision::Final(verdict) => {
                    // An experiment is no part of a test's history.
                    let run_ms = run.test(*test).last_run_ms.filter(|_| !run.plan.asked.trial);
                    let followers = run.followers.remove(test).unwrap_or_default();
                    persist(out, Record::VerdictGiven { run: id, test: *test, verdict, run_ms });
                    if outcome == Outcome::Infrastructure {
                        self.name_the_poison(now, id, *test, out);
                    }
                    self.cancel_others(now, id, *test, out);
                    if !followers.is_empty() {
                        led.push((*test, verdict, followers));
                    }
                }
                // Where another attempt of it is out, that one is the retry.
                Decision::RunAgain if !run.lacks_work(*test) => {}
                Decision::RunAgain => {
                    run.test_mut(*test).queued_mono_ms = now.mono_ms;
                    again.push(*test);
                }
            }
        }
        if let Some(run) = self.runs.get_mut(&id)
            && let Some(first) = again.first()
        {
            let suite = run.test(*first).suite;
            run.queue_again(now.mono_ms, suite, again);
        }
        for (test, verdict, followers) in led {
            self.lead(now, id, test, verdict, followers, out);
        }
        self.mind(now, id, worker, attempts, outcome, out);
        self.pull_the_cord(now, id, out);
    }

    pub(crate) fn pull_the_cord(&mut self, now: Now, id: RunId, out: &mut Vec<Effect>) {
        let Some(run) = self.runs.get(&id) else { return };
        let failures = run.failures;
        let more_to_come = run.open_tests > 0 || !run.undiscovered.is_empty();
        if run.plan.policy.pulls_at(failures) && more_to_come {
            let reason = format!("the cord was pulled after {failures} failed tests");
            self.stop(now, id, RunEnd::Incomplete, reason, out);
        }
    }

    /// A test is decided: its other attempts are not worth going on with, and do not count.
    fn cancel_others(&mut self, now: Now, id: RunId, test: TestIx, out: &mut Vec<Effect>) {
        let Some(others) = self.runs.get_mut(&id).and_then(|run| run.out.remove(&test)) else { return };
        for (fence, attempt) in others {
            let why = "another attempt of this test was quicker";
            end_attempt(now, id, attempt, Outcome::Cancelled, why, out);
            let Some(held) = self.leases.get_mut(&fence) else { continue };
            held.open.remove(&attempt);
            if held.open.is_empty() {
                let (worker, lease) = (held.worker.clone(), held.lease);
                self.close(fence, out);
                out.push(Effect::Revoke { worker, lease, reason: why.to_owned() });
            }
        }
    }

    fn name_the_poison(&mut self, now: Now, id: RunId, test: TestIx, out: &mut Vec<Effect>) {
        let Some(run) = self.runs.get(&id) else { return };
        let lost_on: Vec<_> = run.lost_on.get(&test).into_iter().flatten().map(|w| w.0.as_str()).collect();
        let some = lost_on[..lost_on.len().min(NAMED_MAX)].join(", ");
        let text = format!(
            "{:?} is given up: each of {INFRASTRUCTURE_ATTEMPTS_MAX} attempts came to nothing, on {some}",
            run.test(test).id
        );
        note(id, now, text, out);
    }

    /// Looks at how a worker fares; one that is not to be trusted loses what it has and gets nothing for a while.
    fn mind(
        &mut self,
        now: Now,
        id: RunId,
        worker: &WorkerId,
        attempts: &[(AttemptId, TestIx)],
        outcome: Outcome,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        // An experiment sends to one worker what is known to fail.
        if run.plan.asked.trial && outcome != Outcome::Infrastructure {
            return;
        }
        let Run { trust, tests, .. } = run;
        let judged = attempts
            .iter()
            .filter_map(|(_, test)| trust.judge(worker, &tests[test.0 as usize].id, outcome))
            .last();
        let Some(reason) = judged else { return };
        note(id, now, format!("worker {worker} is {reason}"), out);
        let until = now.mono_ms + self.config.quarantine_ms;
        self.workers.quarantine(worker, reason.clone(), until);
        let leases: BTreeSet<_> = self.workers.leases(worker).collect();
        for fence in leases {
            let Some(held) = self.leases.get(&fence) else { continue };
            let lease = held.lease;
            self.lose(now, fence, &format!("worker {worker} is {reason}"), out);
            out.push(Effect::Revoke { worker: worker.clone(), lease, reason: reason.clone() });
        }
    }
}
