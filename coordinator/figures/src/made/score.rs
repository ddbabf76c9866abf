//! How well something finds what was done to a made history: what it tells beside the truth, and the plain ways that it is measured against.
//!
//! What comes in are places in a series and the commits of its points; where the points came from (a made run, a store) is the caller's.

use super::{TestAt, World};
use crate::shift::{Cause, Point, Settings};

/// A change is found within so many points of it.
pub const TOLERANCE: usize = 5;

/// So many runs a window of [`is_flaky_by_average`] has.
pub const FLAKY_WINDOW: usize = 20;

/// A jump of the true level that is smaller is nothing at all.
const JUMP_MIN: f64 = 1.005;

/// What was found of what there was.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Score {
    /// Found, and there.
    pub right: u64,
    /// Found, and not there.
    pub wrong: u64,
    /// There, and not found.
    pub missed: u64,
}

impl Score {
    /// Takes all that another one has.
    pub fn add(&mut self, other: Self) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.missed += other.missed;
    }

    /// Counts one thing that was told or not, and is so or not.
    pub fn count(&mut self, is_told: bool, is_true: bool) {
        match (is_told, is_true) {
            (true, true) => self.right += 1,
            (true, false) => self.wrong += 1,
            (false, true) => self.missed += 1,
            (false, false) => {}
        }
    }

    /// Of what was found, the share that was there.
    #[must_use]
    pub fn precision(self) -> f64 {
        self.share_of(self.right + self.wrong)
    }

    /// Of what was there, the share that was found.
    #[must_use]
    pub fn recall(self) -> f64 {
        self.share_of(self.right + self.missed)
    }

    /// The harmonic mean of both.
    #[must_use]
    pub fn both(self) -> f64 {
        let (precision, recall) = (self.precision(), self.recall());
        if self.right == 0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
    }

    fn share_of(self, all: u64) -> f64 {
        if all == 0 { 0.0 } else { self.right as f64 / all as f64 }
    }
}

/// A place in a series, and whether it became slower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The first point of the new level.
    pub index: usize,
    /// Up, not down.
    pub is_slower: bool,
}

/// A true change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// The first point of the new level.
    pub index: usize,
    /// Up, not down.
    pub is_slower: bool,
    /// It is large enough to be asked for.
    pub is_due: bool,
    /// What it is owed to; unclear where several things changed at once.
    pub cause: Cause,
}

/// The true changes of what these tests take together, in a series whose points are of these commits of their project.
#[must_use]
pub fn jumps(world: &World, tests: &[TestAt], commits: &[usize]) -> Vec<Jump> {
    let level = |commit: &usize| tests.iter().map(|at| world.level_us(*at, *commit)).sum::<f64>();
    let levels: Vec<f64> = commits.iter().map(level).collect();
    (1..commits.len()).filter_map(|index| jump(world, tests, commits, &levels, index)).collect()
}

fn jump(world: &World, tests: &[TestAt], commits: &[usize], levels: &[f64], index: usize) -> Option<Jump> {
    let (before, after) = (levels[index - 1], levels[index]);
    let ratio = (after / before).max(before / after);
    if ratio.is_nan() || ratio < JUMP_MIN {
        return None;
    }
    let settings = Settings::default();
    let is_due = ratio >= settings.ratio_min && (after - before).abs() >= settings.difference_min_us as f64;
    let mut causes: Vec<Cause> =
        tests.iter().flat_map(|at| world.causes(*at, commits[index - 1], commits[index])).collect();
    causes.sort_unstable();
    causes.dedup();
    let cause = if causes.len() == 1 { causes[0] } else { Cause::Unclear };
    Some(Jump { index, is_slower: after > before, is_due, cause })
}

/// Pairs what was found with what there was, nearest first, each once. Answers with the score, and with the pairs that were due.
#[must_use]
pub fn compare(found: &[Found], jumps: &[Jump]) -> (Score, Vec<(usize, usize)>) {
    let mut near = Vec::new();
    for (place, told) in found.iter().enumerate() {
        for (jump, truth) in jumps.iter().enumerate() {
            let distance = told.index.abs_diff(truth.index);
            if distance <= TOLERANCE && told.is_slower == truth.is_slower {
                near.push((!truth.is_due, distance, place, jump));
            }
        }
    }
    near.sort_unstable();
    let (mut places, mut taken) = (vec![false; found.len()], vec![false; jumps.len()]);
    let mut pairs = Vec::new();
    for (is_small, _, place, jump) in near {
        if !places[place] && !taken[jump] {
            (places[place], taken[jump]) = (true, true);
            if !is_small {
                pairs.push((place, jump));
            }
        }
    }
    let wrong = places.iter().filter(|is_paired| !**is_paired).count() as u64;
    let due = jumps.iter().filter(|jump| jump.is_due).count();
    let score = Score { right: pairs.len() as u64, wrong, missed: (due - pairs.len()) as u64 };
    (score, pairs)
}

/// The plain way to find changes: the mean of the last 5 beside that of the 20 before, told where they differ by more than this share, and
/// again when they have come together in between.
#[must_use]
pub fn moving_average(points: &[Point<'_>], threshold: f64) -> Vec<Found> {
    const SHORT: usize = 5;
    const LONG: usize = 20;
    let mean = |part: &[Point<'_>]| {
        part.iter().map(|point| point.duration_us as f64).sum::<f64>() / part.len() as f64
    };
    let (mut found, mut is_armed) = (Vec::new(), true);
    for end in LONG + SHORT..=points.len() {
        let start = end - SHORT;
        let ratio = mean(&points[start..end]) / mean(&points[start - LONG..start]);
        let has_changed = ratio.max(1.0 / ratio) >= 1.0 + threshold;
        if has_changed && is_armed {
            found.push(Found { index: start, is_slower: ratio > 1.0 });
        }
        is_armed = !has_changed;
    }
    found
}

/// The plain way to find flaky tests: between 5 % and 60 % of its first attempts failed in any [`FLAKY_WINDOW`] runs in a row.
#[must_use]
pub fn is_flaky_by_average(first_failed: &[bool]) -> bool {
    first_failed.windows(FLAKY_WINDOW).any(|window| {
        let share = window.iter().filter(|failed| **failed).count() as f64 / FLAKY_WINDOW as f64;
        (0.05..=0.6).contains(&share)
    })
}
