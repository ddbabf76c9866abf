//! One run as the core holds it: its tests, its queue of work, its leases. What each input does to it is in
//! `lib.rs`; what is here changes one run and knows no other.

use std::collections::{BTreeMap, BTreeSet};

use crate::estimate::{ClassIx, Classes, Estimates, Guess, UNKNOWN_MS};
use crate::ids::{AttemptId, Fence, LaneIx, Lease, RunId, TestIx, WorkId, WorkerId};
use crate::model::{
    Candidate, Grain, LeaseKind, Outcome, Plan, RunEnd, RunHeader, RunState, SuitePlan, Verdict, Work,
};
use crate::queue::{Pending, PendingKind, Queue};
use crate::shares::Flow;
use crate::trust::Trust;
use crate::units;
use crate::verdict::{Decision, decide, decide_repeated};

/// How long work that a worker failed waits for another one before it takes the same again.
const CHOOSY_MS: u64 = 60_000;
/// Of a test that is repeated so many attempts wait or are out at a time, where it is a unit by itself.
const REPEATS_AHEAD: usize = 16;

/// A test in flight.
#[derive(Debug, Clone)]
pub(crate) struct Test {
    pub(crate) suite: usize,
    pub(crate) id: String,
    pub(crate) expected_ms: u64,
    /// Where it is new: what is learned of this class in this run is about it.
    pub(crate) new_in: Option<ClassIx>,
    pub(crate) failed_last: bool,
    /// A failure of it blocks nothing.
    pub(crate) excused: bool,
    pub(crate) verdict: Option<Verdict>,
    /// Ended attempts that count, oldest first.
    pub(crate) ended: Vec<(AttemptId, Outcome)>,
    /// Run time of the last attempt that counts.
    pub(crate) last_run_ms: Option<u64>,
    /// Since when it waits for a lane, on the monotonic clock.
    pub(crate) queued_mono_ms: u64,
    /// How many pieces of waiting work it is in.
    pub(crate) waiting: usize,
}

/// A lease that is out.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) lease: Lease,
    pub(crate) worker: WorkerId,
    pub(crate) lane: LaneIx,
    pub(crate) work: Pending,
    /// Attempts that have not ended.
    pub(crate) open: BTreeMap<AttemptId, TestIx>,
    /// The first and the last attempt that it covers; `None` where only the open ones are known.
    pub(crate) covers: Option<(AttemptId, AttemptId)>,
    pub(crate) granted_mono_ms: u64,
    pub(crate) expires_mono_ms: u64,
}

impl Held {
    /// False for an attempt that was never of this lease.
    pub(crate) fn covers(&self, attempt: AttemptId) -> bool {
        self.covers.is_none_or(|(first, last)| (first..=last).contains(&attempt))
    }
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
    pub(crate) queue: Queue,
    pub(crate) leases: BTreeSet<Fence>,
    /// Where each test's open attempts are; more than one where it was hedged. No entry is empty.
    pub(crate) out: BTreeMap<TestIx, Vec<(Fence, AttemptId)>>,
    /// Tests of other runs that take what comes of a test of this one.
    pub(crate) followers: BTreeMap<TestIx, Vec<(RunId, TestIx)>>,
    /// Workers that failed a test by the farm's fault, or were lost with it.
    pub(crate) lost_on: BTreeMap<TestIx, BTreeSet<WorkerId>>,
    /// Those with new tests.
    classes: Classes,
    pub(crate) trust: Trust,
    pub(crate) last_work: u64,
    pub(crate) last_attempt: u64,
    pub(crate) failures: u32,
    pub(crate) retries_used: u32,
    /// Tests without a verdict.
    pub(crate) open_tests: usize,
    /// Set once a person has been told that no worker is there …
    pub(crate) told_no_worker: bool,
    /// … and that tests are executed once for this and another run.
    pub(crate) told_shared: bool,
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
            queue: Queue::default(),
            leases: BTreeSet::new(),
            out: BTreeMap::new(),
            followers: BTreeMap::new(),
            lost_on: BTreeMap::new(),
            classes: Classes::default(),
            trust: Trust::default(),
            last_work: 0,
            last_attempt: 0,
            failures: 0,
            retries_used: 0,
            open_tests: 0,
            told_no_worker: false,
            told_shared: false,
            created_mono_ms: now_mono_ms,
        }
    }

    pub(crate) fn flow(&self) -> Flow {
        Flow { class: self.header.trigger, project: self.header.project.clone() }
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
        let estimates = Estimates::of(&candidates);
        candidates
            .into_iter()
            .map(|candidate| {
                let ix =
                    TestIx(u32::try_from(self.tests.len()).expect("discovery limits the number of tests"));
                let is_new = candidate.expected_ms.is_none();
                self.tests.push(Test {
                    suite,
                    expected_ms: estimates.expected_ms(&candidate),
                    new_in: is_new.then(|| self.classes.of_new(suite, &candidate.id, &estimates)),
                    id: candidate.id,
                    failed_last: candidate.failed_last,
                    excused: candidate.excused,
                    verdict: None,
                    ended: Vec::new(),
                    last_run_ms: None,
                    queued_mono_ms: now,
                    waiting: 0,
                });
                self.open_tests += 1;
                ix
            })
            .collect()
    }

    /// Queues what these tests of one suite lack, grouped as the suite says. They keep their order within a unit, and
    /// each repeat is a unit of its own.
    pub(crate) fn queue_tests(&mut self, suite: usize, tests: &[TestIx]) {
        loop {
            let lacking: Vec<_> = tests.iter().copied().filter(|test| self.lacks_work(*test)).collect();
            if lacking.is_empty() {
                return;
            }
            self.queue_once(suite, &lacking);
        }
    }

    /// Whether fewer attempts of a test wait or are out than it needs for its verdict.
    pub(crate) fn lacks_work(&self, ix: TestIx) -> bool {
        let test = self.test(ix);
        if test.verdict.is_some() {
            return false;
        }
        let under_way = test.waiting + self.out.get(&ix).map_or(0, Vec::len);
        let repeat = self.plan.asked.repeat;
        if !repeat.is_wanted() {
            return under_way == 0;
        }
        let counts = |outcome: &Outcome| !matches!(outcome, Outcome::Infrastructure | Outcome::Cancelled);
        let had = test.ended.iter().filter(|(_, outcome)| counts(outcome)).count();
        let ahead = match self.suite(test.suite).grain {
            Grain::Test | Grain::Batch => REPEATS_AHEAD,
            // Copies of a unit must be queued whole: once one of its tests has ended there is no telling which is which.
            Grain::Class | Grain::File | Grain::Never => usize::MAX,
        };
        under_way < (repeat.times as usize).saturating_sub(had).min(ahead)
    }

    fn queue_once(&mut self, suite: usize, tests: &[TestIx]) {
        let grain = self.suite(suite).grain;
        let repeats = self.plan.asked.repeat.is_wanted();
        let named: Vec<_> = tests.iter().map(|ix| self.test(*ix).id.as_str()).collect();
        for unit in units::group(&named, grain) {
            let tests: Vec<_> = unit.into_iter().map(|place| tests[place]).collect();
            match (grain, &*tests) {
                (Grain::Test | Grain::Batch, [test]) if !repeats && self.is_unknown(*test) => {
                    self.queue_new(suite, *test);
                }
                _ => self.queue_unit(suite, tests, false, 0),
            }
        }
    }

    /// Nothing of the test itself is known, from this run or from another.
    fn is_unknown(&self, ix: TestIx) -> bool {
        let test = self.test(ix);
        test.new_in.is_some() && !test.failed_last && test.ended.is_empty()
    }

    /// So many new tests of this class have ended.
    pub(crate) fn seen_of(&self, class: ClassIx) -> usize {
        self.classes.seen_of(class)
    }

    fn queue_new(&mut self, suite: usize, ix: TestIx) {
        let test = self.test(ix);
        let class = test.new_in.expect("unknown tests are new");
        let pending = pending_unit(suite, vec![ix], test.guess());
        self.test_mut(ix).waiting += 1;
        let work = self.next_work();
        self.queue.push_new(work, pending, class);
    }

    /// Queues tests that must run once more. Those that were lost with a worker before are split up, so that one that
    /// takes workers down is soon alone: where every test starts pristine, each by itself; where tests share a rebase on
    /// purpose, the first of them, which was running, and the rest in order.
    pub(crate) fn queue_again(&mut self, now_mono_ms: u64, suite: usize, mut tests: Vec<TestIx>) {
        tests.sort_unstable();
        let losses = |ix: &TestIx| {
            self.test(*ix).ended.iter().filter(|(_, outcome)| *outcome == Outcome::Infrastructure).count()
        };
        let most_losses = tests.iter().map(losses).max().unwrap_or(0);
        let shares_nothing = matches!(self.suite(suite).grain, Grain::Test | Grain::Batch);
        if most_losses == 0 || tests.len() == 1 {
            self.queue_unit(suite, tests, most_losses > 0, now_mono_ms);
        } else if shares_nothing {
            for test in tests {
                self.queue_unit(suite, vec![test], true, now_mono_ms);
            }
        } else if most_losses == 1 {
            self.queue_unit(suite, tests, true, now_mono_ms);
        } else {
            let rest = tests.split_off(1);
            self.queue_unit(suite, tests, true, now_mono_ms);
            self.queue_unit(suite, rest, true, now_mono_ms);
        }
    }

    fn queue_unit(&mut self, suite: usize, tests: Vec<TestIx>, alone: bool, now_mono_ms: u64) {
        let members = tests.iter().map(|ix| self.test(*ix));
        let failed_before = members.clone().any(|test| test.failed_last || !test.ended.is_empty());
        let guess = members.map(Test::guess).sum();
        for ix in &tests {
            self.test_mut(*ix).waiting += 1;
        }
        let pending = Pending {
            choosy_until_mono_ms: now_mono_ms + CHOOSY_MS,
            // One batch could hold the same test twice.
            alone: alone || self.plan.asked.repeat.is_wanted(),
            ..pending_unit(suite, tests, guess)
        };
        let work = self.next_work();
        self.queue.push(work, pending, failed_before);
    }

    /// Queues a baseline or a discovery; `failed_on`: who came to nothing with it before.
    pub(crate) fn queue_first(&mut self, now_mono_ms: u64, kind: PendingKind, failed_on: Vec<WorkerId>) {
        let pending = Pending {
            kind,
            infra_failures: failed_on.len(),
            failed_on: failed_on.into_iter().collect(),
            guess: Guess::known(UNKNOWN_MS),
            choosy_until_mono_ms: now_mono_ms + CHOOSY_MS,
            alone: true,
            line: None,
        };
        let work = self.next_work();
        self.queue.push(work, pending, false);
    }

    /// The same once more, after a worker failed it.
    pub(crate) fn queue_first_again(&mut self, now_mono_ms: u64, work: Pending, failed_on: WorkerId) {
        let mut again = work;
        again.infra_failures += 1;
        again.failed_on.insert(failed_on);
        again.choosy_until_mono_ms = now_mono_ms + CHOOSY_MS;
        let work = self.next_work();
        self.queue.push(work, again, false);
    }

    fn next_work(&mut self) -> WorkId {
        self.last_work += 1;
        WorkId(self.last_work)
    }

    /// The workers that this work should not go to while another takes work.
    pub(crate) fn avoided(&self, now_mono_ms: u64, work: &Pending) -> BTreeSet<WorkerId> {
        if now_mono_ms >= work.choosy_until_mono_ms {
            return BTreeSet::new();
        }
        let mut avoided = work.failed_on.clone();
        if let PendingKind::Unit { tests, .. } = &work.kind
            && !self.lost_on.is_empty()
        {
            avoided.extend(tests.iter().filter_map(|test| self.lost_on.get(test)).flatten().cloned());
        }
        avoided
    }

    pub(crate) fn test(&self, ix: TestIx) -> &Test {
        &self.tests[ix.0 as usize]
    }

    pub(crate) fn test_mut(&mut self, ix: TestIx) -> &mut Test {
        &mut self.tests[ix.0 as usize]
    }

    /// Opens an attempt of each test under a lease.
    pub(crate) fn open(&mut self, fence: Fence, tests: &[TestIx]) -> BTreeMap<AttemptId, TestIx> {
        let mut open = BTreeMap::new();
        for test in tests {
            self.last_attempt += 1;
            let attempt = AttemptId(self.last_attempt);
            self.out.entry(*test).or_default().push((fence, attempt));
            open.insert(attempt, *test);
        }
        open
    }

    /// An attempt is not out any more.
    pub(crate) fn take_in(&mut self, test: TestIx, fence: Fence) {
        if let Some(places) = self.out.get_mut(&test) {
            places.retain(|(known, _)| *known != fence);
            if places.is_empty() {
                self.out.remove(&test);
            }
        }
    }

    /// The work of a lease as its worker is told it.
    pub(crate) fn work(&self, kind: &PendingKind, open: &BTreeMap<AttemptId, TestIx>) -> Work {
        let baseline = self.baseline_key().unwrap_or_default().to_owned();
        match kind {
            PendingKind::Baseline => Work::PrepareBaseline,
            PendingKind::Discover(suite) => {
                Work::Discover { suite: self.suite(*suite).name.clone(), baseline }
            }
            PendingKind::Unit { suite, .. } => {
                let tests = open.iter().map(|(attempt, test)| (*attempt, *test, self.test(*test).id.clone()));
                Work::Execute { suite: self.suite(*suite).name.clone(), baseline, tests: tests.collect() }
            }
        }
    }

    /// Counts an ended attempt and decides its test. Where it must run again the retry is charged to the run's budget.
    pub(crate) fn count(
        &mut self,
        ix: TestIx,
        attempt: AttemptId,
        outcome: Outcome,
        run_ms: Option<u64>,
    ) -> Decision {
        let retries = self.suite(self.test(ix).suite).retries;
        let is_failure = matches!(outcome, Outcome::Failed | Outcome::TimedOut);
        // A retry that was granted stays granted, when the farm fails it or does not run it.
        let within_budget =
            !is_failure || self.plan.policy.retry_budget.is_none_or(|most| self.retries_used < most);
        let test = self.test_mut(ix);
        if outcome != Outcome::Cancelled {
            test.ended.push((attempt, outcome));
        }
        let (new_in, excused) = (test.new_in, test.excused);
        if run_ms.is_some() {
            test.last_run_ms = run_ms;
        }
        let outcomes = test.outcomes();
        let repeat = self.plan.asked.repeat;
        let decision = if repeat.is_wanted() {
            decide_repeated(&outcomes, repeat)
        } else {
            decide(&outcomes, if within_budget { retries } else { 0 }).weighed(excused)
        };
        if let (Some(class), Some(ms)) = (new_in, run_ms) {
            for (class, guess) in self.classes.learn(class, ms) {
                self.queue.learn(class, guess);
            }
        }
        match decision {
            Decision::Final(verdict) => self.give_verdict(ix, verdict),
            Decision::RunAgain => self.retries_used += u32::from(is_failure),
        }
        decision
    }

    /// A test's verdict is known.
    pub(crate) fn give_verdict(&mut self, ix: TestIx, verdict: Verdict) {
        self.test_mut(ix).verdict = Some(verdict);
        self.open_tests -= 1;
        self.failures += u32::from(matches!(verdict, Verdict::Failed | Verdict::TimedOut));
    }

    /// How the run ends now that nothing of it is open, or `None` where something is.
    pub(crate) fn end(&self) -> Option<(RunEnd, String)> {
        let baseline_open = self.plan.baseline_group.is_some() && self.baseline.is_none();
        if self.open_tests > 0 || !self.undiscovered.is_empty() || baseline_open {
            return None;
        }
        let any =
            |wanted: &[Verdict]| self.tests.iter().any(|t| t.verdict.is_some_and(|v| wanted.contains(&v)));
        // Who repeats tests on purpose wants to know of each failure.
        let unsteady = self.plan.asked.repeat.is_wanted() && any(&[Verdict::Flaky]);
        Some(if unsteady || any(&[Verdict::Failed, Verdict::TimedOut]) {
            (RunEnd::Failed, String::new())
        } else if any(&[Verdict::Infrastructure, Verdict::NotRun]) {
            (RunEnd::Incomplete, "the farm could not run every test".to_owned())
        } else if !self.empty_suites.is_empty() {
            (RunEnd::NoTests, format!("no tests found in suite {}", self.empty_suites.join(", ")))
        } else if self.tests.is_empty() {
            let which =
                if self.plan.asked.selection.is_all() { "were" } else { "of those that were found were" };
            (RunEnd::NoTests, format!("no tests {which} chosen"))
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

fn pending_unit(suite: usize, tests: Vec<TestIx>, guess: Guess) -> Pending {
    Pending {
        kind: PendingKind::Unit { suite, tests },
        infra_failures: 0,
        guess,
        failed_on: BTreeSet::new(),
        choosy_until_mono_ms: 0,
        alone: false,
        line: None,
    }
}

impl Test {
    fn guess(&self) -> Guess {
        if self.new_in.is_some() { Guess::of_new(self.expected_ms) } else { Guess::known(self.expected_ms) }
    }

    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        self.ended.iter().map(|(_, outcome)| *outcome).collect()
    }
}
