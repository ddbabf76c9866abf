//! The core as it was, from what the store kept. Coordinator downtime is never charged to workers: every lease that
//! was out gets a grace in which its worker may come back and go on.

use std::collections::BTreeSet;

use crate::estimate::{Guess, UNKNOWN_MS};
use crate::ids::{Now, TestIx, WorkerId};
use crate::model::{LeaseKind, Outcome, StoredLease, StoredRun, StoredTest, Verdict};
use crate::queue::{Pending, PendingKind};
use crate::run::{Held, Run};
use crate::{Config, Core};

/// Everything that a restart needs.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// The highest run number given, 0 for none.
    pub last_run: u64,
    /// The highest fence given, 0 for none.
    pub last_fence: u64,
    /// Runs that have not ended.
    pub runs: Vec<StoredRun>,
}

impl Core {
    /// A core that goes on where the stored one stopped. Workers are not connected yet.
    #[must_use]
    pub fn restore(config: Config, now: Now, stored: Stored) -> Self {
        let mut core = Self::new(config);
        core.next_run = stored.last_run + 1;
        core.next_fence = stored.last_fence + 1;
        for run in stored.runs {
            core.restore_run(now, run);
        }
        core
    }

    fn restore_run(&mut self, now: Now, stored: StoredRun) {
        let mut run = Run::new(stored.run, stored.header, stored.plan, now.mono_ms);
        run.state = stored.state;
        run.baseline = stored.baseline;
        run.last_work = stored.last_work.0;
        restore_tests(now, &mut run, stored.tests);
        let known: BTreeSet<_> = stored.discovered.iter().filter_map(|name| run.suite_named(name)).collect();
        let chosen = known.is_empty() && !run.tests.is_empty();
        if !chosen {
            run.undiscovered = (0..run.plan.suites.len()).filter(|suite| !known.contains(suite)).collect();
        }
        let all = run.plan.asked.selection.is_all();
        run.empty_suites = known
            .iter()
            .filter(|_| all)
            .filter(|suite| !run.tests.iter().any(|test| test.suite == **suite))
            .map(|suite| run.suite(*suite).name.clone())
            .collect();
        self.restore_work(now, &mut run, stored.leases, &stored.losses);
        self.runs.insert(run.id, run);
    }

    /// What is out stays out for the grace; everything else that is undone is queued.
    fn restore_work(
        &mut self,
        now: Now,
        run: &mut Run,
        leases: Vec<StoredLease>,
        losses: &[(LeaseKind, WorkerId)],
    ) {
        let lost_by = |kind: &LeaseKind| -> Vec<WorkerId> {
            losses.iter().filter(|(of, _)| of == kind).map(|(_, worker)| worker.clone()).collect()
        };
        let mut baseline_is_out = false;
        let mut discovery_is_out = BTreeSet::new();
        for lease in leases {
            let kind = match &lease.kind {
                LeaseKind::Baseline => {
                    baseline_is_out = true;
                    PendingKind::Baseline
                }
                LeaseKind::Discover(name) => {
                    let Some(suite) = run.suite_named(name) else { continue };
                    discovery_is_out.insert(suite);
                    PendingKind::Discover(suite)
                }
                LeaseKind::Unit => {
                    let tests: Vec<_> = lease.open.iter().map(|(_, test)| *test).collect();
                    let Some(first) = tests.first() else {
                        continue;
                    };
                    PendingKind::Unit { suite: run.test(*first).suite, tests }
                }
            };
            let (fence, failed_on) = (lease.lease.fence, lost_by(&lease.kind));
            run.leases.insert(fence);
            for (attempt, test) in &lease.open {
                run.out.entry(*test).or_default().push((fence, *attempt));
            }
            self.workers.lease(&lease.worker, fence);
            let held = Held {
                lease: lease.lease,
                worker: lease.worker,
                lane: lease.lane,
                work: Pending {
                    kind,
                    infra_failures: failed_on.len(),
                    failed_on: failed_on.into_iter().collect(),
                    guess: Guess::known(
                        lease
                            .open
                            .iter()
                            .map(|(_, test)| run.test(*test).expected_ms)
                            .sum::<u64>()
                            .max(UNKNOWN_MS),
                    ),
                    choosy_until_mono_ms: 0,
                    alone: false,
                    line: None,
                },
                covers: None,
                open: lease.open.into_iter().collect(),
                granted_mono_ms: now.mono_ms,
                expires_mono_ms: now.mono_ms + self.config.restart_grace_ms,
            };
            self.leases.insert(fence, held);
        }
        if run.baseline_key().is_none() && !baseline_is_out {
            run.queue_first(now.mono_ms, PendingKind::Baseline, lost_by(&LeaseKind::Baseline));
        }
        for suite in run.undiscovered.difference(&discovery_is_out).copied().collect::<Vec<_>>() {
            let lost = lost_by(&LeaseKind::Discover(run.suite(suite).name.clone()));
            run.queue_first(now.mono_ms, PendingKind::Discover(suite), lost);
        }
        for suite in 0..run.plan.suites.len() {
            let waiting: Vec<_> = (0..)
                .map(TestIx)
                .zip(&run.tests)
                .filter(|(_, test)| test.suite == suite && test.verdict.is_none())
                .map(|(ix, _)| ix)
                .collect();
            run.queue_tests(suite, &waiting);
        }
    }
}

/// Verdicts are as they were given: what they follow from (budgets, other attempts) may look different now.
fn restore_tests(now: Now, run: &mut Run, tests: Vec<StoredTest>) {
    for test in tests {
        let Some(suite) = run.suite_named(&test.suite) else { continue };
        let ix = run.add_tests(suite, vec![test.candidate], now.mono_ms)[0];
        for (attempt, outcome) in test.attempts {
            run.last_attempt = run.last_attempt.max(attempt.0);
            let counts = |outcome: &Outcome| *outcome != Outcome::Cancelled;
            run.test_mut(ix).ended.extend(outcome.filter(counts).map(|outcome| (attempt, outcome)));
        }
        let is_failure = |outcome: &Outcome| matches!(outcome, Outcome::Failed | Outcome::TimedOut);
        let failures = run.test(ix).outcomes().iter().filter(|outcome| is_failure(outcome)).count();
        run.retries_used += u32::try_from(failures).unwrap_or(u32::MAX);
        if let Some(verdict) = test.verdict {
            run.give_verdict(ix, verdict);
            // The last failure was not retried.
            run.retries_used -=
                u32::from(matches!(verdict, Verdict::Failed | Verdict::TimedOut | Verdict::Quarantined));
        }
    }
}
