//! The steps that bring a database's schema up to date, as they are compiled in: one list for both engines.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// A step's file without its ending, and its text.
pub(super) type Step = (&'static str, &'static str);

/// The steps of an engine: the files of its folder under `migrations`.
macro_rules! steps {
    ($engine:literal) => {
        $crate::store::migrations::steps! { $engine:
            "0001_runs" "0002_counts" "0003_outputs" "0004_retention" "0005_artifacts" "0006_losses" "0007_changes"
            "0009_inexact" "0060_ledger" "0070_owners" "0080_causes" "0090_spent"
        }
    };
    ($engine:literal: $($name:literal)*) => {
        [$(($name, include_str!(concat!("../../migrations/", $engine, "/", $name, ".sql")))),*]
    };
}
pub(super) use steps;

/// What runs those steps that a database has not seen, and refuses one that has seen others.
pub(super) fn migrator(steps: &[Step]) -> Migrator {
    let migration = |&(name, sql): &Step| {
        let (number, title) = name.split_once('_').expect("a step is NUMBER_TITLE");
        let number = number.parse().expect("a step's number is one");
        Migration::new(number, title.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(steps.iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs::DirEntry;
    use std::path::Path;

    #[test]
    fn every_file_is_a_step_of_both_engines() {
        for (engine, steps) in [("sqlite", &steps!("sqlite")), ("postgres", &steps!("postgres"))] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(engine);
            let file = |entry: std::io::Result<DirEntry>| entry.expect("an entry").file_name();
            let mut files: Vec<_> = folder.read_dir().expect("the engine's folder").map(file).collect();
            files.sort();
            let listed: Vec<OsString> = steps.iter().map(|(name, _)| format!("{name}.sql").into()).collect();
            assert_eq!(files, listed, "{engine}: the list in this file is that of the folder, in order");
        }
    }
}
