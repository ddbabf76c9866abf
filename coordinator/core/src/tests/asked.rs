//! What whoever submits a run asks beyond its configuration.

use super::*;
use crate::asked::{Pattern, Preference, Repeat, Selection, Shard};
use crate::model::RunEnd;
use crate::{Stored, ids::WorkId};

fn repeating(times: u32, until_fail: bool, grain: Grain) -> Plan {
    let repeat = Repeat { times, until_fail };
    Plan { asked: Asked { repeat, ..Asked::default() }, ..plan(0, grain) }
}

/// Ends what is given, in order, as `outcome` says of each attempt's number in the run, until nothing more is given.
fn play(farm: &mut Farm, run: RunId, outcome: impl Fn(&str, u64) -> Outcome) -> u64 {
    let mut attempts = 0;
    while farm.core.is_active(run) {
        let given = farm.take();
        for place in 0..given.attempts().len() {
            attempts += 1;
            let outcome = outcome(given.ids()[place], given.attempts()[place].0);
            farm.end_test(&given, place, outcome);
        }
        farm.report(&given, Report::UnitEnded);
        farm.step(Input::LaneReady { worker: given.worker.clone(), lane: given.lane, baseline: "k".into() });
    }
    attempts
}

#[test]
fn only_what_was_asked_for_of_what_is_found_is_run() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    let mut some = plan(0, Grain::Test);
    some.baseline_group = None;
    some.asked.selection.patterns = vec![Pattern::Part("wanted".into())];
    let run = farm.submit(some.clone(), Start::Discover);
    let discover = farm.take();
    farm.report(&discover, Report::Discovered { tests: candidates(&["a.wanted", "b", "wanted.c"]) });
    assert_eq!(farm.names.values().cloned().collect::<Vec<_>>(), ["a.wanted", "wanted.c"]);
    farm.ready("w1", 0);
    play(&mut farm, run, |_, _| Outcome::Passed);
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::Passed));

    let none = farm.submit(some, Start::Discover);
    let discover = farm.take();
    farm.report(&discover, Report::Discovered { tests: candidates(&["x", "y"]) });
    assert_eq!(farm.state(none), RunState::Ended(RunEnd::NoTests));
    assert!(farm.states[&none].1.contains("chosen"), "{}", farm.states[&none].1);
}

#[test]
fn a_suite_of_which_nothing_is_chosen_does_not_fail_a_run_of_another() {
    let mut farm = Farm::new();
    let mut two = plan(0, Grain::Test);
    two.baseline_group = None;
    two.suites.push(SuitePlan { name: "other".into(), ..two.suites[0].clone() });
    two.asked.selection = Selection { patterns: vec![Pattern::Glob("other/*".into())], shard: None };
    let run = farm.submit(two, Start::Discover);
    farm.join("w1", 1);
    for _ in 0..2 {
        let discover = farm.take();
        farm.report(&discover, Report::Discovered { tests: candidates(&["a", "b"]) });
        farm.ready("w1", 0);
    }
    assert_eq!(play(&mut farm, run, |_, _| Outcome::Passed), 2);
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::Passed));
}

#[test]
fn the_shards_of_a_run_are_disjoint_and_complete() {
    let ids: Vec<String> = (0..60).map(|n| format!("tests/t{}.py::C::t{n}", n % 7)).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut seen = Vec::new();
    for index in 0..4 {
        let mut farm = Farm::new();
        farm.join("w1", 1);
        let mut part = plan(0, Grain::File);
        part.baseline_group = None;
        part.asked.selection.shard = Some(Shard { index, total: 4 });
        farm.submit(part, Start::Discover);
        let discover = farm.take();
        farm.report(&discover, Report::Discovered { tests: candidates(&ids) });
        seen.extend(farm.names.into_values());
    }
    seen.sort_unstable();
    let mut all: Vec<String> = ids.iter().map(|&id| id.to_owned()).collect();
    all.sort_unstable();
    assert_eq!(seen, all);
}

#[test]
fn a_test_is_repeated_so_often_on_all_lanes_at_once() {
    let mut farm = Farm::new();
    farm.join("w1", 3);
    let run = farm.submit(repeating(40, false, Grain::Test), chosen(&["a"]));
    assert_eq!(farm.given.len(), 3, "its repeats run beside each other");
    assert_eq!(play(&mut farm, run, |_, _| Outcome::Passed), 40);
    assert_eq!(farm.verdict(run, 0), Some(Verdict::Passed));
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::Passed));
}

#[test]
fn one_failure_among_repeats_is_news() {
    let mut farm = Farm::new();
    farm.join("w1", 2);
    let run = farm.submit(repeating(5, false, Grain::Batch), chosen(&["a", "b"]));
    let fails =
        |id: &str, attempt| if id == "a" && attempt % 3 == 0 { Outcome::Failed } else { Outcome::Passed };
    assert_eq!(play(&mut farm, run, fails), 10);
    assert_eq!(farm.verdict(run, 0), Some(Verdict::Flaky));
    assert_eq!(farm.verdict(run, 1), Some(Verdict::Passed));
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::Failed));
}

#[test]
fn repeats_until_a_failure_stop_at_it_and_take_back_what_is_out() {
    let mut farm = Farm::new();
    farm.join("w1", 3);
    let run = farm.submit(repeating(1_000, true, Grain::Test), chosen(&["a"]));
    let first = farm.take();
    farm.finish(&first, Outcome::Passed);
    let second = farm.take();
    farm.end_test(&second, 0, Outcome::Failed);
    assert_eq!(farm.verdict(run, 0), Some(Verdict::Flaky));
    assert_eq!(farm.state(run), RunState::Ended(RunEnd::Failed));
    assert_eq!(farm.revoked.len(), 2, "the other two lanes");
}

#[test]
fn a_sequence_is_repeated_whole_and_in_its_order() {
    let mut farm = Farm::new();
    farm.join("w1", 2);
    let run = farm.submit(repeating(4, false, Grain::Never), chosen(&["c", "a", "b"]));
    let mut units = Vec::new();
    while farm.core.is_active(run) {
        let given = farm.take();
        units.push(given.ids().join(" "));
        farm.finish(&given, Outcome::Passed);
    }
    assert_eq!(units, ["c a b"; 4]);
}

#[test]
fn a_repeat_that_the_farm_loses_is_made_up_for() {
    let mut farm = Farm::new();
    farm.join("w1", 1);
    let run = farm.submit(repeating(3, false, Grain::Test), chosen(&["a"]));
    let lost = farm.take();
    farm.finish(&lost, Outcome::Infrastructure);
    assert_eq!(play(&mut farm, run, |_, _| Outcome::Passed), 3);
    assert_eq!(farm.verdict(run, 0), Some(Verdict::Passed));
}

#[test]
fn a_restart_counts_the_repeats_that_there_were() {
    let mut farm = Farm::new();
    let repeat = repeating(5, false, Grain::Test);
    let header = RunHeader { project: "shop".into(), ..RunHeader::default() };
    let attempts = (1..=2).map(|attempt| (AttemptId(attempt), Some(Outcome::Passed))).collect();
    let test = crate::model::StoredTest {
        suite: "it".into(),
        candidate: candidates(&["a"]).remove(0),
        verdict: None,
        attempts,
    };
    let run = crate::model::StoredRun {
        run: RunId(7),
        header,
        plan: repeat,
        state: RunState::Running,
        baseline: Some("k".into()),
        discovered: vec!["it".into()],
        tests: vec![test],
        leases: Vec::new(),
        losses: Vec::new(),
        last_work: WorkId(2),
    };
    let stored = Stored { last_run: 7, last_fence: 0, runs: vec![run] };
    farm.core = Core::restore(Config::default(), farm.now, stored);
    for attempt in 1..=2 {
        farm.outcomes.insert((RunId(7), AttemptId(attempt)), Some(Outcome::Passed));
    }
    farm.join("w1", 1);
    assert_eq!(play(&mut farm, RunId(7), |_, _| Outcome::Passed), 3);
    assert_eq!(farm.verdict(RunId(7), 0), Some(Verdict::Passed));
}

#[test]
fn a_run_holds_no_more_lanes_than_it_asks_for() {
    let mut farm = Farm::new();
    farm.join("w1", 5);
    let mut narrow = plan(0, Grain::Test);
    narrow.asked.lanes_max = Some(2);
    let run = farm.submit(narrow, chosen(&["a", "b", "c", "d"]));
    assert_eq!(farm.given.len(), 2);
    let other = farm.submit(plan(0, Grain::Test), chosen(&["x", "y", "z"]));
    assert_eq!(farm.given.len(), 5, "the others are another run's");
    let first = farm.take();
    farm.finish(&first, Outcome::Passed);
    assert_eq!(farm.given.iter().filter(|given| given.lease.run == run).count(), 2);
    assert!(farm.core.is_active(other));
}

fn preferring(on: &[&str], off: &[&str]) -> Plan {
    let names = |names: &[&str]| names.iter().map(|name| worker(name)).collect();
    let workers = Preference { on: names(on), off: names(off) };
    Plan { asked: Asked { workers, ..Asked::default() }, ..plan(0, Grain::Test) }
}

#[test]
fn units_go_where_they_are_asked_to_be_and_wait_for_it() {
    for preference in [preferring(&["w2"], &[]), preferring(&[], &["w1", "w3"])] {
        let mut farm = Farm::new();
        for name in ["w1", "w2", "w3"] {
            farm.join(name, 1);
        }
        farm.submit(preference, chosen(&["a", "b"]));
        assert_eq!(farm.given.len(), 1, "the second waits for the lane of the same worker");
        for _ in 0..2 {
            let given = farm.take();
            assert_eq!(given.worker, worker("w2"));
            farm.finish(&given, Outcome::Passed);
        }
    }
}

#[test]
fn a_preference_that_cannot_be_had_holds_nothing_up() {
    for preference in [preferring(&["gone"], &[]), preferring(&[], &["w1"])] {
        let mut farm = Farm::new();
        farm.join("w1", 1);
        farm.submit(preference, chosen(&["a"]));
        assert_eq!(farm.take().worker, worker("w1"));
    }
}

#[test]
fn an_experiment_is_no_part_of_a_tests_history() {
    for (trial, remembered) in [(false, true), (true, false)] {
        let mut farm = Farm::new();
        farm.join("w1", 1);
        let asked = Asked { trial, ..Asked::default() };
        farm.submit(Plan { asked, ..plan(0, Grain::Test) }, chosen(&["a"]));
        let given = farm.take();
        let ended = Ended { run_ms: 5, ..Ended::without_report(Outcome::Failed, "") };
        let report = Report::TestEnded { attempt: given.attempts()[0], ended };
        let input = Input::Reported { worker: given.worker.clone(), lease: given.lease, report };
        let fed =
            farm.core.step(farm.now, input).into_iter().any(|effect| {
                matches!(effect, Effect::Persist(Record::VerdictGiven { run_ms: Some(_), .. }))
            });
        assert_eq!(fed, remembered, "trial: {trial}");
    }
}
