//! Claims about change points, on series whose truth is known.

use proptest::prelude::*;

use super::*;
use crate::dice::Dice;

/// Levels in milliseconds, each for so many points, with noise of this deviation of the logarithm.
fn durations(levels: &[(f64, usize)], noise: f64, seed: u64) -> Vec<u64> {
    let mut dice = Dice::new(&[seed]);
    let level = |(level, len): &(f64, usize)| vec![*level; *len];
    let levels = levels.iter().flat_map(level);
    levels.map(|ms| (ms * 1_000.0 * (noise * dice.normal()).exp()) as u64).collect()
}

fn points<'a>(commits: &'a [String], durations_us: &[u64]) -> Vec<Point<'a>> {
    let all = (0..).zip(commits).zip(durations_us);
    all.map(|((at, commit), duration_us)| Point {
        commit,
        at_unix_ms: at * 60_000,
        duration_us: *duration_us,
        baseline: "b",
        farm: "f",
    })
    .collect()
}

fn commits(len: usize) -> Vec<String> {
    (0..len).map(|commit| format!("c{commit}")).collect()
}

fn found(durations_us: &[u64]) -> Vec<Shift> {
    shifts(&points(&commits(durations_us.len()), durations_us), &Settings::default())
}

fn places(shifts: &[Shift]) -> Vec<usize> {
    shifts.iter().map(|shift| shift.index).collect()
}

#[test]
fn a_slower_commit_is_named_with_how_much_and_how_sure() {
    let found = found(&durations(&[(200.0, 40), (260.0, 40)], 0.03, 1));
    assert_eq!(places(&found), [40]);
    let shift = &found[0];
    assert_eq!((shift.commit.as_str(), shift.previous.as_str()), ("c40", "c39"));
    assert!((shift.ratio() - 1.3).abs() < 0.03, "{}", shift.ratio());
    assert!((shift.before_us - 200_000.0).abs() < 4_000.0 && (shift.after_us - 260_000.0).abs() < 5_000.0);
    assert!(shift.confidence() >= 0.999 && shift.share > 0.9, "{shift:?}");
    assert_eq!((shift.first, shift.last, shift.at_unix_ms), (40, 40, 2_400_000));
}

#[test]
fn a_faster_commit_is_named_too() {
    let found = found(&durations(&[(200.0, 30), (150.0, 30)], 0.05, 2));
    assert_eq!(places(&found), [30]);
    assert!(found[0].ratio() < 0.8);
}

#[test]
fn two_changes_that_undo_each_other_are_both_seen() {
    assert_eq!(places(&found(&durations(&[(200.0, 40), (300.0, 6), (200.0, 40)], 0.05, 3))), [40, 46]);
}

#[test]
fn a_stair_is_seen_step_by_step() {
    assert_eq!(places(&found(&durations(&[(100.0, 30), (130.0, 30), (170.0, 30)], 0.04, 4))), [30, 60]);
}

#[test]
fn outliers_are_no_change() {
    let mut durations = durations(&[(200.0, 120)], 0.05, 5);
    for place in [10, 11, 40, 77, 78, 110, 119] {
        durations[place] *= 6;
    }
    assert_eq!(found(&durations), []);
}

#[test]
fn noise_alone_is_hardly_ever_a_change() {
    let alarms: usize = (0..40).map(|seed| found(&durations(&[(200.0, 100)], 0.2, 100 + seed)).len()).sum();
    assert!(alarms <= 1, "{alarms} in 40 series of noise");
}

#[test]
fn what_is_not_worth_telling_is_not_told() {
    assert_eq!(found(&durations(&[(200.0, 50), (206.0, 50)], 0.005, 6)), [], "3 percent");
    assert_eq!(found(&durations(&[(1.0, 50), (1.5, 50)], 0.02, 7)), [], "half a millisecond");
    let settings = Settings { difference_min_us: 0, ratio_min: 1.02, ..Settings::default() };
    let commits = commits(100);
    assert_eq!(
        shifts(&points(&commits, &durations(&[(200.0, 50), (206.0, 50)], 0.005, 6)), &settings).len(),
        1
    );
    assert_eq!(shifts(&points(&commits, &durations(&[(1.0, 50), (1.5, 50)], 0.02, 7)), &settings).len(), 1);
}

#[test]
fn short_and_strange_series_have_no_change_and_do_not_panic() {
    assert_eq!(found(&[]), []);
    assert_eq!(found(&[5]), []);
    assert_eq!(found(&[0; 50]), []);
    assert_eq!(found(&[u64::MAX; 50]), []);
    assert_eq!(found(&[1_000, 1_000, 1_000, 900_000, 900_000, 900_000]), []);
}

#[test]
fn durations_without_noise_change_where_they_change() {
    assert_eq!(places(&found(&durations(&[(200.0, 10), (400.0, 10)], 0.0, 8))), [10]);
}

#[test]
fn of_a_long_series_the_last_points_are_looked_at_and_places_count_from_the_start() {
    let durations = durations(&[(500.0, 300), (200.0, POINTS_MAX - 100), (300.0, 100)], 0.02, 9);
    assert_eq!(places(&found(&durations)), [300 + POINTS_MAX - 100]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn cuts_are_in_order_apart_and_the_same_each_time(
        levels in prop::collection::vec((50.0..800.0_f64, 4..25_usize), 1..5),
        noise in 0.01..0.2_f64,
        seed in any::<u64>(),
    ) {
        let durations = durations(&levels, noise, seed);
        let told = found(&durations);
        let places = places(&told);
        let ends: Vec<usize> = std::iter::once(0).chain(places.iter().copied()).chain([durations.len()]).collect();
        prop_assert!(ends.windows(2).all(|pair| pair[1] - pair[0] >= SEGMENT_MIN), "{:?}", ends);
        for shift in &told {
            prop_assert!(shift.first <= shift.index && shift.index <= shift.last);
            prop_assert!(shift.p <= Settings::default().p_max && shift.share <= 1.0);
            prop_assert!(shift.ratio().ln().abs() >= 1.05_f64.ln());
        }
        prop_assert_eq!(&found(&durations), &told);
    }
}

#[test]
fn a_series_in_another_unit_has_the_same_cuts() {
    let durations = durations(&[(200.0, 40), (260.0, 20), (240.0, 40)], 0.03, 10);
    let longer: Vec<u64> = durations.iter().map(|us| us * 1_000).collect();
    assert_eq!(places(&found(&durations)), places(&found(&longer)));
}
