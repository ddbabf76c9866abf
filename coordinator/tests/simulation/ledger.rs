//! A second set of books, kept from the records alone: runs, tests, attempts, leases. It refuses what must never be
//! written, whatever the core believes. Two of them are kept: one of all that the core decided, one of what is durable.

use std::collections::{BTreeMap, BTreeSet};

use andon_core::ids::{AttemptId, Fence, Lease, RunId, TestIx, WorkerId};
use andon_core::model::{Ended, LeaseKind, Outcome, Plan, Record, RunEnd, RunState, Verdict};

use crate::rule::{Budget, Due, Tally};

/// A promise that was broken: which, and how it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) promise: &'static str,
    pub(crate) how: String,
}

pub(crate) type Kept = Result<(), Broken>;

pub(crate) fn broken(promise: &'static str, how: impl Into<String>) -> Kept {
    Err(Broken { promise, how: how.into() })
}

#[derive(Debug, Clone)]
pub(crate) struct TestBook {
    pub(crate) suite: String,
    pub(crate) id: String,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) tally: Tally,
    pub(crate) due: Option<Due>,
    pub(crate) open: BTreeSet<AttemptId>,
}

#[derive(Debug, Clone)]
pub(crate) struct AttemptBook {
    pub(crate) test: TestIx,
    pub(crate) fence: Fence,
    pub(crate) outcome: Option<Outcome>,
}

#[derive(Debug, Clone)]
pub(crate) struct RunBook {
    pub(crate) plan: Plan,
    pub(crate) project: String,
    pub(crate) state: RunState,
    pub(crate) baseline: Option<String>,
    pub(crate) suites: BTreeSet<String>,
    pub(crate) tests: BTreeMap<TestIx, TestBook>,
    pub(crate) attempts: BTreeMap<AttemptId, AttemptBook>,
    /// Retries charged to the run's budget: at least and at most, where a restart may have counted otherwise.
    pub(crate) retries: (u32, u32),
    pub(crate) failures: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct LeaseBook {
    pub(crate) lease: Lease,
    pub(crate) worker: WorkerId,
    pub(crate) kind: LeaseKind,
    pub(crate) attempts: BTreeSet<AttemptId>,
    /// By the checks' own reckoning.
    pub(crate) expires_mono_ms: u64,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) runs: BTreeMap<RunId, RunBook>,
    pub(crate) leases: BTreeMap<Fence, LeaseBook>,
    pub(crate) last_fence: u64,
    pub(crate) verdicts: u64,
    pub(crate) doubled: u64,
}

impl RunBook {
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, RunState::Ended(_))
    }

    fn budget(&self) -> Budget {
        match self.plan.policy.retry_budget {
            None => Budget::Left,
            Some(most) if self.retries.1 < most => Budget::Left,
            Some(most) if self.retries.0 >= most => Budget::Spent,
            Some(_) => Budget::Unsure,
        }
    }
}

impl Ledger {
    /// The lease that is out under this fence, where everything of it fits.
    pub(crate) fn current(&self, lease: Lease, worker: &WorkerId) -> Option<&LeaseBook> {
        self.leases.get(&lease.fence).filter(|known| known.lease == lease && known.worker == *worker)
    }

    /// Attempts under this lease that have not ended.
    pub(crate) fn open_attempts(&self, lease: &LeaseBook) -> Vec<AttemptId> {
        let Some(run) = self.runs.get(&lease.lease.run) else { return Vec::new() };
        let is_open = |id: &&AttemptId| run.attempts.get(id).is_some_and(|known| known.outcome.is_none());
        lease.attempts.iter().filter(is_open).copied().collect()
    }

    fn run(&mut self, run: RunId, what: &str) -> Result<&mut RunBook, Broken> {
        match self.runs.get_mut(&run) {
            Some(book) if book.is_over() => {
                Err(Broken { promise: "an ended run never changes", how: format!("run {run}: {what}") })
            }
            Some(book) => Ok(book),
            None => {
                Err(Broken { promise: "records are of runs that exist", how: format!("run {run}: {what}") })
            }
        }
    }

    /// Takes one record. `plan` is asked for the plan of a new run.
    pub(crate) fn record(&mut self, record: &Record, plan: impl Fn(&str) -> Option<Plan>) -> Kept {
        match record {
            Record::RunCreated { run, header, .. } => {
                let Some(plan) = plan(&header.spec_digest) else {
                    return broken("runs are of wishes", format!("run {run} was asked for by nobody"));
                };
                let book = RunBook {
                    plan,
                    project: header.project.clone(),
                    state: RunState::Queued,
                    baseline: None,
                    suites: BTreeSet::new(),
                    tests: BTreeMap::new(),
                    attempts: BTreeMap::new(),
                    retries: (0, 0),
                    failures: 0,
                };
                if self.runs.insert(*run, book).is_some() {
                    return broken("a run's number is given once", format!("run {run}"));
                }
            }
            Record::RunMoved { run, state, .. } => self.moved(*run, *state)?,
            Record::BaselinePinned { run, key } => {
                let book = self.run(*run, "a baseline")?;
                if book.baseline.replace(key.clone()).is_some_and(|before| before != *key) {
                    return broken("a run keeps its baseline", format!("run {run} got another"));
                }
            }
            Record::TestsAdded { run, suite, tests } => {
                let book = self.run(*run, "tests")?;
                book.suites.insert(suite.clone());
                for (ix, id) in tests {
                    let test = TestBook {
                        suite: suite.clone(),
                        id: id.clone(),
                        verdict: None,
                        tally: Tally::default(),
                        due: None,
                        open: BTreeSet::new(),
                    };
                    if book.tests.insert(*ix, test).is_some() {
                        return broken("a test is added once", format!("run {run} {ix:?}"));
                    }
                }
            }
            Record::Leased { lease, kind, worker, attempts, .. } => {
                let attempts = attempts.iter().map(|(attempt, test, ..)| (*attempt, *test)).collect();
                self.leased(*lease, kind, worker, attempts)?;
            }
            Record::LeaseClosed { fence } => {
                let known = self.leases.remove(fence);
                known
                    .map(|_| ())
                    .ok_or_else(|| Broken { promise: "a lease is closed once", how: format!("{fence:?}") })?;
            }
            Record::AttemptEnded { run, attempt, ended, .. } => self.attempt_ended(*run, *attempt, ended)?,
            Record::AttemptShared { run, attempt, test, of, of_attempt } => {
                self.shared((*run, *attempt, *test), (*of, *of_attempt))?;
            }
            Record::VerdictGiven { run, test, verdict, .. } => self.verdict(*run, *test, *verdict)?,
            // Notes, footprints, baselines, and what may yet come, decide nothing about tests.
            _ => {}
        }
        Ok(())
    }

    fn moved(&mut self, id: RunId, state: RunState) -> Kept {
        let run = self.run(id, "another state")?;
        let RunState::Ended(end) = state else {
            run.state = state;
            return Ok(());
        };
        if let Some((attempt, _)) = run.attempts.iter().find(|(_, attempt)| attempt.outcome.is_none()) {
            return broken("an ended run has nothing out", format!("run {id} {attempt:?}"));
        }
        if let Some((test, book)) = run.tests.iter().find(|(_, test)| test.verdict.is_none()) {
            return broken("no verdict is lost", format!("run {id} ended, {test:?} {} has none", book.id));
        }
        run.state = state;
        let any =
            |wanted: &[Verdict]| run.tests.values().any(|t| t.verdict.is_some_and(|v| wanted.contains(&v)));
        let unsteady = run.plan.asked.repeat.is_wanted() && any(&[Verdict::Flaky]);
        let failed = unsteady || any(&[Verdict::Failed, Verdict::TimedOut]);
        let not_known = any(&[Verdict::NotRun, Verdict::Infrastructure]);
        let complete = run.plan.suites.len() == run.suites.len();
        let truthful = match end {
            RunEnd::Passed => !failed && !not_known && !run.tests.is_empty(),
            RunEnd::Failed => failed,
            RunEnd::NoTests => !failed && !not_known && complete,
            RunEnd::ConfigError | RunEnd::BaselineFailed => true,
            RunEnd::Incomplete => not_known || !complete || run.tests.is_empty(),
        };
        if !truthful {
            return broken("a run ends as its tests did", format!("run {id} is {end:?}"));
        }
        self.leases.retain(|_, lease| lease.lease.run != id);
        Ok(())
    }

    fn leased(
        &mut self,
        lease: Lease,
        kind: &LeaseKind,
        worker: &WorkerId,
        attempts: Vec<(AttemptId, TestIx)>,
    ) -> Kept {
        if lease.fence.0 <= self.last_fence {
            return broken("fences grow", format!("{:?} after {}", lease.fence, self.last_fence));
        }
        self.last_fence = lease.fence.0;
        let others = self.leases.values().filter(|other| other.lease.run == lease.run);
        let same_work = others.filter(|other| other.kind == *kind && *kind != LeaseKind::Unit).count();
        let run = self.run(lease.run, "a lease")?;
        if same_work > 0 {
            return broken("no work is held by two", format!("run {} {kind:?}", lease.run));
        }
        if *kind == LeaseKind::Unit && attempts.is_empty() {
            return broken("a unit has tests", format!("{lease:?}"));
        }
        let repeat = run.plan.asked.repeat;
        let places_max = if run.plan.policy.hedge { 2 } else { repeat.times as usize };
        for (attempt, test) in &attempts {
            let at = || format!("run {} {test:?} {attempt:?}", lease.run);
            let book = AttemptBook { test: *test, fence: lease.fence, outcome: None };
            if run.attempts.insert(*attempt, book).is_some() {
                return broken("an attempt is opened once", at());
            }
            let Some(test) = run.tests.get_mut(test) else {
                return broken("attempts are of tests that exist", at());
            };
            if test.verdict.is_some() {
                return broken("a decided test does not run again", at());
            }
            test.open.insert(*attempt);
            if test.open.len() > places_max {
                return broken("no work is held by two", at());
            }
        }
        let attempts = attempts.into_iter().map(|(attempt, _)| attempt).collect();
        let (worker, kind) = (worker.clone(), kind.clone());
        let book = LeaseBook { lease, worker, kind, attempts, expires_mono_ms: u64::MAX };
        self.leases.insert(lease.fence, book);
        Ok(())
    }

    fn attempt_ended(&mut self, id: RunId, attempt: AttemptId, ended: &Ended) -> Kept {
        let at = || format!("run {id} {attempt:?} {:?}", ended.outcome);
        let run = self.run(id, "an attempt")?;
        let Some(book) = run.attempts.get_mut(&attempt) else {
            return broken("attempts end that were opened", at());
        };
        if book.outcome.replace(ended.outcome).is_some() {
            return broken("an ended attempt never changes", at());
        }
        let test = book.test;
        if let Some(test) = run.tests.get_mut(&test) {
            test.open.remove(&attempt);
        }
        let decided = run.tests.get(&test).is_some_and(|test| test.verdict.is_some());
        if decided && ended.outcome != Outcome::Cancelled {
            return broken("an attempt after the verdict does not count", at());
        }
        run.count(test, ended.outcome, false);
        Ok(())
    }

    fn shared(
        &mut self,
        (id, attempt, test): (RunId, AttemptId, TestIx),
        (of, of_attempt): (RunId, AttemptId),
    ) -> Kept {
        let at = || format!("run {id} {attempt:?} is {of_attempt:?} of run {of}");
        let leader = self.runs.get(&of).and_then(|run| {
            let attempt = run.attempts.get(&of_attempt)?;
            let test = run.tests.get(&attempt.test)?;
            Some((
                attempt.outcome?,
                attempt.fence,
                (run.project.clone(), test.suite.clone(), test.id.clone()),
            ))
        });
        let Some((outcome, fence, executed)) = leader else {
            return broken("shared attempts have ended", at());
        };
        let run = self.run(id, "a shared attempt")?;
        let wanted =
            run.tests.get(&test).map(|book| (run.project.clone(), book.suite.clone(), book.id.clone()));
        if wanted.as_ref() != Some(&executed) {
            return broken("shared attempts are of the same test", at());
        }
        let book = AttemptBook { test, fence, outcome: Some(outcome) };
        if run.attempts.insert(attempt, book).is_some() {
            return broken("an attempt is opened once", at());
        }
        run.count(test, outcome, true);
        Ok(())
    }

    fn verdict(&mut self, id: RunId, ix: TestIx, verdict: Verdict) -> Kept {
        let run = self.run(id, "a verdict")?;
        let Some(test) = run.tests.get_mut(&ix) else {
            return broken("verdicts are of tests that exist", format!("run {id} {ix:?}"));
        };
        let at = format!("run {id} {ix:?} {}: {verdict:?}, due {:?}", test.id, test.due);
        if test.verdict.replace(verdict).is_some() {
            self.doubled += 1;
            return broken("one verdict a test", at);
        }
        let fits = match test.due {
            Some(Due::Verdict(due)) => due == verdict,
            Some(Due::Unsure(due)) => due == verdict || verdict == Verdict::NotRun,
            Some(Due::Attempt) | None => verdict == Verdict::NotRun,
        };
        if !fits {
            return broken("a verdict follows from its attempts", at);
        }
        run.failures += u32::from(matches!(verdict, Verdict::Failed | Verdict::TimedOut));
        self.verdicts += 1;
        Ok(())
    }
}

impl RunBook {
    fn count(&mut self, ix: TestIx, outcome: Outcome, shared: bool) {
        let budget = self.budget();
        let Some(test) = self.tests.get_mut(&ix) else { return };
        let retries = self.plan.suites.iter().find(|suite| suite.name == test.suite);
        let retries = retries.map_or(0, |suite| suite.retries);
        let repeat = self.plan.asked.repeat;
        let due = match shared {
            true => test.tally.count_shared(outcome, retries),
            false if repeat.is_wanted() => test.tally.count_repeat(outcome, repeat),
            false => test.tally.count(outcome, retries, budget),
        };
        test.due = Some(due);
        if matches!(outcome, Outcome::Failed | Outcome::TimedOut) {
            // A restart counts from the attempts, and cannot tell a failure that was retried from one that was not.
            let retried = due == Due::Attempt && !shared;
            self.retries.0 += u32::from(retried);
            self.retries.1 += u32::from(!matches!(due, Due::Verdict(_)) || shared);
        }
        let was_retried = test.tally.failures > 0 && outcome != Outcome::Cancelled;
        if was_retried && matches!(due, Due::Verdict(Verdict::Failed | Verdict::TimedOut)) {
            let by_other = matches!(outcome, Outcome::Infrastructure | Outcome::Skipped);
            self.retries.0 = self.retries.0.saturating_sub(u32::from(by_other));
        }
    }
}
