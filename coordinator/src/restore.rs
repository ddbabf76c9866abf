//! Rows of the store as the core wants them after a restart. Pure: who calls has read the rows, the plan and the history.

use std::collections::HashMap;

use andon_core::ids::{AttemptId, Lease, TestIx, WorkId};
use andon_core::model::{Candidate, Plan, StoredLease, StoredRun, StoredTest};

use crate::store::{ActiveRun, Past};

/// What is known of each suite's tests, by suite and id.
pub type Histories = HashMap<String, HashMap<String, Past>>;

/// A run that had not ended.
#[must_use]
pub fn stored_run(run: ActiveRun, plan: Plan, histories: &Histories) -> StoredRun {
    let open_of = |lease: &Lease| -> Vec<(AttemptId, TestIx)> {
        let attempts = run.tests.iter().flat_map(|test| test.attempts.iter().map(|a| (test.test, a)));
        let out = attempts.filter(|(_, a)| a.fence == lease.fence && a.outcome.is_none());
        out.map(|(test, a)| (a.attempt, test)).collect()
    };
    let leases = run
        .leases
        .iter()
        .map(|lease| StoredLease {
            lease: lease.lease,
            kind: lease.kind.clone(),
            worker: lease.worker.clone(),
            lane: lease.lane,
            open: open_of(&lease.lease),
        })
        .collect();
    let tests = run
        .tests
        .iter()
        .map(|test| StoredTest {
            suite: test.suite.clone(),
            candidate: candidate(test.id.clone(), histories.get(&test.suite)),
            verdict: test.verdict,
            attempts: test.attempts.iter().map(|a| (a.attempt, a.outcome)).collect(),
        })
        .collect();
    let baseline = (!run.row.baseline_key.is_empty()).then(|| run.row.baseline_key.clone());
    StoredRun {
        run: run.row.run,
        header: run.row.header,
        plan,
        state: run.row.state,
        baseline,
        discovered: run.discovered,
        tests,
        leases,
        losses: run.losses,
        last_work: WorkId(run.last_work),
    }
}

/// A test with what earlier runs say of it.
#[must_use]
pub fn candidate(id: String, history: Option<&HashMap<String, Past>>) -> Candidate {
    let past = history.and_then(|known| known.get(&id));
    Candidate {
        expected_ms: past.map(|past| past.mean_ms),
        failed_last: past.is_some_and(|past| past.failed_last),
        excused: false,
        id,
    }
}
