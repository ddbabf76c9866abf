//! Rows out of the database.

use std::collections::HashMap;

use andon_core::ids::{AttemptId, Fence, LaneIx, Lease, RunId, TestIx, WorkId, WorkerId};
use andon_core::model::{Artifacts, RunHeader};
use sqlx::{FromRow, Row as _};

use super::super::super::outputs::{Outputs, Place};
use super::super::super::{
    Active, ActiveLease, ActiveRun, AttemptRow, Content, Counts, Output, Past, Piece, Result, RunFilter,
    RunRow, TestRow, UsualDirt, codes,
};
use super::super::{Connection, Pool, Row};
use super::write::number;

/// What we stored as a count comes back as one.
pub(in crate::store) fn natural(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn small(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

pub(super) struct RawRun {
    run: i64,
    project: String,
    repository: String,
    commit_id: String,
    git_ref: String,
    trigger_kind: i64,
    requested_by: String,
    spec_digest: String,
    dedup_key: Option<String>,
    rerun_of: Option<i64>,
    state: i64,
    reason: String,
    baseline_key: String,
    created_ms: i64,
    started_ms: i64,
    based_ms: i64,
    ended_ms: i64,
    forgotten: i64,
    /// Empty while the run has not ended.
    counts: String,
}

impl FromRow<'_, Row> for RawRun {
    fn from_row(row: &Row) -> sqlx::Result<Self> {
        Ok(Self {
            run: row.try_get("run")?,
            project: row.try_get("project")?,
            repository: row.try_get("repository")?,
            commit_id: row.try_get("commit_id")?,
            git_ref: row.try_get("git_ref")?,
            trigger_kind: row.try_get("trigger_kind")?,
            requested_by: row.try_get("requested_by")?,
            spec_digest: row.try_get("spec_digest")?,
            dedup_key: row.try_get("dedup_key")?,
            rerun_of: row.try_get("rerun_of")?,
            state: row.try_get("state")?,
            reason: row.try_get("reason")?,
            baseline_key: row.try_get("baseline_key")?,
            created_ms: row.try_get("created_ms")?,
            started_ms: row.try_get("started_ms")?,
            based_ms: row.try_get("based_ms")?,
            ended_ms: row.try_get("ended_ms")?,
            forgotten: row.try_get("forgotten")?,
            counts: row.try_get("counts")?,
        })
    }
}

impl RawRun {
    fn into_row(self, counts: Counts) -> Result<RunRow> {
        Ok(RunRow {
            run: RunId(natural(self.run)),
            header: RunHeader {
                project: self.project,
                repository: self.repository,
                commit: self.commit_id,
                git_ref: self.git_ref,
                trigger: codes::to_trigger(self.trigger_kind)?,
                requested_by: self.requested_by,
                spec_digest: self.spec_digest,
                dedup_key: self.dedup_key,
                rerun_of: self.rerun_of.map(|run| RunId(natural(run))),
            },
            state: codes::to_state(self.state)?,
            reason: self.reason,
            baseline_key: self.baseline_key,
            created_ms: natural(self.created_ms),
            started_ms: natural(self.started_ms),
            based_ms: natural(self.based_ms),
            ended_ms: natural(self.ended_ms),
            forgotten: self.forgotten != 0,
            counts,
        })
    }
}

pub(in crate::store) async fn run(pool: &Pool, run: RunId) -> Result<Option<RunRow>> {
    let raw: Option<RawRun> =
        sqlx::query_as("SELECT * FROM runs WHERE run = $1").bind(number(run.0)).fetch_optional(pool).await?;
    match raw {
        Some(raw) => with_counts(pool, raw).await.map(Some),
        None => Ok(None),
    }
}

pub(in crate::store) async fn specifications(
    pool: &Pool,
    forgotten: bool,
    after: RunId,
    limit: u32,
) -> Result<Vec<(RunId, String)>> {
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "SELECT run, spec_digest FROM runs WHERE forgotten = $1 AND run > $2 ORDER BY run LIMIT $3",
    )
    .bind(i64::from(forgotten))
    .bind(number(after.0))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(run, digest)| (RunId(natural(run)), digest)).collect())
}

pub(in crate::store) async fn runs(pool: &Pool, filter: &RunFilter) -> Result<Vec<RunRow>> {
    let raws: Vec<RawRun> = sqlx::query_as(
        "SELECT * FROM runs
         WHERE ($1 IS NULL OR project = $1) AND ($2 IS NULL OR substr(commit_id, 1, length($2)) = $2)
         ORDER BY run DESC LIMIT $3",
    )
    .bind(&filter.project)
    .bind(&filter.commit)
    .bind(i64::from(filter.limit))
    .fetch_all(pool)
    .await?;
    let mut rows = Vec::with_capacity(raws.len());
    for raw in raws {
        rows.push(with_counts(pool, raw).await?);
    }
    Ok(rows)
}

/// A run that has ended brings its counts; those of others are counted.
pub(super) async fn with_counts(pool: &Pool, raw: RawRun) -> Result<RunRow> {
    let counts = match serde_json::from_str(&raw.counts) {
        Ok(counts) => counts,
        Err(_) => counts(&mut *pool.acquire().await?, RunId(natural(raw.run))).await?,
    };
    raw.into_row(counts)
}

pub(super) async fn counts(db: &mut Connection, run: RunId) -> Result<Counts> {
    let verdicts: Vec<(i64, i64)> =
        sqlx::query_as("SELECT verdict, count(*) FROM tests WHERE run = $1 GROUP BY verdict")
            .bind(number(run.0))
            .fetch_all(&mut *db)
            .await?;
    let running: i64 = sqlx::query_scalar("SELECT count(*) FROM attempts WHERE run = $1 AND outcome = 0")
        .bind(number(run.0))
        .fetch_one(&mut *db)
        .await?;
    let mut counts = Counts { running: small(running), ..Counts::default() };
    for (verdict, tests) in verdicts {
        counts.add(codes::to_option(verdict, codes::to_verdict)?, small(tests));
    }
    Ok(counts)
}

const ALL_TESTS: &str = "SELECT test, suite, id, verdict FROM tests WHERE run = $1 ORDER BY test";
const ONE_TEST: &str = "SELECT test, suite, id, verdict FROM tests WHERE run = $1 AND test = $2";
const ATTEMPTS_OF_ALL: &str = "SELECT * FROM attempts WHERE run = $1 ORDER BY test, attempt";

/// By way of the index that holds a test's attempts, as those of several tests.
pub(super) const ATTEMPTS_OF_TEST: &str = "
    SELECT * FROM attempts
    WHERE run = $1 AND attempt IN (SELECT attempt FROM attempts WHERE run = $1 AND test = $2) ORDER BY attempt";

/// All tests of a run, or one of them.
pub(in crate::store) async fn tests(pool: &Pool, run: RunId, only: Option<TestIx>) -> Result<Vec<TestRow>> {
    let run = number(run.0);
    let (raws, attempts): (Vec<(i64, String, String, i64)>, _) = match only.map(|test| i64::from(test.0)) {
        None => (
            sqlx::query_as(ALL_TESTS).bind(run).fetch_all(pool).await?,
            sqlx::query(ATTEMPTS_OF_ALL).bind(run).fetch_all(pool).await?,
        ),
        Some(test) => (
            sqlx::query_as(ONE_TEST).bind(run).bind(test).fetch_all(pool).await?,
            sqlx::query(ATTEMPTS_OF_TEST).bind(run).bind(test).fetch_all(pool).await?,
        ),
    };
    let mut of_test: HashMap<i64, Vec<AttemptRow>> = HashMap::new();
    for row in attempts {
        of_test.entry(row.try_get("test")?).or_default().push(attempt(&row)?);
    }
    raws.into_iter()
        .map(|(test, suite, id, verdict)| {
            Ok(TestRow {
                test: TestIx(small(test)),
                suite,
                id,
                verdict: codes::to_option(verdict, codes::to_verdict)?,
                attempts: of_test.remove(&test).unwrap_or_default(),
            })
        })
        .collect()
}

pub(super) fn attempt(row: &Row) -> Result<AttemptRow> {
    let count = |name: &str| row.try_get::<i64, _>(name).map(natural);
    Ok(AttemptRow {
        attempt: AttemptId(count("attempt")?),
        work: WorkId(count("work")?),
        fence: Fence(count("fence")?),
        worker: WorkerId(row.try_get("worker")?),
        lane: LaneIx(small(row.try_get("lane")?)),
        outcome: codes::to_option(row.try_get("outcome")?, codes::to_outcome)?,
        queue_ms: count("queue_ms")?,
        prepare_ms: count("prepare_ms")?,
        start_ms: count("start_ms")?,
        rebase_us: count("rebase_us")?,
        run_ms: count("run_ms")?,
        report_us: count("report_us")?,
        dirtied_bytes: row.try_get::<Option<i64>, _>("dirtied_bytes")?.map(natural),
        message: row.try_get("message")?,
        driver: row.try_get("driver")?,
        started_ms: count("started_ms")?,
    })
}

pub(in crate::store) async fn active(pool: &Pool) -> Result<Active> {
    let last_run: Option<i64> = sqlx::query_scalar("SELECT max(run) FROM runs").fetch_one(pool).await?;
    let last_fence: i64 =
        sqlx::query_scalar("SELECT value FROM counters WHERE name = 'fence'").fetch_one(pool).await?;
    let raws: Vec<RawRun> = sqlx::query_as("SELECT * FROM runs WHERE state < $1 ORDER BY run")
        .bind(codes::FIRST_ENDED_STATE)
        .fetch_all(pool)
        .await?;
    let mut runs = Vec::with_capacity(raws.len());
    for raw in raws {
        runs.push(active_run(pool, raw).await?);
    }
    Ok(Active { last_run: natural(last_run.unwrap_or(0)), last_fence: natural(last_fence), runs })
}

async fn active_run(pool: &Pool, raw: RawRun) -> Result<ActiveRun> {
    let run = RunId(natural(raw.run));
    let discovered = sqlx::query_scalar("SELECT suite FROM suites_discovered WHERE run = $1 ORDER BY suite")
        .bind(raw.run)
        .fetch_all(pool)
        .await?;
    let raw_leases: Vec<(i64, i64, i64, String, String, i64)> = sqlx::query_as(
        "SELECT fence, work, kind, suite, worker, lane FROM leases WHERE run = $1 ORDER BY fence",
    )
    .bind(raw.run)
    .fetch_all(pool)
    .await?;
    let leases = raw_leases
        .into_iter()
        .map(|(fence, work, kind, suite, worker, lane)| {
            Ok(ActiveLease {
                lease: Lease { run, work: WorkId(natural(work)), fence: Fence(natural(fence)) },
                kind: codes::to_lease_kind(kind, suite)?,
                worker: WorkerId(worker),
                lane: LaneIx(small(lane)),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let raw_losses: Vec<(i64, String, String)> =
        sqlx::query_as("SELECT kind, suite, worker FROM losses WHERE run = $1")
            .bind(raw.run)
            .fetch_all(pool)
            .await?;
    let losses = raw_losses
        .into_iter()
        .map(|(kind, suite, worker)| Ok((codes::to_lease_kind(kind, suite)?, WorkerId(worker))))
        .collect::<Result<Vec<_>>>()?;
    let tests = tests(pool, run, None).await?;
    let of_attempts = tests.iter().flat_map(|test| &test.attempts).map(|attempt| attempt.work.0);
    let last_work = of_attempts.chain(leases.iter().map(|lease| lease.lease.work.0)).max().unwrap_or(0);
    let row = with_counts(pool, raw).await?;
    Ok(ActiveRun { row, tests, discovered, leases, losses, last_work })
}

const OUTPUT: &str = "SELECT segment, at, bytes, digest FROM outputs WHERE run = $1 AND attempt = $2";

const PIECES: &str = "
    SELECT starts, raw_bytes, segment, at, bytes, digest FROM pieces
    WHERE run = $1 AND fence = (SELECT fence FROM attempts WHERE run = $1 AND attempt = $2) ORDER BY starts";

pub(in crate::store) async fn output(
    pool: &Pool,
    outputs: &Outputs,
    run: RunId,
    attempt: AttemptId,
) -> Result<Output> {
    let place = |(segment, at, bytes, digest): (i64, i64, i64, String)| Place {
        segment: natural(segment),
        at: natural(at),
        bytes: natural(bytes),
        digest,
    };
    let whole: Option<(i64, i64, i64, String)> =
        sqlx::query_as(OUTPUT).bind(number(run.0)).bind(number(attempt.0)).fetch_optional(pool).await?;
    if let Some(whole) = whole {
        return Ok(Output::Whole(content(outputs, place(whole)).await));
    }
    let raws: Vec<(i64, i64, i64, i64, i64, String)> =
        sqlx::query_as(PIECES).bind(number(run.0)).bind(number(attempt.0)).fetch_all(pool).await?;
    let mut pieces = Vec::with_capacity(raws.len());
    for (starts, raw_bytes, segment, at, bytes, digest) in raws {
        let content = content(outputs, place((segment, at, bytes, digest))).await;
        pieces.push(Piece { starts: natural(starts), raw_bytes: natural(raw_bytes), content });
    }
    Ok(if pieces.is_empty() { Output::Nothing } else { Output::Pieces(pieces) })
}

async fn content(outputs: &Outputs, place: Place) -> Content {
    outputs.read(place).await.map_err(|lost| lost.to_string())
}

const HISTORY: &str = "
    SELECT id, mean_ms, failed_last, runs, failures, flakes FROM history WHERE project = $1 AND suite = $2";

pub(in crate::store) async fn history(
    pool: &Pool,
    project: &str,
    suite: &str,
) -> Result<HashMap<String, Past>> {
    let raws: Vec<(String, i64, i64, i64, i64, i64)> =
        sqlx::query_as(HISTORY).bind(project).bind(suite).fetch_all(pool).await?;
    let past = |(id, mean, failed_last, runs, failures, flakes)| {
        let past = Past {
            mean_ms: natural(mean),
            failed_last: failed_last != 0,
            runs: small(runs),
            failures: small(failures),
            flakes: small(flakes),
        };
        (id, past)
    };
    Ok(raws.into_iter().map(past).collect())
}

/// By the grant alone: an attempt that another run executed has that run's.
pub(in crate::store) async fn changes(pool: &Pool, run: RunId, attempt: AttemptId) -> Result<Option<String>> {
    let found = sqlx::query_scalar("SELECT changes FROM changes WHERE run = $1 AND attempt = $2");
    Ok(found.bind(number(run.0)).bind(number(attempt.0)).fetch_optional(pool).await?)
}

const USUAL_DIRT: &str = "
    SELECT tests.suite, tests.id, CAST(avg(attempts.dirtied_bytes) AS BIGINT), count(*)
    FROM attempts JOIN tests ON tests.run = attempts.run AND tests.test = attempts.test
    WHERE attempts.dirtied_bytes IS NOT NULL AND attempts.run IN
        (SELECT run FROM runs WHERE project = (SELECT project FROM runs WHERE run = $1) AND run < $1
         ORDER BY run DESC LIMIT $2)
    GROUP BY tests.suite, tests.id";

pub(in crate::store) async fn usual_dirt(pool: &Pool, run: RunId, runs_max: u32) -> Result<UsualDirt> {
    let rows: Vec<(String, String, i64, i64)> =
        sqlx::query_as(USUAL_DIRT).bind(number(run.0)).bind(i64::from(runs_max)).fetch_all(pool).await?;
    let usual = |(suite, id, bytes, samples)| ((suite, id), (natural(bytes), natural(samples)));
    Ok(rows.into_iter().map(usual).collect())
}

const ARTIFACTS: &str = "
    SELECT blob_digest, blob_size, files, bytes, left_out FROM artifacts
    WHERE fence = (SELECT fence FROM attempts WHERE run = $1 AND attempt = $2)";

pub(in crate::store) async fn artifacts(
    pool: &Pool,
    run: RunId,
    attempt: AttemptId,
) -> Result<Option<Artifacts>> {
    let raw: Option<(String, i64, i64, i64, i64)> =
        sqlx::query_as(ARTIFACTS).bind(number(run.0)).bind(number(attempt.0)).fetch_optional(pool).await?;
    Ok(raw.map(|(blob_digest, blob_size, files, bytes, left_out)| Artifacts {
        blob_digest,
        blob_size: natural(blob_size),
        files: small(files),
        bytes: natural(bytes),
        left_out: small(left_out),
    }))
}
