//! The ledger's statements: static text for both engines.

#[cfg(test)]
use super::read;

pub(super) const NAMES: &str = "
    UPDATE tests SET name = CAST(v.value->>2 AS BIGINT) FROM json_each($1) AS v
    WHERE tests.run = CAST(v.value->>0 AS BIGINT) AND tests.test = CAST(v.value->>1 AS BIGINT)";

pub(super) const MARK_ENTERED: &str = "UPDATE runs SET entered = 1 WHERE run = $1 AND entered = 0";

macro_rules! enter {
    ($table:literal, $name:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " (project, ",
            $name,
            ", run, git_ref, commit_id, baseline_key, farm, pushed_ms, ended_ms,
       ending, tests, attempts, failed, flaky, lane_ms, mean_us, p50_ms,
       queue_ms, set_up_ms, rebase_us, start_ms, test_ms, report_us, lanes, dirtied_bytes)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
            $24, $25)"
        )
    };
}

pub(super) const RUN: &str = enter!("ledger_runs", "suite");
pub(super) const OWNER_RUN: &str = enter!("ledger_owners", "owner");

pub(super) const DAY: &str = "
    INSERT INTO ledger_days (project, day, suite, tally) VALUES ($1, $2, $3, $4)
    ON CONFLICT (project, day, suite) DO UPDATE SET tally = excluded.tally";

pub(super) const REBASES: &str = "
    INSERT INTO ledger_rebases (worker, day, driver, sketch) VALUES ($1, $2, $3, $4)
    ON CONFLICT (worker, day, driver) DO UPDATE SET sketch = excluded.sketch";

/// From one name to the next in the index, however many runs lie between.
pub(super) const PROJECTS: &str = "
    WITH RECURSIVE known(project) AS (
        SELECT min(project) FROM runs
        UNION ALL
        SELECT (SELECT min(runs.project) FROM runs WHERE runs.project > known.project)
        FROM known WHERE known.project IS NOT NULL)
    SELECT project FROM known WHERE project IS NOT NULL LIMIT $1";

pub(super) const LANES: &str = "
    SELECT worker, lane, count(*) AS attempts, CAST(sum(queue_ms) AS BIGINT) AS queue_ms,
           CAST(sum(prepare_ms - start_ms) AS BIGINT) AS set_up_ms, CAST(sum(rebase_us) AS BIGINT) AS rebase_us,
           CAST(sum(start_ms) AS BIGINT) AS start_ms, CAST(sum(run_ms) AS BIGINT) AS test_ms,
           CAST(sum(report_us) AS BIGINT) AS report_us, CAST(COALESCE(sum(dirtied_bytes), 0) AS BIGINT) AS dirtied_bytes,
           COALESCE(min(CASE WHEN started_ms > 0 THEN started_ms END), 0) AS first_started_ms
    FROM attempts WHERE run = $1 AND outcome <> 0 GROUP BY worker, lane ORDER BY worker, lane";

pub(super) const ATTEMPTS: &str = "
    SELECT attempts.*, tests.suite, tests.id FROM attempts
    JOIN tests ON tests.run = attempts.run AND tests.test = attempts.test
    WHERE attempts.run = $1 ORDER BY attempts.attempt LIMIT $2";

/// By way of the index that holds a test's attempts: asked for all columns at once, SQLite reads all attempts of the run for each test.
pub(super) const ATTEMPTS_OF_TESTS: &str = "
    SELECT attempts.* FROM json_each($1) AS v
    JOIN attempts AS found ON found.run = CAST(v.value->>0 AS BIGINT) AND found.test = CAST(v.value->>1 AS BIGINT)
    JOIN attempts ON attempts.run = found.run AND attempts.attempt = found.attempt
    ORDER BY attempts.run, attempts.test, attempts.attempt";

pub(super) const TESTS: &str = "
    SELECT test, suite, id, verdict FROM tests
    WHERE run = $1 AND test > $2 AND ($3 = '' OR suite = $3)
      AND ($4 = '[]' OR verdict IN (SELECT CAST(value->>0 AS BIGINT) FROM json_each($4)))
    ORDER BY test LIMIT $5";

pub(super) const PAST: &str = "
    SELECT runs.run, runs.commit_id, runs.git_ref, runs.baseline_key, tests.test, tests.verdict
    FROM tests JOIN runs ON runs.run = tests.run
    WHERE tests.name = $1 AND tests.name <> 0 AND tests.run < $2 AND tests.suite = $3 AND tests.id = $4 AND runs.project = $5
    ORDER BY tests.run DESC LIMIT $6";

macro_rules! entered {
    ($where:literal) => {
        concat!(
            "SELECT * FROM ledger_runs WHERE project = $1 AND suite = $2 AND run < $3 ",
            $where,
            " ORDER BY run DESC LIMIT $5"
        )
    };
}

pub(super) const ENTERED_ON_REF: &str = entered!("AND git_ref = $4");
pub(super) const ENTERED_ON_ALL: &str = entered!("AND git_ref >= $4");

macro_rules! runs {
    ($where:literal, $order:literal) => {
        concat!("SELECT * FROM runs WHERE ", $where, " AND run < $3 ORDER BY ", $order, " DESC LIMIT $4")
    };
}

/// A plus keeps a column from its index: runs that have not ended are few, and found by state; those that have are read by
/// number.
pub(super) const RUNS_ACTIVE: &str = runs!("state < 5 AND $1 = $2", "+run");
pub(super) const RUNS_OVER: &str = runs!("+state >= 5 AND $1 = $2", "run");
pub(super) const RUNS_OF_PROJECT: &str = runs!("project = $1 AND $2 = ''", "run");
pub(super) const RUNS_OF_REF: &str = runs!("project = $1 AND git_ref = $2", "run");
pub(super) const RUNS_OF_COMMIT: &str = runs!("project = $1 AND commit_id = $2", "run");
/// Commits are hexadecimal: `g` comes after all that begin so.
pub(super) const RUNS_OF_COMMITS: &str =
    runs!("project = $1 AND commit_id >= $2 AND commit_id < $2 || 'g'", "+run");
pub(super) const RUNS_OF_BASELINE: &str = runs!("baseline_key = $1 AND $2 = ''", "run");

/// Its condition is that of the index, word for word.
pub(super) const TO_ENTER: &str =
    "SELECT run FROM runs WHERE entered = 0 AND state >= 5 ORDER BY run LIMIT $1";

pub(super) const PUSHED: &str = "SELECT min(created_ms) FROM runs WHERE project = $1 AND commit_id = $2";

pub(super) const SUITES: &str = "
    SELECT suite, verdict, count(*) FROM tests WHERE run = $1 GROUP BY suite, verdict ORDER BY suite, verdict";

pub(super) const REBASES_OF: &str =
    "SELECT driver, rebase_us FROM attempts WHERE run = $1 AND rebase_us > 0 ORDER BY attempt LIMIT $2";

pub(super) const DAYS: &str = "
    SELECT day, suite, tally FROM ledger_days WHERE project = $1 AND day >= $2 ORDER BY day, suite LIMIT $3";

pub(super) const REBASE_DAYS: &str = "
    SELECT day, driver, sketch FROM ledger_rebases WHERE worker = $1 AND day >= $2 ORDER BY day, driver LIMIT $3";

/// Of these, those in which the attempts of a test must be found without reading those of all others.
#[cfg(test)]
#[allow(dead_code, reason = "one of the two engines is asked")]
pub(in crate::store) const OF_TESTS: &[&str] = &[ATTEMPTS_OF_TESTS, read::ATTEMPTS_OF_TEST];

/// What is read to be looked at: each from an index (a test asks SQLite how it would).
#[cfg(test)]
#[allow(dead_code, reason = "one of the two engines is asked")]
pub(in crate::store) const LOOKED: &[&str] = &[
    ENTERED_ON_REF,
    ENTERED_ON_ALL,
    RUNS_ACTIVE,
    RUNS_OVER,
    RUNS_OF_PROJECT,
    RUNS_OF_REF,
    RUNS_OF_COMMIT,
    RUNS_OF_COMMITS,
    RUNS_OF_BASELINE,
    TO_ENTER,
    PUSHED,
    SUITES,
    REBASES_OF,
    DAYS,
    REBASE_DAYS,
    PROJECTS,
    LANES,
    ATTEMPTS,
    ATTEMPTS_OF_TESTS,
    read::ATTEMPTS_OF_TEST,
    TESTS,
    PAST,
];
