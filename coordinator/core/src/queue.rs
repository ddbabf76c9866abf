//! What of a run waits for a lane, in the order in which it is served.
//!
//! Of tests that nothing is known of but their class, the first of each class waits among all others and the rest stand in
//! line behind it. They are expected to take the same, so their order says nothing; and what the run learns of the class
//! while it goes on moves one entry, however many tests it is about.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::estimate::{ClassIx, Guess};
use crate::ids::{TestIx, WorkId, WorkerId};

/// Work that waits for a lane.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) kind: PendingKind,
    /// How often infrastructure failed it; tests count for themselves.
    pub(crate) infra_failures: usize,
    /// How long it is expected to take, and what it claims.
    pub(crate) guess: Guess,
    /// Who failed it; tests remember for themselves.
    pub(crate) failed_on: BTreeSet<WorkerId>,
    /// Until then it goes to a worker that has not failed it, where there is one.
    pub(crate) choosy_until_mono_ms: u64,
    /// Not to be packed together with others: it may have taken a worker down.
    pub(crate) alone: bool,
    /// It is a new test of this class: others may stand in line behind it.
    pub(crate) line: Option<ClassIx>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PendingKind {
    Baseline,
    Discover(usize),
    Unit { suite: usize, tests: Vec<TestIx> },
}

/// The order of service within a run: baseline, then discovery, then units: failed ones first, then longest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    stage: u8,
    passed_before: bool,
    shorter_than: u64,
    work: WorkId,
}

/// Before anything is known of a class one of its tests goes so much earlier than the others, to find out.
const SCOUT_CLAIM: u64 = 2;

/// New tests of one class.
#[derive(Debug)]
struct Line {
    /// Where its first waits.
    head: Rank,
    behind: VecDeque<(WorkId, Pending)>,
    /// For each of them.
    guess: Guess,
    /// One of them has gone ahead already.
    scouted: bool,
}

impl Line {
    fn rank(&self, work: WorkId) -> Rank {
        let scout = if self.scouted { 1 } else { SCOUT_CLAIM };
        Rank::of_unit(work, self.guess.claim_ms.saturating_mul(scout), false)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<Rank, Pending>,
    /// None of them is empty.
    lines: BTreeMap<ClassIx, Line>,
    /// Of all that wait, also in line.
    expected_ms: u64,
}

impl Rank {
    fn of_unit(work: WorkId, claim_ms: u64, failed_before: bool) -> Self {
        Self { stage: 2, passed_before: !failed_before, shorter_than: u64::MAX - claim_ms, work }
    }
}

impl Queue {
    /// `failed_before`: one of its tests failed before, here or in an earlier run.
    pub(crate) fn push(&mut self, work: WorkId, pending: Pending, failed_before: bool) {
        let of_unit = Rank::of_unit(work, pending.guess.claim_ms, failed_before);
        let rank = match pending.kind {
            PendingKind::Baseline => Rank { stage: 0, ..of_unit },
            PendingKind::Discover(_) => Rank { stage: 1, ..of_unit },
            PendingKind::Unit { .. } => of_unit,
        };
        self.expected_ms += pending.guess.expected_ms;
        self.waiting.insert(rank, pending);
    }

    /// A new test of a class, of which so much is known as of every other that stands in its line.
    pub(crate) fn push_new(&mut self, work: WorkId, mut pending: Pending, class: ClassIx) {
        pending.line = Some(class);
        if let Some(line) = self.lines.get_mut(&class) {
            self.expected_ms += line.guess.expected_ms;
            line.behind.push_back((work, pending));
            return;
        }
        let head = Rank::of_unit(work, 0, false);
        let mut line = Line { head, behind: VecDeque::new(), guess: pending.guess, scouted: false };
        line.head = line.rank(work);
        self.expected_ms += pending.guess.expected_ms;
        self.waiting.insert(line.head, pending);
        self.lines.insert(class, line);
    }

    /// More is known of a class's new tests.
    pub(crate) fn learn(&mut self, class: ClassIx, guess: Guess) {
        let Some(line) = self.lines.get_mut(&class) else { return };
        let tests = line.behind.len() as u64 + 1;
        self.expected_ms -= tests * line.guess.expected_ms;
        self.expected_ms += tests * guess.expected_ms;
        line.guess = guess;
        let mut pending = self.waiting.remove(&line.head).expect("the first of a line waits");
        pending.guess = guess;
        line.head = line.rank(line.head.work);
        self.waiting.insert(line.head, pending);
    }

    pub(crate) fn take(&mut self, rank: Rank) -> Option<(WorkId, Pending)> {
        let pending = self.waiting.remove(&rank)?;
        self.expected_ms -= pending.guess.expected_ms;
        if let Some(class) = pending.line {
            self.step_up(class);
        }
        Some((rank.work, pending))
    }

    /// The next in line takes the place of the first.
    fn step_up(&mut self, class: ClassIx) {
        let line = self.lines.get_mut(&class).expect("whoever waits for its line is its first");
        let Some((work, mut next)) = line.behind.pop_front() else {
            self.lines.remove(&class);
            return;
        };
        line.scouted = true;
        line.head = line.rank(work);
        next.guess = line.guess;
        self.waiting.insert(line.head, next);
    }

    /// Without those that stand in line behind another.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Rank, &Pending)> {
        self.waiting.iter().map(|(rank, pending)| (*rank, pending))
    }

    /// All of it.
    #[cfg(test)]
    pub(crate) fn all(&self) -> impl Iterator<Item = &Pending> {
        let behind = self.lines.values().flat_map(|line| line.behind.iter().map(|(_, pending)| pending));
        self.waiting.values().chain(behind)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The time that all of it is expected to take on one lane.
    pub(crate) fn expected_ms(&self) -> u64 {
        self.expected_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: ClassIx = ClassIx(0);
    const OTHER: ClassIx = ClassIx(1);

    fn unit(test: u32, guess: Guess) -> Pending {
        Pending {
            kind: PendingKind::Unit { suite: 0, tests: vec![TestIx(test)] },
            infra_failures: 0,
            guess,
            failed_on: BTreeSet::new(),
            choosy_until_mono_ms: 0,
            alone: false,
            line: None,
        }
    }

    fn next(queue: &mut Queue) -> WorkId {
        let rank = queue.iter().next().expect("something waits").0;
        queue.take(rank).expect("what was seen is there").0
    }

    #[test]
    fn one_of_each_class_goes_ahead_and_what_it_brings_moves_the_others() {
        let guess = Guess::of_new(100);
        let mut queue = Queue::default();
        for (work, class) in [(1, QUICK), (2, QUICK), (3, QUICK), (4, OTHER), (5, OTHER)] {
            queue.push_new(WorkId(work), unit(0, guess), class);
        }
        // Longer than what a new test claims, not longer than what the first of its class does.
        queue.push(WorkId(6), unit(0, Guess::known(500)), false);
        assert_eq!(queue.expected_ms(), 1_000);
        assert_eq!([next(&mut queue), next(&mut queue), next(&mut queue)], [WorkId(1), WorkId(4), WorkId(6)]);

        queue.learn(QUICK, Guess::of_new(5));
        queue.learn(OTHER, Guess::of_new(900));
        assert_eq!(queue.expected_ms(), 2 * 5 + 900);
        assert_eq!([next(&mut queue), next(&mut queue), next(&mut queue)], [WorkId(5), WorkId(2), WorkId(3)]);
        assert!(queue.is_empty() && queue.expected_ms() == 0);
        queue.learn(QUICK, Guess::of_new(7));
    }

    #[test]
    fn whoever_failed_before_goes_before_any_that_is_new() {
        let mut queue = Queue::default();
        queue.push_new(WorkId(1), unit(0, Guess::of_new(9_000)), QUICK);
        queue.push(WorkId(2), unit(1, Guess::known(1)), true);
        assert_eq!(next(&mut queue), WorkId(2));
    }
}
