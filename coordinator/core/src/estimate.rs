//! How long tests are expected to take: their own history, else what is known of their class, else of their file, else of
//! their suite; and what a run learns of new tests while it goes on.

use std::collections::HashMap;

use crate::model::Candidate;
use crate::units::{class_of, file_of};

/// How long a test is taken to run where nothing at all is known.
pub(crate) const UNKNOWN_MS: u64 = 1_000;

/// How much longer than expected a new test claims to take.
const NEW_TEST_CLAIM: u64 = 4;
/// So many durations of new tests are kept of a class or a suite.
const SEEN_MAX: usize = 256;

/// So many classes of a run are told apart; new tests of all others are one.
const CLASSES_MAX: usize = 4_096;

/// A class of a suite, or a file where its tests have no class, numbered within its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClassIx(pub(crate) usize);

/// How long a unit is thought to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Guess {
    pub(crate) expected_ms: u64,
    /// Longer goes first. More than what is expected where it is new: what it brings is not known.
    pub(crate) claim_ms: u64,
}

impl Guess {
    pub(crate) fn known(expected_ms: u64) -> Self {
        Self { expected_ms, claim_ms: expected_ms }
    }

    pub(crate) fn of_new(expected_ms: u64) -> Self {
        Self { expected_ms, claim_ms: expected_ms.saturating_mul(NEW_TEST_CLAIM) }
    }
}

impl std::ops::AddAssign for Guess {
    fn add_assign(&mut self, more: Self) {
        self.expected_ms += more.expected_ms;
        self.claim_ms += more.claim_ms;
    }
}

impl std::iter::Sum for Guess {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let mut sum = Self::default();
        all.for_each(|one| sum += one);
        sum
    }
}

/// Durations of new tests.
#[derive(Debug, Default)]
struct Seen {
    sorted: Vec<u64>,
}

impl Seen {
    /// Takes one more. Answers with a better guess at the first, the second, the fourth and so on.
    fn add(&mut self, ms: u64) -> Option<Guess> {
        if self.sorted.len() >= SEEN_MAX {
            return None;
        }
        let place = self.sorted.partition_point(|known| *known < ms);
        self.sorted.insert(place, ms);
        let mean = (self.sorted.iter().sum::<u64>() / self.sorted.len() as u64).max(1);
        self.sorted.len().is_power_of_two().then(|| Guess::of_new(mean))
    }
}

#[derive(Debug)]
struct Class {
    suite: usize,
    seen: Seen,
}

/// What a run learns, while it goes on, of classes that have new tests. One of which nothing has been seen is like its suite.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    numbers: HashMap<(usize, String), ClassIx>,
    classes: Vec<Class>,
    suites: HashMap<usize, Seen>,
}

impl Classes {
    /// The number of a new test's class.
    pub(crate) fn of_new(&mut self, suite: usize, id: &str, estimates: &Estimates) -> ClassIx {
        let Self { numbers, classes, suites } = self;
        let name = if numbers.len() < CLASSES_MAX { class_of(id) } else { "" };
        *numbers.entry((suite, name.to_owned())).or_insert_with(|| {
            let known = |of: Option<u64>| Seen { sorted: of.into_iter().collect() };
            classes.push(Class { suite, seen: known(estimates.near(id)) });
            suites.entry(suite).or_insert_with(|| known(estimates.of_suite));
            ClassIx(classes.len() - 1)
        })
    }

    /// So many durations are known of this class, as far as they are kept.
    pub(crate) fn seen_of(&self, class: ClassIx) -> usize {
        self.classes[class.0].seen.sorted.len()
    }

    /// A new test of this class took so long. Answers with the classes that are thought of differently from now on.
    pub(crate) fn learn(&mut self, class: ClassIx, ms: u64) -> Vec<(ClassIx, Guess)> {
        let Class { suite, seen } = &mut self.classes[class.0];
        let suite = *suite;
        let mut better: Vec<_> = seen.add(ms).map(|guess| (class, guess)).into_iter().collect();
        if let Some(guess) = self.suites.get_mut(&suite).and_then(|seen| seen.add(ms)) {
            let is_unseen = |class: &Class| class.suite == suite && class.seen.sorted.is_empty();
            let unseen = (0..).map(ClassIx).zip(&self.classes).filter(|(_, class)| is_unseen(class));
            better.extend(unseen.map(|(class, _)| (class, guess)));
        }
        better
    }
}

/// Medians of what is known of one suite.
pub(crate) struct Estimates {
    /// By the names of classes and files.
    of_group: HashMap<String, u64>,
    of_suite: Option<u64>,
}

impl Estimates {
    /// From all tests that discovery named together.
    pub(crate) fn of(candidates: &[Candidate]) -> Self {
        let mut by_group: HashMap<&str, Vec<u64>> = HashMap::new();
        let mut all = Vec::new();
        for (candidate, ms) in candidates.iter().filter_map(|test| Some((test, test.expected_ms?))) {
            let (class, file) = (class_of(&candidate.id), file_of(&candidate.id));
            by_group.entry(class).or_default().push(ms);
            if file != class {
                by_group.entry(file).or_default().push(ms);
            }
            all.push(ms);
        }
        let of_group =
            by_group.into_iter().filter_map(|(name, known)| Some((name.to_owned(), median(known)?)));
        Self { of_group: of_group.collect(), of_suite: median(all) }
    }

    pub(crate) fn expected_ms(&self, test: &Candidate) -> u64 {
        // A test of no time at all would make room for any number of others.
        test.expected_ms.or_else(|| self.near(&test.id)).or(self.of_suite).unwrap_or(UNKNOWN_MS).max(1)
    }

    /// What is known of a test's class, or else of its file.
    fn near(&self, id: &str) -> Option<u64> {
        let known = |name: &str| self.of_group.get(name).copied();
        known(class_of(id)).or_else(|| known(file_of(id)))
    }
}

fn median(mut known: Vec<u64>) -> Option<u64> {
    known.sort_unstable();
    known.get(known.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: &str, expected_ms: Option<u64>) -> Candidate {
        Candidate { id: id.into(), expected_ms, failed_last: false, excused: false }
    }

    #[test]
    fn a_new_test_is_like_its_file_or_else_like_its_suite() {
        let known =
            [("a.py::x", 10), ("a.py::y", 30), ("a.py::z", 9_000), ("b.py::x", 500), ("b.py::y", 700)];
        let known: Vec<_> = known.iter().map(|(id, ms)| candidate(id, Some(*ms))).collect();
        let estimates = Estimates::of(&known);
        let expected = |id, own| estimates.expected_ms(&candidate(id, own));
        assert_eq!(expected("a.py::new", None), 30, "one slow test does not make a slow file");
        assert_eq!(expected("c.py::new", None), 500);
        assert_eq!(expected("a.py::x", Some(12)), 12);
        assert_eq!(expected("a.py::nothing", Some(0)), 1);
        assert_eq!(Estimates::of(&[]).expected_ms(&candidate("x", None)), UNKNOWN_MS);
    }

    #[test]
    fn what_new_tests_of_a_class_took_is_expected_of_the_others() {
        let (mut classes, nothing) = (Classes::default(), Estimates::of(&[]));
        let slow = classes.of_new(0, "a.py::Slow::x[1]", &nothing);
        assert_eq!(classes.of_new(0, "a.py::Slow::y", &nothing), slow);
        let unseen = classes.of_new(0, "a.py::Other::x", &nothing);
        let elsewhere = classes.of_new(1, "a.py::Slow::x", &nothing);
        let first = classes.learn(slow, 400);
        assert_eq!(
            first,
            [(slow, Guess::of_new(400)), (unseen, Guess::of_new(400))],
            "a class without a sample is like its suite; {elsewhere:?} is of another"
        );
        assert_eq!(classes.learn(slow, 200), [(slow, Guess::of_new(300)), (unseen, Guess::of_new(300))]);
        assert_eq!(classes.learn(slow, 9), [], "told again once there is twice as much to tell");
        assert_eq!(classes.seen_of(slow), 3);
        assert_eq!(classes.learn(unseen, 8)[0], (unseen, Guess::of_new(8)));
    }

    #[test]
    fn a_class_of_which_a_history_is_known_begins_with_it() {
        let estimates = Estimates::of(&[candidate("a.py::Known::x", Some(70))]);
        let mut classes = Classes::default();
        let known = classes.of_new(0, "a.py::Known::new", &estimates);
        assert_eq!(classes.seen_of(known), 1);
        assert_eq!(classes.learn(known, 90), [(known, Guess::of_new(80))]);
    }
}
