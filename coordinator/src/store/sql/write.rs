//! A round as its statements. Runs inside the driver's transaction.
//!
//! Rows come as one JSON text for each kind: `json_each` makes a table of them, and a statement does not depend on how many
//! there are.

use andon_core::ids::RunId;
use andon_core::model::{Record, RunHeader, RunState};

use super::super::super::outputs::Place;
use super::super::super::round::{Round, statements, without_nul};
use super::super::super::{Result, codes};
use super::super::Connection;

/// SQLite's integers are signed; every number we store counts something real and fits.
pub(in crate::store) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

const SUITES: &str = "
    INSERT INTO suites_discovered (run, suite)
    SELECT CAST(value->>0 AS BIGINT), value->>1 FROM json_each($1) WHERE true
    ON CONFLICT DO NOTHING";

const TESTS: &str = "
    INSERT INTO tests (run, test, suite, id)
    SELECT CAST(value->>0 AS BIGINT), CAST(value->>1 AS BIGINT), value->>2, value->>3 FROM json_each($1)";

/// The guard makes a fence that was given before an error here, never a second grant.
const FENCES: &str = "UPDATE counters SET value = $2 WHERE name = 'fence' AND value < $1";

const LEASES: &str = "
    INSERT INTO leases (fence, run, work, kind, suite, worker, lane)
    SELECT CAST(value->>0 AS BIGINT), CAST(value->>1 AS BIGINT), CAST(value->>2 AS BIGINT),
           CAST(value->>3 AS BIGINT), value->>4, value->>5, CAST(value->>6 AS BIGINT)
    FROM json_each($1)";

const ATTEMPTS: &str = "
    INSERT INTO attempts (run, attempt, test, work, fence, worker, lane, queue_ms)
    SELECT CAST(value->>0 AS BIGINT), CAST(value->>1 AS BIGINT), CAST(value->>2 AS BIGINT),
           CAST(value->>3 AS BIGINT), CAST(value->>4 AS BIGINT), value->>5, CAST(value->>6 AS BIGINT),
           CAST(value->>7 AS BIGINT)
    FROM json_each($1)";

/// `outcome = 0`: an ended attempt never changes again.
const ENDS: &str = "
    UPDATE attempts SET outcome = CAST(v.value->>2 AS BIGINT), prepare_ms = CAST(v.value->>3 AS BIGINT),
                        rebase_us = CAST(v.value->>4 AS BIGINT), run_ms = CAST(v.value->>5 AS BIGINT),
                        message = v.value->>6, driver = v.value->>7,
                        started_ms = CAST(v.value->>8 AS BIGINT), ended_ms = CAST(v.value->>9 AS BIGINT),
                        start_ms = CAST(v.value->>10 AS BIGINT), report_us = CAST(v.value->>11 AS BIGINT)
    FROM json_each($1) AS v
    WHERE attempts.run = CAST(v.value->>0 AS BIGINT) AND attempts.attempt = CAST(v.value->>1 AS BIGINT)
      AND attempts.outcome = 0";

const OUTPUTS: &str = "
    INSERT INTO outputs (run, attempt, segment, at, bytes, digest)
    SELECT CAST(value->>0 AS BIGINT), CAST(value->>1 AS BIGINT), CAST(value->>2 AS BIGINT),
           CAST(value->>3 AS BIGINT), CAST(value->>4 AS BIGINT), value->>5
    FROM json_each($1) WHERE true ON CONFLICT DO NOTHING";

const PIECES: &str = "
    INSERT INTO pieces (run, fence, starts, raw_bytes, segment, at, bytes, digest)
    SELECT CAST(value->>0 AS BIGINT), CAST(value->>1 AS BIGINT), CAST(value->>2 AS BIGINT),
           CAST(value->>3 AS BIGINT), CAST(value->>4 AS BIGINT), CAST(value->>5 AS BIGINT),
           CAST(value->>6 AS BIGINT), value->>7
    FROM json_each($1) WHERE true ON CONFLICT DO NOTHING";

/// What is known of one run's attempts, as another run's.
const SHARED: &str = "
    INSERT INTO attempts (run, attempt, test, work, fence, worker, lane, outcome, queue_ms, prepare_ms,
                          rebase_us, run_ms, message, driver, started_ms, ended_ms, start_ms, report_us)
    SELECT CAST(v.value->>0 AS BIGINT), CAST(v.value->>1 AS BIGINT), CAST(v.value->>2 AS BIGINT), work, fence,
           worker, lane, outcome, queue_ms, prepare_ms, rebase_us, run_ms, message, driver, started_ms, ended_ms,
           start_ms, report_us
    FROM json_each($1) AS v
    JOIN attempts ON attempts.run = CAST(v.value->>3 AS BIGINT)
                 AND attempts.attempt = CAST(v.value->>4 AS BIGINT)";

const SHARED_OUTPUTS: &str = "
    INSERT INTO outputs (run, attempt, segment, at, bytes, digest)
    SELECT CAST(v.value->>0 AS BIGINT), CAST(v.value->>1 AS BIGINT), segment, at, bytes, digest
    FROM json_each($1) AS v
    JOIN outputs ON outputs.run = CAST(v.value->>3 AS BIGINT) AND outputs.attempt = CAST(v.value->>4 AS BIGINT)
    WHERE true ON CONFLICT DO NOTHING";

/// The attempts that footprints are of: with the fence and the worker that they had, ended, and not yet measured.
macro_rules! of_measured {
    () => {
        "attempts.run = CAST(v.value->>0 AS BIGINT) AND attempts.attempt = CAST(v.value->>1 AS BIGINT)
      AND attempts.fence = CAST(v.value->>2 AS BIGINT) AND attempts.worker = v.value->>3
      AND attempts.dirtied_bytes IS NULL AND attempts.outcome <> 0"
    };
}

/// Before the bytes: with them an attempt is measured.
const CHANGES: &str = concat!(
    "INSERT INTO changes (run, attempt, changes)
    SELECT attempts.run, attempts.attempt, v.value->>5 FROM json_each($1) AS v JOIN attempts ON ",
    of_measured!(),
    " WHERE v.value->>5 <> '' ON CONFLICT DO NOTHING"
);

const FOOTPRINTS: &str = concat!(
    "UPDATE attempts SET dirtied_bytes = CAST(v.value->>4 AS BIGINT) FROM json_each($1) AS v WHERE ",
    of_measured!()
);

/// Before the verdicts are written: only a test that has none feeds the history. One wild duration counts for no more than
/// four times, and no less than a quarter of, what was known, as in [`super::super::super::smoothed`]. Two runs that end
/// the same test in one round feed it once.
const HISTORY: &str = "
    INSERT INTO history (project, suite, id, mean_ms, failed_last, runs, failures, flakes, last_run)
    SELECT seen.project, seen.suite, seen.id,
           CASE WHEN history.mean_ms IS NULL THEN seen.ms
                WHEN seen.ms > history.mean_ms * 4 AND history.mean_ms * 4 < 100
                THEN (3 * history.mean_ms + 100) / 4
                WHEN seen.ms > history.mean_ms * 4 THEN (3 * history.mean_ms + history.mean_ms * 4) / 4
                WHEN seen.ms < history.mean_ms / 4 THEN (3 * history.mean_ms + history.mean_ms / 4) / 4
                ELSE (3 * history.mean_ms + seen.ms) / 4 END,
           seen.failed + seen.flaky, COALESCE(history.runs, 0) + 1, COALESCE(history.failures, 0) + seen.failed,
           COALESCE(history.flakes, 0) + seen.flaky, seen.run
    FROM (SELECT runs.project AS project, tests.suite AS suite, tests.id AS id,
                 max(CAST(v.value->>2 AS BIGINT)) AS ms, max(CAST(v.value->>3 AS BIGINT)) AS failed,
                 min(CAST(v.value->>4 AS BIGINT)) AS flaky, max(runs.run) AS run
          FROM json_each($1) AS v
          JOIN tests ON tests.run = CAST(v.value->>0 AS BIGINT) AND tests.test = CAST(v.value->>1 AS BIGINT)
                    AND tests.verdict = 0
          JOIN runs ON runs.run = tests.run
          GROUP BY runs.project, tests.suite, tests.id) AS seen
    LEFT JOIN history ON history.project = seen.project
          AND history.suite = seen.suite AND history.id = seen.id
    WHERE true
    ON CONFLICT (project, suite, id) DO UPDATE SET
        mean_ms = excluded.mean_ms, failed_last = excluded.failed_last, runs = excluded.runs,
        failures = excluded.failures, flakes = excluded.flakes, last_run = excluded.last_run";

/// `verdict = 0`: a given verdict never changes.
const VERDICTS: &str = "
    UPDATE tests SET verdict = CAST(v.value->>2 AS BIGINT)
    FROM json_each($1) AS v
    WHERE tests.run = CAST(v.value->>0 AS BIGINT) AND tests.test = CAST(v.value->>1 AS BIGINT)
      AND tests.verdict = 0";

/// What is told twice is what was told first.
const ARTIFACTS: &str = "
    INSERT INTO artifacts (run, fence, blob_digest, blob_size, files, bytes, left_out)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";

const CLOSED: &str = "DELETE FROM leases WHERE fence IN (SELECT CAST(value AS BIGINT) FROM json_each($1))";

/// `places`: of what the round [printed](Round::printed).
pub(in crate::store) async fn round(
    db: &mut Connection,
    round: &Round<'_>,
    places: Vec<Place>,
) -> Result<()> {
    let (outputs, pieces) = round.placed(places);
    for record in &round.first {
        single(db, record).await?;
    }
    each(db, SUITES, statements(&round.suites)).await?;
    each(db, TESTS, statements(&round.tests)).await?;
    grant(db, round).await?;
    each(db, LEASES, statements(&round.leases)).await?;
    each(db, ATTEMPTS, statements(&round.attempts)).await?;
    each(db, ENDS, statements(&round.ends)).await?;
    each(db, OUTPUTS, statements(&outputs)).await?;
    each(db, PIECES, statements(&pieces)).await?;
    each(db, SHARED, statements(&round.shared)).await?;
    each(db, SHARED_OUTPUTS, statements(&round.shared)).await?;
    each(db, CHANGES, statements(&round.footprints)).await?;
    each(db, FOOTPRINTS, statements(&round.footprints)).await?;
    each(db, HISTORY, statements(&round.seen)).await?;
    each(db, VERDICTS, statements(&round.verdicts)).await?;
    each(db, CLOSED, statements(&round.closed)).await?;
    for record in &round.last {
        single(db, record).await?;
    }
    Ok(())
}

async fn each(db: &mut Connection, sql: &'static str, rows: impl Iterator<Item = String>) -> Result<()> {
    for rows in rows {
        sqlx::query(sql).bind(rows).execute(&mut *db).await?;
    }
    Ok(())
}

async fn grant(db: &mut Connection, round: &Round<'_>) -> Result<()> {
    let Some((lowest, highest)) = round.fences().map_err(sqlx::Error::Protocol)? else { return Ok(()) };
    let raised = sqlx::query(FENCES).bind(number(lowest)).bind(number(highest)).execute(db).await?;
    if raised.rows_affected() == 1 {
        return Ok(());
    }
    Err(sqlx::Error::Protocol(format!("fence {lowest} was given before")).into())
}

/// A record of a kind that is rare.
async fn single(db: &mut Connection, record: &Record) -> Result<()> {
    match record {
        Record::RunCreated { run, header, at_unix_ms } => run_created(db, *run, header, *at_unix_ms).await,
        Record::RunMoved { run, state, reason, at_unix_ms } => {
            run_moved(db, *run, *state, reason, *at_unix_ms).await
        }
        Record::BaselinePinned { run, key } => {
            let sql = "UPDATE runs SET baseline_key = $2 WHERE run = $1";
            sqlx::query(sql).bind(number(run.0)).bind(key).execute(db).await?;
            Ok(())
        }
        Record::BaselinePublished { key, manifest, at_unix_ms, replaces } => {
            let sql = match replaces {
                false => {
                    "INSERT INTO baselines (key, manifest, at_ms) VALUES ($1, $2, $3) ON CONFLICT (key) DO NOTHING"
                }
                true => {
                    "INSERT INTO baselines (key, manifest, at_ms) VALUES ($1, $2, $3)
                     ON CONFLICT (key) DO UPDATE SET manifest = excluded.manifest, at_ms = excluded.at_ms"
                }
            };
            sqlx::query(sql).bind(key).bind(manifest).bind(number(*at_unix_ms)).execute(db).await?;
            Ok(())
        }
        Record::WorkLost { run, kind, worker } => {
            let (kind, suite) = codes::from_lease_kind(kind);
            sqlx::query("INSERT INTO losses (run, kind, suite, worker) VALUES ($1, $2, $3, $4)")
                .bind(number(run.0))
                .bind(kind)
                .bind(suite)
                .bind(&worker.0)
                .execute(db)
                .await?;
            Ok(())
        }
        Record::ArtifactsKept { lease, artifacts } => {
            sqlx::query(ARTIFACTS)
                .bind(number(lease.run.0))
                .bind(number(lease.fence.0))
                .bind(&artifacts.blob_digest)
                .bind(number(artifacts.blob_size))
                .bind(i64::from(artifacts.files))
                .bind(number(artifacts.bytes))
                .bind(i64::from(artifacts.left_out))
                .execute(db)
                .await?;
            Ok(())
        }
        Record::Inexact { worker, inexact, at_unix_ms } => {
            super::inexact::write(db, worker, inexact, *at_unix_ms).await
        }
        Record::Noted { run, text, log_zstd, at_unix_ms } => {
            sqlx::query("INSERT INTO notes (run, at_ms, text, zstd) VALUES ($1, $2, $3, $4)")
                .bind(number(run.0))
                .bind(number(*at_unix_ms))
                .bind(without_nul(text))
                .bind(log_zstd)
                .execute(db)
                .await?;
            Ok(())
        }
        _ => unreachable!("a round gathers all other kinds"),
    }
}

async fn run_created(db: &mut Connection, run: RunId, header: &RunHeader, at_ms: u64) -> Result<()> {
    sqlx::query(
        "INSERT INTO runs (run, project, repository, commit_id, git_ref, trigger_kind, requested_by, spec_digest,
                           dedup_key, rerun_of, state, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(number(run.0))
    .bind(&header.project)
    .bind(&header.repository)
    .bind(&header.commit)
    .bind(&header.git_ref)
    .bind(codes::from_trigger(header.trigger))
    .bind(&header.requested_by)
    .bind(&header.spec_digest)
    .bind(&header.dedup_key)
    .bind(header.rerun_of.map(|run| number(run.0)))
    .bind(codes::from_state(RunState::Queued))
    .bind(number(at_ms))
    .execute(db)
    .await?;
    Ok(())
}

async fn run_moved(db: &mut Connection, run: RunId, state: RunState, reason: &str, at_ms: u64) -> Result<()> {
    let ended = matches!(state, RunState::Ended(_));
    sqlx::query(
        "UPDATE runs SET state = $2, reason = $3,
                         started_ms = CASE WHEN started_ms = 0 AND NOT $5 THEN $4 ELSE started_ms END,
                         ended_ms = CASE WHEN $5 THEN $4 ELSE ended_ms END,
                         based_ms = CASE WHEN based_ms = 0 AND $6 THEN $4 ELSE based_ms END
         WHERE run = $1",
    )
    .bind(number(run.0))
    .bind(codes::from_state(state))
    .bind(reason)
    .bind(number(at_ms))
    .bind(ended)
    .bind(state.has_its_baseline())
    .execute(&mut *db)
    .await?;
    if ended {
        for over in ["DELETE FROM leases WHERE run = $1", "DELETE FROM losses WHERE run = $1"] {
            sqlx::query(over).bind(number(run.0)).execute(&mut *db).await?;
        }
        // All verdicts of the round are written: from here on nothing of the run changes.
        let counts =
            serde_json::to_string(&super::read::counts(db, run).await?).expect("numbers are valid JSON");
        sqlx::query("UPDATE runs SET counts = $2 WHERE run = $1")
            .bind(number(run.0))
            .bind(counts)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}
