//! How long tests are expected to take: their own history, else what is known of their file, else of their suite.

use std::collections::HashMap;

use crate::model::Candidate;
use crate::units::file_of;

/// How long a test is taken to run where nothing at all is known.
pub(crate) const UNKNOWN_MS: u64 = 1_000;

/// Medians of what is known of one suite.
pub(crate) struct Estimates {
    of_file: HashMap<String, u64>,
    of_suite: u64,
}

impl Estimates {
    /// From all tests that discovery named together.
    pub(crate) fn of(candidates: &[Candidate]) -> Self {
        let mut by_file: HashMap<&str, Vec<u64>> = HashMap::new();
        let mut all = Vec::new();
        for (candidate, ms) in candidates.iter().filter_map(|test| Some((test, test.expected_ms?))) {
            by_file.entry(file_of(&candidate.id)).or_default().push(ms);
            all.push(ms);
        }
        let of_file = by_file.into_iter().filter_map(|(file, known)| Some((file.to_owned(), median(known)?)));
        Self { of_file: of_file.collect(), of_suite: median(all).unwrap_or(UNKNOWN_MS) }
    }

    pub(crate) fn expected_ms(&self, test: &Candidate) -> u64 {
        let of_file = || self.of_file.get(file_of(&test.id)).copied();
        // A test of no time at all would make room for any number of others.
        test.expected_ms.or_else(of_file).unwrap_or(self.of_suite).max(1)
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
        Candidate { id: id.into(), expected_ms, failed_last: false }
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
}
