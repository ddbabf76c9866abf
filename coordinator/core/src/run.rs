//! One run as the core holds it: its tests, its queue of work, its leases. What each input does to it is in
//! `lib.rs`; what is here changes one run and knows no other.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{AttemptId, Lease, RunId, TestIx, WorkId, WorkerId};
use crate::model::{
    Candidate, LeaseKind, Outcome, Plan, RunEnd, RunHeader, RunState, SuitePlan, Verdict, Work,
};
use crate::units;
use crate::verdict::{Decision, decide};

/// How long a test without history is taken to run: long enough to be started early, when it may surprise.
const UNKNOWN_TEST_MS: u64 = 1_000;

/// A test in flight.
#[derive(Debug, Clone)]
pub(crate) struct Test {
    pub(crate) suite: usize,
    pub(crate) id: String,
    pub(crate) expected_ms: Option<u64>,
    pub(crate) failed_last: bool,
    pub(crate) verdict: Option<Verdict>,
    /// Ended attempts that count, oldest first.
    pub(crate) ended: Vec<Outcome>,
    /// Run time of the last attempt that counts.
    pub(crate) last_run_ms: Option<u64>,
    /// Since when it waits for a lane, on the monotonic clock.
    pub(crate) queued_mono_ms: u64,
}

/// Work that waits for a lane.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) kind: PendingKind,
    /// How often infrastructure failed it; tests count for themselves.
    pub(crate) infra_failures: usize,
    /// The worker that failed it last: another one is tried first.
    pub(crate) avoid: Option<WorkerId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PendingKind {
    Baseline,
    Discover(usize),
    Unit { suite: usize, tests: Vec<TestIx> },
}

/// The order of service within a run: baseline, then discovery, then units: failed ones first, then longest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    stage: u8,
    passed_before: bool,
    shorter_than: u64,
    work: WorkId,
}

/// A lease that is out.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) lease: Lease,
    pub(crate) worker: WorkerId,
    pub(crate) work: Pending,
    /// Attempts that have not ended.
    pub(crate) open: BTreeMap<AttemptId, TestIx>,
    pub(crate) expires_mono_ms: u64,
}

/// A run that has not ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) header: RunHeader,
    pub(crate) plan: Plan,
    pub(crate) state: RunState,
    pub(crate) baseline: Option<String>,
    pub(crate) undiscovered: BTreeSet<usize>,
    /// Suites whose discovery found nothing.
    pub(crate) empty_suites: Vec<String>,
    pub(crate) tests: Vec<Test>,
    pub(crate) pending: BTreeMap<Rank, Pending>,
    pub(crate) last_work: u64,
    pub(crate) last_attempt: u64,
    pub(crate) failures: u32,
    /// Tests without a verdict.
    pub(crate) open_tests: usize,
    /// Set once a person has been told that no worker is there.
    pub(crate) told_no_worker: bool,
    pub(crate) created_mono_ms: u64,
}

impl Run {
    pub(crate) fn new(id: RunId, header: RunHeader, plan: Plan, now_mono_ms: u64) -> Self {
        Self {
            id,
            header,
            plan,
            state: RunState::Queued,
            baseline: None,
            undiscovered: BTreeSet::new(),
            empty_suites: Vec::new(),
            tests: Vec::new(),
            pending: BTreeMap::new(),
            last_work: 0,
            last_attempt: 0,
            failures: 0,
            open_tests: 0,
            told_no_worker: false,
            created_mono_ms: now_mono_ms,
        }
    }

    pub(crate) fn suite(&self, suite: usize) -> &SuitePlan {
        &self.plan.suites[suite]
    }

    pub(crate) fn suite_named(&self, name: &str) -> Option<usize> {
        self.plan.suites.iter().position(|suite| suite.name == name)
    }

    /// The key that lanes must be clones of; empty for a run without a stack, `None` while it is not known.
    pub(crate) fn baseline_key(&self) -> Option<&str> {
        if self.plan.baseline_group.is_none() { Some("") } else { self.baseline.as_deref() }
    }

    /// Adds tests of one suite and returns their places.
    pub(crate) fn add_tests(&mut self, suite: usize, candidates: Vec<Candidate>, now: u64) -> Vec<TestIx> {
        candidates
            .into_iter()
            .map(|candidate| {
                let ix =
                    TestIx(u32::try_from(self.tests.len()).expect("discovery limits the number of tests"));
                self.tests.push(Test {
                    suite,
                    id: candidate.id,
                    expected_ms: candidate.expected_ms,
                    failed_last: candidate.failed_last,
                    verdict: None,
                    ended: Vec::new(),
                    last_run_ms: None,
                    queued_mono_ms: now,
                });
                self.open_tests += 1;
                ix
            })
            .collect()
    }

    /// Queues these tests of one suite, grouped as the suite says. They keep their order within a unit.
    pub(crate) fn queue_tests(&mut self, suite: usize, tests: &[TestIx]) {
        let grain = self.suite(suite).grain;
        let named: Vec<_> = tests
            .iter()
            .map(|ix| {
                let test = self.test(*ix);
                (test.id.as_str(), test.expected_ms.unwrap_or(UNKNOWN_TEST_MS))
            })
            .collect();
        for unit in units::group(&named, grain) {
            let tests = unit.into_iter().map(|place| tests[place]).collect();
            self.queue_unit(suite, tests, None);
        }
    }

    /// Queues one unit as it is.
    pub(crate) fn queue_unit(&mut self, suite: usize, tests: Vec<TestIx>, avoid: Option<WorkerId>) {
        self.queue(Pending { kind: PendingKind::Unit { suite, tests }, infra_failures: 0, avoid });
    }

    pub(crate) fn queue(&mut self, work: Pending) {
        self.last_work += 1;
        let rank = self.rank(&work.kind, WorkId(self.last_work));
        self.pending.insert(rank, work);
    }

    fn rank(&self, kind: &PendingKind, work: WorkId) -> Rank {
        let (stage, failed_before, expected_ms) = match kind {
            PendingKind::Baseline => (0, false, 0),
            PendingKind::Discover(_) => (1, false, 0),
            PendingKind::Unit { tests, .. } => {
                let tests = tests.iter().map(|ix| self.test(*ix));
                let failed = tests.clone().any(|test| test.failed_last || !test.ended.is_empty());
                (2, failed, tests.map(|test| test.expected_ms.unwrap_or(UNKNOWN_TEST_MS)).sum())
            }
        };
        Rank { stage, passed_before: !failed_before, shorter_than: u64::MAX - expected_ms, work }
    }

    pub(crate) fn test(&self, ix: TestIx) -> &Test {
        &self.tests[ix.0 as usize]
    }

    pub(crate) fn test_mut(&mut self, ix: TestIx) -> &mut Test {
        &mut self.tests[ix.0 as usize]
    }

    /// Takes the first piece of work that this worker may have now.
    pub(crate) fn take(
        &mut self,
        worker: &WorkerId,
        others_are_there: bool,
        baseline_is_free: bool,
    ) -> Option<(WorkId, Pending)> {
        let may_start = |work: &Pending| {
            let avoided = others_are_there && work.avoid.as_ref() == Some(worker);
            let ready = match work.kind {
                PendingKind::Baseline => baseline_is_free,
                PendingKind::Discover(_) | PendingKind::Unit { .. } => self.baseline_key().is_some(),
            };
            ready && !avoided
        };
        let rank = *self.pending.iter().find(|(_, work)| may_start(work))?.0;
        self.pending.remove(&rank).map(|work| (rank.work, work))
    }

    /// Opens the attempts of a unit and says the work as the worker is told it.
    pub(crate) fn open(&mut self, work: &Pending) -> (Work, BTreeMap<AttemptId, TestIx>) {
        let baseline = self.baseline_key().unwrap_or_default().to_owned();
        match &work.kind {
            PendingKind::Baseline => (Work::PrepareBaseline, BTreeMap::new()),
            PendingKind::Discover(suite) => {
                (Work::Discover { suite: self.suite(*suite).name.clone(), baseline }, BTreeMap::new())
            }
            PendingKind::Unit { suite, tests } => {
                let opened: Vec<_> = tests
                    .iter()
                    .map(|ix| {
                        self.last_attempt += 1;
                        (AttemptId(self.last_attempt), *ix, self.test(*ix).id.clone())
                    })
                    .collect();
                let open = opened.iter().map(|(attempt, test, _)| (*attempt, *test)).collect();
                (Work::Execute { suite: self.suite(*suite).name.clone(), baseline, tests: opened }, open)
            }
        }
    }

    /// Counts an ended attempt and decides its test.
    pub(crate) fn count(&mut self, ix: TestIx, outcome: Outcome, run_ms: Option<u64>) -> Decision {
        let retries = self.suite(self.test(ix).suite).retries;
        let test = self.test_mut(ix);
        if outcome != Outcome::Cancelled {
            test.ended.push(outcome);
        }
        if run_ms.is_some() {
            test.last_run_ms = run_ms;
        }
        let decision = decide(&test.ended, retries);
        if let Decision::Final(verdict) = decision {
            test.verdict = Some(verdict);
            self.open_tests -= 1;
            self.failures += u32::from(matches!(verdict, Verdict::Failed | Verdict::TimedOut));
        }
        decision
    }

    /// How the run ends now that nothing of it is open, or `None` where something is.
    pub(crate) fn end(&self) -> Option<(RunEnd, String)> {
        let baseline_open = self.plan.baseline_group.is_some() && self.baseline.is_none();
        if self.open_tests > 0 || !self.undiscovered.is_empty() || baseline_open {
            return None;
        }
        let any =
            |wanted: &[Verdict]| self.tests.iter().any(|t| t.verdict.is_some_and(|v| wanted.contains(&v)));
        Some(if any(&[Verdict::Failed, Verdict::TimedOut]) {
            (RunEnd::Failed, String::new())
        } else if any(&[Verdict::Infrastructure, Verdict::NotRun]) {
            (RunEnd::Incomplete, "the farm could not run every test".to_owned())
        } else if !self.empty_suites.is_empty() {
            (RunEnd::NoTests, format!("no tests found in suite {}", self.empty_suites.join(", ")))
        } else if self.tests.is_empty() {
            (RunEnd::NoTests, "no tests were chosen".to_owned())
        } else {
            (RunEnd::Passed, String::new())
        })
    }

    pub(crate) fn lease_kind(&self, work: &PendingKind) -> LeaseKind {
        match work {
            PendingKind::Baseline => LeaseKind::Baseline,
            PendingKind::Discover(suite) => LeaseKind::Discover(self.suite(*suite).name.clone()),
            PendingKind::Unit { .. } => LeaseKind::Unit,
        }
    }
}
