//! What a run leaves behind is deleted some time after its end, a little in each transaction, so that no round waits for long. The
//! run itself stays, with its counts, and so does what is known of its tests from later runs.

use super::super::super::outputs::Outputs;
use super::super::super::{Forgotten, Result, StoreError};
use super::super::{Connection, Pool};

const OLDEST: &str = "
    SELECT run FROM runs WHERE forgotten = 0 AND ended_ms > 0 AND ended_ms < $1 ORDER BY ended_ms LIMIT 1";

const PARTS: [&str; 8] = [
    "DELETE FROM changes WHERE run = $1 AND attempt IN
         (SELECT attempt FROM changes WHERE run = $1 ORDER BY attempt LIMIT $2)",
    "DELETE FROM outputs WHERE run = $1 AND attempt IN
         (SELECT attempt FROM outputs WHERE run = $1 ORDER BY attempt LIMIT $2)",
    "DELETE FROM pieces WHERE run = $1 AND fence IN
         (SELECT fence FROM pieces WHERE run = $1 ORDER BY fence LIMIT $2)",
    "DELETE FROM attempts WHERE run = $1 AND attempt IN
         (SELECT attempt FROM attempts WHERE run = $1 ORDER BY attempt LIMIT $2)",
    "DELETE FROM notes WHERE run = $1 AND note IN
         (SELECT note FROM notes WHERE run = $1 ORDER BY note LIMIT $2)",
    "DELETE FROM tests WHERE run = $1 AND test IN
         (SELECT test FROM tests WHERE run = $1 ORDER BY test LIMIT $2)",
    "DELETE FROM owned_tests WHERE run = $1 AND name IN
         (SELECT name FROM owned_tests WHERE run = $1 ORDER BY name LIMIT $2)",
    "DELETE FROM suites_discovered WHERE run = $1 AND suite IN
         (SELECT suite FROM suites_discovered WHERE run = $1 ORDER BY suite LIMIT $2)",
];

/// One at a time with the question whether another unit left the same.
const ARTIFACTS: &str = "
    DELETE FROM artifacts WHERE fence IN
        (SELECT fence FROM artifacts WHERE run = $1 ORDER BY fence LIMIT $2)
    RETURNING blob_digest";

const IS_BLOB_USED: &str = "SELECT CAST(EXISTS (SELECT 1 FROM artifacts WHERE blob_digest = $1) AS INTEGER)";

/// Tests that no later run had.
const HISTORY: &str = "
    DELETE FROM history WHERE project = (SELECT project FROM runs WHERE run = $1) AND last_run = $1";

const FORGOTTEN: &str = "UPDATE runs SET forgotten = 1 WHERE run = $1";

const IS_USED: &str = "
    SELECT CAST(EXISTS (SELECT 1 FROM outputs WHERE segment = $1)
             OR EXISTS (SELECT 1 FROM pieces WHERE segment = $1) AS INTEGER)";

/// One step: about `rows_max` rows.
pub(super) async fn step(db: &mut Connection, ended_before_ms: i64, rows_max: i64) -> Result<Forgotten> {
    let oldest: Option<i64> =
        sqlx::query_scalar(OLDEST).bind(ended_before_ms).fetch_optional(&mut *db).await?;
    let Some(run) = oldest else { return Ok(Forgotten::default()) };
    let mut blobs = artifacts(db, run, rows_max).await?;
    let mut room = rows_max - i64::try_from(blobs.len()).unwrap_or(rows_max);
    for part in PARTS {
        if room > 0 {
            let deleted = sqlx::query(part).bind(run).bind(room).execute(&mut *db).await?.rows_affected();
            room -= i64::try_from(deleted).unwrap_or(rows_max);
        }
    }
    if room > 0 {
        sqlx::query(HISTORY).bind(run).execute(&mut *db).await?;
        sqlx::query(FORGOTTEN).bind(run).execute(&mut *db).await?;
    }
    blobs.sort_unstable();
    blobs.dedup();
    let mut unused = Vec::new();
    for blob in blobs {
        let is_used: i32 = sqlx::query_scalar(IS_BLOB_USED).bind(&blob).fetch_one(&mut *db).await?;
        if is_used == 0 {
            unused.push(blob);
        }
    }
    Ok(Forgotten { is_more: true, blobs: unused })
}

async fn artifacts(db: &mut Connection, run: i64, rows_max: i64) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(ARTIFACTS).bind(run).bind(rows_max).fetch_all(db).await?)
}

/// Removes the segments that no row speaks of any more.
pub(super) async fn unused(pool: &Pool, outputs: &Outputs, before_ms: u64) -> Result<()> {
    for segment in outputs.untouched_since(before_ms).await.map_err(StoreError::Outputs)? {
        let is_used: i32 =
            sqlx::query_scalar(IS_USED).bind(super::write::number(segment)).fetch_one(pool).await?;
        if is_used == 0 {
            outputs.remove(segment).await.map_err(StoreError::Outputs)?;
        }
    }
    Ok(())
}
