//! What the store's own figures tell of a made history beside its truth: change points of suites as the ledger judged them after each
//! run, change points and flakes of tests as the JSON API answers them. Beside each the plain ways, over the same points.

use andon_coordinator::store::Store;
use andon_coordinator::store::ledger::{EnteredRun, FROM_THE_NEWEST};
use andon_figures::made::TestAt;
use andon_figures::made::score::{Found, Jump, Score, compare, is_flaky_by_average, jumps, moving_average};
use andon_figures::shift::{self, POINTS_MAX, Point, Settings};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Failure;
use crate::asking::Asked;
use crate::history::{BRANCH, History, project_name, suite_name, test_name};

/// Thresholds of the moving average, in percent.
const THRESHOLDS: [u32; 4] = [10, 15, 20, 30];
/// Runs of a test that the API answers with at most, and judges by.
const PAST: u32 = 200;
/// More suites of a line have no change points.
const SHIFTED_MAX: u32 = 1_000;

/// One way, and how well it did.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Way {
    pub(crate) way: String,
    pub(crate) found: u64,
    pub(crate) there: u64,
    pub(crate) precision: f64,
    pub(crate) recall: f64,
    pub(crate) both: f64,
}

/// What was scored.
#[derive(Debug, Serialize)]
pub(crate) struct Scores {
    /// Change points of suites that the ledger holds, over the runs that it judges.
    pub(crate) suites: Vec<Way>,
    /// The same figure over all the ledger's rows of a suite.
    pub(crate) suites_whole: Vec<Way>,
    /// Change points of tests.
    pub(crate) tests: Vec<Way>,
    pub(crate) flaky: Vec<Way>,
    /// So many tests were asked for.
    pub(crate) tests_asked: usize,
}

/// Of one grain: what Andon told, and what each moving average would have.
#[derive(Default)]
struct Beside {
    andon: Score,
    averages: [Score; THRESHOLDS.len()],
}

/// A change as the ledger and the API write it.
#[derive(Deserialize)]
struct Told {
    run: u64,
    ratio: f64,
}

/// A test in one of its runs, as the API writes it.
#[derive(Deserialize)]
struct Past {
    run: u64,
    passed: u32,
    failed: u32,
    run_ms: u64,
}

/// Suites from the store, about so many tests at even distances from the API of a coordinator on it.
pub(crate) async fn all(
    store: &dyn Store,
    asked: &Asked,
    history: &History,
    tests_max: usize,
) -> Result<Scores, Failure> {
    let (suites, suites_whole) = suites(store, history).await?;
    let (mut tests, mut andon, mut plain, mut tests_asked) =
        (Beside::default(), Score::default(), Score::default(), 0);
    let model = history.world.model();
    let every = (model.projects * model.suites * model.tests).div_ceil(tests_max.max(1)).max(1);
    let all = (0..model.projects).flat_map(|project| history.world.tests(project));
    for at in all.step_by(every) {
        tests_asked += 1;
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("suite", &suite_name(at.suite)).append_pair("id", &test_name(at));
        let path =
            format!("/api/v1/projects/{}/test?{}&limit={PAST}", project_name(at.project), query.finish());
        let answer = asked.json(&path).await?;
        let mut past: Vec<Past> = serde_json::from_value(answer["history"]["items"].clone())?;
        past.reverse();
        test(history, at, &answer, &past, &mut tests)?;
        let commit = |past: &Past| history.order.get(past.run as usize - 1).map_or(0, |place| place.1);
        let is_broken = |past: &Past| {
            let mut breakages = history.world.truth().breakages.iter();
            breakages.any(|breakage| breakage.at == at && breakage.holds(commit(past)))
        };
        let has_flaked = past.iter().any(|past| past.failed > 0 && !is_broken(past));
        andon.count(!answer["first_flake"].is_null(), has_flaked);
        let failed: Vec<bool> = past.iter().map(|past| past.failed > 0).collect();
        plain.count(is_flaky_by_average(&failed), has_flaked);
    }
    let flaky = vec![way("Andon", andon), way("moving average of failures", plain)];
    Ok(Scores {
        suites: suites.ways(),
        suites_whole: suites_whole.ways(),
        tests: tests.ways(),
        flaky,
        tests_asked,
    })
}

async fn suites(store: &dyn Store, history: &History) -> Result<(Beside, Beside), Failure> {
    let (mut stored, mut whole) = (Beside::default(), Beside::default());
    let model = history.world.model();
    for project in 0..model.projects {
        let name = project_name(project);
        let shifts = store.shifts(&name, Some(BRANCH), SHIFTED_MAX).await?;
        for suite in 0..model.suites {
            let tests: Vec<TestAt> = (0..model.tests).map(|test| TestAt { project, suite, test }).collect();
            let limit = u32::try_from(POINTS_MAX)?;
            let mut runs =
                store.entered(&name, &suite_name(suite), Some(BRANCH), FROM_THE_NEWEST, limit).await?;
            runs.reverse();
            let judged = runs.len().saturating_sub(andon_coordinator::testing::JUDGED_RUNS as usize);
            for (from, beside) in [(judged, &mut stored), (0, &mut whole)] {
                let runs: Vec<&EnteredRun> = runs[from..].iter().filter(|run| run.is_measure()).collect();
                let numbers: Vec<u64> = runs.iter().map(|run| run.run.0).collect();
                let points: Vec<Point<'_>> = runs.iter().map(|run| run.point()).collect();
                let jumps = jumps(&history.world, &tests, &commits(history, &numbers));
                let found = if from == 0 && judged > 0 {
                    let found = shift::shifts(&points, &Settings::default());
                    found.iter().map(|one| Found { index: one.index, is_slower: one.ratio() > 1.0 }).collect()
                } else {
                    let json = shifts.iter().find(|(_, of, _)| *of == suite_name(suite));
                    let told: Vec<Told> =
                        json.map_or_else(|| Ok(Vec::new()), |(_, _, json)| serde_json::from_str(json))?;
                    placed(&told, &numbers)?
                };
                beside.add(&found, &points, &jumps);
            }
        }
    }
    Ok((stored, whole))
}

fn test(
    history: &History,
    at: TestAt,
    answer: &Value,
    past: &[Past],
    beside: &mut Beside,
) -> Result<(), Failure> {
    let passed: Vec<&Past> = past.iter().filter(|past| past.passed > 0).collect();
    let numbers: Vec<u64> = passed.iter().map(|past| past.run).collect();
    let points: Vec<Point<'_>> = passed
        .iter()
        .map(|past| Point {
            commit: "",
            at_unix_ms: past.run,
            duration_us: past.run_ms * 1_000,
            baseline: "",
            farm: "",
        })
        .collect();
    let told: Vec<Told> = serde_json::from_value(answer["shifts"].clone())?;
    let jumps = jumps(&history.world, &[at], &commits(history, &numbers));
    beside.add(&placed(&told, &numbers)?, &points, &jumps);
    Ok(())
}

impl Beside {
    fn add(&mut self, found: &[Found], points: &[Point<'_>], jumps: &[Jump]) {
        self.andon.add(compare(found, jumps).0);
        for (score, percent) in self.averages.iter_mut().zip(THRESHOLDS) {
            score.add(compare(&moving_average(points, f64::from(percent) / 100.0), jumps).0);
        }
    }

    fn ways(self) -> Vec<Way> {
        let averages = THRESHOLDS.iter().zip(self.averages);
        let averages = averages.map(|(percent, score)| way(&format!("moving average, {percent} %"), score));
        std::iter::once(way("Andon", self.andon)).chain(averages).collect()
    }
}

fn way(way: &str, score: Score) -> Way {
    Way {
        way: way.to_owned(),
        found: score.right + score.wrong,
        there: score.right + score.missed,
        precision: score.precision(),
        recall: score.recall(),
        both: score.both(),
    }
}

fn commits(history: &History, runs: &[u64]) -> Vec<usize> {
    runs.iter().map(|run| history.order[*run as usize - 1].1).collect()
}

/// Where what was told is in a series of these runs.
fn placed(told: &[Told], runs: &[u64]) -> Result<Vec<Found>, Failure> {
    let place = |told: &Told| {
        let index = runs.iter().position(|run| *run == told.run);
        let index =
            index.ok_or_else(|| format!("a change is told at run {}, which is none of these", told.run))?;
        Ok(Found { index, is_slower: told.ratio > 1.0 })
    };
    told.iter().map(place).collect()
}
