//! Rows as the lines of lists: what several views show alike.

use andon_core::model::{RunState, Verdict};
use andon_core::quarantine::Quarantine;
use andon_figures::{Rate, Sketch};

use super::{AttemptLine, Day, Figures, QuarantineLine, RateView, RunLine, Spread, TestLine, words};
use crate::store::ledger::{DAY_MS, Tally};
use crate::store::{AttemptRow, RunRow, TestRow};

/// Whether runs, newest first, have another baseline from this one on. Those that ended before they had one say nothing.
pub(crate) fn is_other_baseline(keys: &[&str], at: usize) -> bool {
    let earlier = keys[at + 1..].iter().find(|key| !key.is_empty());
    !keys[at].is_empty() && earlier.is_some_and(|earlier| *earlier != keys[at])
}

pub(super) fn run(row: RunRow) -> RunLine {
    let over = matches!(row.state, RunState::Ended(_));
    let some = |ms: u64| (ms > 0).then_some(ms);
    let decided = row.counts.total() - row.counts.open - row.counts.not_run;
    let testing_ms = row.ended_ms.saturating_sub(row.started_ms);
    let has_pace = over && row.started_ms > 0 && testing_ms > 0 && decided > 0;
    RunLine {
        run: row.run.0,
        project: row.header.project,
        repository: row.header.repository,
        commit: row.header.commit,
        git_ref: row.header.git_ref,
        trigger: words::trigger(row.header.trigger),
        requested_by: row.header.requested_by,
        rerun_of: row.header.rerun_of.map(|run| run.0),
        state: words::state(row.state),
        over,
        reason: row.reason,
        baseline_key: row.baseline_key,
        created_unix_ms: row.created_ms,
        started_unix_ms: some(row.started_ms),
        ended_unix_ms: some(row.ended_ms),
        wall_ms: over.then(|| row.ended_ms.saturating_sub(row.created_ms)),
        queue_ms: some(row.started_ms).map(|started| started.saturating_sub(row.created_ms)),
        baseline_ms: some(row.based_ms).map(|based| based.saturating_sub(row.started_ms)),
        forgotten: row.forgotten,
        total: row.counts.total(),
        counts: row.counts,
        tests_per_minute: has_pace.then(|| hundredths(f64::from(decided) * 60_000.0 / testing_ms as f64)),
    }
}

pub(super) fn test(row: &TestRow, owners: Vec<String>, quarantine: Option<&Quarantine>) -> TestLine {
    TestLine {
        test: row.test.0,
        suite: row.suite.clone(),
        id: row.id.clone(),
        verdict: words::verdict(row.verdict),
        attempts: u32::try_from(row.attempts.len()).unwrap_or(u32::MAX),
        run_ms: row.attempts.iter().rev().find(|attempt| attempt.outcome.is_some()).map(|last| last.run_ms),
        owners,
        quarantine: quarantine.map(self::quarantine),
    }
}

pub(super) fn quarantine(of: &Quarantine) -> QuarantineLine {
    let Quarantine { owner, until_unix_ms, reason, .. } = of;
    QuarantineLine { owner: owner.clone(), until_unix_ms: *until_unix_ms, reason: reason.clone() }
}

pub(super) fn attempt(row: AttemptRow) -> AttemptLine {
    AttemptLine {
        attempt: row.attempt.0,
        unit: row.work.0,
        worker: row.worker.0,
        lane: row.lane.0,
        driver: row.driver,
        outcome: words::outcome(row.outcome),
        started_unix_ms: (row.started_ms > 0).then_some(row.started_ms),
        queue_ms: row.queue_ms,
        prepare_ms: row.prepare_ms,
        start_ms: row.start_ms,
        rebase_us: row.rebase_us,
        run_ms: row.run_ms,
        report_us: row.report_us,
        dirtied_bytes: row.dirtied_bytes,
        message: row.message,
    }
}

/// Whose doing a bad verdict was.
pub(super) const fn class(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        Some(Verdict::TimedOut) => "timeout",
        Some(Verdict::Infrastructure) => "infrastructure",
        Some(Verdict::Flaky) => "flaky",
        Some(Verdict::Quarantined) => "quarantined",
        _ => "test",
    }
}

pub(super) fn rate(rate: Rate) -> RateView {
    let interval = rate.interval();
    RateView { hits: rate.hits(), of: rate.of(), share: rate.share(), low: interval.low, high: interval.high }
}

pub(super) fn spread(sketch: &Sketch) -> Spread {
    Spread {
        count: sketch.count(),
        p50: sketch.quantile(0.5),
        p90: sketch.quantile(0.9),
        p99: sketch.quantile(0.99),
        max: sketch.max(),
    }
}

pub(super) fn figures(tally: &Tally) -> Figures {
    Figures {
        runs: tally.runs,
        tests: tally.tests,
        attempts: tally.attempts,
        failed: tally.failed,
        flaky: tally.flaky,
        infrastructure: tally.infrastructure,
        lane_seconds: tally.lane_ms as f64 / 1_000.0,
        test_ms: spread(&tally.test_ms),
        queue_ms: spread(&tally.queue_ms),
        prepare_ms: spread(&tally.prepare_ms),
        rebase_us: spread(&tally.rebase_us),
        dirtied_bytes: spread(&tally.dirtied_bytes),
        start_ms: spread(&tally.start_ms),
        report_us: spread(&tally.report_us),
        spent: tally.spent,
    }
}

pub(super) fn day(day: u64, tally: &Tally) -> Day {
    Day { day_unix_ms: day.saturating_mul(DAY_MS), figures: figures(tally) }
}

/// Two digits after the point are enough for a person.
pub(super) fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_ended_before_it_had_a_baseline_is_no_change_of_it() {
        let newest_first = ["b", "", "b", "", "a", ""];
        let others: Vec<usize> =
            (0..newest_first.len()).filter(|at| is_other_baseline(&newest_first, *at)).collect();
        assert_eq!(others, [2]);
    }
}
