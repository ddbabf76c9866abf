//! Which of many earlier tests a failure needs: delta debugging (Zeller and Hildebrandt, IEEE TSE 28, 2002, "Simplifying and
//! Isolating Failure-Inducing Input"), as a state machine. Where one test is to blame it is a bisection.
//!
//! ```text
//!   all n fail ──> probe one part of two ── fails ──> go on with that part alone
//!                       │ passes: the next part, then what is left without each part
//!                       └ all pass ──> twice as many parts, until each part is one test
//! ```
//!
//! Invariants: tests keep their order; what is left has failed as a whole (or is all there was); no probe is asked twice in a row;
//! it ends after at most so many probes as it was given.

/// The search.
#[derive(Debug, Clone)]
pub struct Bisection {
    /// Places that are still under suspicion: together they make the test fail.
    suspects: Vec<usize>,
    /// Into how many parts they are cut.
    parts: usize,
    /// Which probe of this cut is next: parts first, then complements.
    turn: usize,
    probes_left: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Searching,
    /// Nothing can be taken away any more.
    Minimal,
    /// The probes are used up, or one of them said nothing.
    GivenUp,
}

impl Bisection {
    /// Of `count` tests, all of which together make it fail, and none of which alone is asked about yet.
    #[must_use]
    pub fn new(count: usize, probes_max: u32) -> Self {
        let state = if count <= 1 { State::Minimal } else { State::Searching };
        Self { suspects: (0..count).collect(), parts: 2, turn: 0, probes_left: probes_max, state }
    }

    /// The places to try next, in order; `None` once there is nothing more to try.
    #[must_use]
    pub fn next(&self) -> Option<Vec<usize>> {
        (self.state == State::Searching && self.probes_left > 0).then(|| self.probe(self.turn))
    }

    /// What came of the probe that [`Bisection::next`] named.
    pub fn answer(&mut self, fails: bool) {
        if self.state != State::Searching {
            return;
        }
        self.probes_left = self.probes_left.saturating_sub(1);
        if fails {
            let was_part = self.turn < self.parts;
            self.suspects = self.probe(self.turn);
            self.parts = if was_part { 2 } else { (self.parts - 1).max(2) };
            self.turn = 0;
            if self.suspects.len() == 1 {
                self.state = State::Minimal;
            }
            self.parts = self.parts.min(self.suspects.len().max(2));
        } else {
            self.turn += 1;
            self.cut_finer();
        }
        if self.state == State::Searching && self.probes_left == 0 {
            self.state = State::GivenUp;
        }
    }

    /// The farm could not say: what is left stays as it is.
    pub fn give_up(&mut self) {
        if self.state == State::Searching {
            self.state = State::GivenUp;
        }
    }

    /// Those that are left, in order.
    #[must_use]
    pub fn suspects(&self) -> &[usize] {
        &self.suspects
    }

    /// Whether each of those that are left is needed; false where the search was not finished.
    #[must_use]
    pub fn is_minimal(&self) -> bool {
        self.state == State::Minimal
    }

    /// Of two parts each is the other's complement: asked once.
    fn turns(&self) -> usize {
        if self.parts == 2 { 2 } else { 2 * self.parts }
    }

    fn cut_finer(&mut self) {
        if self.turn < self.turns() {
            return;
        }
        if self.parts >= self.suspects.len() {
            self.state = State::Minimal;
            return;
        }
        self.parts = (self.parts * 2).min(self.suspects.len());
        self.turn = 0;
    }

    /// The last parts first: what ran just before is the likelier one.
    fn probe(&self, turn: usize) -> Vec<usize> {
        let part = self.parts - 1 - turn % self.parts;
        let (count, parts) = (self.suspects.len(), self.parts);
        let (from, to) = (part * count / parts, (part + 1) * count / parts);
        if turn < parts {
            self.suspects[from..to].to_vec()
        } else {
            [&self.suspects[..from], &self.suspects[to..]].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Plays the farm: answers until the search ends. The number of probes.
    fn search(count: usize, fails: impl Fn(&[usize]) -> bool) -> (Bisection, u32) {
        let mut search = Bisection::new(count, 10_000);
        let mut probes = 0;
        while let Some(probe) = search.next() {
            assert!(probe.is_sorted() && !probe.is_empty() && probe.len() < count, "{probe:?}");
            probes += 1;
            search.answer(fails(&probe));
        }
        (search, probes)
    }

    #[test]
    fn one_of_many_is_found_by_halving() {
        for count in [1, 2, 3, 7, 64, 1_000] {
            for culprit in [0, count / 3, count - 1] {
                let (found, probes) = search(count, |probe| probe.contains(&culprit));
                assert_eq!(found.suspects(), [culprit]);
                assert!(found.is_minimal());
                let most = 2 * count.next_power_of_two().ilog2();
                assert!(probes <= most, "{probes} probes for {count}, at most {most}");
            }
        }
    }

    #[test]
    fn the_latest_is_tried_first() {
        let (_, probes) = search(1_024, |probe| probe.contains(&1_023));
        assert_eq!(probes, 10);
    }

    #[test]
    fn a_search_that_is_cut_short_keeps_what_it_has() {
        let mut search = Bisection::new(64, 3);
        while let Some(probe) = search.next() {
            search.answer(probe.contains(&63));
        }
        assert_eq!(search.suspects(), (56..64).collect::<Vec<_>>());
        assert!(!search.is_minimal());
        let mut search = Bisection::new(64, 99);
        search.answer(true);
        search.give_up();
        assert_eq!((search.suspects().len(), search.is_minimal(), search.next()), (32, false, None));
    }

    proptest! {
        #[test]
        fn tests_that_only_fail_it_together_are_found_together(
            count in 1_usize..80,
            culprits in proptest::collection::btree_set(0_usize..80, 1..4),
        ) {
            let culprits: Vec<_> = culprits.into_iter().filter(|place| *place < count).collect();
            prop_assume!(!culprits.is_empty());
            let (found, _) = search(count, |probe| culprits.iter().all(|place| probe.contains(place)));
            prop_assert_eq!(found.suspects(), &culprits);
            prop_assert!(found.is_minimal());
        }

        #[test]
        fn of_several_that_each_suffice_one_is_found(
            count in 1_usize..80,
            culprits in proptest::collection::btree_set(0_usize..80, 1..6),
        ) {
            prop_assume!(culprits.iter().any(|place| *place < count));
            let (found, _) = search(count, |probe| probe.iter().any(|place| culprits.contains(place)));
            prop_assert_eq!(found.suspects().len(), 1);
            prop_assert!(culprits.contains(&found.suspects()[0]));
        }

        /// Whatever the farm answers, flaky or inconsistent, it ends, within its probes.
        #[test]
        fn any_answers_come_to_an_end(
            count in 1_usize..60,
            probes_max in 0_u32..50,
            answers in proptest::collection::vec(any::<bool>(), 64),
        ) {
            let mut search = Bisection::new(count, probes_max);
            let mut probes = 0;
            while search.next().is_some() {
                search.answer(answers[probes as usize % answers.len()]);
                probes += 1;
                prop_assert!(probes <= probes_max);
                prop_assert!(!search.suspects().is_empty());
            }
        }
    }
}
