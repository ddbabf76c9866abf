//! The store over SQL: one text for both engines. `sqlite.rs` and `postgres.rs` each compile this folder with types of their
//! own (`Pool`, `Connection`, `Row`, `BEGIN`), so that nothing is written twice and nothing is decided at run time.
//!
//! Both read rows that are given as one JSON text: SQLite by its own `json_each`, PostgreSQL by a function of that name
//! from our migrations. Only the driver writes; readers have connections of their own and see whole transactions.

mod forget;
mod inexact;
pub(super) mod ledger;
pub(super) mod owned;
pub(super) mod read;
pub(super) mod write;

use std::collections::HashMap;

use andon_core::ids::{AttemptId, RunId, TestIx, WorkerId};
use andon_core::model::{Artifacts, Record};
use async_trait::async_trait;

use super::super::outputs::Outputs;
use super::super::round::{Round, without_nul};
use super::super::{
    Active, Cause, Forgotten, ImageRow, InexactFilter, InexactRow, Note, Output, Past, Result, RunFilter,
    RunRow, Store, StoreError, TestRow, UsualDirt,
};
use super::{BEGIN, Pool, check_leader};

/// A database that is open.
#[derive(Debug, Clone)]
pub struct Database {
    pub(in crate::store) pool: Pool,
    /// Who opened it last may write.
    pub(in crate::store) epoch: i64,
    /// What tests print, beside it.
    pub(in crate::store) outputs: Outputs,
}

#[async_trait]
impl Store for Database {
    async fn apply(&self, records: &[Record]) -> Result<()> {
        let round = Round::of(records);
        let places = self.outputs.keep(round.printed()).await.map_err(StoreError::Outputs)?;
        let mut transaction = self.pool.begin_with(BEGIN).await?;
        check_leader(&mut transaction, self.epoch).await?;
        write::round(&mut transaction, &round, places).await?;
        Ok(transaction.commit().await?)
    }

    async fn forget(&self, ended_before_ms: u64, rows_max: u32) -> Result<Forgotten> {
        let mut transaction = self.pool.begin_with(BEGIN).await?;
        check_leader(&mut transaction, self.epoch).await?;
        let before = write::number(ended_before_ms);
        let forgotten = forget::step(&mut transaction, before, i64::from(rows_max)).await?;
        transaction.commit().await?;
        if !forgotten.is_more {
            forget::unused(&self.pool, &self.outputs, ended_before_ms).await?;
        }
        Ok(forgotten)
    }

    async fn active(&self) -> Result<Active> {
        read::active(&self.pool).await
    }

    async fn find_dedup(&self, key: &str) -> Result<Option<RunId>> {
        let found: Option<i64> = sqlx::query_scalar("SELECT run FROM runs WHERE dedup_key = $1")
            .bind(key)
            .fetch_optional(&self.pool)
            .await?;
        Ok(found.map(|run| RunId(read::natural(run))))
    }

    async fn run(&self, run: RunId) -> Result<Option<RunRow>> {
        read::run(&self.pool, run).await
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>> {
        read::runs(&self.pool, filter).await
    }

    async fn tests(&self, run: RunId) -> Result<Vec<TestRow>> {
        read::tests(&self.pool, run, None).await
    }

    async fn test(&self, run: RunId, test: TestIx) -> Result<Option<TestRow>> {
        Ok(read::tests(&self.pool, run, Some(test)).await?.pop())
    }

    async fn output(&self, run: RunId, attempt: AttemptId) -> Result<Output> {
        read::output(&self.pool, &self.outputs, run, attempt).await
    }

    async fn artifacts(&self, run: RunId, attempt: AttemptId) -> Result<Option<Artifacts>> {
        read::artifacts(&self.pool, run, attempt).await
    }

    async fn changes(&self, run: RunId, attempt: AttemptId) -> Result<Option<String>> {
        read::changes(&self.pool, run, attempt).await
    }

    async fn usual_dirt(&self, run: RunId, runs_max: u32) -> Result<UsualDirt> {
        read::usual_dirt(&self.pool, run, runs_max).await
    }

    async fn specifications(
        &self,
        forgotten: bool,
        after: RunId,
        limit: u32,
    ) -> Result<Vec<(RunId, String)>> {
        read::specifications(&self.pool, forgotten, after, limit).await
    }

    async fn inexact(&self, filter: &InexactFilter) -> Result<Vec<InexactRow>> {
        inexact::list(&self.pool, filter).await
    }

    async fn inexact_counts(&self) -> Result<HashMap<WorkerId, u64>> {
        inexact::counts(&self.pool).await
    }

    async fn notes(&self, run: RunId) -> Result<Vec<Note>> {
        let rows: Vec<(i64, String, Vec<u8>)> =
            sqlx::query_as("SELECT at_ms, text, zstd FROM notes WHERE run = $1 ORDER BY note")
                .bind(write::number(run.0))
                .fetch_all(&self.pool)
                .await?;
        Ok(rows.into_iter().map(|(at, text, zstd)| Note { at_ms: read::natural(at), text, zstd }).collect())
    }

    async fn history(&self, project: &str, suite: &str) -> Result<HashMap<String, Past>> {
        read::history(&self.pool, project, suite).await
    }

    async fn baseline(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(sqlx::query_scalar("SELECT manifest FROM baselines WHERE key = $1")
            .bind(key)
            .fetch_optional(&self.pool)
            .await?)
    }

    async fn baselines(&self) -> Result<Vec<Vec<u8>>> {
        Ok(sqlx::query_scalar("SELECT manifest FROM baselines ORDER BY at_ms DESC, key")
            .fetch_all(&self.pool)
            .await?)
    }

    async fn put_cause(&self, project: &str, suite: &str, id: &str, cause: &Cause) -> Result<()> {
        sqlx::query(
            "INSERT INTO causes (project, suite, id, run, told_ms, finding, said) VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (project, suite, id) DO UPDATE SET
                 run = excluded.run, told_ms = excluded.told_ms, finding = excluded.finding, said = excluded.said",
        )
        .bind(project)
        .bind(suite)
        .bind(id)
        .bind(write::number(cause.run.0))
        .bind(write::number(cause.told_unix_ms))
        .bind(&cause.finding)
        .bind(without_nul(&cause.said))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn cause(&self, project: &str, suite: &str, id: &str) -> Result<Option<Cause>> {
        let row: Option<(i64, i64, String, String)> = sqlx::query_as(
            "SELECT run, told_ms, finding, said FROM causes WHERE project = $1 AND suite = $2 AND id = $3",
        )
        .bind(project)
        .bind(suite)
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|(run, told, finding, said)| Cause {
            run: RunId(read::natural(run)),
            told_unix_ms: read::natural(told),
            finding,
            said,
        }))
    }

    async fn put_image(&self, image: &ImageRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO images (reference, image_id, blob_digest, blob_size) VALUES ($1, $2, $3, $4)
             ON CONFLICT (reference) DO UPDATE SET
                 image_id = excluded.image_id, blob_digest = excluded.blob_digest, blob_size = excluded.blob_size",
        )
        .bind(&image.reference)
        .bind(&image.image_id)
        .bind(&image.blob_digest)
        .bind(write::number(image.blob_size))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageRow>> {
        let row: Option<(String, String, String, i64)> = sqlx::query_as(
            "SELECT reference, image_id, blob_digest, blob_size FROM images
             WHERE reference = $1 OR image_id = $1 ORDER BY reference = $1 DESC LIMIT 1",
        )
        .bind(reference)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|(reference, image_id, blob_digest, size)| ImageRow {
            reference,
            image_id,
            blob_digest,
            blob_size: read::natural(size),
        }))
    }
}
