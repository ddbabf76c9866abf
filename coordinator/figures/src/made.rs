//! Made runs with a known truth: a public model of a farm's history, from a seed. What finds changes, flakes and breakages is scored
//! on it (`examples/score`), and databases are filled from it.
//!
//! The model:
//!
//! - **Commits**: each project has its own, pushed at random with half an hour between them in the mean.
//! - **Durations** are log-normal. A test's median is e^N(ln 300 ms, 1); around it its attempts have a deviation of the logarithm between 0.05
//!   and 0.25, its own. All of a run share a deviation of 0.02, and a rhythm of the day of ±3 %. One attempt in 50 is an
//!   outlier of 1.5 to 5 times its duration. A failure takes six tenths of it.
//! - **Code**: at known commits a suite or one test becomes slower, or faster, by a factor from 1.1 to 2.
//! - **Baselines**: at known commits the key changes; at half of them all tests of the project become slower by a factor from 1.1 to 1.4, at the
//!   others nothing happens.
//! - **Farm**: at known times the workers change and everything becomes slower by a factor from 1.08 to 1.3. Of three changes one
//!   does not show in what the workers are (a noisy neighbour), and one changes what they are and no duration.
//! - **Flakes** of five kinds ([`Flake`]) and **breakages**: a test fails always from a commit to another, for 1 to 12 commits.
//! - **Infrastructure** spoils one attempt in 250, which is repeated. A failure is retried once. One run in 33 is superseded halfway.
//!
//! Each run follows from the seed, its project and its commit alone: runs can be made in any order, and no history is held.

mod plan;
pub mod score;

use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::dice::Dice;
use crate::flow::End;
use crate::shift::Cause;

pub use plan::{Breakage, FarmChange, Flake, Moved, Truth};

/// When the first commits are pushed: the first second of 2026, UTC.
pub const START_UNIX_MS: u64 = 1_767_225_600_000;

/// So long lies between two pushes of a project, in the mean.
pub const PUSH_MEAN_MS: f64 = 30.0 * 60_000.0;

/// How many of each there are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Everything follows from it.
    pub seed: u64,
    /// So many projects.
    pub projects: usize,
    /// So many commits has each of them.
    pub commits: usize,
    /// So many suites.
    pub suites: usize,
    /// So many tests has each suite.
    pub tests: usize,
    /// So many commits of each project change a duration.
    pub slowdowns: usize,
    /// So many commits of each project change the baseline.
    pub baselines: usize,
    /// So often the farm changes.
    pub farms: usize,
    /// This share of the tests is flaky.
    pub flaky: f64,
    /// So many breakages has each project.
    pub breakages: usize,
    /// So many lanes run each run.
    pub lanes: u32,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            seed: 1,
            projects: 4,
            commits: 240,
            suites: 4,
            tests: 20,
            slowdowns: 6,
            baselines: 4,
            farms: 3,
            flaky: 0.1,
            breakages: 10,
            lanes: 8,
        }
    }
}

/// Where something is: by number, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TestAt {
    /// Of this project.
    pub project: usize,
    /// Of this suite of it.
    pub suite: usize,
    /// This test of that.
    pub test: usize,
}

/// One attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MadeAttempt {
    /// Of this test.
    pub at: TestAt,
    /// 1 for the first.
    pub number: u32,
    /// On this lane.
    pub lane: u32,
    /// When its rebase began.
    pub started_unix_ms: u64,
    /// How long that took.
    pub rebase_us: u64,
    /// How long the test itself took.
    pub duration_us: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeRun {
    /// Of this project,
    pub project: usize,
    /// at this commit of it.
    pub commit: usize,
    /// That commit's name.
    pub commit_name: String,
    /// When it was pushed.
    pub pushed_unix_ms: u64,
    /// When its last attempt ended.
    pub ended_unix_ms: u64,
    /// The key of its baseline.
    pub baseline: String,
    /// What ran it.
    pub farm: String,
    /// How it ended.
    pub end: End,
    /// In the order of suites and tests, each test's own one after the other.
    pub attempts: Vec<MadeAttempt>,
}

/// How a test is by nature.
#[derive(Debug, Clone, Copy)]
struct Nature {
    median_us: f64,
    noise: f64,
}

/// A history that can be asked for any of its runs.
#[derive(Debug, Clone)]
pub struct World {
    model: Model,
    truth: Truth,
    /// When each project's commits were pushed.
    pushes: Vec<Vec<u64>>,
}

impl World {
    /// Plans a history.
    #[must_use]
    pub fn new(model: Model) -> Self {
        let pushes: Vec<Vec<u64>> = (0..model.projects).map(|project| pushes(&model, project)).collect();
        let truth = plan::truth(&model, &pushes);
        Self { model, truth, pushes }
    }

    /// What it was made of.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What is to be found.
    #[must_use]
    pub fn truth(&self) -> &Truth {
        &self.truth
    }

    /// All tests of a project.
    pub fn tests(&self, project: usize) -> impl Iterator<Item = TestAt> + use<> {
        let Model { suites, tests, .. } = self.model;
        (0..suites).flat_map(move |suite| (0..tests).map(move |test| TestAt { project, suite, test }))
    }

    /// All runs, as they were pushed.
    pub fn runs(&self) -> impl Iterator<Item = MadeRun> {
        self.order().into_iter().map(|(project, commit)| self.run(project, commit))
    }

    /// Project and commit of each run, as they were pushed.
    #[must_use]
    pub fn order(&self) -> Vec<(usize, usize)> {
        let numbered = |(project, pushes): (usize, &Vec<u64>)| {
            pushes
                .iter()
                .enumerate()
                .map(move |(commit, pushed)| (*pushed, project, commit))
                .collect::<Vec<_>>()
        };
        let mut all: Vec<_> = self.pushes.iter().enumerate().flat_map(numbered).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, project, commit)| (project, commit)).collect()
    }

    /// When a commit was pushed.
    #[must_use]
    pub fn pushed_unix_ms(&self, project: usize, commit: usize) -> u64 {
        self.pushes[project][commit]
    }

    /// How long a test takes at a commit, without noise.
    #[must_use]
    pub fn level_us(&self, at: TestAt, commit: usize) -> f64 {
        let pushed = self.pushes[at.project][commit];
        let of_commits = self.truth.moved.iter().filter(|moved| moved.commit <= commit && moved.holds(at));
        let of_farm = self.truth.farms.iter().filter(|change| change.at_unix_ms <= pushed);
        let factor =
            of_commits.map(|moved| moved.factor).chain(of_farm.map(|change| change.factor)).product::<f64>();
        self.nature(at).median_us * factor
    }

    /// What made a test slower or faster from the commit after `from` to the commit `to`.
    #[must_use]
    pub fn causes(&self, at: TestAt, from: usize, to: usize) -> Vec<Cause> {
        let time = self.pushes[at.project][from] + 1..=self.pushes[at.project][to];
        let of_commits = self
            .truth
            .moved
            .iter()
            .filter(|moved| (from + 1..=to).contains(&moved.commit) && moved.holds(at));
        let of_farm = self
            .truth
            .farms
            .iter()
            .filter(|change| time.contains(&change.at_unix_ms) && change.factor != 1.0);
        of_commits.map(|moved| moved.cause).chain(of_farm.map(|_| Cause::Farm)).collect()
    }

    fn nature(&self, at: TestAt) -> Nature {
        let mut dice = self.dice(1, at, 0);
        Nature { median_us: (300_000.0_f64.ln() + dice.normal()).exp(), noise: dice.between(0.05, 0.25) }
    }

    fn dice(&self, what: u64, at: TestAt, commit: usize) -> Dice {
        let place = [at.project, at.suite, at.test, commit].map(|part| part as u64);
        Dice::new(&[self.model.seed, what, place[0], place[1], place[2], place[3]])
    }

    /// Makes a run.
    #[must_use]
    pub fn run(&self, project: usize, commit: usize) -> MadeRun {
        let pushed_unix_ms = self.pushes[project][commit];
        let mut dice = self.dice(2, TestAt { project, suite: 0, test: 0 }, commit);
        let hour = (pushed_unix_ms % 86_400_000) as f64 / 86_400_000.0;
        let pace = (0.02 * dice.normal()).exp() * (1.0 + 0.03 * (std::f64::consts::TAU * hour).sin());
        let is_superseded = commit + 1 < self.model.commits && dice.chance(0.03);
        let all = self.model.suites * self.model.tests;
        let count = if is_superseded { all / 2 } else { all };

        let queued_ms = dice.between(200.0, 5_000.0) as u64;
        let mut lanes = vec![pushed_unix_ms + queued_ms; self.model.lanes.max(1) as usize];
        let (mut attempts, mut is_red) = (Vec::with_capacity(count), false);
        for at in self.tests(project).take(count) {
            let of_test = self.attempts(at, commit, pace, &mut lanes);
            is_red |= !of_test.iter().any(|attempt| attempt.outcome == Outcome::Passed);
            attempts.extend(of_test);
        }
        let end = match (is_superseded, is_red) {
            (true, _) => End::Superseded,
            (false, true) => End::Red,
            (false, false) => End::Green,
        };
        MadeRun {
            project,
            commit,
            commit_name: commit_name(project, commit),
            pushed_unix_ms,
            ended_unix_ms: lanes.into_iter().max().unwrap_or(pushed_unix_ms),
            baseline: self.baseline(project, commit),
            farm: self.farm(pushed_unix_ms),
            end,
            attempts,
        }
    }

    /// A test's attempts of one run, on whichever lane is free first.
    fn attempts(&self, at: TestAt, commit: usize, pace: f64, lanes: &mut [u64]) -> Vec<MadeAttempt> {
        let mut dice = self.dice(3, at, commit);
        let (nature, level_us) = (self.nature(at), self.level_us(at, commit));
        let (mut attempts, mut failures, mut number) = (Vec::new(), 0, 0);
        while failures < 2 && number < 6 {
            number += 1;
            let lane = (0..lanes.len()).min_by_key(|lane| lanes[*lane]).unwrap_or(0);
            let started_unix_ms = lanes[lane];
            let outlier = if dice.chance(0.02) { dice.between(1.5, 5.0) } else { 1.0 };
            let usual_us = level_us * pace * (nature.noise * dice.normal()).exp() * outlier;
            let outcome = self.outcome(at, commit, started_unix_ms, &mut dice);
            let duration_us = match outcome {
                Outcome::Failed => usual_us * 0.6,
                Outcome::TimedOut => usual_us * 10.0,
                Outcome::Infrastructure => usual_us * dice.unit(),
                _ => usual_us,
            } as u64;
            let rebase_us = (8_000.0 * (0.3 * dice.normal()).exp()) as u64;
            lanes[lane] += (rebase_us + duration_us).div_ceil(1_000);
            let lane = u32::try_from(lane).expect("lanes were counted by a u32");
            attempts.push(MadeAttempt { at, number, lane, started_unix_ms, rebase_us, duration_us, outcome });
            match outcome {
                Outcome::Infrastructure => {}
                Outcome::Passed => break,
                _ => failures += 1,
            }
        }
        attempts
    }

    fn outcome(&self, at: TestAt, commit: usize, now_unix_ms: u64, dice: &mut Dice) -> Outcome {
        if dice.chance(0.004) {
            return Outcome::Infrastructure;
        }
        if self.truth.breakages.iter().any(|breakage| breakage.at == at && breakage.holds(commit)) {
            return Outcome::Failed;
        }
        let flake = self.truth.flakes.get(&at);
        let failed = flake.is_some_and(|flake| dice.chance(flake.probability(commit, now_unix_ms)));
        match (failed, flake) {
            (true, Some(Flake::TimeOut { .. })) => Outcome::TimedOut,
            (true, _) => Outcome::Failed,
            (false, _) => Outcome::Passed,
        }
    }

    fn baseline(&self, project: usize, commit: usize) -> String {
        let changes = self.truth.baselines.iter().filter(|(of, at)| *of == project && *at <= commit).count();
        format!("baseline-{project}-{changes}")
    }

    fn farm(&self, now_unix_ms: u64) -> String {
        let changes =
            self.truth.farms.iter().filter(|change| change.is_shown && change.at_unix_ms <= now_unix_ms);
        format!("farm-{}", changes.count())
    }
}

/// A commit's name: forty digits, like git's.
#[must_use]
pub fn commit_name(project: usize, commit: usize) -> String {
    let mut dice = Dice::new(&[project as u64, commit as u64]);
    let words = [dice.next(), dice.next(), dice.next()];
    format!("{:016x}{:016x}{:08x}", words[0], words[1], words[2] >> 32)
}

fn pushes(model: &Model, project: usize) -> Vec<u64> {
    let mut dice = Dice::new(&[model.seed, 4, project as u64]);
    let mut now = START_UNIX_MS;
    let next = |_| {
        // Never at the same millisecond as the one before.
        now += 1 + (-PUSH_MEAN_MS * (1.0 - dice.unit()).ln()) as u64;
        now
    };
    (0..model.commits).map(next).collect()
}

#[cfg(test)]
mod tests;
