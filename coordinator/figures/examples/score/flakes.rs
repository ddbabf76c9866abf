//! Flaky and broken tests against the truth.

use std::collections::BTreeMap;

use andon_figures::Outcome;
use andon_figures::flake::{Attempt, Judgement, Standing, judge};
use andon_figures::made::score::{Score, is_flaky_by_average};
use andon_figures::made::{MadeAttempt, MadeRun, TestAt};

use crate::history::{History, has_failed};

/// A test in one run: its attempts there.
type Row<'a> = (&'a MadeRun, Vec<&'a MadeAttempt>);

/// Each test's runs, oldest first.
fn tests<'a>(history: &'a History<'_>) -> BTreeMap<TestAt, Vec<Row<'a>>> {
    let mut tests: BTreeMap<TestAt, Vec<Row<'a>>> = BTreeMap::new();
    for run in history.runs.iter().flatten() {
        for (at, attempts) in History::by_test(run) {
            tests.entry(at).or_default().push((run, attempts));
        }
    }
    tests
}

fn judged(rows: &[Row<'_>]) -> Judgement {
    let mut all = Vec::new();
    for (run, attempts) in rows {
        all.extend(attempts.iter().map(|attempt| Attempt {
            commit: &run.commit_name,
            baseline: &run.baseline,
            started_unix_ms: attempt.started_unix_ms,
            outcome: attempt.outcome,
        }));
    }
    judge(&all)
}

/// It failed, and no retry passed.
fn has_lost((_, attempts): &Row<'_>) -> bool {
    attempts.iter().any(|attempt| has_failed(attempt))
        && !attempts.iter().any(|attempt| attempt.outcome == Outcome::Passed)
}

pub(crate) fn flaky(history: &History<'_>) -> Vec<(&'static str, Score)> {
    let (mut andon, mut plain) = (Score::default(), Score::default());
    for (at, runs) in tests(history) {
        let has_flaked = runs.iter().any(|(run, attempts)| {
            !history.is_broken(at, run.commit) && attempts.iter().any(|attempt| has_failed(attempt))
        });
        andon.count(judged(&runs).first_seen.is_some(), has_flaked);
        let first_failed: Vec<bool> =
            runs.iter().filter_map(|(_, attempts)| attempts.first().map(|at| has_failed(at))).collect();
        plain.count(is_flaky_by_average(&first_failed), has_flaked);
    }
    vec![("**Andon**", andon), ("moving average of failures", plain)]
}

pub(crate) fn broken(history: &History<'_>) -> Vec<(&'static str, Score)> {
    let (mut andon, mut plain, mut twice) = (Score::default(), Score::default(), Score::default());
    for (at, runs) in tests(history) {
        for (place, row) in runs.iter().enumerate().filter(|(_, row)| has_lost(row)) {
            let is_true = history.is_broken(at, row.0.commit);
            let is_told = matches!(judged(&runs[..=place]).standing, Standing::Broken { .. });
            andon.count(is_told, is_true);
            plain.count(true, is_true);
            twice.count(place > 0 && has_lost(&runs[place - 1]), is_true);
        }
    }
    vec![("**Andon**", andon), ("every failure is broken", plain), ("failed twice in a row is broken", twice)]
}
