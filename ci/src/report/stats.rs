//! The figures of a run: wall time, throughput, rebase times by driver, balance of the lanes.
//!
//! Attempts that have not ended are left out, so the figures of a running run are those of what is done.

use std::collections::BTreeMap;

use andon_proto::{Attempt, Outcome, Run, Verdict};

/// What the figures of one run are.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Stats {
    /// From the request to the end; 0 while the run is not over.
    pub(crate) wall_ms: u64,
    /// From the first test's start to the last one's end.
    pub(crate) testing_ms: u64,
    /// Tests with a verdict that came from a lane.
    pub(crate) tests_done: u64,
    /// `tests_done` a minute of `wall_ms`.
    pub(crate) per_minute: f64,
    /// `tests_done` a minute of `testing_ms`.
    pub(crate) per_minute_testing: f64,
    /// By driver, in the driver's order of name.
    pub(crate) rebases: Vec<Rebases>,
    /// By worker and lane.
    pub(crate) lanes: Vec<LaneBusy>,
}

/// The rebases of one driver.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rebases {
    pub(crate) driver: String,
    pub(crate) count: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

/// How long a lane worked for the run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LaneBusy {
    pub(crate) worker: String,
    pub(crate) lane: u32,
    pub(crate) attempts: u64,
    /// Preparing, rebasing and running.
    pub(crate) busy_ms: u64,
}

impl Stats {
    /// Computes them from a run with its tests.
    pub(crate) fn of(run: &Run) -> Self {
        let ended: Vec<&Attempt> = run
            .tests
            .iter()
            .flat_map(|test| &test.attempts)
            .filter(|attempt| !matches!(attempt.outcome(), Outcome::Unspecified))
            .collect();
        let tests_done = run.tests.iter().filter(|test| ran(test.verdict())).count() as u64;
        let wall_ms = run.ended_unix_ms.saturating_sub(run.created_unix_ms);
        let testing_ms = testing_ms(&ended);
        Self {
            wall_ms,
            testing_ms,
            tests_done,
            per_minute: per_minute(tests_done, wall_ms),
            per_minute_testing: per_minute(tests_done, testing_ms),
            rebases: rebases(&ended),
            lanes: lanes(&ended),
        }
    }

    /// Busiest lane over the mean, 1.0 for a perfect balance; `None` with fewer than two lanes.
    pub(crate) fn balance(&self) -> Option<f64> {
        let busiest = self.lanes.iter().map(|lane| lane.busy_ms).max()?;
        let total: u64 = self.lanes.iter().map(|lane| lane.busy_ms).sum();
        if self.lanes.len() < 2 || total == 0 {
            return None;
        }
        Some(busiest as f64 * self.lanes.len() as f64 / total as f64)
    }
}

fn ran(verdict: Verdict) -> bool {
    !matches!(verdict, Verdict::Unspecified | Verdict::NotRun | Verdict::Infrastructure)
}

fn per_minute(tests: u64, ms: u64) -> f64 {
    if ms == 0 { 0.0 } else { tests as f64 * 60_000.0 / ms as f64 }
}

fn testing_ms(ended: &[&Attempt]) -> u64 {
    let started = || ended.iter().filter(|attempt| attempt.started_unix_ms > 0);
    let first = started().map(|attempt| attempt.started_unix_ms).min().unwrap_or(0);
    let last = started().map(|attempt| attempt.started_unix_ms.saturating_add(attempt.run_ms)).max();
    last.unwrap_or(0).saturating_sub(first)
}

fn rebases(ended: &[&Attempt]) -> Vec<Rebases> {
    let mut by_driver: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for attempt in ended.iter().filter(|attempt| attempt.rebase_us > 0) {
        by_driver.entry(&attempt.driver).or_default().push(attempt.rebase_us);
    }
    by_driver
        .into_iter()
        .map(|(driver, mut times)| {
            times.sort_unstable();
            Rebases {
                driver: if driver.is_empty() { "unknown" } else { driver }.to_owned(),
                count: times.len() as u64,
                p50_us: percentile(&times, 50),
                p99_us: percentile(&times, 99),
                max_us: times.last().copied().unwrap_or(0),
            }
        })
        .collect()
}

/// Nearest rank, of sorted values.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

fn lanes(ended: &[&Attempt]) -> Vec<LaneBusy> {
    let mut busy: BTreeMap<(&str, u32), (u64, u64)> = BTreeMap::new();
    for attempt in ended.iter().filter(|attempt| !attempt.worker.is_empty()) {
        let (attempts, us) = busy.entry((&attempt.worker, attempt.lane)).or_default();
        *attempts += 1;
        let ms = attempt.prepare_ms.saturating_add(attempt.run_ms);
        *us = us.saturating_add(attempt.rebase_us).saturating_add(ms.saturating_mul(1_000));
    }
    busy.into_iter()
        .map(|((worker, lane), (attempts, us))| LaneBusy {
            worker: worker.to_owned(),
            lane,
            attempts,
            busy_ms: us / 1_000,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 50), 50);
        assert_eq!(percentile(&hundred, 99), 99);
        assert_eq!(percentile(&[7], 50), 7);
        assert_eq!(percentile(&[7], 99), 7);
        assert_eq!(percentile(&[1, 2], 50), 1);
        assert_eq!(percentile(&[], 99), 0);
    }

    #[test]
    fn a_perfectly_shared_run_has_balance_one() {
        let mut run = sample::green();
        for test in &mut run.tests {
            for attempt in &mut test.attempts {
                attempt.rebase_us = 500_000;
            }
        }
        assert_eq!(Stats::of(&run).balance(), Some(1.0));
    }

    #[test]
    fn one_busy_lane_of_two_has_balance_two() {
        let lane = |lane, busy_ms| LaneBusy { worker: "w".to_owned(), lane, attempts: 1, busy_ms };
        let stats = Stats { lanes: vec![lane(0, 800), lane(1, 0)], ..Stats::default() };
        assert_eq!(stats.balance(), Some(2.0));
        let alone = Stats { lanes: vec![lane(0, 800)], ..Stats::default() };
        assert_eq!(alone.balance(), None);
    }

    #[test]
    fn rebases_are_counted_once_a_unit_and_by_driver() {
        let mut run = sample::green();
        run.tests[0].attempts[0].rebase_us = 0;
        run.tests[1].attempts[0].driver = "recreate".to_owned();
        let rebases = Stats::of(&run).rebases;
        let counted: Vec<(&str, u64)> = rebases.iter().map(|r| (r.driver.as_str(), r.count)).collect();
        assert_eq!(counted, [("recreate", 1), ("restart", 2)]);
    }

    #[test]
    fn what_did_not_run_is_not_throughput() {
        let stats = Stats::of(&sample::mixed());
        assert_eq!(stats.tests_done, 5);
        assert_eq!(stats.wall_ms, 90_000);
        assert!((stats.per_minute - 5.0 / 1.5).abs() < 1e-9);
    }

    #[test]
    fn a_run_without_tests_has_figures_of_zero() {
        assert_eq!(Stats::of(&Run::default()), Stats::default());
    }
}
