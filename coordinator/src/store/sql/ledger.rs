//! The ledger and what is read for looking: [`super::super::super::ledger`] says what each answer is.

#[cfg(test)]
#[allow(unused_imports, reason = "one of the two engines is asked")]
pub(in crate::store) use statements::{LOOKED, OF_TESTS};

mod statements;

use std::collections::HashMap;

use andon_core::ids::{Fence, LaneIx, Lease, RunId, TestIx, WorkId, WorkerId};
use andon_core::model::LeaseKind;
use andon_figures::Sketch;
use async_trait::async_trait;
use sqlx::Row as _;

use super::super::super::ledger::{
    EnteredRun, Entry, LaneSums, Ledger, Named, PROJECTS_MAX, PastTest, RunsOf, Spent, Tally, TestFilter,
    name_of,
};
use super::super::super::tally::sketch_of;
use super::super::super::{AttemptRow, Counts, Result, RunRow, TestRow, codes};
use super::super::{BEGIN, Connection, Row, check_leader};
use super::read::{self, RawRun, natural, small};
use super::write::number;
use super::{Database, owned};
use statements::*;

#[async_trait]
impl Ledger for Database {
    async fn to_enter(&self, limit: u32) -> Result<Vec<RunId>> {
        let runs: Vec<i64> =
            sqlx::query_scalar(TO_ENTER).bind(i64::from(limit)).fetch_all(&self.pool).await?;
        Ok(runs.into_iter().map(|run| RunId(natural(run))).collect())
    }

    async fn name_tests(&self, run: RunId, names: &[Named]) -> Result<()> {
        let rows: Vec<_> = names.iter().map(|named| (number(run.0), named.test.0, named.name)).collect();
        let rows = serde_json::to_string(&rows).expect("numbers are valid JSON");
        let mut transaction = self.pool.begin_with(BEGIN).await?;
        check_leader(&mut transaction, self.epoch).await?;
        sqlx::query(NAMES).bind(rows).execute(&mut *transaction).await?;
        owned::own(&mut transaction, run, names).await?;
        Ok(transaction.commit().await?)
    }

    async fn enter(&self, entry: &Entry) -> Result<()> {
        let Some((whole, _)) = entry.suites.first() else { return Ok(()) };
        let run = number(whole.run.0);
        let mut transaction = self.pool.begin_with(BEGIN).await?;
        check_leader(&mut transaction, self.epoch).await?;
        let marked = sqlx::query(MARK_ENTERED).bind(run).execute(&mut *transaction).await?;
        if marked.rows_affected() == 1 {
            for (run, tally) in &entry.suites {
                enter_run(&mut transaction, RUN, &entry.project, &run.suite, run).await?;
                enter_day(&mut transaction, entry, &run.suite, tally).await?;
            }
            for (owner, run) in &entry.owners {
                enter_run(&mut transaction, OWNER_RUN, &entry.project, owner, run).await?;
            }
            for (worker, driver, sketch) in &entry.rebases {
                enter_rebases(&mut transaction, entry.day, worker, driver, sketch).await?;
            }
        }
        Ok(transaction.commit().await?)
    }

    async fn pushed_ms(&self, project: &str, commit: &str) -> Result<Option<u64>> {
        let first: Option<i64> =
            sqlx::query_scalar(PUSHED).bind(project).bind(commit).fetch_one(&self.pool).await?;
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
        let sql = if git_ref.is_some() { ENTERED_ON_REF } else { ENTERED_ON_ALL };
        self.entered_by(sql, (project, suite), git_ref, before, limit).await
    }

    async fn days(&self, project: &str, from_day: u64, limit: u32) -> Result<Vec<(u64, String, Tally)>> {
        let rows: Vec<(i64, String, Vec<u8>)> = sqlx::query_as(DAYS)
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
        let rows: Vec<(i64, String, Vec<u8>)> = sqlx::query_as(REBASE_DAYS)
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
            RunsOf::Active => (RUNS_ACTIVE, "", ""),
            RunsOf::Over => (RUNS_OVER, "", ""),
            RunsOf::Project(project) => (RUNS_OF_PROJECT, project.as_str(), ""),
            RunsOf::Ref(project, git_ref) => (RUNS_OF_REF, project.as_str(), git_ref.as_str()),
            RunsOf::Commit(project, commit) => (RUNS_OF_COMMIT, project.as_str(), commit.as_str()),
            RunsOf::CommitsFrom(project, prefix) => (RUNS_OF_COMMITS, project.as_str(), prefix.as_str()),
            RunsOf::Baseline(key) => (RUNS_OF_BASELINE, key.as_str(), ""),
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
        let rows: Vec<(String, i64, i64)> =
            sqlx::query_as(SUITES).bind(number(run.0)).fetch_all(&self.pool).await?;
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
                    spent: spent(row)?,
                    dirtied_bytes: sum("dirtied_bytes")?,
                    first_started_ms: sum("first_started_ms")?,
                })
            })
            .collect()
    }

    async fn rebases_of(&self, run: RunId, limit: u32) -> Result<Vec<(String, u64)>> {
        let rows: Vec<(String, i64)> = sqlx::query_as(REBASES_OF)
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
    /// What runs amounted to, by project and suite or owner.
    pub(super) async fn entered_by(
        &self,
        sql: &'static str,
        (project, name): (&str, &str),
        git_ref: Option<&str>,
        before: RunId,
        limit: u32,
    ) -> Result<Vec<EnteredRun>> {
        let rows = sqlx::query(sql)
            .bind(project)
            .bind(name)
            .bind(number(before.0))
            .bind(git_ref.unwrap_or_default())
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(entered_run).collect()
    }

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

/// `name`: the suite, or the owner.
async fn enter_run(
    db: &mut Connection,
    sql: &'static str,
    project: &str,
    name: &str,
    run: &EnteredRun,
) -> Result<()> {
    sqlx::query(sql)
        .bind(project)
        .bind(name)
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
        .bind(number(run.spent.queue_ms))
        .bind(number(run.spent.set_up_ms))
        .bind(number(run.spent.rebase_us))
        .bind(number(run.spent.start_ms))
        .bind(number(run.spent.test_ms))
        .bind(number(run.spent.report_us))
        .bind(number(run.lanes))
        .bind(number(run.dirtied_bytes))
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
        spent: spent(row)?,
        lanes: count("lanes")?,
        dirtied_bytes: count("dirtied_bytes")?,
    })
}

fn spent(row: &Row) -> Result<Spent> {
    let sum = |name: &str| row.try_get::<i64, _>(name).map(natural);
    Ok(Spent {
        queue_ms: sum("queue_ms")?,
        set_up_ms: sum("set_up_ms")?,
        rebase_us: sum("rebase_us")?,
        start_ms: sum("start_ms")?,
        test_ms: sum("test_ms")?,
        report_us: sum("report_us")?,
    })
}
