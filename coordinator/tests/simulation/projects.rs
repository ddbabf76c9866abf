//! The projects whose tests are run: what each suite holds, how each test behaves, what runs are asked for. All of it
//! follows from the seed.

use andon_core::asked::{Asked, Preference, Repeat};
use andon_core::ids::WorkerId;
use andon_core::model::{Candidate, Grain, Plan, Policy, RunHeader, Start, SuitePlan, Trigger};

use crate::dice::{Dice, number_of};

/// How a test behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nature {
    Passes,
    Fails,
    /// Fails so many times in a thousand.
    Flaky(u64),
    Skips,
    TimesOut,
    /// Takes its worker down.
    Poison,
    /// The worker cannot run it.
    Cursed,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Projects {
    seed: u64,
    /// Everything fails.
    broken: bool,
    poison: bool,
    slow: bool,
}

/// A run that somebody asks for.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) header: RunHeader,
    pub(crate) plan: Plan,
    pub(crate) start: Start,
}

impl Projects {
    pub(crate) fn new(seed: u64, dice: &mut Dice) -> Self {
        Self { seed, broken: dice.chance(60), poison: dice.chance(150), slow: dice.chance(500) }
    }

    fn dice(&self, words: &[&str]) -> Dice {
        Dice::new(self.seed ^ number_of(words))
    }

    /// The ids of a suite at a commit, in the order in which its runner prints them.
    pub(crate) fn tests(&self, project: &str, suite: &str, commit: &str) -> Vec<String> {
        let mut dice = self.dice(&["tests", project, suite, commit]);
        if dice.chance(40) {
            return Vec::new();
        }
        let (files, most) = (dice.between(1, 3), dice.between(1, 8));
        let mut ids = Vec::new();
        for file in 0..files {
            for test in 0..dice.between(1, most) {
                ids.push(format!("{suite}{file}.py::C{}::t{test}", test % 2));
            }
        }
        ids
    }

    pub(crate) fn nature(&self, project: &str, id: &str) -> Nature {
        let mut dice = self.dice(&["nature", project, id]);
        let roll = dice.below(1_000);
        match roll {
            _ if self.broken && roll < 800 => Nature::Fails,
            0..=99 => Nature::Fails,
            100..=249 => Nature::Flaky(dice.between(200, 800)),
            250..=299 => Nature::Skips,
            300..=339 => Nature::TimesOut,
            340..=354 if self.poison => Nature::Poison,
            355..=364 => Nature::Cursed,
            _ => Nature::Passes,
        }
    }

    /// How long a test takes on an idle machine.
    pub(crate) fn duration_ms(&self, project: &str, id: &str) -> u64 {
        let mut dice = self.dice(&["duration", project, id]);
        match dice.below(100) {
            0..=4 if self.slow => dice.between(15_000, 60_000),
            5..=24 => dice.between(1_000, 5_000),
            _ => dice.between(5, 800),
        }
    }

    /// What `andon.toml` says at a commit.
    fn plan(&self, project: &str, commit: &str) -> Plan {
        let mut dice = self.dice(&["plan", project, commit]);
        let grains = [Grain::Test, Grain::Class, Grain::File, Grain::Batch, Grain::Never];
        let suites = (0..dice.between(1, 3)).map(|n| SuitePlan {
            name: format!("s{n}"),
            retries: small(dice.below(4)),
            grain: *dice.pick(&grains).expect("there are grains"),
        });
        let suites = suites.collect();
        let asked = self.asked(project, commit);
        let repeats = asked.repeat.is_wanted();
        let policy = Policy {
            max_failures: dice.chance(250).then(|| small(dice.between(1, 4))),
            fail_fast: dice.chance(80),
            retry_budget: dice.chance(150).then(|| small(dice.below(4))),
            supersede: dice.chance(100),
            hedge: dice.chance(400) && !repeats,
        };
        Plan {
            suites,
            policy,
            baseline_group: dice.chance(850).then(|| format!("{project}/{commit}")),
            merge_key: (dice.chance(600) && !repeats).then(|| format!("{project}/{commit}")),
            asked,
            quarantine: Vec::new(),
        }
    }

    /// What people ask beyond that.
    fn asked(&self, project: &str, commit: &str) -> Asked {
        let mut dice = self.dice(&["asked", project, commit]);
        let times = if dice.chance(200) { small(dice.between(2, 6)) } else { 1 };
        let workers = |wanted: bool| (wanted).then(|| WorkerId("w0".to_owned())).into_iter().collect();
        Asked {
            repeat: Repeat { times, until_fail: dice.chance(300) },
            lanes_max: dice.chance(200).then(|| small(dice.between(1, 3))),
            workers: Preference { on: workers(dice.chance(100)), off: workers(dice.chance(100)) },
            trial: dice.chance(100),
            ..Asked::default()
        }
    }

    /// A run of some project.
    pub(crate) fn wish(&self, dice: &mut Dice, number: u64) -> Wish {
        let project = format!("p{}", dice.below(3));
        let commit = format!("c{}", dice.below(2));
        let triggers = [Trigger::Push, Trigger::Person, Trigger::Scheduled];
        let header = RunHeader {
            project: project.clone(),
            commit: commit.clone(),
            git_ref: "main".to_owned(),
            trigger: *dice.pick(&triggers).expect("there are triggers"),
            spec_digest: format!("spec{number}"),
            dedup_key: dice.chance(800).then(|| format!("wish{number}")),
            ..RunHeader::default()
        };
        Wish { header, plan: self.plan(&project, &commit), start: Start::Discover }
    }

    /// Somebody else asks for the same commit.
    pub(crate) fn twin(&self, dice: &mut Dice, number: u64, other: &Wish) -> Wish {
        let mut twin = other.clone();
        twin.header.trigger = *dice.pick(&[Trigger::Push, Trigger::Person]).expect("there are triggers");
        twin.header.spec_digest = format!("spec{number}");
        twin.header.dedup_key = Some(format!("wish{number}"));
        twin
    }

    /// The same commit once more: some tests of an earlier run, on its baseline.
    pub(crate) fn rerun(
        &self,
        dice: &mut Dice,
        number: u64,
        earlier: &Wish,
        baseline: Option<String>,
    ) -> Wish {
        let mut wish = earlier.clone();
        wish.header.trigger = Trigger::Rerun;
        wish.header.spec_digest = format!("spec{number}");
        wish.header.dedup_key = Some(format!("wish{number}"));
        let (project, commit) = (&wish.header.project, &wish.header.commit);
        let mut tests = Vec::new();
        for suite in &wish.plan.suites {
            let known = self.tests(project, &suite.name, commit).into_iter().filter(|_| dice.chance(500));
            let chosen =
                known.map(|id| Candidate { id, expected_ms: None, failed_last: true, excused: false });
            tests.extend(chosen.map(|candidate| (suite.name.clone(), candidate)));
        }
        wish.start = Start::Chosen { tests, baseline };
        wish
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).expect("small numbers are rolled")
}
