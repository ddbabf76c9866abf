//! Change points against the truth.

use andon_figures::Outcome;
use andon_figures::made::{MadeRun, TestAt};
use andon_figures::shift::{Cause, Point, Series, Settings, attribute, shifts};

use crate::history::History;
use crate::score::Score;

/// A change is found within so many runs of it.
pub(crate) const TOLERANCE: usize = 5;

/// A jump of the true level that is smaller is nothing at all.
const JUMP_MIN: f64 = 1.005;

/// Series of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grain {
    Suite,
    Test,
}

/// Who finds changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Method {
    Andon,
    /// With this threshold, in percent.
    MovingAverage(u32),
}

const METHODS: [Method; 5] = [
    Method::Andon,
    Method::MovingAverage(10),
    Method::MovingAverage(15),
    Method::MovingAverage(20),
    Method::MovingAverage(30),
];

impl Method {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Andon => "**Andon**".to_owned(),
            Self::MovingAverage(percent) => format!("moving average, {percent} %"),
        }
    }
}

/// What came of it.
pub(crate) struct Told {
    pub(crate) scores: Vec<(Method, Score)>,
    /// So many series there were.
    pub(crate) series: u64,
    /// Of each change that Andon found: what it was, and what Andon said.
    pub(crate) causes: Vec<(Cause, Cause)>,
}

/// A place in a series, and whether it became slower.
#[derive(Debug, Clone, Copy)]
struct Found {
    index: usize,
    is_slower: bool,
}

/// A true change.
struct Jump {
    index: usize,
    is_slower: bool,
    /// It is large enough to be asked for.
    is_due: bool,
    cause: Cause,
}

/// A series with its truth.
struct Scored<'a> {
    series: Series<'a>,
    jumps: Vec<Jump>,
}

pub(crate) fn score(history: &History<'_>, grain: Grain) -> Told {
    let names = names(history);
    let (scored, series) = all(history, grain, &names);
    let mut told = Told { scores: Vec::new(), series: series.len() as u64, causes: Vec::new() };
    for method in METHODS {
        let mut score = Score::default();
        for one in &scored {
            let found = match method {
                Method::Andon => andon(one, &series, &mut told.causes),
                Method::MovingAverage(percent) => {
                    moving_average(&one.series.points, f64::from(percent) / 100.0)
                }
            };
            score.add(compare(&found, &one.jumps).0);
        }
        told.scores.push((method, score));
    }
    told
}

/// Names of projects, and of everything in one.
struct Names {
    projects: Vec<String>,
    suites: Vec<String>,
    tests: Vec<String>,
}

fn names(history: &History<'_>) -> Names {
    let model = history.world.model();
    let of = |what: &str, count: usize| (0..count).map(|number| format!("{what} {number}")).collect();
    Names {
        projects: of("project", model.projects),
        suites: of("suite", model.suites),
        tests: of("test", model.suites * model.tests),
    }
}

fn all<'a>(history: &'a History<'_>, grain: Grain, names: &'a Names) -> (Vec<Scored<'a>>, Vec<Series<'a>>) {
    let model = history.world.model();
    let mut scored = Vec::new();
    for (project, runs) in history.runs.iter().enumerate() {
        for suite in 0..model.suites {
            let tests: Vec<TestAt> = (0..model.tests).map(|test| TestAt { project, suite, test }).collect();
            let parts: Vec<(&str, &[TestAt])> = match grain {
                Grain::Suite => vec![(names.suites[suite].as_str(), tests.as_slice())],
                Grain::Test => {
                    let name = |place: usize| names.tests[suite * model.tests + place].as_str();
                    tests.chunks(1).enumerate().map(|(place, test)| (name(place), test)).collect()
                }
            };
            for (name, tests) in parts {
                scored.push(series_of(history, runs, tests, (names.projects[project].as_str(), name)));
            }
        }
    }
    let series = scored.iter().map(|one| one.series.clone()).collect();
    (scored, series)
}

fn series_of<'a>(
    history: &History<'_>,
    runs: &'a [MadeRun],
    tests: &[TestAt],
    (project, name): (&'a str, &'a str),
) -> Scored<'a> {
    let mut measured: Vec<(&MadeRun, u64)> = Vec::new();
    for run in runs {
        if let Some(duration_us) = duration_of(run, tests) {
            measured.push((run, duration_us));
        }
    }
    let point = |(run, duration_us): &(&'a MadeRun, u64)| Point {
        commit: &run.commit_name,
        at_unix_ms: run.pushed_unix_ms,
        duration_us: *duration_us,
        baseline: &run.baseline,
        farm: &run.farm,
    };
    let commits: Vec<usize> = measured.iter().map(|(run, _)| run.commit).collect();
    let jumps = (1..commits.len()).filter_map(|index| jump(history, tests, &commits, index)).collect();
    Scored { series: Series { project, name, points: measured.iter().map(point).collect() }, jumps }
}

/// The sum of the attempts that passed; `None` where a test has none.
fn duration_of(run: &MadeRun, tests: &[TestAt]) -> Option<u64> {
    let passed = |test: &TestAt| {
        let mut attempts = run.attempts.iter();
        attempts.find(|attempt| attempt.at == *test && attempt.outcome == Outcome::Passed)
    };
    tests.iter().map(|test| passed(test).map(|attempt| attempt.duration_us)).sum()
}

fn jump(history: &History<'_>, tests: &[TestAt], commits: &[usize], index: usize) -> Option<Jump> {
    let level = |commit: usize| tests.iter().map(|at| history.world.level_us(*at, commit)).sum::<f64>();
    let (before, after) = (level(commits[index - 1]), level(commits[index]));
    let ratio = (after / before).max(before / after);
    let settings = Settings::default();
    let is_due = ratio >= settings.ratio_min && (after - before).abs() >= settings.difference_min_us as f64;
    let mut causes: Vec<Cause> =
        tests.iter().flat_map(|at| history.world.causes(*at, commits[index - 1], commits[index])).collect();
    causes.sort_unstable();
    causes.dedup();
    let cause = if causes.len() == 1 { causes[0] } else { Cause::Unclear };
    (ratio >= JUMP_MIN).then_some(Jump { index, is_slower: after > before, is_due, cause })
}

fn andon<'a>(one: &'a Scored<'a>, all: &'a [Series<'a>], causes: &mut Vec<(Cause, Cause)>) -> Vec<Found> {
    let shifts = shifts(&one.series.points, &Settings::default());
    let found: Vec<Found> =
        shifts.iter().map(|shift| Found { index: shift.index, is_slower: shift.ratio() > 1.0 }).collect();
    let (_, pairs) = compare(&found, &one.jumps);
    for (place, jump) in pairs {
        let told = attribute(&shifts[place], &one.series, all);
        causes.push((one.jumps[jump].cause, told.cause));
    }
    found
}

/// The mean of the last 5 beside that of the 20 before.
fn moving_average(points: &[Point<'_>], threshold: f64) -> Vec<Found> {
    const SHORT: usize = 5;
    const LONG: usize = 20;
    let mean = |part: &[Point<'_>]| {
        part.iter().map(|point| point.duration_us as f64).sum::<f64>() / part.len() as f64
    };
    let (mut found, mut is_armed) = (Vec::new(), true);
    for end in LONG + SHORT..=points.len() {
        let start = end - SHORT;
        let ratio = mean(&points[start..end]) / mean(&points[start - LONG..start]);
        let has_changed = ratio.max(1.0 / ratio) >= 1.0 + threshold;
        if has_changed && is_armed {
            found.push(Found { index: start, is_slower: ratio > 1.0 });
        }
        is_armed = !has_changed;
    }
    found
}

/// Pairs what was found with what there was, nearest first, each once. Answers with the score, and with the pairs that were due.
fn compare(found: &[Found], jumps: &[Jump]) -> (Score, Vec<(usize, usize)>) {
    let mut near = Vec::new();
    for (place, told) in found.iter().enumerate() {
        for (jump, truth) in jumps.iter().enumerate() {
            let distance = told.index.abs_diff(truth.index);
            if distance <= TOLERANCE && told.is_slower == truth.is_slower {
                near.push((!truth.is_due, distance, place, jump));
            }
        }
    }
    near.sort_unstable();
    let (mut places, mut taken) = (vec![false; found.len()], vec![false; jumps.len()]);
    let mut pairs = Vec::new();
    for (is_small, _, place, jump) in near {
        if !places[place] && !taken[jump] {
            (places[place], taken[jump]) = (true, true);
            if !is_small {
                pairs.push((place, jump));
            }
        }
    }
    let wrong = places.iter().filter(|is_paired| !**is_paired).count() as u64;
    let due = jumps.iter().filter(|jump| jump.is_due).count();
    let score = Score { right: pairs.len() as u64, wrong, missed: (due - pairs.len()) as u64 };
    (score, pairs)
}
