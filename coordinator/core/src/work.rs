//! What comes of a lease: reports, and its loss.

use crate::ids::{AttemptId, Fence, Lease, Now, RunId, TestIx, WorkerId};
use crate::model::{Candidate, Ended, FailureClass, Outcome, Record, Report, RunEnd};
use crate::run::{Held, Pending, PendingKind};
use crate::verdict::{Decision, INFRASTRUCTURE_ATTEMPTS_MAX};
use crate::{Core, Effect, Void, add_tests, end_attempt, note, persist};

/// One outcome, as it counts for the tests of a unit.
struct Counted {
    outcome: Outcome,
    run_ms: Option<u64>,
    /// The worker that should not have them next.
    avoid: Option<WorkerId>,
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
        if let Report::Footprint { attempts, dirtied_bytes } = report {
            let worker = worker.clone();
            persist(out, Record::Footprint { lease, worker, attempts, dirtied_bytes });
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
            (PendingKind::Baseline, Report::BaselineReady { key, manifest }) => {
                let at_unix_ms = now.unix_ms;
                persist(out, Record::BaselinePublished { key: key.clone(), manifest, at_unix_ms });
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

    fn close(&mut self, fence: Fence, out: &mut Vec<Effect>) -> Option<Held> {
        let held = self.leases.remove(&fence)?;
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
        if tests.is_empty() {
            let name = run.suite(suite).name.clone();
            run.empty_suites.push(name);
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
        let (run, worker) = (held.lease.run, held.worker.clone());
        // A resent report of an attempt that has ended under this very lease is heard twice and counted once.
        let Some(test) = held.open.remove(&attempt) else { return Ok(()) };
        let (outcome, run_ms) = (ended.outcome, Some(ended.run_ms));
        persist(out, Record::AttemptEnded { run, attempt, ended, at_unix_ms: now.unix_ms });
        let failed_here = matches!(outcome, Outcome::Infrastructure).then_some(worker);
        self.decide(now, run, &[test], Counted { outcome, run_ms, avoid: failed_here }, out);
        Ok(())
    }

    fn unit_ended(&mut self, now: Now, fence: Fence, out: &mut Vec<Effect>) {
        let Some(held) = self.close(fence, out) else { return };
        let not_run: Vec<_> = held.open.values().copied().collect();
        for attempt in held.open.keys() {
            end_attempt(now, held.lease.run, *attempt, Outcome::Cancelled, "its unit ended before it", out);
        }
        let counted = Counted { outcome: Outcome::Cancelled, run_ms: None, avoid: None };
        self.decide(now, held.lease.run, &not_run, counted, out);
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
        for attempt in held.open.keys() {
            end_attempt(now, id, *attempt, Outcome::Infrastructure, reason, out);
        }
        let lost: Vec<_> = held.open.values().copied().collect();
        match held.work.kind {
            PendingKind::Unit { .. } => {
                if !lost.is_empty() {
                    note(id, now, format!("{} tests to run again: {reason}", lost.len()), out);
                }
                let avoid = Some(held.worker);
                let counted = Counted { outcome: Outcome::Infrastructure, run_ms: None, avoid };
                self.decide(now, id, &lost, counted, out);
            }
            PendingKind::Baseline | PendingKind::Discover(_) => self.requeue(now, held, reason, out),
        }
        self.end_if_done(now, id, out);
    }

    fn requeue(&mut self, now: Now, held: Held, reason: &str, out: &mut Vec<Effect>) {
        let id = held.lease.run;
        let Some(run) = self.runs.get_mut(&id) else { return };
        let infra_failures = held.work.infra_failures + 1;
        if infra_failures >= INFRASTRUCTURE_ATTEMPTS_MAX {
            let reason = format!("given up after {infra_failures} workers: {reason}");
            self.stop(now, id, RunEnd::Incomplete, reason, out);
            return;
        }
        run.queue(Pending { kind: held.work.kind, infra_failures, avoid: Some(held.worker) });
        note(id, now, format!("to be tried again: {reason}"), out);
    }

    /// Counts one outcome for each of these tests of one unit; queues those that must run again, together and in order.
    fn decide(&mut self, now: Now, id: RunId, tests: &[TestIx], counted: Counted, out: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Counted { outcome, run_ms, avoid } = counted;
        let mut again = Vec::new();
        for test in tests {
            match run.count(*test, outcome, run_ms) {
                Decision::Final(verdict) => {
                    let run_ms = run.test(*test).last_run_ms;
                    persist(out, Record::VerdictGiven { run: id, test: *test, verdict, run_ms });
                }
                Decision::RunAgain => {
                    run.test_mut(*test).queued_mono_ms = now.mono_ms;
                    again.push(*test);
                }
            }
        }
        if let Some(first) = again.first() {
            let suite = run.test(*first).suite;
            run.queue_unit(suite, again, avoid);
        }
        let failures = run.failures;
        if run.plan.policy.pulls_at(failures) && run.open_tests > 0 {
            let reason = format!("the cord was pulled after {failures} failed tests");
            self.stop(now, id, RunEnd::Incomplete, reason, out);
        }
    }
}
