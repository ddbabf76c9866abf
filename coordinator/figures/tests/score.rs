//! What the page `docs/benchmarks/figures.md` says in figures, as claims that fail when it is no longer so. One seed that is not of that page.

#[path = "../examples/score/changes.rs"]
mod changes;
#[path = "../examples/score/flakes.rs"]
mod flakes;
#[path = "../examples/score/history.rs"]
mod history;

use andon_figures::made::score::Score;
use andon_figures::made::{Model, World};
use changes::{Grain, Method};
use history::History;

fn world() -> World {
    World::new(Model { seed: 31, projects: 3, commits: 200, tests: 12, ..Model::default() })
}

#[test]
fn change_points_of_suites_are_found_and_few_others_and_no_moving_average_does_as_well() {
    let world = world();
    let told = changes::score(&History::new(&world), Grain::Suite);
    let (_, andon) =
        told.scores.iter().find(|(method, _)| *method == Method::Andon).expect("it is one of them");
    assert!(andon.precision() >= 0.85 && andon.recall() >= 0.6, "{andon:?}");
    for (method, score) in &told.scores {
        assert!(*method == Method::Andon || score.both() < andon.both(), "{}: {score:?}", method.name());
    }
    let right = told.causes.iter().filter(|(truth, told)| truth == told).count();
    assert!(right * 10 >= told.causes.len() * 7, "{right} of {} causes", told.causes.len());
}

#[test]
fn where_nothing_changes_there_is_hardly_an_alarm() {
    let world = World::new(Model { slowdowns: 0, baselines: 0, farms: 0, ..*world().model() });
    let history = History::new(&world);
    for grain in [Grain::Suite, Grain::Test] {
        let told = changes::score(&history, grain);
        let alarms =
            told.scores.iter().find(|(method, _)| *method == Method::Andon).map(|(_, score)| score.wrong);
        assert!(
            alarms.expect("it is one of them") * 20 <= told.series,
            "{alarms:?} in {} series",
            told.series
        );
    }
}

#[test]
fn flaky_tests_are_told_from_broken_ones() {
    let world = world();
    let history = History::new(&world);
    let andon = |scores: Vec<(&'static str, Score)>| scores[0].1;
    let flaky = andon(flakes::flaky(&history));
    assert!(flaky.precision() >= 0.95 && flaky.recall() >= 0.8, "{flaky:?}");
    let broken = andon(flakes::broken(&history));
    assert!(broken.precision() >= 0.9 && broken.recall() >= 0.9, "{broken:?}");
}
