//! One project: its runs, how its line flows, its days, its suites, what changed how long it takes.

use std::collections::{BTreeMap, BTreeSet};

use andon_core::ids::RunId;
use andon_figures::Rate;
use andon_figures::Sketch;
use andon_figures::flow::{self, Ran};

use super::{
    CostView, DAYS_DEFAULT, DAYS_MAX, Day, Flow, Page, Project, ProjectAsk, ProjectRun, SUITE_FLOWS_MAX,
    Shift, SuiteLine, ViewError, Views, lines, page_size,
};
use crate::store::RunRow;
use crate::store::ledger::{DAY_MS, EnteredRun, FROM_THE_NEWEST, RunsOf, Tally};

/// Runs of a line that its figures look at; of more, the latest.
const FLOW_RUNS_MAX: u32 = 1_000;
/// The same of a suite's.
const SUITE_FLOW_RUNS_MAX: u32 = 200;
/// Days times suites of one answer.
const SUITE_DAYS_MAX: u32 = 8_000;
/// Suites with change points of one answer.
const SHIFTED_MAX: u32 = 100;
/// Branches that are listed.
const REFS_MAX: usize = 50;

impl Views {
    /// One project.
    pub(crate) async fn project(&self, project: &str, ask: &ProjectAsk) -> Result<Project, ViewError> {
        let now_unix_ms = self.now_unix_ms();
        let Window { git_ref, from_day, before, limit } = Window::of(ask, now_unix_ms);
        let of = match &git_ref {
            Some(git_ref) => RunsOf::Ref(project.to_owned(), git_ref.clone()),
            None => RunsOf::Project(project.to_owned()),
        };
        let rows = self.store.runs_of(&of, before, limit).await?;
        if rows.is_empty() && ask.before.is_none() && git_ref.is_none() {
            return Err(ViewError::NotFound(format!("no project is called {project:?}")));
        }
        let entered = self.store.entered(project, "", git_ref.as_deref(), before, limit).await?;
        let line =
            self.store.entered(project, "", git_ref.as_deref(), FROM_THE_NEWEST, FLOW_RUNS_MAX).await?;
        let line: Vec<EnteredRun> =
            line.into_iter().filter(|run| run.ended_ms / DAY_MS >= from_day).collect();
        let mut refs: BTreeSet<&str> = line.iter().map(|run| run.git_ref.as_str()).collect();
        refs.extend(rows.iter().map(|row| row.header.git_ref.as_str()));
        let refs =
            refs.into_iter().filter(|name| !name.is_empty()).take(REFS_MAX).map(str::to_owned).collect();
        let tallies = self.store.days(project, from_day, SUITE_DAYS_MAX).await?;
        let (days, mut suites) = days_of(tallies);
        for suite in suites.iter_mut().take(SUITE_FLOWS_MAX) {
            let name = &suite.suite;
            let line = self
                .store
                .entered(project, name, git_ref.as_deref(), FROM_THE_NEWEST, SUITE_FLOW_RUNS_MAX)
                .await?;
            let line: Vec<EnteredRun> =
                line.into_iter().filter(|run| run.ended_ms / DAY_MS >= from_day).collect();
            suite.flow = Some(flow_of(git_ref.clone(), &line));
        }
        Ok(Project {
            project: project.to_owned(),
            now_unix_ms,
            refs,
            suites,
            flow: flow_of(git_ref.clone(), &line),
            days,
            shifts: self.shifts(project, git_ref.as_deref()).await?,
            runs: page(rows, &entered, limit),
        })
    }

    async fn shifts(&self, project: &str, git_ref: Option<&str>) -> Result<Vec<Shift>, ViewError> {
        let stored = self.store.shifts(project, git_ref, SHIFTED_MAX).await?;
        let read = stored
            .iter()
            .flat_map(|(_, _, json)| serde_json::from_str::<Vec<Shift>>(json).unwrap_or_default());
        let mut shifts: Vec<Shift> = read.collect();
        shifts.sort_by_key(|shift| (shift.at_unix_ms, shift.run));
        Ok(shifts)
    }
}

/// What an ask is about.
pub(super) struct Window {
    /// In full.
    pub(super) git_ref: Option<String>,
    /// The first day of figures.
    pub(super) from_day: u64,
    pub(super) before: RunId,
    /// Runs of the page.
    pub(super) limit: u32,
}

impl Window {
    pub(super) fn of(ask: &ProjectAsk, now_unix_ms: u64) -> Self {
        let days = ask.days.unwrap_or(DAYS_DEFAULT).clamp(1, DAYS_MAX);
        Self {
            git_ref: ask.git_ref.as_deref().filter(|name| !name.is_empty()).map(full_ref),
            from_day: (now_unix_ms / DAY_MS).saturating_sub(u64::from(days - 1)),
            before: ask.before.map_or(FROM_THE_NEWEST, RunId),
            limit: page_size(ask.limit),
        }
    }
}

/// `main` is the branch of that name.
fn full_ref(name: &str) -> String {
    if name.starts_with("refs/") { name.to_owned() } else { format!("refs/heads/{name}") }
}

fn page(rows: Vec<RunRow>, entered: &[EnteredRun], limit: u32) -> Page<ProjectRun> {
    let by_run: BTreeMap<RunId, &EnteredRun> = entered.iter().map(|run| (run.run, run)).collect();
    let next = (rows.len() == limit as usize).then(|| rows.last().map(|row| row.run.0)).flatten();
    let keys: Vec<String> = rows.iter().map(|row| row.baseline_key.clone()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let items = rows.into_iter().enumerate().map(|(at, row)| {
        let baseline_changed = lines::is_other_baseline(&keys, at);
        let known = by_run.get(&row.run);
        let judged = known.filter(|run| matches!(run.ending, flow::End::Green | flow::End::Red));
        ProjectRun {
            lead_ms: judged.map(|run| run.ended_ms.saturating_sub(run.pushed_ms)),
            lane_ms: known.map(|run| run.lane_ms),
            spent: known.map(|run| run.spent),
            lanes: known.map(|run| run.lanes),
            retries: known.map(|run| run.retries()),
            dirtied_bytes: known.map(|run| run.dirtied_bytes),
            test_p50_ms: known.filter(|run| run.mean_us > 0).map(|run| run.p50_ms),
            baseline_changed,
            line: lines::run(row),
        }
    });
    Page { items: items.collect(), next }
}

/// Days of the whole project, and of each suite; both the oldest first.
fn days_of(tallies: Vec<(u64, String, Tally)>) -> (Vec<Day>, Vec<SuiteLine>) {
    let mut days = Vec::new();
    let mut suites: BTreeMap<String, (Tally, Vec<Day>)> = BTreeMap::new();
    for (day, suite, tally) in tallies {
        let line = lines::day(day, &tally);
        if suite.is_empty() {
            days.push(line);
        } else {
            let (sum, of_suite) = suites.entry(suite).or_default();
            sum.merge(&tally);
            of_suite.push(line);
        }
    }
    let suites = suites.into_iter().map(|(suite, (sum, days))| SuiteLine {
        suite,
        figures: lines::figures(&sum),
        flow: None,
        days,
    });
    (days, suites.collect())
}

pub(super) fn flow_of(git_ref: Option<String>, runs: &[EnteredRun]) -> Flow {
    let line: Vec<Ran<'_>> = runs
        .iter()
        .map(|run| Ran {
            commit: &run.commit,
            pushed_unix_ms: run.pushed_ms,
            ended_unix_ms: run.ended_ms,
            end: run.ending,
            lane_ms: run.lane_ms,
        })
        .collect();
    let leads = flow::leads(&line);
    let lead: Sketch = leads.leads.iter().map(|lead| lead.lead_ms).collect();
    let outages = flow::outages(&line);
    let restored = outages.iter().filter(|outage| outage.restored.is_some());
    let restore: Sketch = restored.map(|outage| outage.lasted_ms(0)).collect();
    let red = outages.last().filter(|outage| outage.restored.is_none());
    let cost = flow::cost(&line);
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    let flaky: u64 = runs.iter().map(|run| run.flaky).sum();
    let tests: u64 = runs.iter().map(|run| run.tests).sum();
    Flow {
        git_ref,
        runs: u32::try_from(runs.len()).unwrap_or(u32::MAX),
        lead_p50_ms: lead.quantile(0.5),
        lead_p90_ms: lead.quantile(0.9),
        without_verdict: leads.without.values().sum(),
        restore_p50_ms: restore.quantile(0.5),
        red_since_unix_ms: red.map(|outage| outage.red_unix_ms),
        red_commit: red.map(|outage| outage.commit.clone()),
        change_failures: lines::rate(flow::change_failures(&line)),
        flakes: lines::rate(Rate::new(flaky, tests)),
        cost: CostView {
            lane_seconds: cost.lane_seconds(),
            judged: seconds(cost.judged_ms),
            stopped: seconds(cost.stopped_ms),
            lost: seconds(cost.lost_ms),
        },
    }
}

#[cfg(test)]
mod tests {
    use andon_figures::flow::End;

    use super::*;
    use crate::store::ledger::Spent;

    fn entered(run: u64, pushed_ms: u64, ended_ms: u64, ending: End) -> EnteredRun {
        EnteredRun {
            suite: String::new(),
            run: RunId(run),
            git_ref: "refs/heads/main".into(),
            commit: format!("c{run}"),
            baseline_key: String::new(),
            farm: String::new(),
            pushed_ms,
            ended_ms,
            ending,
            tests: 10,
            attempts: 11,
            failed: u64::from(ending == End::Red),
            flaky: 1,
            lane_ms: 2_000,
            mean_us: 1,
            p50_ms: 1,
            spent: Spent::default(),
            lanes: 2,
            dirtied_bytes: 0,
        }
    }

    #[test]
    fn a_line_that_was_red_tells_how_long_and_one_that_is_tells_since_when() {
        let mut runs = vec![
            entered(1, 0, 100, End::Green),
            entered(2, 200, 300, End::Red),
            entered(3, 400, 900, End::Green),
        ];
        let flow = flow_of(None, &runs);
        assert_eq!((flow.lead_p50_ms, flow.restore_p50_ms, flow.red_commit), (Some(100), Some(600), None));
        assert_eq!((flow.change_failures.hits, flow.change_failures.of), (1, 2));
        assert_eq!((flow.flakes.hits, flow.flakes.of), (3, 30));
        assert!((flow.cost.lane_seconds - 6.0).abs() < f64::EPSILON);
        runs.push(entered(4, 1_000, 1_100, End::Red));
        let flow = flow_of(None, &runs);
        assert_eq!((flow.red_since_unix_ms, flow.red_commit.as_deref()), (Some(1_100), Some("c4")));
    }

    #[test]
    fn a_branch_may_be_named_shortly() {
        assert_eq!(full_ref("main"), "refs/heads/main");
        assert_eq!(full_ref("refs/pull/3/head"), "refs/pull/3/head");
    }
}
