//! Change points against the truth.

use andon_figures::Outcome;
use andon_figures::made::score::{Found, Jump, Score, compare, jumps, moving_average};
use andon_figures::made::{MadeRun, TestAt};
use andon_figures::shift::{Cause, Point, Series, Settings, attribute, shifts};

use crate::history::History;

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
    let jumps = jumps(history.world, tests, &commits);
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
