//! The ledger and what is read for looking: [`super::super::super::ledger`] says what each answer is.

use std::collections::HashMap;

use andon_core::ids::{Fence, LaneIx, Lease, RunId, TestIx, WorkId, WorkerId};
use andon_core::model::LeaseKind;
use andon_figures::Sketch;
use async_trait::async_trait;
use sqlx::Row as _;

use super::super::super::ledger::{
    EnteredRun, Entry, LaneSums, Ledger, PROJECTS_MAX, PastTest, RunsOf, Tally, TestFilter, name_of,
};
use super::super::super::tally::sketch_of;
use super::super::super::{AttemptRow, Counts, Result, RunRow, TestRow, codes};
use super::super::{BEGIN, Connection, Row, check_leader};
use super::Database;
use super::read::{self, RawRun, natural, small};
use super::write::number;

/// Tests that one transaction gives their names: a round may have to wait for it.
const NAMES_MAX: usize = 500;

const NAMES: &str = "
    UPDATE tests SET name = CAST(v.value->>2 AS BIGINT) FROM json_each($1) AS v
    WHERE tests.run = CAST(v.value->>0 AS BIGINT) AND tests.test = CAST(v.value->>1 AS BIGINT)";

const ENTERED: &str = "UPDATE runs SET entered = 1 WHERE run = $1 AND entered = 0";

const RUN: &str = "
    INSERT INTO ledger_runs (project, suite, run, git_ref, commit_id, baseline_key, farm, pushed_ms, ended_ms,
                             ending, tests, attempts, failed, flaky, lane_ms, mean_us, p50_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";

const DAY: &str = "
    INSERT INTO ledger_days (project, day, suite, tally) VALUES ($1, $2, $3, $4)
    ON CONFLICT (project, day, suite) DO UPDATE SET tally = excluded.tally";

const REBASES: &str = "
    INSERT INTO ledger_rebases (worker, day, driver, sketch) VALUES ($1, $2, $3, $4)
    ON CONFLICT (worker, day, driver) DO UPDATE SET sketch = excluded.sketch";

/// From one name to the next in the index, however many runs lie between.
const PROJECTS: &str = "
    WITH RECURSIVE known(project) AS (
        SELECT min(project) FROM runs
        UNION ALL
        SELECT (SELECT min(runs.project) FROM runs WHERE runs.project > known.project)
        FROM known WHERE known.project IS NOT NULL)
    SELECT project FROM known WHERE project IS NOT NULL LIMIT $1";

const LANES: &str = "
    SELECT worker, lane, count(*) AS attempts, CAST(sum(queue_ms) AS BIGINT) AS queue_ms,
           CAST(sum(prepare_ms) AS BIGINT) AS prepare_ms, CAST(sum(rebase_us) AS BIGINT) AS rebase_us,
           CAST(sum(run_ms) AS BIGINT) AS run_ms, CAST(COALESCE(sum(dirtied_bytes), 0) AS BIGINT) AS dirtied_bytes,
           COALESCE(min(CASE WHEN started_ms > 0 THEN started_ms END), 0) AS first_started_ms
    FROM attempts WHERE run = $1 AND outcome <> 0 GROUP BY worker, lane ORDER BY worker, lane";

const ATTEMPTS: &str = "
    SELECT attempts.*, tests.suite, tests.id FROM attempts
    JOIN tests ON tests.run = attempts.run AND tests.test = attempts.test
    WHERE attempts.run = $1 ORDER BY attempts.attempt LIMIT $2";

const ATTEMPTS_OF_TESTS: &str = "
    SELECT attempts.* FROM json_each($1) AS v
    JOIN attempts ON attempts.run = CAST(v.value->>0 AS BIGINT) AND attempts.test = CAST(v.value->>1 AS BIGINT)
    ORDER BY attempts.run, attempts.test, attempts.attempt";

const TESTS: &str = "
    SELECT test, suite, id, verdict FROM tests
    WHERE run = $1 AND test > $2 AND ($3 = '' OR suite = $3)
      AND ($4 = '[]' OR verdict IN (SELECT CAST(value->>0 AS BIGINT) FROM json_each($4)))
    ORDER BY test LIMIT $5";

const PAST: &str = "
    SELECT runs.run, runs.commit_id, runs.git_ref, runs.baseline_key, tests.test, tests.verdict
    FROM tests JOIN runs ON runs.run = tests.run
    WHERE tests.name = $1 AND tests.name <> 0 AND tests.run < $2 AND tests.suite = $3 AND tests.id = $4 AND runs.project = $5
    ORDER BY tests.run DESC LIMIT $6";

macro_rules! entered {
    ($where:literal) => {
        concat!(
            "SELECT * FROM ledger_runs WHERE project = $1 AND suite = $2 AND run < $3 ",
            $where,
            " ORDER BY run DESC LIMIT $5"
        )
    };
}

#[async_trait]
impl Ledger for Database {
    async fn to_enter(&self, limit: u32) -> Result<Vec<RunId>> {
        // The numbers stand in the index's condition, which must be this one word for word.
        let runs: Vec<i64> =
            sqlx::query_scalar("SELECT run FROM runs WHERE entered = 0 AND state >= 5 ORDER BY run LIMIT $1")
                .bind(i64::from(limit))
                .fetch_all(&self.pool)
                .await?;
        Ok(runs.into_iter().map(|run| RunId(natural(run))).collect())
    }

    async fn enter(&self, entry: &Entry) -> Result<()> {
        let Some((whole, _)) = entry.suites.first() else { return Ok(()) };
        let run = number(whole.run.0);
        for names in entry.names.chunks(NAMES_MAX) {
            let rows: Vec<_> = names.iter().map(|(test, name)| (run, test.0, name)).collect();
            let rows = serde_json::to_string(&rows).expect("numbers are valid JSON");
            let mut transaction = self.pool.begin_with(BEGIN).await?;
            check_leader(&mut transaction, self.epoch).await?;
            sqlx::query(NAMES).bind(rows).execute(&mut *transaction).await?;
            transaction.commit().await?;
        }
        let mut transaction = self.pool.begin_with(BEGIN).await?;
        check_leader(&mut transaction, self.epoch).await?;
        let marked = sqlx::query(ENTERED).bind(run).execute(&mut *transaction).await?;
        if marked.rows_affected() == 1 {
            for (run, tally) in &entry.suites {
                enter_run(&mut transaction, &entry.project, run).await?;
                enter_day(&mut transaction, entry, &run.suite, tally).await?;
            }
            for (worker, driver, sketch) in &entry.rebases {
                enter_rebases(&mut transaction, entry.day, worker, driver, sketch).await?;
            }
        }
        Ok(transaction.commit().await?)
    }

    async fn pushed_ms(&self, project: &str, commit: &str) -> Result<Option<u64>> {
        let first: Option<i64> =
            sqlx::query_scalar("SELECT min(created_ms) FROM runs WHERE project = $1 AND commit_id = $2")
                .bind(project)
                .bind(commit)
                .fetch_one(&self.pool)
                .await?;
        Ok(first.map(natural))
    }

    async fn put_shifts(&self, project: &str, git_ref: &str, suite: &str, shifts: &str) -> Result<()> {
        let mut transaction = self.pool.begin_with(BEGIN).await?;
        check_leader(&mut transaction, self.epoch).await?;
        sqlx::query(
            "INSERT INTO ledger_shifts (project, git_ref, suite, shifts) VALUES ($1, $2, $3, $4)
             ON CONFLICT (project, git_ref, suite) DO UPDATE SET shifts = excluded.shifts",
        )
        .bind(project)
        .bind(git_ref)
        .bind(suite)
        .bind(shifts)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    async fn shifts(
        &self,
        project: &str,
        git_ref: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, String, String)>> {
        let one = "SELECT git_ref, suite, shifts FROM ledger_shifts WHERE project = $1 AND git_ref = $2
                   ORDER BY git_ref, suite LIMIT $3";
        let all = "SELECT git_ref, suite, shifts FROM ledger_shifts WHERE project = $1 AND git_ref >= $2
                   ORDER BY git_ref, suite LIMIT $3";
        let sql = if git_ref.is_some() { one } else { all };
        let rows = sqlx::query_as(sql).bind(project).bind(git_ref.unwrap_or_default()).bind(i64::from(limit));
        Ok(rows.fetch_all(&self.pool).await?)
    }

    async fn entered(
        &self,
        project: &str,
        suite: &str,
        git_ref: Option<&str>,
        before: RunId,
        limit: u32,
    ) -> Result<Vec<EnteredRun>> {
        let sql =
            if git_ref.is_some() { entered!("AND git_ref = $4") } else { entered!("AND git_ref >= $4") };
        let rows = sqlx::query(sql)
            .bind(project)
            .bind(suite)
            .bind(number(before.0))
            .bind(git_ref.unwrap_or_default())
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(entered_run).collect()
    }

    async fn days(&self, project: &str, from_day: u64, limit: u32) -> Result<Vec<(u64, String, Tally)>> {
        let rows: Vec<(i64, String, Vec<u8>)> = sqlx::query_as(
            "SELECT day, suite, tally FROM ledger_days WHERE project = $1 AND day >= $2
             ORDER BY day, suite LIMIT $3",
        )
        .bind(project)
        .bind(number(from_day))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|(day, suite, tally)| Ok((natural(day), suite, Tally::from_bytes(&tally)?)))
            .collect()
    }

    async fn rebase_days(
        &self,
        worker: &str,
        from_day: u64,
        limit: u32,
    ) -> Result<Vec<(u64, String, Sketch)>> {
        let rows: Vec<(i64, String, Vec<u8>)> = sqlx::query_as(
            "SELECT day, driver, sketch FROM ledger_rebases WHERE worker = $1 AND day >= $2
             ORDER BY day, driver LIMIT $3",
        )
        .bind(worker)
        .bind(number(from_day))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|(day, driver, sketch)| Ok((natural(day), driver, sketch_of(&sketch)?)))
            .collect()
    }

    async fn projects(&self) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar(PROJECTS).bind(i64::from(PROJECTS_MAX)).fetch_all(&self.pool).await?)
    }

    async fn runs_of(&self, of: &RunsOf, before: RunId, limit: u32) -> Result<Vec<RunRow>> {
        let (sql, first, second) = match of {
            RunsOf::Active => (
                // The plus keeps it to the index of states: runs that have not ended are few.
                "SELECT * FROM runs WHERE state < 5 AND $1 = $2 AND run < $3 ORDER BY +run DESC LIMIT $4",
                "",
                "",
            ),
            RunsOf::Over => (
                "SELECT * FROM runs WHERE state >= 5 AND $1 = $2 AND run < $3 ORDER BY run DESC LIMIT $4",
                "",
                "",
            ),
            RunsOf::Project(project) => (
                "SELECT * FROM runs WHERE project = $1 AND $2 = '' AND run < $3 ORDER BY run DESC LIMIT $4",
                project.as_str(),
                "",
            ),
            RunsOf::Ref(project, git_ref) => (
                "SELECT * FROM runs WHERE project = $1 AND git_ref = $2 AND run < $3 ORDER BY run DESC LIMIT $4",
                project.as_str(),
                git_ref.as_str(),
            ),
            RunsOf::Commit(project, commit) => (
                "SELECT * FROM runs WHERE project = $1 AND commit_id = $2 AND run < $3 ORDER BY run DESC LIMIT $4",
                project.as_str(),
                commit.as_str(),
            ),
            // Commits are hexadecimal: `g` comes after all that begin so.
            RunsOf::CommitsFrom(project, prefix) => (
                "SELECT * FROM runs WHERE project = $1 AND commit_id >= $2 AND commit_id < $2 || 'g' AND run < $3
                 ORDER BY run DESC LIMIT $4",
                project.as_str(),
                prefix.as_str(),
            ),
            RunsOf::Baseline(key) => (
                "SELECT * FROM runs WHERE baseline_key = $1 AND $2 = '' AND run < $3 ORDER BY run DESC LIMIT $4",
                key.as_str(),
                "",
            ),
        };
        let raws: Vec<RawRun> = sqlx::query_as(sql)
            .bind(first)
            .bind(second)
            .bind(number(before.0))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        let mut rows = Vec::with_capacity(raws.len());
        for raw in raws {
            rows.push(read::with_counts(&self.pool, raw).await?);
        }
        Ok(rows)
    }

    async fn tests_of(&self, run: RunId, filter: &TestFilter) -> Result<Vec<TestRow>> {
        let code = |verdict: &Option<_>| [verdict.map_or(0, codes::from_verdict)];
        let verdicts: Vec<[i64; 1]> = filter.verdicts.iter().map(code).collect();
        let raws: Vec<(i64, String, String, i64)> = sqlx::query_as(TESTS)
            .bind(number(run.0))
            .bind(filter.after.map_or(-1, |test| i64::from(test.0)))
            .bind(filter.suite.as_deref().unwrap_or_default())
            .bind(serde_json::to_string(&verdicts).expect("numbers are valid JSON"))
            .bind(i64::from(filter.limit))
            .fetch_all(&self.pool)
            .await?;
        let places = raws.iter().map(|raw| (number(run.0), raw.0)).collect::<Vec<_>>();
        let mut attempts = self.attempts_of_tests(&places).await?;
        raws.into_iter()
            .map(|(test, suite, id, verdict)| {
                let attempts = attempts.remove(&(number(run.0), test)).unwrap_or_default();
                let verdict = codes::to_option(verdict, codes::to_verdict)?;
                Ok(TestRow { test: TestIx(small(test)), suite, id, verdict, attempts })
            })
            .collect()
    }

    async fn suites_of(&self, run: RunId) -> Result<Vec<(String, Counts)>> {
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT suite, verdict, count(*) FROM tests WHERE run = $1 GROUP BY suite, verdict ORDER BY suite, verdict",
        )
        .bind(number(run.0))
        .fetch_all(&self.pool)
        .await?;
        let mut suites: Vec<(String, Counts)> = Vec::new();
        for (suite, verdict, tests) in rows {
            let verdict = codes::to_option(verdict, codes::to_verdict)?;
            if suites.last().is_none_or(|(last, _)| *last != suite) {
                suites.push((suite, Counts::default()));
            }
            if let Some((_, counts)) = suites.last_mut() {
                counts.add(verdict, small(tests));
            }
        }
        Ok(suites)
    }

    async fn lanes_of(&self, run: RunId) -> Result<Vec<LaneSums>> {
        let rows = sqlx::query(LANES).bind(number(run.0)).fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let sum = |name: &str| row.try_get::<i64, _>(name).map(natural);
                Ok(LaneSums {
                    worker: WorkerId(row.try_get("worker")?),
                    lane: LaneIx(small(row.try_get("lane")?)),
                    attempts: sum("attempts")?,
                    queue_ms: sum("queue_ms")?,
                    prepare_ms: sum("prepare_ms")?,
                    rebase_us: sum("rebase_us")?,
                    run_ms: sum("run_ms")?,
                    dirtied_bytes: sum("dirtied_bytes")?,
                    first_started_ms: sum("first_started_ms")?,
                })
            })
            .collect()
    }

    async fn rebases_of(&self, run: RunId, limit: u32) -> Result<Vec<(String, u64)>> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT driver, rebase_us FROM attempts WHERE run = $1 AND rebase_us > 0 ORDER BY attempt LIMIT $2",
        )
        .bind(number(run.0))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|(driver, us)| (driver, natural(us))).collect())
    }

    async fn attempts_of(&self, run: RunId, limit: u32) -> Result<Vec<(TestIx, String, String, AttemptRow)>> {
        let rows =
            sqlx::query(ATTEMPTS).bind(number(run.0)).bind(i64::from(limit)).fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let test = TestIx(small(row.try_get("test")?));
                Ok((test, row.try_get("suite")?, row.try_get("id")?, read::attempt(row)?))
            })
            .collect()
    }

    async fn past(
        &self,
        project: &str,
        suite: &str,
        id: &str,
        before: RunId,
        limit: u32,
    ) -> Result<Vec<PastTest>> {
        let raws: Vec<(i64, String, String, String, i64, i64)> = sqlx::query_as(PAST)
            .bind(name_of(project, suite, id))
            .bind(number(before.0))
            .bind(suite)
            .bind(id)
            .bind(project)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        let places = raws.iter().map(|raw| (raw.0, raw.4)).collect::<Vec<_>>();
        let mut attempts = self.attempts_of_tests(&places).await?;
        raws.into_iter()
            .map(|(run, commit, git_ref, baseline_key, test, verdict)| {
                let attempts = attempts.remove(&(run, test)).unwrap_or_default();
                let verdict = codes::to_option(verdict, codes::to_verdict)?;
                let (suite, id) = (suite.to_owned(), id.to_owned());
                let test = TestRow { test: TestIx(small(test)), suite, id, verdict, attempts };
                Ok(PastTest { run: RunId(natural(run)), commit, git_ref, baseline_key, test })
            })
            .collect()
    }

    async fn out(&self, worker: &str) -> Result<Vec<(LaneIx, Lease, LeaseKind)>> {
        // Leases that are out are few: one a lane of the farm.
        let rows: Vec<(i64, i64, i64, i64, i64, String)> = sqlx::query_as(
            "SELECT lane, run, work, fence, kind, suite FROM leases WHERE worker = $1 ORDER BY lane, fence",
        )
        .bind(worker)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|(lane, run, work, fence, kind, suite)| {
                let (run, work) = (RunId(natural(run)), WorkId(natural(work)));
                let lease = Lease { run, work, fence: Fence(natural(fence)) };
                Ok((LaneIx(small(lane)), lease, codes::to_lease_kind(kind, suite)?))
            })
            .collect()
    }
}

impl Database {
    /// By run and test.
    async fn attempts_of_tests(&self, places: &[(i64, i64)]) -> Result<HashMap<(i64, i64), Vec<AttemptRow>>> {
        let mut of_tests: HashMap<(i64, i64), Vec<AttemptRow>> = HashMap::new();
        if places.is_empty() {
            return Ok(of_tests);
        }
        let places = serde_json::to_string(places).expect("numbers are valid JSON");
        for row in sqlx::query(ATTEMPTS_OF_TESTS).bind(places).fetch_all(&self.pool).await? {
            let place = (row.try_get("run")?, row.try_get("test")?);
            of_tests.entry(place).or_default().push(read::attempt(&row)?);
        }
        Ok(of_tests)
    }
}

async fn enter_run(db: &mut Connection, project: &str, run: &EnteredRun) -> Result<()> {
    sqlx::query(RUN)
        .bind(project)
        .bind(&run.suite)
        .bind(number(run.run.0))
        .bind(&run.git_ref)
        .bind(&run.commit)
        .bind(&run.baseline_key)
        .bind(&run.farm)
        .bind(number(run.pushed_ms))
        .bind(number(run.ended_ms))
        .bind(codes::from_ending(run.ending))
        .bind(number(run.tests))
        .bind(number(run.attempts))
        .bind(number(run.failed))
        .bind(number(run.flaky))
        .bind(number(run.lane_ms))
        .bind(number(run.mean_us))
        .bind(number(run.p50_ms))
        .execute(db)
        .await?;
    Ok(())
}

async fn enter_day(db: &mut Connection, entry: &Entry, suite: &str, tally: &Tally) -> Result<()> {
    let known: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT tally FROM ledger_days WHERE project = $1 AND day = $2 AND suite = $3")
            .bind(&entry.project)
            .bind(number(entry.day))
            .bind(suite)
            .fetch_optional(&mut *db)
            .await?;
    let mut sum = known.as_deref().map_or_else(|| Ok(Tally::default()), Tally::from_bytes)?;
    sum.merge(tally);
    let bytes = sum.to_bytes();
    sqlx::query(DAY).bind(&entry.project).bind(number(entry.day)).bind(suite).bind(bytes).execute(db).await?;
    Ok(())
}

async fn enter_rebases(
    db: &mut Connection,
    day: u64,
    worker: &WorkerId,
    driver: &str,
    sketch: &Sketch,
) -> Result<()> {
    let known: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT sketch FROM ledger_rebases WHERE worker = $1 AND day = $2 AND driver = $3",
    )
    .bind(&worker.0)
    .bind(number(day))
    .bind(driver)
    .fetch_optional(&mut *db)
    .await?;
    let mut sum = known.as_deref().map_or_else(|| Ok(Sketch::default()), sketch_of)?;
    sum.merge(sketch);
    let bytes = sum.to_bytes();
    sqlx::query(REBASES).bind(&worker.0).bind(number(day)).bind(driver).bind(bytes).execute(db).await?;
    Ok(())
}

fn entered_run(row: &Row) -> Result<EnteredRun> {
    let count = |name: &str| row.try_get::<i64, _>(name).map(natural);
    Ok(EnteredRun {
        suite: row.try_get("suite")?,
        run: RunId(count("run")?),
        git_ref: row.try_get("git_ref")?,
        commit: row.try_get("commit_id")?,
        baseline_key: row.try_get("baseline_key")?,
        farm: row.try_get("farm")?,
        pushed_ms: count("pushed_ms")?,
        ended_ms: count("ended_ms")?,
        ending: codes::to_ending(row.try_get("ending")?)?,
        tests: count("tests")?,
        attempts: count("attempts")?,
        failed: count("failed")?,
        flaky: count("flaky")?,
        lane_ms: count("lane_ms")?,
        mean_us: count("mean_us")?,
        p50_ms: count("p50_ms")?,
    })
}
