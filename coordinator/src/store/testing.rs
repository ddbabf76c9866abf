//! A PostgreSQL database for one test.

use std::str::FromStr;

use super::postgres::Postgres;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};

/// Where the server is, which `ci/test` starts.
const SERVER: &str = "ANDON_TEST_POSTGRES";

/// A database of its own on the test server; drop it with [`TestDatabase::remove`].
pub(super) struct TestDatabase {
    server: PgConnectOptions,
    name: String,
    url: String,
    outputs: tempfile::TempDir,
}

impl TestDatabase {
    pub(super) async fn make() -> Self {
        let server = std::env::var(SERVER).unwrap_or_else(|_| {
            panic!("{SERVER} is not set: run the tests through ci/test, which starts PostgreSQL")
        });
        let name = format!("test_{:032x}", rand::random::<u128>());
        let (before, _) = server.rsplit_once('/').expect("a URL names a database");
        let url = format!("{before}/{name}");
        let server = PgConnectOptions::from_str(&server).expect("a URL of PostgreSQL");
        let mut connection = server.connect().await.expect("the test server answers");
        let made = connection.execute(sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))).await;
        made.expect("the test server lets us create databases");
        Self { server, name, url, outputs: tempfile::tempdir().expect("a folder") }
    }

    pub(super) async fn remove(self) {
        let mut connection = self.server.connect().await.expect("the test server answers");
        let sql = AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name));
        connection.execute(sqlx::raw_sql(sql)).await.expect("a database that is ours can be dropped");
    }

    pub(super) async fn open(&self) -> super::Result<Postgres> {
        self.open_with("").await
    }

    /// `options`: of the URL, with its question mark.
    pub(super) async fn open_with(&self, options: &str) -> super::Result<Postgres> {
        Postgres::open(&format!("{}{options}", self.url), self.outputs.path()).await
    }

    /// Opens it while its last coordinator is just going away.
    pub(super) async fn until_open(&self) -> Postgres {
        self.until_open_with("").await
    }

    pub(super) async fn until_open_with(&self, options: &str) -> Postgres {
        loop {
            match self.open_with(options).await {
                Err(super::StoreError::Led) => tokio::task::yield_now().await,
                opened => return opened.expect("the database opens"),
            }
        }
    }
}
