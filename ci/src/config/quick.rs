//! Options that make a database server start quickly and write without waiting: for servers whose data is thrown away.
//!
//! Pure: tables. None of them changes what SQL means; what each engine gives up (durability, instrumentation, binary logs) is in
//! docs/configuration.md. They go to the end of the service's command, and so into the baseline's key.

/// A server that Andon knows options of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// MySQL 8 and newer.
    MySql,
    /// MariaDB 10.6 and newer.
    MariaDb,
    /// PostgreSQL 12 and newer.
    PostgreSql,
    /// Redis 6 and newer, Valkey.
    Redis,
}

/// By the names that `andon.toml` has for them.
pub(crate) const ENGINES: [(&str, Engine); 4] = [
    ("mysql", Engine::MySql),
    ("mariadb", Engine::MariaDb),
    ("postgresql", Engine::PostgreSql),
    ("redis", Engine::Redis),
];

/// dev.mysql.com/doc/refman, "Server Option and Variable Reference". Most of a small server's start is instrumentation.
const MYSQL: &[&str] = &[
    "--performance-schema=OFF",
    "--skip-log-bin",
    "--skip-name-resolve",
    "--mysqlx=OFF",
    "--innodb-doublewrite=OFF",
    "--innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-use-native-aio=OFF",
    "--innodb-log-buffer-size=1M",
    "--innodb-buffer-pool-load-at-startup=OFF",
    "--innodb-buffer-pool-dump-at-shutdown=OFF",
];
/// mariadb.com/kb, "Server System Variables".
const MARIADB: &[&str] = &[
    "--performance-schema=OFF",
    "--skip-log-bin",
    "--skip-name-resolve",
    "--skip-innodb-doublewrite",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-use-native-aio=OFF",
    "--innodb-buffer-pool-load-at-startup=OFF",
    "--innodb-buffer-pool-dump-at-shutdown=OFF",
];
/// postgresql.org/docs, "Non-Durable Settings".
const POSTGRESQL: &[&str] =
    &["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"];
/// redis.io/docs, "Redis persistence". It has a save point, though none that is ever reached: so a clean stop still saves what
/// seeds have written.
const REDIS: &[&str] =
    &["--save", "31536000 1000000000", "--appendonly", "no", "--rdbcompression", "no", "--rdbchecksum", "no"];

impl Engine {
    /// For the end of the server's command.
    #[must_use]
    pub fn options(self) -> &'static [&'static str] {
        match self {
            Self::MySql => MYSQL,
            Self::MariaDb => MARIADB,
            Self::PostgreSql => POSTGRESQL,
            Self::Redis => REDIS,
        }
    }
}
