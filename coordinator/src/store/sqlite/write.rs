//! Each record as its statements. Runs inside the driver's transaction.

use andon_core::ids::{AttemptId, LaneIx, Lease, RunId, TestIx, WorkerId};
use andon_core::model::{Ended, LeaseKind, Record, RunHeader, RunState, Verdict};
use sqlx::SqliteConnection;

use super::super::{Result, codes, smoothed};

/// SQLite's integers are signed; every number we store counts something real and fits.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) async fn record(db: &mut SqliteConnection, record: &Record) -> Result<()> {
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
        Record::TestsAdded { run, suite, tests } => tests_added(db, *run, suite, tests).await,
        Record::Leased { lease, kind, worker, lane, attempts } => {
            leased(db, *lease, kind, worker, *lane, attempts).await
        }
        Record::LeaseClosed { fence } => {
            sqlx::query("DELETE FROM leases WHERE fence = $1").bind(number(fence.0)).execute(db).await?;
            Ok(())
        }
        Record::AttemptEnded { run, attempt, ended, at_unix_ms } => {
            attempt_ended(db, *run, *attempt, ended, *at_unix_ms).await
        }
        Record::AttemptShared { run, attempt, test, of, of_attempt } => {
            attempt_shared(db, (*run, *attempt, *test), (*of, *of_attempt)).await
        }
        Record::Footprint { lease, worker, attempts, dirtied_bytes } => {
            footprint(db, *lease, worker, attempts, *dirtied_bytes).await
        }
        Record::BaselinePublished { key, manifest, at_unix_ms } => {
            let sql = "INSERT INTO baselines (key, manifest, at_ms) VALUES ($1, $2, $3) ON CONFLICT (key) DO NOTHING";
            sqlx::query(sql).bind(key).bind(manifest).bind(number(*at_unix_ms)).execute(db).await?;
            Ok(())
        }
        Record::VerdictGiven { run, test, verdict, run_ms } => {
            verdict_given(db, *run, *test, *verdict, *run_ms).await
        }
        Record::Noted { run, text, log_zstd, at_unix_ms } => {
            sqlx::query("INSERT INTO notes (run, at_ms, text, zstd) VALUES ($1, $2, $3, $4)")
                .bind(number(run.0))
                .bind(number(*at_unix_ms))
                .bind(text)
                .bind(log_zstd)
                .execute(db)
                .await?;
            Ok(())
        }
    }
}

/// What is known of one run's attempt, as another run's.
async fn attempt_shared(
    db: &mut SqliteConnection,
    (run, attempt, test): (RunId, AttemptId, TestIx),
    (of, of_attempt): (RunId, AttemptId),
) -> Result<()> {
    let attempts =
        "INSERT INTO attempts (run, attempt, test, work, fence, worker, lane, outcome, queue_ms, prepare_ms,
                                          rebase_us, run_ms, message, driver, started_ms, ended_ms)
                    SELECT $1, $2, $3, work, fence, worker, lane, outcome, queue_ms, prepare_ms,
                           rebase_us, run_ms, message, driver, started_ms, ended_ms
                    FROM attempts WHERE run = $4 AND attempt = $5";
    sqlx::query(attempts)
        .bind(number(run.0))
        .bind(number(attempt.0))
        .bind(i64::from(test.0))
        .bind(number(of.0))
        .bind(number(of_attempt.0))
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "INSERT INTO logs (run, attempt, zstd) SELECT $1, $2, zstd FROM logs WHERE run = $3 AND attempt = $4",
    )
    .bind(number(run.0))
    .bind(number(attempt.0))
    .bind(number(of.0))
    .bind(number(of_attempt.0))
    .execute(db)
    .await?;
    Ok(())
}

async fn run_created(db: &mut SqliteConnection, run: RunId, header: &RunHeader, at_ms: u64) -> Result<()> {
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

async fn run_moved(
    db: &mut SqliteConnection,
    run: RunId,
    state: RunState,
    reason: &str,
    at_ms: u64,
) -> Result<()> {
    let ended = matches!(state, RunState::Ended(_));
    sqlx::query(
        "UPDATE runs SET state = $2, reason = $3,
                         started_ms = CASE WHEN started_ms = 0 AND NOT $5 THEN $4 ELSE started_ms END,
                         ended_ms = CASE WHEN $5 THEN $4 ELSE ended_ms END
         WHERE run = $1",
    )
    .bind(number(run.0))
    .bind(codes::from_state(state))
    .bind(reason)
    .bind(number(at_ms))
    .bind(ended)
    .execute(&mut *db)
    .await?;
    if ended {
        sqlx::query("DELETE FROM leases WHERE run = $1").bind(number(run.0)).execute(db).await?;
    }
    Ok(())
}

async fn tests_added(
    db: &mut SqliteConnection,
    run: RunId,
    suite: &str,
    tests: &[(TestIx, String)],
) -> Result<()> {
    sqlx::query("INSERT INTO suites_discovered (run, suite) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(number(run.0))
        .bind(suite)
        .execute(&mut *db)
        .await?;
    for (test, id) in tests {
        sqlx::query("INSERT INTO tests (run, test, suite, id) VALUES ($1, $2, $3, $4)")
            .bind(number(run.0))
            .bind(i64::from(test.0))
            .bind(suite)
            .bind(id)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

async fn leased(
    db: &mut SqliteConnection,
    lease: Lease,
    kind: &LeaseKind,
    worker: &WorkerId,
    lane: LaneIx,
    attempts: &[(AttemptId, TestIx, u64)],
) -> Result<()> {
    let fence = number(lease.fence.0);
    // The guard makes a fence that was given before an error here, never a second grant.
    let raised = sqlx::query("UPDATE counters SET value = $1 WHERE name = 'fence' AND value < $1")
        .bind(fence)
        .execute(&mut *db)
        .await?;
    if raised.rows_affected() != 1 {
        return Err(sqlx::Error::Protocol(format!("fence {fence} was given before")).into());
    }
    let (kind, suite) = codes::from_lease_kind(kind);
    sqlx::query(
        "INSERT INTO leases (fence, run, work, kind, suite, worker, lane) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(fence)
    .bind(number(lease.run.0))
    .bind(number(lease.work.0))
    .bind(kind)
    .bind(suite)
    .bind(&worker.0)
    .bind(i64::from(lane.0))
    .execute(&mut *db)
    .await?;
    for (attempt, test, queue_ms) in attempts {
        sqlx::query(
            "INSERT INTO attempts (run, attempt, test, work, fence, worker, lane, queue_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(number(lease.run.0))
        .bind(number(attempt.0))
        .bind(i64::from(test.0))
        .bind(number(lease.work.0))
        .bind(fence)
        .bind(&worker.0)
        .bind(i64::from(lane.0))
        .bind(number(*queue_ms))
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

async fn attempt_ended(
    db: &mut SqliteConnection,
    run: RunId,
    attempt: AttemptId,
    ended: &Ended,
    at_ms: u64,
) -> Result<()> {
    // `outcome = 0`: an ended attempt never changes again.
    sqlx::query(
        "UPDATE attempts SET outcome = $3, prepare_ms = $4, rebase_us = $5, run_ms = $6, message = $7, driver = $8,
                             started_ms = $9, ended_ms = $10
         WHERE run = $1 AND attempt = $2 AND outcome = 0",
    )
    .bind(number(run.0))
    .bind(number(attempt.0))
    .bind(codes::from_outcome(ended.outcome))
    .bind(number(ended.prepare_ms))
    .bind(number(ended.rebase_us))
    .bind(number(ended.run_ms))
    .bind(&ended.message)
    .bind(&ended.driver)
    .bind(number(ended.started_unix_ms))
    .bind(number(at_ms))
    .execute(&mut *db)
    .await?;
    if !ended.log_zstd.is_empty() {
        sqlx::query("INSERT INTO logs (run, attempt, zstd) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(number(run.0))
            .bind(number(attempt.0))
            .bind(&ended.log_zstd)
            .execute(db)
            .await?;
    }
    Ok(())
}

async fn footprint(
    db: &mut SqliteConnection,
    lease: Lease,
    worker: &WorkerId,
    attempts: &[AttemptId],
    dirtied_bytes: u64,
) -> Result<()> {
    for attempt in attempts {
        sqlx::query(
            "UPDATE attempts SET dirtied_bytes = $5
             WHERE run = $1 AND attempt = $2 AND fence = $3 AND worker = $4
               AND dirtied_bytes IS NULL AND outcome <> 0",
        )
        .bind(number(lease.run.0))
        .bind(number(attempt.0))
        .bind(number(lease.fence.0))
        .bind(&worker.0)
        .bind(number(dirtied_bytes))
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

async fn verdict_given(
    db: &mut SqliteConnection,
    run: RunId,
    test: TestIx,
    verdict: Verdict,
    run_ms: Option<u64>,
) -> Result<()> {
    let changed = sqlx::query("UPDATE tests SET verdict = $3 WHERE run = $1 AND test = $2 AND verdict = 0")
        .bind(number(run.0))
        .bind(i64::from(test.0))
        .bind(codes::from_verdict(verdict))
        .execute(&mut *db)
        .await?;
    let Some(seen_ms) = run_ms.filter(|_| changed.rows_affected() == 1) else { return Ok(()) };
    let place: Option<(String, String, String, Option<i64>)> = sqlx::query_as(
        "SELECT runs.project, tests.suite, tests.id, history.mean_ms
         FROM tests JOIN runs ON runs.run = tests.run
         LEFT JOIN history ON history.project = runs.project
               AND history.suite = tests.suite AND history.id = tests.id
         WHERE tests.run = $1 AND tests.test = $2",
    )
    .bind(number(run.0))
    .bind(i64::from(test.0))
    .fetch_optional(&mut *db)
    .await?;
    let Some((project, suite, id, before)) = place else { return Ok(()) };
    sqlx::query(
        "INSERT INTO history (project, suite, id, mean_ms, failed_last) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (project, suite, id) DO UPDATE SET
             mean_ms = excluded.mean_ms, failed_last = excluded.failed_last",
    )
    .bind(project)
    .bind(suite)
    .bind(id)
    .bind(number(smoothed(before.map(super::read::natural), seen_ms)))
    .bind(matches!(verdict, Verdict::Failed | Verdict::TimedOut | Verdict::Flaky))
    .execute(db)
    .await?;
    Ok(())
}
