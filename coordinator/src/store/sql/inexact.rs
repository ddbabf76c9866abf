//! Stands that were not exact: written as they are told, read for people. Old ones go as new ones come.

use std::collections::HashMap;

use andon_core::ids::{LaneIx, RunId, WorkerId};
use andon_core::inexact::{INEXACT_KEPT_MAX, INEXACT_KEPT_MS, Inexact, InexactPart};
use sqlx::{FromRow, Row as _};

use super::super::super::round::without_nul;
use super::super::super::{InexactFilter, InexactRow, Result};
use super::super::{Connection, Pool, Row};
use super::read::natural;
use super::write::number;

/// What is told twice is what was told first.
const INSERT: &str = "
    INSERT INTO inexact (worker, id, number, heard_ms, found_ms, lane, run, suite, baseline_key, driver, deep, parts,
                         left_out)
    VALUES ($1, $2, COALESCE((SELECT MAX(number) FROM inexact WHERE worker = $1), 0) + 1, $3, $4, $5, $6, $7, $8, $9,
            $10, $11, $12)
    ON CONFLICT (worker, id) DO NOTHING";

const FORGET: &str = "
    DELETE FROM inexact WHERE heard_ms < $2
       OR (worker = $1 AND number <= (SELECT MAX(number) FROM inexact WHERE worker = $1) - $3)";

const SELECT: &str = "
    SELECT worker, id, number, found_ms, lane, run, suite, baseline_key, driver, deep, parts, left_out FROM inexact
    WHERE ($1 = '' OR worker = $1) AND ($2 = '' OR baseline_key = $2)
    ORDER BY heard_ms DESC, number DESC, worker LIMIT $3";

struct Raw {
    worker: String,
    id: String,
    number: i64,
    found_ms: i64,
    lane: i64,
    run: i64,
    suite: String,
    baseline_key: String,
    driver: String,
    deep: i64,
    /// [(place, what, difference)]
    parts: String,
    left_out: i64,
}

impl FromRow<'_, Row> for Raw {
    fn from_row(row: &Row) -> sqlx::Result<Self> {
        Ok(Self {
            worker: row.try_get("worker")?,
            id: row.try_get("id")?,
            number: row.try_get("number")?,
            found_ms: row.try_get("found_ms")?,
            lane: row.try_get("lane")?,
            run: row.try_get("run")?,
            suite: row.try_get("suite")?,
            baseline_key: row.try_get("baseline_key")?,
            driver: row.try_get("driver")?,
            deep: row.try_get("deep")?,
            parts: row.try_get("parts")?,
            left_out: row.try_get("left_out")?,
        })
    }
}

impl Raw {
    fn into_row(self) -> InexactRow {
        let run = natural(self.run);
        let parts: Vec<(String, String, String)> = serde_json::from_str(&self.parts).unwrap_or_default();
        let part = |(place, what, difference)| InexactPart { place, what, difference };
        let inexact = Inexact {
            id: self.id,
            lane: LaneIx(u32::try_from(self.lane).unwrap_or(0)),
            run: (run > 0).then_some(RunId(run)),
            suite: self.suite,
            baseline_key: self.baseline_key,
            driver: self.driver,
            deep: self.deep != 0,
            parts: parts.into_iter().map(part).collect(),
            left_out: natural(self.left_out),
            found_unix_ms: natural(self.found_ms),
        };
        InexactRow { worker: WorkerId(self.worker), number: natural(self.number), inexact }
    }
}

pub(super) async fn write(
    db: &mut Connection,
    worker: &WorkerId,
    inexact: &Inexact,
    heard_ms: u64,
) -> Result<()> {
    let parts: Vec<(&str, &str, &str)> = inexact
        .parts
        .iter()
        .map(|part| (part.place.as_str(), part.what.as_str(), part.difference.as_str()))
        .collect();
    let parts = serde_json::to_string(&parts).expect("texts are valid JSON");
    sqlx::query(INSERT)
        .bind(&worker.0)
        .bind(without_nul(&inexact.id))
        .bind(number(heard_ms))
        .bind(number(inexact.found_unix_ms))
        .bind(i64::from(inexact.lane.0))
        .bind(number(inexact.run.map_or(0, |run| run.0)))
        .bind(without_nul(&inexact.suite))
        .bind(without_nul(&inexact.baseline_key))
        .bind(without_nul(&inexact.driver))
        .bind(i64::from(inexact.deep))
        .bind(parts)
        .bind(number(inexact.left_out))
        .execute(&mut *db)
        .await?;
    sqlx::query(FORGET)
        .bind(&worker.0)
        .bind(number(heard_ms.saturating_sub(INEXACT_KEPT_MS)))
        .bind(number(INEXACT_KEPT_MAX))
        .execute(db)
        .await?;
    Ok(())
}

pub(super) async fn list(pool: &Pool, filter: &InexactFilter) -> Result<Vec<InexactRow>> {
    let rows: Vec<Raw> = sqlx::query_as(SELECT)
        .bind(filter.worker.as_deref().unwrap_or_default())
        .bind(filter.baseline_key.as_deref().unwrap_or_default())
        .bind(i64::from(filter.limit))
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().map(Raw::into_row).collect())
}

pub(super) async fn counts(pool: &Pool) -> Result<HashMap<WorkerId, u64>> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT worker, MAX(number) FROM inexact GROUP BY worker").fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(worker, count)| (WorkerId(worker), natural(count))).collect())
}
