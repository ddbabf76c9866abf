//! The model does what it says.

use super::*;
use crate::Rate;

fn small() -> World {
    World::new(Model { projects: 2, commits: 80, tests: 10, flaky: 0.3, ..Model::default() })
}

#[test]
fn the_same_seed_makes_the_same_runs_in_any_order_and_another_makes_others() {
    let world = small();
    let all: Vec<MadeRun> = world.runs().collect();
    assert_eq!(all.len(), 160);
    assert!(all.windows(2).all(|pair| pair[0].pushed_unix_ms <= pair[1].pushed_unix_ms));
    for run in all.iter().rev().step_by(17) {
        assert_eq!(&small().run(run.project, run.commit), run);
    }
    let other = World::new(Model { seed: 2, ..*world.model() });
    assert_ne!(other.run(0, 3), world.run(0, 3));
}

#[test]
fn durations_are_around_their_level_and_levels_change_where_the_truth_says() {
    let world = World::new(Model { projects: 1, flaky: 0.0, breakages: 0, farms: 0, ..Model::default() });
    let at = TestAt { project: 0, suite: 0, test: 0 };
    let mut below = Rate::default();
    for commit in 0..world.model().commits {
        let level = world.level_us(at, commit);
        if commit > 0 {
            let has_changed = (level - world.level_us(at, commit - 1)).abs() > 1e-6;
            assert_eq!(has_changed, !world.causes(at, commit - 1, commit).is_empty(), "commit {commit}");
        }
        let run = world.run(0, commit);
        below.count((run.attempts[0].duration_us as f64) < level);
    }
    let share = below.share().expect("there are commits");
    assert!((0.35..0.65).contains(&share), "{share} of the durations are below their level");
}

#[test]
fn broken_tests_fail_always_and_only_flaky_ones_fail_else() {
    let world = small();
    let mut seen = 0;
    for run in world.runs() {
        for attempt in &run.attempts {
            let is_broken =
                world.truth().breakages.iter().any(|one| one.at == attempt.at && one.holds(run.commit));
            match attempt.outcome {
                Outcome::Infrastructure => {}
                outcome if is_broken => assert_eq!(outcome, Outcome::Failed),
                Outcome::Passed => {}
                _ => assert!(world.truth().flakes.contains_key(&attempt.at), "{attempt:?}"),
            }
            seen += usize::from(is_broken);
        }
    }
    assert!(seen > 50, "{seen} attempts of broken tests");
}

#[test]
fn every_kind_of_flake_and_cause_comes_up() {
    let world = World::new(Model { flaky: 0.5, ..Model::default() });
    let kinds: std::collections::HashSet<_> =
        world.truth().flakes.values().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), 5);
    let of = |cause| world.truth().moved.iter().filter(|moved| moved.cause == cause).count();
    let model = world.model();
    assert_eq!(of(Cause::Code), model.projects * model.slowdowns);
    assert_eq!(of(Cause::Baseline), model.projects * model.baselines / 2);
    assert_eq!(world.truth().farms.len(), model.farms);
    let ends: std::collections::HashSet<End> = world.runs().map(|run| run.end).collect();
    assert_eq!(ends, [End::Green, End::Red, End::Superseded].into());
}

#[test]
fn a_lane_does_one_thing_at_a_time() {
    let run = small().run(0, 1);
    for lane in 0..8 {
        let mut until = run.pushed_unix_ms;
        for attempt in run.attempts.iter().filter(|attempt| attempt.lane == lane) {
            assert!(attempt.started_unix_ms >= until);
            until = attempt.started_unix_ms + (attempt.rebase_us + attempt.duration_us) / 1_000;
        }
        assert!(until <= run.ended_unix_ms);
    }
}

#[test]
fn a_world_of_nothing_has_no_runs() {
    let none = Model { projects: 0, commits: 0, suites: 0, tests: 0, ..Model::default() };
    assert_eq!(World::new(none).runs().count(), 0);
    let short = World::new(Model { commits: 3, ..Model::default() });
    assert!(short.truth().moved.is_empty());
    assert_eq!(short.runs().count(), 12);
}
