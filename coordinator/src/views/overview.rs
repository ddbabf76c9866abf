//! The farm on one page, and its workers.

use andon_core::ids::RunId;
use andon_figures::Sketch;

use super::{
    BusyLane, CordPulled, DAYS_DEFAULT, InexactLine, Line, LineState, Overview, Page, ProjectLine, RebaseDay,
    RunLine, STRIP_MAX, StripRun, ViewError, Views, Worker, WorkerLine, lines, words,
};
use crate::rpc::inexact::in_words;
use crate::store::ledger::{DAY_MS, EnteredRun, FROM_THE_NEWEST, RunsOf};
use crate::store::{InexactFilter, RunRow};

/// Runs that have not ended, of which the overview tells; of more it tells the latest.
const ACTIVE_MAX: u32 = 100;
/// Runs that have ended, of which it tells.
const RECENT_MAX: u32 = 30;
/// Projects that it lists.
const PROJECTS_SHOWN: usize = 30;
/// So long a run may wait for its first lane before the line is called slow.
const WAIT_MS_MAX: u64 = 60_000;
/// Stands of a worker that were not exact.
const INEXACT_MAX: u32 = 50;
/// Days times drivers of a worker.
const REBASE_DAYS_MAX: u32 = 400;
/// How the core says that the cord was pulled.
const CORD: &str = "the cord was pulled";

impl Views {
    /// The farm on one page.
    pub(crate) async fn overview(&self) -> Result<Overview, ViewError> {
        let now_unix_ms = self.now_unix_ms();
        let mut active = self.store.runs_of(&RunsOf::Active, FROM_THE_NEWEST, ACTIVE_MAX).await?;
        active.reverse();
        let recent = self.store.runs_of(&RunsOf::Over, FROM_THE_NEWEST, RECENT_MAX).await?;
        let workers = self.workers().await?;
        let line = line_of(now_unix_ms, &active, &workers);
        let active: Vec<RunLine> = active.into_iter().map(lines::run).collect();
        let recent: Vec<RunLine> = recent.into_iter().map(lines::run).collect();
        let queued = active.iter().filter(|run| run.started_unix_ms.is_none()).count();
        let live = workers.iter().filter(|worker| worker.connected);
        Ok(Overview {
            now_unix_ms,
            line,
            runs_queued: u32::try_from(queued).unwrap_or(u32::MAX),
            runs_running: u32::try_from(active.len() - queued).unwrap_or(u32::MAX),
            tests_open: active.iter().map(|run| run.counts.open).sum(),
            tests_running: active.iter().map(|run| run.counts.running).sum(),
            workers_connected: u32::try_from(live.clone().count()).unwrap_or(u32::MAX),
            lanes: live.clone().map(|worker| worker.lanes).sum(),
            lanes_busy: live.map(|worker| worker.lanes_busy).sum(),
            cords: recent.iter().filter(|run| run.reason.starts_with(CORD)).map(cord).collect(),
            projects: self.project_lines().await?,
            active,
            workers,
            recent,
        })
    }

    /// Projects that have a run, with how their latest runs ended.
    async fn project_lines(&self) -> Result<Vec<ProjectLine>, ViewError> {
        let mut all = Vec::new();
        for project in self.store.projects().await?.into_iter().take(PROJECTS_SHOWN) {
            let latest = self.store.runs_of(&RunsOf::Project(project.clone()), FROM_THE_NEWEST, 1).await?;
            let Some(latest) = latest.into_iter().next() else { continue };
            let entered = self.store.entered(&project, "", None, FROM_THE_NEWEST, STRIP_MAX).await?;
            let strip = entered.iter().rev().map(strip_run).collect();
            all.push(ProjectLine { project, latest: lines::run(latest), strip });
        }
        all.sort_by_key(|line| std::cmp::Reverse(line.latest.run));
        Ok(all)
    }

    /// Workers that are known since the coordinator's start, by name.
    pub(crate) async fn workers(&self) -> Result<Vec<WorkerLine>, ViewError> {
        let inexact = self.store.inexact_counts().await?;
        let of = |(name, view): (andon_core::ids::WorkerId, crate::sessions::WorkerView)| WorkerLine {
            inexact: inexact.get(&name).copied().unwrap_or(0),
            name: name.0,
            connected: view.session.is_some(),
            connected_unix_ms: view.connected_unix_ms,
            lanes: view.lanes,
            lanes_busy: view.lanes_busy,
            version: view.version,
            pool: view.pool,
            driver: view.driver,
            unfit: view.unfit,
            disk_free_bytes: view.disk.map(|disk| disk.free_bytes),
            disk_bytes: view.disk.map(|disk| disk.bytes),
        };
        Ok(self.sessions.list().into_iter().map(of).collect())
    }

    /// One worker.
    pub(crate) async fn worker(&self, name: &str) -> Result<Worker, ViewError> {
        let known = self.workers().await?.into_iter().find(|worker| worker.name == name);
        let line = known.ok_or_else(|| ViewError::NotFound(format!("no worker is called {name:?}")))?;
        let now_unix_ms = self.now_unix_ms();
        let from_day = (now_unix_ms / DAY_MS).saturating_sub(u64::from(DAYS_DEFAULT));
        let days = self.store.rebase_days(name, from_day, REBASE_DAYS_MAX).await?;
        let rebase_day = |(day, driver, sketch): (u64, String, Sketch)| RebaseDay {
            day_unix_ms: day.saturating_mul(DAY_MS),
            driver,
            rebase_us: lines::spread(&sketch),
        };
        let busy = self.store.out(name).await?.into_iter().map(|(lane, lease, kind)| BusyLane {
            lane: lane.0,
            run: lease.run.0,
            work: words::work(&kind),
            suite: match kind {
                andon_core::model::LeaseKind::Discover(suite) => suite,
                _ => String::new(),
            },
        });
        let filter = InexactFilter { worker: Some(name.to_owned()), baseline_key: None, limit: INEXACT_MAX };
        let inexact = self.store.inexact(&filter).await?.into_iter().map(|row| InexactLine {
            said: in_words(&row.inexact),
            found_unix_ms: row.inexact.found_unix_ms,
            lane: row.inexact.lane.0,
            run: row.inexact.run.map(|run| run.0),
            suite: row.inexact.suite,
            baseline_key: row.inexact.baseline_key,
            driver: row.inexact.driver,
        });
        Ok(Worker {
            line,
            now_unix_ms,
            busy: busy.collect(),
            rebases: days.into_iter().map(rebase_day).collect(),
            inexact_stands: inexact.collect(),
        })
    }

    /// Runs of all projects, newest first.
    pub(crate) async fn runs(
        &self,
        before: Option<u64>,
        limit: Option<u32>,
    ) -> Result<Page<RunLine>, ViewError> {
        let limit = super::page_size(limit);
        let before = before.map_or(FROM_THE_NEWEST, RunId);
        let mut rows = self.store.runs_of(&RunsOf::Active, before, limit).await?;
        rows.extend(self.store.runs_of(&RunsOf::Over, before, limit).await?);
        rows.sort_by_key(|row| std::cmp::Reverse(row.run));
        let next = (rows.len() > limit as usize).then(|| rows[limit as usize - 1].run.0);
        let next = next.or_else(|| (rows.len() == limit as usize).then(|| rows[rows.len() - 1].run.0));
        rows.truncate(limit as usize);
        Ok(Page { items: rows.into_iter().map(lines::run).collect(), next })
    }
}

fn cord(run: &RunLine) -> CordPulled {
    CordPulled {
        run: run.run,
        project: run.project.clone(),
        reason: run.reason.clone(),
        at_unix_ms: run.ended_unix_ms.unwrap_or(0),
    }
}

fn strip_run(entered: &EnteredRun) -> StripRun {
    use andon_figures::flow::End;
    let (state, judged) = match entered.ending {
        End::Green => ("passed", true),
        End::Red => ("failed", true),
        End::Superseded => ("superseded", false),
        End::Cancelled => ("cancelled", false),
        End::Infrastructure => ("incomplete", false),
    };
    let lead_ms = judged.then(|| entered.ended_ms.saturating_sub(entered.pushed_ms));
    StripRun { run: entered.run.0, commit: entered.commit.clone(), state, lead_ms }
}

/// Whether work is done as it comes. Pure.
fn line_of(now_unix_ms: u64, active: &[RunRow], workers: &[WorkerLine]) -> Line {
    let live: Vec<&WorkerLine> = workers.iter().filter(|worker| worker.connected).collect();
    let fit = live.iter().filter(|worker| worker.unfit.is_empty() && worker.lanes > 0).count();
    let mut reasons = Vec::new();
    let stands = !active.is_empty() && fit == 0;
    if stands && live.is_empty() {
        reasons.push("runs wait, and no worker is connected".to_owned());
    } else if stands {
        reasons.push("runs wait, and no connected worker takes work".to_owned());
    }
    for worker in live.iter().filter(|worker| !worker.unfit.is_empty()) {
        reasons.push(format!("{} takes no work: {}", worker.name, worker.unfit));
    }
    let late =
        |run: &&RunRow| run.started_ms == 0 && now_unix_ms.saturating_sub(run.created_ms) > WAIT_MS_MAX;
    let waiting = active.iter().filter(late).count();
    if waiting > 0 && !stands {
        reasons.push(format!("{waiting} runs have waited for more than a minute"));
    }
    let gone = workers.iter().filter(|worker| !worker.connected).count();
    if gone > 0 {
        reasons.push(format!("{gone} workers that were here are not connected"));
    }
    let state = match () {
        () if stands => LineState::Stands,
        () if active.is_empty() && reasons.is_empty() => LineState::Idle,
        () if reasons.is_empty() => LineState::Flows,
        () => LineState::Slow,
    };
    Line { state, reasons }
}

#[cfg(test)]
mod tests {
    use andon_core::model::{RunHeader, RunState};

    use super::*;
    use crate::store::Counts;

    fn worker(connected: bool, unfit: &str) -> WorkerLine {
        WorkerLine {
            name: "w1".into(),
            connected,
            connected_unix_ms: 0,
            lanes: 2,
            lanes_busy: 0,
            version: String::new(),
            pool: String::new(),
            driver: String::new(),
            unfit: unfit.into(),
            inexact: 0,
            disk_free_bytes: None,
            disk_bytes: None,
        }
    }

    fn queued(created_ms: u64) -> RunRow {
        RunRow {
            run: RunId(1),
            header: RunHeader::default(),
            state: RunState::Queued,
            reason: String::new(),
            baseline_key: String::new(),
            created_ms,
            started_ms: 0,
            based_ms: 0,
            ended_ms: 0,
            forgotten: false,
            counts: Counts::default(),
        }
    }

    #[test]
    fn the_line_flows_is_slow_or_stands_and_says_why() {
        let now = 10_000_000;
        let state = |active: &[RunRow], workers: &[WorkerLine]| line_of(now, active, workers).state;
        assert_eq!(state(&[], &[]), LineState::Idle);
        assert_eq!(state(&[queued(now)], &[worker(true, "")]), LineState::Flows);
        assert_eq!(state(&[queued(now)], &[]), LineState::Stands);
        assert_eq!(state(&[queued(now)], &[worker(false, "")]), LineState::Stands);
        assert_eq!(state(&[queued(now)], &[worker(true, "drains")]), LineState::Stands);
        assert_eq!(state(&[queued(now - WAIT_MS_MAX - 1)], &[worker(true, "")]), LineState::Slow);
        let told = line_of(now, &[], &[worker(true, "disk full")]);
        assert_eq!(
            (told.state, told.reasons),
            (LineState::Slow, vec!["w1 takes no work: disk full".to_owned()])
        );
    }
}
