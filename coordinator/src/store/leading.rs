//! Who may write: one coordinator at a time, and none that is older than the database.

use andon_core::ids::RunId;
use andon_core::model::{Record, RunHeader};
use sqlx::migrate::MigrateError;

use super::sqlite::Sqlite;
use super::testing::TestDatabase;
use super::{Store, StoreError};

fn created(run: u64) -> Record {
    Record::RunCreated { run: RunId(run), header: RunHeader::default(), at_unix_ms: 1 }
}

#[tokio::test]
async fn a_second_coordinator_is_refused_while_the_first_is_well() {
    let database = TestDatabase::make().await;
    let first = database.open().await.unwrap();
    assert!(matches!(database.open().await, Err(StoreError::Led)));
    first.apply(&[created(1)]).await.unwrap();
    first.pool.close().await;
    drop(first);
    let second = database.until_open().await;
    assert_eq!(second.runs(&super::RunFilter { limit: 9, ..Default::default() }).await.unwrap().len(), 1);
    database.remove().await;
}

#[tokio::test]
async fn a_coordinator_that_wakes_beside_its_successor_writes_nothing_more() {
    let database = TestDatabase::make().await;
    let old = database.open().await.unwrap();
    // The server forgets the old one's lock, as it does when a machine sleeps long enough or a network breaks.
    // Of this database alone: the server has others, of tests that run beside this one.
    let forget = "SELECT pg_terminate_backend(pid) FROM pg_locks
                  WHERE locktype = 'advisory' AND granted
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    sqlx::query(forget).execute(&old.pool).await.unwrap();
    let new = database.until_open().await;
    new.apply(&[created(1)]).await.unwrap();
    assert!(matches!(old.apply(&[created(2)]).await, Err(StoreError::Superseded)));
    assert!(new.run(RunId(2)).await.unwrap().is_none());
    database.remove().await;
}

#[tokio::test]
async fn a_connection_is_encrypted_where_that_is_asked_for_and_strangers_are_refused() {
    let database = TestDatabase::make().await;
    let folder: String = {
        let plain = database.open().await.unwrap();
        let folder = sqlx::query_scalar("SHOW data_directory").fetch_one(&plain.pool).await.unwrap();
        plain.pool.close().await;
        folder
    };
    let trusted = format!("?sslmode=verify-full&sslrootcert={folder}/server.crt");
    let encrypted = database.until_open_with(&trusted).await;
    let is_encrypted: bool = sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .fetch_one(&encrypted.pool)
        .await
        .unwrap();
    assert!(is_encrypted);
    encrypted.pool.close().await;
    // Nobody whom this machine trusts has signed it.
    let refused = database.open_with("?sslmode=verify-full").await.unwrap_err();
    assert!(matches!(refused, StoreError::Database(sqlx::Error::Tls(_) | sqlx::Error::Io(_))), "{refused:?}");
    database.remove().await;
}

#[tokio::test]
async fn a_database_of_a_newer_andon_is_refused() {
    const NEWER: &str =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                         VALUES (9999, 'of the future', true, $1, 0)";
    let is_newer = |error| matches!(error, StoreError::Schema(MigrateError::VersionMissing(9999)));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("farm.db");
    let store = Sqlite::open(&file).await.unwrap();
    sqlx::query(NEWER).bind(vec![0_u8]).execute(&store.pool).await.unwrap();
    store.pool.close().await;
    assert!(is_newer(Sqlite::open(&file).await.unwrap_err()));

    let database = TestDatabase::make().await;
    let store = database.open().await.unwrap();
    sqlx::query(NEWER).bind(vec![0_u8]).execute(&store.pool).await.unwrap();
    store.pool.close().await;
    let refused = loop {
        match database.open().await.unwrap_err() {
            StoreError::Led => tokio::task::yield_now().await,
            other => break other,
        }
    };
    assert!(is_newer(refused));
    database.remove().await;
}
