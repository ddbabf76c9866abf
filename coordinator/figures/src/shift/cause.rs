//! What a change point is owed to: code, baseline or farm.
//!
//! Everything of a commit changes at the same moment, so one series alone cannot tell. What can:
//!
//! | seen at the change | says |
//! | --- | --- |
//! | series of other projects moved, too | the farm: they share nothing else |
//! | they could have shown it and did not | not the farm |
//! | other workers, versions or drivers from here on | perhaps the farm; the series of other projects decide, or if there are none this project's others |
//! | another baseline from here on | perhaps the baseline: if the others that start from it moved, too |
//! | the same commit on both sides | not the code |
//! | nothing of these | the code |
//!
//! What is left of suspects is told: one is the cause, several are unclear. The evidence is handed out with the answer.

use super::{Point, SEGMENT_MIN, Series, Shift, log_of, robust};
use crate::Rate;

/// So many series are asked whether they moved, of the same project, and of others.
pub const CONTROLS_MAX: usize = 200;

/// So many points on each side of a change are looked at.
const SIDE_MAX: usize = 8;

/// So many controls can say something; fewer are chance.
const CONTROLS_MIN: u64 = 2;

/// A control has moved if it did so by this share of the change.
const MOVED_SHARE: f64 = 0.5;

/// A control can show a change of so many standard errors of its own: then it is wrong in one case of fifteen, either way.
const SHOWN_ERRORS: f64 = 3.0;

/// A change is where it was found, or so many points beside it.
const MARGIN: usize = 1;

/// The standard error of a median beside that of a mean, of normal noise.
const MEDIAN_ERROR: f64 = 1.253_314_137_315_5;

/// What it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// What the commit changed in the project.
    Code,
    /// The baseline that the tests start from.
    Baseline,
    /// The machines, or Andon itself.
    Farm,
    /// More than one of these changed at once.
    Unclear,
}

/// Something was other than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub from: String,
    /// From here on.
    pub to: String,
}

/// Why it is thought so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The last point before and the first after are of one commit.
    pub same_commit: bool,
    /// Another baseline from here on.
    pub baseline: Option<Change>,
    /// Other workers, versions or drivers from here on.
    pub farm: Option<Change>,
    /// Of the series of other projects that could have shown it, those that moved with it.
    pub others: Rate,
    /// The same of this project; where the baseline changed, of those that start from it.
    pub siblings: Rate,
}

/// A cause and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribution {
    /// What it was.
    pub cause: Cause,
    /// Why.
    pub evidence: Evidence,
}

/// Finds the cause of a shift of `series`. `all` are the farm's series of the same grain (suites, or tests) of the same time, and may hold
/// `series` itself.
///
/// The shift must be one of this very series; one that lies elsewhere is unclear.
#[must_use]
pub fn attribute<'a>(shift: &Shift, series: &'a Series<'a>, all: &'a [Series<'a>]) -> Attribution {
    let Some(sides) = Sides::new(shift, &series.points) else {
        let nothing = Rate::default();
        let evidence =
            Evidence { same_commit: false, baseline: None, farm: None, others: nothing, siblings: nothing };
        return Attribution { cause: Cause::Unclear, evidence };
    };
    let baseline = sides.change(|point| point.baseline);
    let shares = |control: &&'a Series<'a>| {
        let theirs = Sides::at(&sides, &control.points).change(|point| point.baseline);
        baseline.is_none() || theirs == baseline
    };
    let of_project = |same: bool| {
        let is_own = |control: &Series<'_>| control.name == series.name && control.project == series.project;
        all.iter().filter(move |control| (control.project == series.project) == same && !is_own(control))
    };
    let change = shift.ratio().ln();
    let evidence = Evidence {
        same_commit: shift.commit == shift.previous,
        farm: sides.change(|point| point.farm),
        others: moved(of_project(false), &sides, change),
        siblings: moved(of_project(true).filter(shares), &sides, change),
        baseline,
    };
    Attribution { cause: decide(&evidence), evidence }
}

fn moved<'a>(controls: impl Iterator<Item = &'a Series<'a>>, sides: &Sides<'_>, change: f64) -> Rate {
    let mut rate = Rate::default();
    for control in controls.take(CONTROLS_MAX) {
        if let Some(has_moved) = Sides::at(sides, &control.points).moved(change) {
            rate.count(has_moved);
        }
    }
    rate
}

fn decide(evidence: &Evidence) -> Cause {
    let enough = |rate: Rate| rate.of() >= CONTROLS_MIN;
    let mostly = |rate: Rate| enough(rate) && rate.hits() * 2 >= rate.of();
    let not = |rate: Rate| enough(rate) && !mostly(rate);
    if mostly(evidence.others) {
        return Cause::Farm;
    }
    let farm = evidence.farm.is_some() && !enough(evidence.others) && !not(evidence.siblings);
    let baseline = evidence.baseline.is_some() && !not(evidence.siblings);
    match (farm, baseline) {
        (true, false) => Cause::Farm,
        (false, true) => Cause::Baseline,
        (true, true) => Cause::Unclear,
        (false, false) if evidence.same_commit && evidence.baseline.is_none() => Cause::Farm,
        // The baseline is another and nothing else that starts from it moved: what of it this one uses, or its code.
        (false, false) if evidence.baseline.is_some() => Cause::Unclear,
        (false, false) => Cause::Code,
    }
}

/// The points next to a change, on both sides. What may be on either side is on none.
struct Sides<'a> {
    before: Vec<&'a Point<'a>>,
    after: Vec<&'a Point<'a>>,
    /// Of the first and last point of the level before and of that after, UTC in milliseconds: beyond are other changes.
    times: [u64; 4],
}

impl<'a> Sides<'a> {
    fn new(shift: &Shift, points: &'a [Point<'a>]) -> Option<Self> {
        let whole = [points.get(shift.from..shift.first)?, points.get(shift.last..shift.to)?];
        let [before, after] = whole.map(|side| if side.len() < SEGMENT_MIN + MARGIN { 0 } else { MARGIN });
        let (before, after) = (&whole[0][..whole[0].len() - before], &whole[1][after..]);
        Some(Self {
            times: [before.first()?, before.last()?, after.first()?, after.last()?]
                .map(|point| point.at_unix_ms),
            before: last_of(before),
            after: first_of(after),
        })
    }

    /// Of another series at the same times.
    fn at(of: &Sides<'_>, points: &'a [Point<'a>]) -> Self {
        let until = |time: u64| points.partition_point(|point| point.at_unix_ms <= time);
        let from = |time: u64| points.partition_point(|point| point.at_unix_ms < time);
        let side = |first: u64, last: u64| points.get(from(first)..until(last)).unwrap_or_default();
        let [first, before, after, last] = of.times;
        Self { before: last_of(side(first, before)), after: first_of(side(after, last)), times: of.times }
    }

    /// Something that was the same before, and is the same, another, since.
    fn change(&self, of: fn(&Point<'a>) -> &'a str) -> Option<Change> {
        let (from, to) = (most_of(&self.before, of)?, most_of(&self.after, of)?);
        let is_lasting = self.before.iter().all(|point| of(point) != to)
            && self.after.iter().all(|point| of(point) != from);
        is_lasting.then(|| Change { from: from.to_owned(), to: to.to_owned() })
    }

    /// Whether it changed in the same direction; `None` where it could not have shown it.
    fn moved(&self, change: f64) -> Option<bool> {
        if self.before.len() < SEGMENT_MIN || self.after.len() < SEGMENT_MIN {
            return None;
        }
        let logs =
            |side: &[&Point<'_>]| side.iter().map(|point| log_of(point.duration_us)).collect::<Vec<_>>();
        let (before, after) = (logs(&self.before), logs(&self.after));
        let noise = robust::noise(&[before.clone(), after.clone()].concat());
        let error = MEDIAN_ERROR * noise * (1.0 / before.len() as f64 + 1.0 / after.len() as f64).sqrt();
        let theirs = (robust::median(&after) - robust::median(&before)) * change.signum();
        (SHOWN_ERRORS * error <= change.abs()).then_some(theirs >= MOVED_SHARE * change.abs())
    }
}

fn last_of<'a>(points: &'a [Point<'a>]) -> Vec<&'a Point<'a>> {
    points[points.len().saturating_sub(SIDE_MAX)..].iter().collect()
}

fn first_of<'a>(points: &'a [Point<'a>]) -> Vec<&'a Point<'a>> {
    points.iter().take(SIDE_MAX).collect()
}

fn most_of<'a>(points: &[&Point<'a>], of: fn(&Point<'a>) -> &'a str) -> Option<&'a str> {
    let count = |wanted: &str| points.iter().filter(|point| of(point) == wanted).count();
    points.iter().map(|point| of(point)).max_by_key(|value| count(value))
}

#[cfg(test)]
mod tests;
