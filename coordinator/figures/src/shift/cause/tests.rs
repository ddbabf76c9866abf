//! Claims about causes, on farms of a few series.

use super::super::{Settings, shifts};
use super::*;
use crate::dice::Dice;

const LEN: usize = 60;
const AT: usize = 30;

/// What changes at [`AT`] in a series.
#[derive(Clone, Copy, Default)]
struct At {
    slower: bool,
    baseline: bool,
    farm: bool,
}

/// No change.
const STILL: At = At { slower: false, baseline: false, farm: false };
const SLOWER: At = At { slower: true, ..STILL };

fn series<'a>(project: &'a str, name: &'a str, commits: &'a [String], at: At, seed: u64) -> Series<'a> {
    let mut dice = Dice::new(&[seed]);
    let point = |(place, commit): (usize, &'a String)| {
        let is_after = place >= AT;
        let level = if at.slower && is_after { 260_000.0 } else { 200_000.0 };
        Point {
            commit,
            // Projects are pushed at other times, a series of a project after the other.
            at_unix_ms: place as u64 * 60_000 + seed * 100,
            duration_us: (level * (0.04 * dice.normal()).exp()) as u64,
            baseline: if at.baseline && is_after { "b2" } else { "b1" },
            farm: if at.farm && is_after { "f2" } else { "f1" },
        }
    };
    Series { project, name, points: commits.iter().enumerate().map(point).collect() }
}

/// The cause of the first series' change beside two siblings and some of other projects.
fn attributed(own: At, siblings: At, others: &[At]) -> Attribution {
    let commits: Vec<String> = (0..LEN).map(|commit| format!("c{commit}")).collect();
    let names: Vec<String> = (0..others.len()).map(|other| format!("other{other}")).collect();
    let mut all = vec![series("shop", "a", &commits, own, 1)];
    all.extend([("b", 2), ("c", 3)].map(|(name, seed)| series("shop", name, &commits, siblings, seed)));
    all.extend(
        (4..).zip(&names).zip(others).map(|((seed, name), at)| series(name, "x", &commits, *at, seed)),
    );
    let found = shifts(&all[0].points, &Settings::default());
    assert_eq!(found.len(), 1, "{found:?}");
    attribute(&found[0], &all[0], &all)
}

#[test]
fn what_nothing_else_explains_is_the_code() {
    let told = attributed(SLOWER, STILL, &[STILL; 3]);
    assert_eq!(told.cause, Cause::Code);
    assert_eq!((told.evidence.others, told.evidence.siblings), (Rate::new(0, 3), Rate::new(0, 2)));
}

#[test]
fn a_commit_that_makes_all_of_its_project_slower_is_the_code() {
    assert_eq!(attributed(SLOWER, SLOWER, &[STILL; 3]).cause, Cause::Code);
}

#[test]
fn what_moves_other_projects_is_the_farm_whether_it_says_so_or_not() {
    assert_eq!(attributed(SLOWER, SLOWER, &[SLOWER; 3]).cause, Cause::Farm);
    let farm = At { farm: true, ..SLOWER };
    let told = attributed(farm, farm, &[farm; 3]);
    assert_eq!(told.cause, Cause::Farm);
    assert_eq!(told.evidence.farm, Some(Change { from: "f1".to_owned(), to: "f2".to_owned() }));
}

#[test]
fn other_workers_that_make_nobody_else_slower_are_not_it() {
    let farm = At { farm: true, ..STILL };
    assert_eq!(attributed(At { farm: true, ..SLOWER }, farm, &[farm; 3]).cause, Cause::Code);
}

#[test]
fn of_a_single_project_its_own_series_tell_the_farm_from_the_code() {
    let farm = At { farm: true, ..SLOWER };
    assert_eq!(attributed(farm, farm, &[]).cause, Cause::Farm);
    assert_eq!(attributed(farm, At { farm: true, ..STILL }, &[]).cause, Cause::Code);
}

#[test]
fn a_new_baseline_is_it_where_the_others_that_start_from_it_moved() {
    let baseline = At { baseline: true, ..SLOWER };
    let told = attributed(baseline, baseline, &[STILL; 3]);
    assert_eq!(told.cause, Cause::Baseline);
    assert_eq!(told.evidence.baseline, Some(Change { from: "b1".to_owned(), to: "b2".to_owned() }));
    let alone = attributed(baseline, At { baseline: true, ..STILL }, &[STILL; 3]);
    assert_eq!(alone.cause, Cause::Unclear, "the baseline or the code of this one alone");
}

#[test]
fn farm_and_baseline_at_once_in_a_single_project_are_unclear() {
    let both = At { baseline: true, farm: true, slower: true };
    assert_eq!(attributed(both, both, &[]).cause, Cause::Unclear);
}

#[test]
fn the_same_commit_on_both_sides_is_not_the_code() {
    let commits = vec!["same".to_owned(); LEN];
    let all = [series("shop", "a", &commits, SLOWER, 1)];
    let found = shifts(&all[0].points, &Settings::default());
    let told = attribute(&found[0], &all[0], &all);
    assert_eq!((told.cause, told.evidence.same_commit), (Cause::Farm, true));
}

#[test]
fn a_change_elsewhere_than_at_the_shift_says_nothing() {
    let commits: Vec<String> = (0..LEN).map(|commit| format!("c{commit}")).collect();
    let mut own = series("shop", "a", &commits, SLOWER, 1);
    own.points[AT + 6..].iter_mut().for_each(|point| point.baseline = "b2");
    let all = [own];
    let found = shifts(&all[0].points, &Settings::default());
    let told = attribute(&found[0], &all[0], &all);
    assert_eq!((told.cause, told.evidence.baseline), (Cause::Code, None));
}

#[test]
fn a_shift_of_another_series_is_unclear_and_does_not_panic() {
    let commits: Vec<String> = (0..LEN).map(|commit| format!("c{commit}")).collect();
    let own = series("shop", "a", &commits, SLOWER, 1);
    let short = Series { points: own.points[..5].to_vec(), ..own.clone() };
    let found = shifts(&own.points, &Settings::default());
    assert_eq!(attribute(&found[0], &short, &[]).cause, Cause::Unclear);
}
