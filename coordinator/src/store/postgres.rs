//! The store in a PostgreSQL database, for a coordinator whose machine may be lost. TLS as the URL asks for it (`sslmode`).
//!
//! One coordinator leads. Whoever opens the database raises its epoch, and every write checks that the epoch is still the
//! writer's own, in the same transaction: a coordinator that slept and wakes beside its successor writes nothing more. An
//! advisory lock, held for as long as its connection lives, refuses a second coordinator while the first is well.

#[allow(clippy::duplicate_mod, reason = "one text for both engines, each with types of its own")]
#[path = "sql/mod.rs"]
mod sql;

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgConnection as Connection, PgPool as Pool, postgres::PgRow as Row};

use super::migrations::{migrator, steps};
use super::outputs::Outputs;
use super::{Result, StoreError};

const BEGIN: &str = "BEGIN";
const CONNECTIONS_MAX: u32 = 8;
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// `andon` in ASCII: the key of our advisory lock in this database.
const LOCK: i64 = 0x61_6e_64_6f_6e;

/// A store in a PostgreSQL database.
pub type Postgres = sql::Database;

impl Postgres {
    /// Opens the database at `postgres://…`, brings its schema up to date, and leads from here on. What tests print goes to
    /// `outputs`.
    ///
    /// # Errors
    /// Where it cannot be reached, is of a newer version of Andon, or another coordinator leads.
    pub async fn open(url: &str, outputs: &Path) -> Result<Self> {
        let outputs = Outputs::open(outputs).map_err(StoreError::Outputs)?;
        let options = PgConnectOptions::from_str(url)?.application_name("andon");
        let mut guard = options.clone().connect().await?;
        let is_ours: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut guard).await?;
        if !is_ours {
            return Err(StoreError::Led);
        }
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(CONNECT_LIMIT)
            .connect_with(options)
            .await?;
        migrator(&steps!("postgres")).run(&pool).await?;
        let epoch: i64 =
            sqlx::query_scalar("UPDATE counters SET value = value + 1 WHERE name = 'epoch' RETURNING value")
                .fetch_one(&mut guard)
                .await?;
        // Held until the pool is closed, or the server goes away: then the epoch alone decides.
        tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.close_event().await;
                drop(guard);
            }
        });
        Ok(Self { pool, epoch, outputs })
    }
}

/// Waits for writers of the epoch to be through, and fails where the epoch is another's.
async fn check_leader(db: &mut Connection, epoch: i64) -> Result<()> {
    let current: i64 =
        sqlx::query_scalar("SELECT value FROM counters WHERE name = 'epoch' FOR SHARE").fetch_one(db).await?;
    if current == epoch { Ok(()) } else { Err(StoreError::Superseded) }
}
