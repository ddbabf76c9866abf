//! The embedded store: one SQLite file in WAL mode, every commit synced before it is acknowledged.

#[allow(clippy::duplicate_mod, reason = "one text for both engines, each with types of its own")]
#[path = "sql/mod.rs"]
mod sql;

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqliteConnection as Connection, SqlitePool as Pool, sqlite::SqliteRow as Row};

use super::migrations::{migrator, steps};
use super::outputs::Outputs;
use super::{Result, StoreError};

/// Takes the write lock at once: a transaction that reads first and then writes could not be sure of it.
const BEGIN: &str = "BEGIN IMMEDIATE";
const READERS_MAX: u32 = 4;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A store in one file.
pub type Sqlite = sql::Database;

impl Sqlite {
    /// Opens the file, makes it where it is missing, and brings its schema up to date. What tests print goes to the folder
    /// `outputs` beside it.
    ///
    /// # Errors
    /// Where the file cannot be opened, or is of a newer version of Andon.
    pub async fn open(path: &Path) -> Result<Self> {
        super::location::check_local(path.parent().unwrap_or(path))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new().max_connections(READERS_MAX + 1).connect_with(options).await?;
        migrator(&steps!("sqlite")).run(&pool).await?;
        let outputs = Outputs::open(&path.with_file_name("outputs")).map_err(StoreError::Outputs)?;
        Ok(Self { pool, epoch: 0, outputs })
    }
}

/// The state folder's lock keeps others out.
async fn check_leader(_: &mut Connection, _: i64) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Row as _};

    use super::*;

    /// Rows that the question itself brings, and an index that holds what is asked for and nothing else.
    const SCANNED: [&str; 4] =
        ["v VIRTUAL TABLE", "json_each VIRTUAL TABLE", "known", "runs USING INDEX runs_to_enter"];

    #[tokio::test]
    async fn what_is_looked_at_comes_from_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("farm.db")).await.unwrap();
        for sql in sql::ledger::LOOKED.iter().chain(sql::owned::LOOKED) {
            let explained = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
            for step in explained.fetch_all(&store.pool).await.unwrap() {
                let step: String = step.get("detail");
                let scanned = step.strip_prefix("SCAN ");

                let is_small = |table: &str| SCANNED.iter().any(|small| table.starts_with(small));
                assert!(scanned.is_none_or(is_small), "{step}\n{sql}");
            }
        }
    }

    #[tokio::test]
    async fn attempts_of_a_test_are_found_without_reading_those_of_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("farm.db")).await.unwrap();
        for sql in sql::ledger::OF_TESTS {
            let explained = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
            let steps = explained.fetch_all(&store.pool).await.unwrap();
            let steps: Vec<String> = steps.iter().map(|step| step.get("detail")).collect();
            let has = |part: &str| steps.iter().any(|step| step.contains(part));
            assert!(has("attempts_by_test (run=? AND test=?)"), "{steps:?}");
            assert!(has("PRIMARY KEY (run=? AND attempt=?)"), "{steps:?}");
        }
    }
}
