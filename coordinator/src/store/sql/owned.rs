//! Who owns what: [`super::super::super::owned`] says what each answer is.

use andon_core::ids::{RunId, TestIx};
use async_trait::async_trait;
use sqlx::Row as _;

use super::super::super::ledger::{EnteredRun, Named};
use super::super::super::owned::{Owned, OwnedTest, OwnedWhich, OwnerSums};
use super::super::super::{Result, codes};
use super::super::{Connection, Row};
use super::Database;
use super::read::{natural, small};
use super::write::number;

/// What an older run told of these tests.
const CLEAR: &str = "
    DELETE FROM owned_tests
    WHERE name IN (SELECT CAST(value AS BIGINT) FROM json_each($1)) AND run < $2";

/// Where a newer run told of a test, that stands.
const OWN: &str = "
    INSERT INTO owned_tests (project, owner, name, run, test, git_ref, suite, id, verdict, mean_ms, runs, failures, flakes)
    SELECT runs.project, v.value->>2, CAST(v.value->>1 AS BIGINT), tests.run, tests.test, runs.git_ref, tests.suite, tests.id,
           tests.verdict, COALESCE(history.mean_ms, 0), COALESCE(history.runs, 0), COALESCE(history.failures, 0),
           COALESCE(history.flakes, 0)
    FROM json_each($1) AS v
    JOIN tests ON tests.run = $2 AND tests.test = CAST(v.value->>0 AS BIGINT)
    JOIN runs ON runs.run = tests.run
    LEFT JOIN history ON history.project = runs.project AND history.suite = tests.suite AND history.id = tests.id
    WHERE NOT EXISTS (SELECT 1 FROM owned_tests AS newer
                      WHERE newer.name = CAST(v.value->>1 AS BIGINT) AND newer.run > $2)
    ON CONFLICT DO NOTHING";

macro_rules! entered {
    ($where:literal) => {
        concat!(
            "SELECT ledger_owners.*, CAST('' AS TEXT) AS suite FROM ledger_owners
    WHERE project = $1 AND owner = $2 AND run < $3 ",
            $where,
            " ORDER BY run DESC LIMIT $5"
        )
    };
}

const ENTERED_ON_REF: &str = entered!("AND git_ref = $4");
const ENTERED_ON_ALL: &str = entered!("AND git_ref >= $4");

macro_rules! owned {
    ($where:literal, $order:literal) => {
        concat!(
            "SELECT suite, id, run, test, git_ref, verdict, mean_ms, runs, failures, flakes FROM owned_tests
    WHERE project = $1 AND owner = $2 ",
            $where,
            " ORDER BY ",
            $order,
            ", suite, id LIMIT $3"
        )
    };
}

/// 2 and 4 stand for failed and timed out.
const FAILING: &str = owned!("AND verdict IN (2, 4)", "run DESC");
const FLAKY: &str = owned!("AND flakes > 0 AND runs > 0", "flakes * 1000000 / runs DESC, flakes DESC");
const SLOW: &str = owned!("", "mean_ms DESC");

macro_rules! sums {
    ($where:literal) => {
        concat!(
            "SELECT owner, count(*), CAST(sum(CASE WHEN verdict IN (2, 4) THEN 1 ELSE 0 END) AS BIGINT),
           CAST(sum(CASE WHEN flakes > 0 THEN 1 ELSE 0 END) AS BIGINT), CAST(sum(mean_ms) AS BIGINT)
    FROM owned_tests WHERE project = $1 ",
            $where,
            " GROUP BY owner ORDER BY owner LIMIT $3"
        )
    };
}

const SUMS_OF_ONE: &str = sums!("AND owner = $2");
const SUMS_OF_ALL: &str = sums!("AND owner >= $2");

/// What is read to be looked at: each from an index (a test asks SQLite how it would).
#[cfg(test)]
#[allow(dead_code, reason = "one of the two engines is asked")]
pub(in crate::store) const LOOKED: &[&str] =
    &[ENTERED_ON_REF, ENTERED_ON_ALL, FAILING, FLAKY, SLOW, SUMS_OF_ONE, SUMS_OF_ALL];

#[async_trait]
impl Owned for Database {
    async fn entered_of(
        &self,
        project: &str,
        owner: &str,
        git_ref: Option<&str>,
        before: RunId,
        limit: u32,
    ) -> Result<Vec<EnteredRun>> {
        let sql = if git_ref.is_some() { ENTERED_ON_REF } else { ENTERED_ON_ALL };
        self.entered_by(sql, (project, owner), git_ref, before, limit).await
    }

    async fn owned(
        &self,
        project: &str,
        owner: &str,
        which: OwnedWhich,
        limit: u32,
    ) -> Result<Vec<OwnedTest>> {
        let sql = match which {
            OwnedWhich::Failing => FAILING,
            OwnedWhich::Flaky => FLAKY,
            OwnedWhich::Slow => SLOW,
        };
        let rows = sqlx::query(sql).bind(project).bind(owner).bind(i64::from(limit));
        rows.fetch_all(&self.pool).await?.iter().map(owned_test).collect()
    }

    async fn owners(&self, project: &str, owner: Option<&str>, limit: u32) -> Result<Vec<OwnerSums>> {
        let sql = if owner.is_some() { SUMS_OF_ONE } else { SUMS_OF_ALL };
        let rows: Vec<(String, i64, i64, i64, i64)> = sqlx::query_as(sql)
            .bind(project)
            .bind(owner.unwrap_or_default())
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        let sums = |(owner, tests, failing, flaky, mean_ms)| OwnerSums {
            owner,
            tests: natural(tests),
            failing: natural(failing),
            flaky: natural(flaky),
            mean_ms: natural(mean_ms),
        };
        Ok(rows.into_iter().map(sums).collect())
    }
}

fn owned_test(row: &Row) -> Result<OwnedTest> {
    let count = |name: &str| row.try_get::<i64, _>(name);
    Ok(OwnedTest {
        suite: row.try_get("suite")?,
        id: row.try_get("id")?,
        run: RunId(natural(count("run")?)),
        test: TestIx(small(count("test")?)),
        git_ref: row.try_get("git_ref")?,
        verdict: codes::to_option(count("verdict")?, codes::to_verdict)?,
        mean_ms: natural(count("mean_ms")?),
        runs: small(count("runs")?),
        failures: small(count("failures")?),
        flakes: small(count("flakes")?),
    })
}

/// Takes over what a run says of who owns these tests. Safe to repeat.
pub(super) async fn own(db: &mut Connection, run: RunId, named: &[Named]) -> Result<()> {
    let told = || named.iter().filter_map(|test| Some((test, test.owners.as_ref()?)));
    let names: Vec<i64> = told().map(|(test, _)| test.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let owned: Vec<(u32, i64, &String)> = told()
        .flat_map(|(test, owners)| owners.iter().map(|owner| (test.test.0, test.name, owner)))
        .collect();
    let names = serde_json::to_string(&names).expect("numbers are valid JSON");
    let owned = serde_json::to_string(&owned).expect("numbers and texts are valid JSON");
    sqlx::query(CLEAR).bind(names).bind(number(run.0)).execute(&mut *db).await?;
    sqlx::query(OWN).bind(owned).bind(number(run.0)).execute(db).await?;
    Ok(())
}
