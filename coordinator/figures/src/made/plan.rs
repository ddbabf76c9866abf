//! What is done to a made history, and is to be found in it.

use std::collections::BTreeMap;

use super::{Model, TestAt};
use crate::dice::Dice;
use crate::shift::Cause;

/// Commits at both ends of a history without any change of durations.
const CALM: usize = 15;

/// A change of durations at a commit of a project.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moved {
    /// Of this project.
    pub project: usize,
    /// This suite alone; `None` for all.
    pub suite: Option<usize>,
    /// This test of it alone; `None` for all.
    pub test: Option<usize>,
    /// From this commit on.
    pub commit: usize,
    /// So many times as long.
    pub factor: f64,
    /// Code or baseline.
    pub cause: Cause,
}

impl Moved {
    pub(super) fn holds(&self, at: TestAt) -> bool {
        self.project == at.project
            && self.suite.is_none_or(|suite| suite == at.suite)
            && self.test.is_none_or(|test| test == at.test)
    }
}

/// A change of the farm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FarmChange {
    /// From then on.
    pub at_unix_ms: u64,
    /// Everything takes so many times as long.
    pub factor: f64,
    /// The workers are others from then on.
    pub is_shown: bool,
}

/// How a test is flaky.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Flake {
    /// Fails now and then, always.
    Always {
        /// So often.
        probability: f64,
    },
    /// Fails in three of ten attempts for some commits.
    Burst {
        /// From this commit,
        from: usize,
        /// before this one.
        to: usize,
    },
    /// Fails in a quarter of the attempts in four hours of the day: something else runs then.
    Hours {
        /// From this hour on, UTC.
        from: u64,
    },
    /// Fails in a tenth of the attempts until it is mended.
    Mended {
        /// From this commit on it is not flaky.
        commit: usize,
    },
    /// Runs out of time now and then.
    TimeOut {
        /// So often.
        probability: f64,
    },
}

impl Flake {
    pub(super) fn probability(&self, commit: usize, now_unix_ms: u64) -> f64 {
        let only = |probability, holds| if holds { probability } else { 0.0 };
        match *self {
            Self::Always { probability } | Self::TimeOut { probability } => probability,
            Self::Burst { from, to } => only(0.3, (from..to).contains(&commit)),
            Self::Hours { from } => only(0.25, (now_unix_ms / 3_600_000 % 24 + 24 - from) % 24 < 4),
            Self::Mended { commit: mended } => only(0.1, commit < mended),
        }
    }
}

/// A test fails always, for some commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breakage {
    /// Which test.
    pub at: TestAt,
    /// From this commit,
    pub from: usize,
    /// before this one.
    pub to: usize,
}

impl Breakage {
    /// It is broken at this commit.
    #[must_use]
    pub fn holds(&self, commit: usize) -> bool {
        (self.from..self.to).contains(&commit)
    }
}

/// All that was done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Truth {
    /// Durations that changed by code or baseline.
    pub moved: Vec<Moved>,
    /// Projects and their commits that changed the baseline, whether durations changed or not.
    pub baselines: Vec<(usize, usize)>,
    /// What happened to the farm.
    pub farms: Vec<FarmChange>,
    /// The flaky tests.
    pub flakes: BTreeMap<TestAt, Flake>,
    /// What was broken.
    pub breakages: Vec<Breakage>,
}

pub(super) fn truth(model: &Model, pushes: &[Vec<u64>]) -> Truth {
    let mut truth = Truth { farms: farms(model, pushes), ..Truth::default() };
    for project in 0..model.projects {
        let mut dice = Dice::new(&[model.seed, 5, project as u64]);
        let mut places = places(model.slowdowns + model.baselines, model.commits, &mut dice);
        dice.shuffle(&mut places);
        let (of_code, of_baseline) = places.split_at(model.slowdowns.min(places.len()));
        truth.moved.extend(of_code.iter().map(|commit| slowdown(model, project, *commit, &mut dice)));
        truth.baselines.extend(of_baseline.iter().map(|commit| (project, *commit)));
        truth.moved.extend(of_baseline.iter().step_by(2).map(|commit| Moved {
            project,
            suite: None,
            test: None,
            commit: *commit,
            factor: dice.between(1.1, 1.4),
            cause: Cause::Baseline,
        }));
        flakes_and_breakages(model, project, &mut dice, &mut truth);
    }
    truth
}

/// So many commits, spread over the history with some way between them.
fn places(count: usize, commits: usize, dice: &mut Dice) -> Vec<usize> {
    let room = commits.saturating_sub(2 * CALM);
    let each = room / count.max(1);
    let place = |number: usize| CALM + number * each + dice.below((each * 2 / 3).max(1));
    if each == 0 { Vec::new() } else { (0..count).map(place).collect() }
}

fn slowdown(model: &Model, project: usize, commit: usize, dice: &mut Dice) -> Moved {
    let factor = dice.between(1.1, 2.0);
    let factor = if dice.chance(0.3) { 1.0 / factor } else { factor };
    let suite = Some(dice.below(model.suites));
    let test = dice.chance(0.5).then(|| dice.below(model.tests));
    Moved { project, suite, test, commit, factor, cause: Cause::Code }
}

fn farms(model: &Model, pushes: &[Vec<u64>]) -> Vec<FarmChange> {
    let mut dice = Dice::new(&[model.seed, 6]);
    let first = pushes.iter().filter_map(|pushes| pushes.first()).min().copied().unwrap_or(0);
    // Until the project that ends first ends: all are to see it.
    let last = pushes.iter().filter_map(|pushes| pushes.last()).min().copied().unwrap_or(first);
    let change = |number: usize| {
        let share = (number as f64 + dice.between(0.3, 0.7)) / model.farms as f64;
        let slower = dice.between(1.08, 1.3);
        FarmChange {
            at_unix_ms: first + ((last - first) as f64 * share) as u64,
            factor: if number % 3 == 1 { 1.0 } else { slower },
            is_shown: number % 3 != 2,
        }
    };
    (0..model.farms).map(change).collect()
}

fn flakes_and_breakages(model: &Model, project: usize, dice: &mut Dice, truth: &mut Truth) {
    let commits = model.commits;
    for suite in 0..model.suites {
        for test in 0..model.tests {
            if dice.chance(model.flaky) {
                let from = dice.below(commits.saturating_sub(20));
                let flake = match dice.below(5) {
                    0 => Flake::Always { probability: dice.between(0.005, 0.2) },
                    1 => Flake::Burst { from, to: from + 20 },
                    2 => Flake::Hours { from: dice.next() % 24 },
                    3 => Flake::Mended { commit: commits / 4 + dice.below(commits / 2) },
                    _ => Flake::TimeOut { probability: dice.between(0.01, 0.1) },
                };
                truth.flakes.insert(TestAt { project, suite, test }, flake);
            }
        }
    }
    for _ in 0..model.breakages {
        let at = TestAt { project, suite: dice.below(model.suites), test: dice.below(model.tests) };
        let from = 1 + dice.below(commits.saturating_sub(14));
        truth.breakages.push(Breakage { at, from, to: from + 1 + dice.below(12) });
    }
}
