//! Change points: which commit made a suite or a test slower or faster, by how much, how sure, and what it was owed to (`cause.rs`).
//!
//! ```text
//!   durations ──ln──> noise by a robust scale ──> outliers tamed ──> segments proposed ──> each cut tested ──> located
//!                         (robust.rs)               (robust.rs)        (segment.rs)         (permute.rs)     (locate.rs)
//! ```
//!
//! 1. Logarithms: durations spread by factors, and a change is a factor.
//! 2. The least squares segmentation with a penalty for each cut, which PELT finds (Killick, Fearnhead, Eckley: "Optimal detection of
//!    changepoints with a linear computational cost", JASA 2012), here by the plain recursion (Jackson et al.: "An algorithm for optimal
//!    partitioning of data on an interval", IEEE Signal Processing Letters 2005), since a series is bounded. Unlike halving again and again it
//!    sees two changes that undo each other. The penalty is mild: it proposes.
//! 3. Each cut is put to a permutation test in the window between its neighbours, as in E-divisive (Matteson, James: "A nonparametric approach
//!    for multiple change point analysis of multivariate data", JASA 2014; used on CI by Daly et al., ICPE 2020), and the weakest is
//!    dropped until all hold, as in Hunter (Fleming et al., ICPE 2023). The test takes the strongest split of each permutation, so that
//!    having looked for the best place is paid for. Seeded: the same series gives the same answer.
//! 4. Where exactly: how likely each place is, from the squares left over (a flat prior, normal noise).
//!
//! What it cannot see: less than [`SEGMENT_MIN`] points after a change, a slow drift, or a rhythm of more than
//! [`Settings::ratio_min`] (the test takes points of one segment as exchangeable).
//!
//! Invariants: cuts are in order and at least [`SEGMENT_MIN`] apart; a series times a factor has the same cuts, but for
//! [`Settings::difference_min_us`].

mod cause;
mod locate;
mod permute;
mod robust;
mod segment;

use std::collections::HashMap;

pub use cause::{Attribution, CONTROLS_MAX, Cause, Change, Evidence, attribute};
pub use permute::PERMUTATIONS;

/// So many points of a series are looked at; of more, the last.
pub const POINTS_MAX: usize = 1_000;

/// A level that lasts for fewer points is none.
pub const SEGMENT_MIN: usize = 4;

/// One measured duration. A series has them in the order in which they were measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point<'a> {
    /// Of this commit.
    pub commit: &'a str,
    /// When.
    pub at_unix_ms: u64,
    /// How long it took.
    pub duration_us: u64,
    /// The key of the baseline that it started from.
    pub baseline: &'a str,
    /// What ran it: something that is the same while the same workers with the same versions and drivers do.
    pub farm: &'a str,
}

/// Durations of a suite or a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series<'a> {
    /// Of what shares code with it: series of other projects cannot be slower for this one's commit.
    pub project: &'a str,
    /// Its name within the project.
    pub name: &'a str,
    /// In the order in which they were measured.
    pub points: Vec<Point<'a>>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// For the permutations.
    pub seed: u64,
    /// A change with a larger chance of being none is none. Not below 1 / [`PERMUTATIONS`].
    pub p_max: f64,
    /// A smaller factor, up or down, is not worth telling.
    pub ratio_min: f64,
    /// A smaller difference is not worth telling, whatever the factor.
    pub difference_min_us: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { seed: 1, p_max: 0.001, ratio_min: 1.05, difference_min_us: 2_000 }
    }
}

/// From one point on it took longer, or less long.
#[derive(Debug, Clone, PartialEq)]
pub struct Shift {
    /// The likeliest first point of the new level.
    pub index: usize,
    /// Its commit.
    pub commit: String,
    /// The commit of the point before: what lies between was not measured, and may have done it, too.
    pub previous: String,
    /// When that point was measured.
    pub at_unix_ms: u64,
    /// The median of the level before.
    pub before_us: f64,
    /// The median of the level after.
    pub after_us: f64,
    /// The chance of a change as strong as this where there is none.
    pub p: f64,
    /// The probability that it was at `index` and not near by.
    pub share: f64,
    /// It was at one of these points with a probability of 95 %: from this one,
    pub first: usize,
    /// to this one.
    pub last: usize,
    /// The level before begins with this point,
    pub from: usize,
    /// and the level after ends before this one.
    pub to: usize,
}

impl Shift {
    /// How much longer it takes: 1.5 for half as long again.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.after_us / self.before_us
    }

    /// That there is a change at all.
    #[must_use]
    pub fn confidence(&self) -> f64 {
        1.0 - self.p
    }
}

/// The change points of a series, oldest first. See the module.
#[must_use]
pub fn shifts(points: &[Point<'_>], settings: &Settings) -> Vec<Shift> {
    let skipped = points.len().saturating_sub(POINTS_MAX);
    let points = &points[skipped..];
    let logs: Vec<f64> = points.iter().map(|point| log_of(point.duration_us)).collect();
    let noise = robust::noise(&logs);
    let values = robust::tamed(&logs, noise);

    let mut search = Search { logs: &logs, values: &values, settings, tested: HashMap::new() };
    let held = search.held(segment::cuts(&values, noise));
    let cuts = search.held(settled(&values, held));
    let mut found = Vec::with_capacity(cuts.len());
    for (window, cut) in windows(&cuts, values.len()) {
        let p = search.p_of(window);
        let at = locate::locate(&values[window.0..window.1]);
        found.push(Shift {
            index: skipped + cut,
            commit: points[cut].commit.to_owned(),
            previous: points[cut - 1].commit.to_owned(),
            at_unix_ms: points[cut].at_unix_ms,
            before_us: robust::median(&logs[window.0..cut]).exp(),
            after_us: robust::median(&logs[cut..window.1]).exp(),
            p,
            share: at.share,
            first: skipped + window.0 + at.first.min(cut - window.0),
            last: skipped + window.0 + at.last.max(cut - window.0),
            from: skipped + window.0,
            to: skipped + window.1,
        });
    }
    found
}

fn log_of(duration_us: u64) -> f64 {
    (duration_us.max(1) as f64).ln()
}

/// Each cut with the window in which it stands: from the cut before, or the start, to the one after, or the end.
fn windows(cuts: &[usize], len: usize) -> Vec<((usize, usize), usize)> {
    let from = |place: usize| if place == 0 { 0 } else { cuts[place - 1] };
    let to = |place: usize| cuts.get(place + 1).copied().unwrap_or(len);
    cuts.iter().enumerate().map(|(place, cut)| ((from(place), to(place)), *cut)).collect()
}

/// Each cut moves to the best place between its neighbours, which may differ from where it was while there were more.
fn settled(values: &[f64], mut cuts: Vec<usize>) -> Vec<usize> {
    for place in 0..cuts.len() {
        let ((from, to), _) = windows(&cuts, values.len())[place];
        cuts[place] = from + locate::locate(&values[from..to]).split;
    }
    cuts
}

/// The cuts of one series on trial.
struct Search<'a> {
    logs: &'a [f64],
    values: &'a [f64],
    settings: &'a Settings,
    /// Windows that were tested before.
    tested: HashMap<(usize, usize), f64>,
}

impl Search<'_> {
    /// Drops the weakest cut until all that are left hold.
    fn held(&mut self, mut cuts: Vec<usize>) -> Vec<usize> {
        loop {
            let weak = windows(&cuts, self.values.len()).into_iter().enumerate();
            let weak = weak.map(|(place, (window, cut))| (place, self.weakness(window, cut)));
            let weakest = weak.max_by(|(_, a), (_, b)| a.total_cmp(b));
            match weakest {
                Some((place, weakness)) if weakness > self.settings.p_max => cuts.remove(place),
                _ => return cuts,
            };
        }
    }

    /// The chance that a cut is none; above 1 where it is not worth telling.
    fn weakness(&mut self, window: (usize, usize), cut: usize) -> f64 {
        let levels = [&self.logs[window.0..cut], &self.logs[cut..window.1]].map(robust::median);
        let change = (levels[1] - levels[0]).abs();
        let difference_us = (levels[1].exp() - levels[0].exp()).abs();
        let is_small =
            change < self.settings.ratio_min.ln() || difference_us < self.settings.difference_min_us as f64;
        if is_small { 2.0 - change.min(1.0) } else { self.p_of(window) }
    }

    /// Depends on the window alone: wherever the cut is, the test takes the window's strongest.
    fn p_of(&mut self, window: (usize, usize)) -> f64 {
        let (values, seed) = (self.values, self.settings.seed);
        let test = || permute::chance(&values[window.0..window.1], seed);
        *self.tested.entry(window).or_insert_with(test)
    }
}

#[cfg(test)]
mod tests;
