//! Random farms: workers that die, freeze, come back, report late, twice, or wrongly. Whatever happens, every run ends
//! and every test gets exactly one verdict (the ledger in `Farm::keep` checks that none gets two).

use proptest::prelude::*;

use super::*;
use crate::asked::{Preference, Repeat};
use crate::model::{FailureClass, RunEnd};

#[derive(Debug, Clone, Copy)]
enum Event {
    Finish(usize, Outcome),
    EndUnitEarly(usize),
    FailWork(usize),
    Repeat(usize),
    Freeze(usize),
    Die(usize),
    Join(usize),
    Wait,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Passed), 2 => Just(Outcome::Failed), 1 => Just(Outcome::Skipped),
        1 => Just(Outcome::TimedOut), 1 => Just(Outcome::Infrastructure),
    ];
    let any = 0..64_usize;
    let event = prop_oneof![
        8 => (any.clone(), outcome).prop_map(|(pick, outcome)| Event::Finish(pick, outcome)),
        1 => any.clone().prop_map(Event::EndUnitEarly),
        1 => any.clone().prop_map(Event::FailWork),
        2 => any.clone().prop_map(Event::Repeat),
        1 => any.clone().prop_map(Event::Freeze),
        1 => any.clone().prop_map(Event::Die),
        2 => any.prop_map(Event::Join),
        2 => Just(Event::Wait),
    ];
    prop::collection::vec(event, 0..120)
}

/// Half of the storms ask for nothing.
fn asked() -> impl Strategy<Value = Asked> {
    let some = (1..5_u32, any::<bool>(), 0..4_u32, 0..8_usize, any::<bool>());
    let some = some.prop_map(|(times, until_fail, lanes, off, trial)| Asked {
        repeat: Repeat { times, until_fail },
        lanes_max: (lanes > 0).then_some(lanes),
        workers: Preference {
            on: Default::default(),
            off: WORKERS.iter().skip(off).map(|name| worker(name)).collect(),
        },
        trial,
        ..Asked::default()
    });
    prop_oneof![Just(Asked::default()), some]
}

const WORKERS: [&str; 3] = ["w0", "w1", "w2"];

/// What was handed out and not finished, and what was finished (to be repeated).
struct Storm {
    farm: Farm,
    out: Vec<Given>,
    done: Vec<Given>,
}

impl Storm {
    fn collect(&mut self) {
        self.out.append(&mut self.farm.given);
    }

    fn pick(&mut self, pick: usize) -> Option<Given> {
        self.collect();
        if self.out.is_empty() { None } else { Some(self.out.swap_remove(pick % self.out.len())) }
    }

    fn finish(&mut self, given: Given, outcome: Outcome) {
        match &given.work {
            Work::PrepareBaseline => {
                self.farm.report(
                    &given,
                    Report::BaselineReady { key: "k".into(), manifest: vec![], replaces: false },
                );
                self.offer(&given);
            }
            Work::Discover { .. } => {
                let tests = candidates(&["a::x", "a::y", "b::x", "b::y", "c::x"]);
                self.farm.report(&given, Report::Discovered { tests });
                self.offer(&given);
            }
            Work::Execute { .. } => self.farm.finish(&given, outcome),
        }
        self.done.push(given);
    }

    fn offer(&mut self, given: &Given) {
        let (worker, lane) = (given.worker.clone(), given.lane);
        self.farm.step(Input::LaneReady { worker, lane, baseline: String::new() });
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Finish(pick, outcome) => {
                if let Some(given) = self.pick(pick) {
                    self.finish(given, outcome);
                }
            }
            Event::EndUnitEarly(pick) => {
                if let Some(given) = self.pick(pick) {
                    self.farm.report(&given, Report::UnitEnded);
                    self.offer(&given);
                }
            }
            Event::FailWork(pick) => {
                if let Some(given) = self.pick(pick) {
                    let class = FailureClass::Infrastructure;
                    let failed = Report::WorkFailed { class, reason: "storm".into(), log_zstd: vec![] };
                    self.farm.report(&given, failed);
                    self.offer(&given);
                }
            }
            Event::Repeat(pick) => {
                if !self.done.is_empty() {
                    let given = self.done[pick % self.done.len()].clone();
                    for place in 0..given.attempts().len() {
                        self.farm.end_test(&given, place, Outcome::Failed);
                    }
                    self.farm.report(&given, Report::UnitEnded);
                }
            }
            // The work goes on somewhere, but nothing more is heard of it until it is too late.
            Event::Freeze(pick) => {
                if let Some(given) = self.pick(pick) {
                    self.done.push(given);
                }
            }
            Event::Die(pick) => {
                let name = worker(WORKERS[pick % 3]);
                self.farm.step(Input::WorkerLeft { worker: name.clone() });
                self.collect();
                let (gone, out) = self.out.drain(..).partition(|given| given.worker == name);
                self.out = out;
                self.done.extend::<Vec<_>>(gone);
            }
            Event::Join(pick) => {
                let name = WORKERS[pick % 3];
                self.collect();
                let held =
                    self.out.iter().filter(|given| given.worker == worker(name)).map(|g| g.lease).collect();
                self.farm.step(Input::WorkerJoined { worker: worker(name), held, reached: None });
                self.farm.ready(name, 7);
            }
            Event::Wait => self.farm.later(4_000),
        }
    }

    /// Good weather: two fresh workers that do what they are told, until nothing is left to do.
    fn calm(&mut self, runs: &[RunId]) {
        self.out.clear();
        for _ in 0..400 {
            if runs.iter().all(|run| !self.farm.core.is_active(*run)) {
                return;
            }
            self.farm.later(15_000);
            for name in ["calm0", "calm1"] {
                self.farm.join(name, 2);
            }
            self.collect();
            for given in std::mem::take(&mut self.out) {
                if given.worker.0.starts_with("calm") {
                    self.finish(given, Outcome::Passed);
                }
            }
        }
        panic!("a run never ended");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_happens_every_run_ends_and_every_test_has_one_verdict(
        events in events(), retries in 0..3_u32, hedge in any::<bool>(), merge in any::<bool>(), quota in 0..4_u32,
        asked in asked(),
    ) {
        let mut storm = Storm { farm: Farm::new(), out: vec![], done: vec![] };
        if quota > 0 {
            let quotas = [("shop".to_owned(), quota)].into();
            storm.farm.core = Core::new(Config { quotas, ..Config::default() });
        }
        storm.farm.join("w0", 2);
        let with = |grain| {
            let mut plan = plan(retries, grain);
            plan.policy.hedge = hedge;
            plan.merge_key = merge.then(|| format!("{grain:?}"));
            plan.asked.clone_from(&asked);
            plan
        };
        let runs = [
            storm.farm.submit(with(Grain::Test), Start::Discover),
            storm.farm.submit_as(Trigger::Rerun, with(Grain::File), chosen(&["f::a", "f::b", "g::a"])),
            storm.farm.submit_as(Trigger::Person, with(Grain::Test), Start::Discover),
            storm.farm.submit_as(Trigger::Scheduled, with(Grain::Batch), chosen(&["f::a", "f::b", "g::a", "g::b"])),
        ];
        for event in events {
            storm.take(event);
        }
        storm.calm(&runs);
        let farm = &storm.farm;
        for (run, test) in farm.names.keys() {
            prop_assert!(farm.verdicts.contains_key(&(*run, *test)), "{run:?} {test:?} has no verdict");
        }
        prop_assert!(farm.outcomes.values().all(Option::is_some), "an attempt was left open");
        for run in runs {
            let (state, _) = &farm.states[&run];
            let ended_well = matches!(state, RunState::Ended(RunEnd::Passed | RunEnd::Failed | RunEnd::Incomplete));
            prop_assert!(ended_well, "{state:?}");
        }
    }
}
