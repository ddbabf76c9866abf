//! What a run says of a failed attempt: who ran before it without a rebase between; and what an experiment's run says of its
//! tries. Functions of the `Run` message alone.

use std::collections::BTreeMap;

use andon_proto::{Attempt, Outcome, Run, Test};

use super::tally::Tally;

/// A test, by suite and id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Its suite.
    pub suite: String,
    /// As its runner names it.
    pub id: String,
}

impl Name {
    /// Of a test.
    #[must_use]
    pub fn of(test: &Test) -> Self {
        Self { suite: test.suite.clone(), id: test.id.clone() }
    }

    /// `suite/id`, as `andon rerun` takes it.
    #[must_use]
    pub fn full(&self) -> String {
        format!("{}/{}", self.suite, self.id)
    }
}

/// The test that is named so, `suite/id` or `id`; all of them where several are.
#[must_use]
pub fn named<'r>(run: &'r Run, name: &str) -> Vec<&'r Test> {
    let is = |test: &&Test| {
        test.id == name
            || name.strip_prefix(&test.suite).and_then(|rest| rest.strip_prefix('/')) == Some(&test.id)
    };
    run.tests.iter().filter(is).collect()
}

/// The attempt that is asked about: this one, else the first that failed, since that is the one which others ran before.
#[must_use]
pub fn failure(test: &Test, attempt: Option<u64>) -> Option<&Attempt> {
    let mut attempts = test.attempts.iter();
    match attempt {
        Some(number) => attempts.find(|attempt| attempt.attempt == number && has_failed(attempt)),
        None => attempts.find(|attempt| has_failed(attempt)),
    }
}

fn has_failed(attempt: &Attempt) -> bool {
    matches!(attempt.outcome(), Outcome::Failed | Outcome::TimedOut)
}

/// Those that left something behind for the attempt: on its lane, in its unit, before it, in their order.
#[must_use]
pub fn predecessors(run: &Run, of: &Attempt) -> Vec<Name> {
    let mut before: Vec<(u64, Name)> = Vec::new();
    for test in &run.tests {
        let is_before = |attempt: &&Attempt| {
            is_one_unit(attempt, of) && attempt.attempt < of.attempt && was_executed(attempt)
        };
        before.extend(test.attempts.iter().filter(is_before).map(|a| (a.attempt, Name::of(test))));
    }
    before.sort();
    before.into_iter().map(|(_, name)| name).collect()
}

fn is_one_unit(one: &Attempt, other: &Attempt) -> bool {
    one.unit == other.unit && one.worker == other.worker && one.lane == other.lane
}

fn was_executed(attempt: &Attempt) -> bool {
    matches!(attempt.outcome(), Outcome::Passed | Outcome::Failed | Outcome::Skipped | Outcome::TimedOut)
}

/// Tries of a test in an experiment's run, by worker: of its attempts those that had exactly these before them. A unit that broke
/// off and was run again in parts is no such try.
#[must_use]
pub fn tries(run: &Run, test: &Name, before: &[Name]) -> BTreeMap<String, Tally> {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let Some(found) = run.tests.iter().find(|known| Name::of(known) == *test) else { return tallies };
    for attempt in found.attempts.iter().filter(|attempt| predecessors(run, attempt) == before) {
        let tally = match attempt.outcome() {
            Outcome::Passed => Tally { passed: 1, failed: 0 },
            Outcome::Failed | Outcome::TimedOut => Tally { passed: 0, failed: 1 },
            _ => continue,
        };
        *tallies.entry(attempt.worker.clone()).or_default() += tally;
    }
    tallies
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(number: u64, unit: u64, lane: u32, outcome: Outcome) -> Attempt {
        let worker = "w1".to_owned();
        Attempt { attempt: number, unit, lane, worker, outcome: outcome.into(), ..Attempt::default() }
    }

    fn test(id: &str, attempts: Vec<Attempt>) -> Test {
        Test { suite: "it".into(), id: id.into(), attempts, ..Test::default() }
    }

    fn ids(names: &[Name]) -> Vec<&str> {
        names.iter().map(|name| name.id.as_str()).collect()
    }

    fn name(id: &str) -> Name {
        Name { suite: "it".into(), id: id.into() }
    }

    fn run() -> Run {
        use Outcome::{Cancelled, Failed, Passed, Skipped};
        let tests = vec![
            test("late", vec![attempt(4, 1, 0, Passed)]),
            test("first", vec![attempt(1, 1, 0, Passed)]),
            test("skips", vec![attempt(2, 1, 0, Skipped)]),
            test("bad", vec![attempt(3, 1, 0, Failed), attempt(9, 5, 1, Failed)]),
            test("lost", vec![attempt(2, 1, 0, Cancelled), attempt(7, 4, 0, Passed)]),
            test("elsewhere", vec![attempt(1, 1, 1, Passed)]),
            test("other unit", vec![attempt(1, 2, 0, Passed)]),
        ];
        Run { tests, ..Run::default() }
    }

    #[test]
    fn who_ran_before_in_the_same_unit_is_a_predecessor() {
        let run = run();
        let bad = named(&run, "bad")[0];
        let first = failure(bad, None).expect("it failed");
        assert_eq!(first.attempt, 3, "the first failure, which others ran before");
        assert_eq!(ids(&predecessors(&run, first)), ["first", "skips"]);
        let alone = failure(bad, Some(9)).expect("it failed there too");
        assert_eq!(ids(&predecessors(&run, alone)), [""; 0]);
        assert_eq!(failure(bad, Some(4)), None);
        assert_eq!(failure(named(&run, "it/first")[0], None), None);
    }

    #[test]
    fn a_try_counts_where_the_right_tests_were_before_it() {
        use Outcome::{Cancelled, Failed, Infrastructure, Passed, TimedOut};
        let tests = vec![
            test("a", vec![attempt(1, 1, 0, Passed), attempt(4, 2, 0, Passed), attempt(8, 4, 0, Passed)]),
            test("b", vec![attempt(2, 1, 0, Passed), attempt(5, 2, 0, Cancelled), attempt(9, 4, 0, Passed)]),
            test(
                "t",
                vec![
                    attempt(3, 1, 0, Failed),
                    attempt(6, 2, 0, Failed),
                    attempt(7, 3, 0, Passed),
                    attempt(10, 4, 0, TimedOut),
                    attempt(11, 5, 0, Infrastructure),
                ],
            ),
        ];
        let run = Run { tests, ..Run::default() };
        let after = |before: &[&str]| {
            let before: Vec<Name> = before.iter().map(|id| name(id)).collect();
            tries(&run, &name("t"), &before).remove("w1").unwrap_or_default()
        };
        assert_eq!(after(&["a", "b"]), Tally { passed: 0, failed: 2 });
        assert_eq!(after(&["a"]), Tally { passed: 0, failed: 1 }, "b was not run there");
        assert_eq!(after(&[]), Tally { passed: 1, failed: 0 });
        assert_eq!(after(&["b", "a"]), Tally::default(), "in this order");
    }
}
