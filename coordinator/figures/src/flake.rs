//! What a test's attempts say of it: steady, flaky, flaky once, or broken.
//!
//! The same code on the same baseline that passes here and fails there is flaky: that is the only proof there is, and attempts that the
//! farm spoiled or stopped are none. A commit on a baseline is called a *ground* here:
//!
//! ```text
//!   ground      every attempt passed        clean
//!               some passed, some failed    mixed: the test is flaky, whether a retry or another run showed it
//!               every attempt failed        red: broken, or flaky and out of luck
//! ```
//!
//! **Rate**: of the attempts on grounds on which the test passed at all, the share that failed. On such ground the code was fine, so each
//! failure was a flake. Retries stop at the first pass, and the share of failures among attempts up to a pass is unbiased.
//!
//! **Broken**: every attempt failed on the last grounds, from a commit on, and that is more than bad luck: with the rate's upper bound so
//! many failures in a row have a chance below [`LUCK_MAX`], or there are [`RED_GROUNDS_MAX`] such grounds. When in doubt a test is called
//! broken rather than flaky: what is broken must be seen.
//!
//! It does not know runs, retries or branches: the caller hands in one test's attempts on one line of commits.

use std::collections::HashMap;

use crate::{Outcome, Rate};

/// So many attempts are looked at; of more, the last.
pub const ATTEMPTS_MAX: usize = 10_000;

/// A row of failures with a smaller chance is not luck.
pub const LUCK_MAX: f64 = 0.01;

/// So many red grounds in a row are not luck whatever the rate.
pub const RED_GROUNDS_MAX: usize = 3;

/// A row of passes with a smaller chance, were the test as flaky as before, means that it no longer is.
pub const SETTLED_LUCK_MAX: f64 = 0.05;

/// One attempt of the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// On this commit.
    pub commit: &'a str,
    /// From this baseline: another one may rightly give another verdict.
    pub baseline: &'a str,
    /// When it started.
    pub started_unix_ms: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// An attempt that is worth pointing at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// On this commit.
    pub commit: String,
    /// When it started.
    pub started_unix_ms: u64,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// No attempt says anything.
    Unknown,
    /// It never passed and failed on the same ground.
    Steady,
    /// It does, or did not long ago.
    Flaky,
    /// It was flaky, and has since passed so often that it no longer is.
    Settled,
    /// It fails always since this commit. Whether it was flaky before tells the rate.
    Broken {
        /// The first red ground's first failure.
        since: Seen,
        /// On so many grounds.
        grounds: usize,
        /// In so many attempts.
        attempts: usize,
    },
}

/// What attempts say of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// As of its last attempt.
    pub standing: Standing,
    /// How often it fails where the code is fine; see the module.
    pub rate: Rate,
    /// The first failure on a ground on which it also passed.
    pub first_seen: Option<Seen>,
    /// The last one.
    pub last_seen: Option<Seen>,
    /// So many of the flakes ran out of time instead of failing.
    pub timed_out: u64,
    /// So many attempts were the farm's fault, and count nowhere else.
    pub infrastructure: u64,
}

/// What was seen on one ground.
#[derive(Default)]
struct Ground<'a> {
    passed: usize,
    failures: Vec<&'a Attempt<'a>>,
}

impl Ground<'_> {
    fn is_mixed(&self) -> bool {
        self.passed > 0 && !self.failures.is_empty()
    }

    fn is_red(&self) -> bool {
        self.passed == 0
    }

    fn attempts(&self) -> usize {
        self.passed + self.failures.len()
    }
}

fn seen(attempt: &Attempt<'_>) -> Seen {
    Seen { commit: attempt.commit.to_owned(), started_unix_ms: attempt.started_unix_ms }
}

/// The grounds with an attempt that counts, in the order in which they were first tried: a late rerun of an old commit does not
/// make it new.
fn grounds<'a>(attempts: &[&'a Attempt<'a>]) -> Vec<Ground<'a>> {
    let mut places = HashMap::new();
    let mut grounds: Vec<Ground<'a>> = Vec::new();
    for attempt in attempts.iter().filter(|attempt| attempt.outcome.counts()) {
        let place = *places.entry((attempt.commit, attempt.baseline)).or_insert(grounds.len());
        if place == grounds.len() {
            grounds.push(Ground::default());
        }
        match attempt.outcome {
            Outcome::Passed => grounds[place].passed += 1,
            _ => grounds[place].failures.push(attempt),
        }
    }
    grounds
}

/// Judges a test by its attempts, given in any order.
#[must_use]
pub fn judge(history: &[Attempt<'_>]) -> Judgement {
    let mut attempts: Vec<_> = history.iter().collect();
    attempts.sort_by_key(|attempt| attempt.started_unix_ms);
    let attempts = &attempts[attempts.len().saturating_sub(ATTEMPTS_MAX)..];
    let grounds = grounds(attempts);

    let mut rate = Rate::default();
    for ground in grounds.iter().filter(|ground| !ground.is_red()) {
        (0..ground.passed).for_each(|_| rate.count(false));
        ground.failures.iter().for_each(|_| rate.count(true));
    }
    let flakes = || grounds.iter().filter(|ground| ground.is_mixed()).flat_map(|ground| &ground.failures);
    let (first, last) =
        (flakes().min_by_key(|at| at.started_unix_ms), flakes().max_by_key(|at| at.started_unix_ms));
    Judgement {
        standing: standing(&grounds, rate),
        rate,
        first_seen: first.map(|attempt| seen(attempt)),
        last_seen: last.map(|attempt| seen(attempt)),
        timed_out: flakes().filter(|attempt| attempt.outcome == Outcome::TimedOut).count() as u64,
        infrastructure: attempts.iter().filter(|at| at.outcome == Outcome::Infrastructure).count() as u64,
    }
}

fn standing(grounds: &[Ground<'_>], rate: Rate) -> Standing {
    if grounds.is_empty() {
        return Standing::Unknown;
    }
    let red = grounds.iter().rev().take_while(|ground| ground.is_red()).count();
    let red_grounds = &grounds[grounds.len() - red..];
    let failures: usize = red_grounds.iter().map(Ground::attempts).sum();
    if let Some(first) = red_grounds.iter().flat_map(|ground| &ground.failures).next() {
        let luck = luck_of(rate, failures);
        if luck <= LUCK_MAX || red >= RED_GROUNDS_MAX {
            return Standing::Broken { since: seen(first), grounds: red, attempts: failures };
        }
    }
    let Some(last_mixed) = grounds.iter().rposition(Ground::is_mixed) else { return Standing::Steady };
    let clean: usize =
        grounds[last_mixed + 1..].iter().filter(|ground| !ground.is_red()).map(|g| g.passed).sum();
    // Against the rate before it settled: passes since then must not argue for themselves.
    let before = Rate::new(rate.hits(), rate.of().saturating_sub(clean as u64));
    let still = before.share().map_or(0.0, |share| (1.0 - share).powi(clean.try_into().unwrap_or(i32::MAX)));
    if still <= SETTLED_LUCK_MAX { Standing::Settled } else { Standing::Flaky }
}

/// The chance of so many failures in a row, were the test as flaky as can be. One that was never seen to flake has none.
fn luck_of(rate: Rate, failures: usize) -> f64 {
    if rate.hits() == 0 {
        return 0.0;
    }
    rate.interval().high.powi(failures.try_into().unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Outcome::{Cancelled, Failed, Infrastructure, Passed, Skipped, TimedOut};

    const COMMITS: [&str; 40] = [
        "c00", "c01", "c02", "c03", "c04", "c05", "c06", "c07", "c08", "c09", "c10", "c11", "c12", "c13",
        "c14", "c15", "c16", "c17", "c18", "c19", "c20", "c21", "c22", "c23", "c24", "c25", "c26", "c27",
        "c28", "c29", "c30", "c31", "c32", "c33", "c34", "c35", "c36", "c37", "c38", "c39",
    ];

    /// One commit after the other, each with its attempts.
    fn history(grounds: &[&[Outcome]]) -> Vec<Attempt<'static>> {
        let attempts = grounds.iter().zip(COMMITS).flat_map(|(outcomes, commit)| {
            outcomes.iter().map(move |outcome| (commit, *outcome)).collect::<Vec<_>>()
        });
        let timed = (1..).zip(attempts);
        timed
            .map(|(at, (commit, outcome))| Attempt {
                commit,
                baseline: "b",
                started_unix_ms: at * 10,
                outcome,
            })
            .collect()
    }

    fn standing_of(grounds: &[&[Outcome]]) -> Standing {
        judge(&history(grounds)).standing
    }

    #[test]
    fn nothing_that_counts_is_unknown() {
        assert_eq!(standing_of(&[]), Standing::Unknown);
        assert_eq!(standing_of(&[&[Infrastructure, Cancelled], &[Skipped]]), Standing::Unknown);
    }

    #[test]
    fn a_pass_and_a_failure_on_one_commit_are_a_flake_and_on_two_commits_are_none() {
        assert_eq!(standing_of(&[&[Passed], &[Failed, Passed]]), Standing::Flaky);
        assert_eq!(standing_of(&[&[Failed, Failed], &[Passed]]), Standing::Steady);
    }

    #[test]
    fn another_baseline_is_another_ground() {
        let mut attempts = history(&[&[Passed, Failed]]);
        assert_eq!(judge(&attempts).standing, Standing::Flaky);
        attempts[1].baseline = "other";
        assert!(judge(&attempts).first_seen.is_none());
    }

    #[test]
    fn a_flake_that_another_run_showed_counts_as_one_that_a_retry_showed() {
        let mut attempts = history(&[&[Passed], &[Passed], &[Passed]]);
        attempts.push(Attempt { commit: "c00", baseline: "b", started_unix_ms: 99, outcome: TimedOut });
        let judged = judge(&attempts);
        assert_eq!(judged.standing, Standing::Flaky);
        assert_eq!(judged.first_seen, Some(Seen { commit: "c00".to_owned(), started_unix_ms: 99 }));
        assert_eq!((judged.rate, judged.timed_out), (Rate::new(1, 4), 1));
    }

    #[test]
    fn the_farms_failures_count_nowhere() {
        let judged = judge(&history(&[
            &[Infrastructure, Passed],
            &[Infrastructure, Infrastructure, Passed],
            &[Passed],
        ]));
        assert_eq!((judged.standing, judged.infrastructure), (Standing::Steady, 3));
        assert_eq!(judged.rate, Rate::new(0, 3));
    }

    #[test]
    fn first_and_last_seen_are_the_first_and_the_last_flake() {
        let judged = judge(&history(&[&[Failed, Failed], &[Failed, Passed], &[Passed], &[Failed, Passed]]));
        assert_eq!(judged.first_seen.map(|seen| seen.commit).as_deref(), Some("c01"));
        assert_eq!(judged.last_seen.map(|seen| seen.commit).as_deref(), Some("c03"));
        assert_eq!(judged.rate, Rate::new(2, 5), "what failed on red ground may be the code's fault");
    }

    #[test]
    fn a_steady_test_that_fails_is_broken_at_once_since_its_first_red_commit() {
        let standing = standing_of(&[&[Passed], &[Passed], &[Failed, Failed], &[Failed, TimedOut]]);
        let since = Seen { commit: "c02".to_owned(), started_unix_ms: 30 };
        assert_eq!(standing, Standing::Broken { since, grounds: 2, attempts: 4 });
    }

    #[test]
    fn a_flaky_test_that_fails_once_more_is_not_broken_yet() {
        let mut grounds: Vec<&[Outcome]> = vec![&[Failed, Passed], &[Passed], &[Failed, Passed], &[Passed]];
        grounds.push(&[Failed, Failed]);
        assert_eq!(standing_of(&grounds), Standing::Flaky);
        grounds.extend([&[Failed, Failed] as &[Outcome]; 2]);
        assert!(matches!(standing_of(&grounds), Standing::Broken { grounds: 3, attempts: 6, .. }));
    }

    #[test]
    fn a_rarely_flaky_test_is_called_broken_sooner_than_one_that_often_is() {
        let mut rare: Vec<&[Outcome]> = vec![&[Passed]; 35];
        rare.push(&[Failed, Passed]);
        rare.push(&[Failed, Failed]);
        assert_eq!(
            standing_of(&rare),
            Standing::Flaky,
            "its rate may be 14 %: twice in a row is luck of 2 %"
        );
        rare.push(&[Failed, Failed]);
        assert!(matches!(standing_of(&rare), Standing::Broken { grounds: 2, .. }));
    }

    #[test]
    fn a_broken_test_that_passes_again_is_broken_no_more() {
        assert_eq!(standing_of(&[&[Passed], &[Failed, Failed], &[Passed]]), Standing::Steady);
    }

    #[test]
    fn a_late_rerun_of_an_old_commit_does_not_heal_the_new_one() {
        let mut attempts = history(&[&[Passed], &[Failed, Failed]]);
        attempts.push(Attempt { commit: "c00", baseline: "b", started_unix_ms: 1_000, outcome: Passed });
        assert!(matches!(judge(&attempts).standing, Standing::Broken { .. }));
    }

    #[test]
    fn a_flake_settles_after_passes_enough_and_not_before() {
        let mut grounds: Vec<&[Outcome]> = vec![&[Failed, Passed], &[Passed], &[Failed, Passed]];
        grounds.extend([&[Passed] as &[Outcome]; 3]);
        assert_eq!(standing_of(&grounds), Standing::Flaky);
        grounds.extend([&[Passed] as &[Outcome]; 20]);
        assert_eq!(standing_of(&grounds), Standing::Settled);
    }

    #[test]
    fn of_a_long_history_the_last_is_looked_at() {
        let old = Attempt { commit: "old", baseline: "b", started_unix_ms: 1, outcome: Failed };
        let mut attempts = vec![old, Attempt { outcome: Passed, ..old }];
        let later = (0..ATTEMPTS_MAX as u64).map(|at| Attempt {
            commit: "new",
            baseline: "b",
            started_unix_ms: 10 + at,
            outcome: Passed,
        });
        attempts.extend(later);
        assert_eq!(judge(&attempts).standing, Standing::Steady);
    }

    #[test]
    fn the_rate_is_right_under_retries() {
        for truth in [0.05, 0.3] {
            let mut dice = crate::dice::Dice::new(&[5]);
            let names: Vec<String> = (0..3_000).map(|commit| format!("c{commit}")).collect();
            let mut attempts = Vec::new();
            for (at, commit) in (0..).zip(&names) {
                for retry in 0..3 {
                    let outcome = if dice.chance(truth) { Failed } else { Passed };
                    attempts.push(Attempt {
                        commit,
                        baseline: "b",
                        started_unix_ms: at * 10 + retry,
                        outcome,
                    });
                    if outcome == Passed {
                        break;
                    }
                }
            }
            let share = judge(&attempts).rate.share().expect("thousands of attempts");
            assert!((share - truth).abs() < truth * 0.2, "{share} for {truth}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_rows_does_not_matter_and_a_test_that_ends_in_three_red_grounds_is_broken(
            outcomes in prop::collection::vec(prop::sample::select(vec![Passed, Failed, TimedOut, Infrastructure]), 0..40),
            swap in any::<prop::sample::Index>(),
        ) {
            let grounds: Vec<&[Outcome]> = outcomes.chunks(2).collect();
            let mut attempts = history(&grounds);
            let judged = judge(&attempts);
            if !attempts.is_empty() {
                let place = swap.index(attempts.len());
                attempts.rotate_left(place);
                prop_assert_eq!(&judge(&attempts), &judged);
            }
            let counted: Vec<bool> = grounds.iter()
                .filter(|ground| ground.iter().any(|outcome| outcome.counts()))
                .map(|ground| ground.iter().all(|outcome| *outcome != Passed))
                .collect();
            let ends_red = counted.len() >= 3 && counted[counted.len() - 3..].iter().all(|is_red| *is_red);
            if ends_red {
                let is_broken = matches!(judged.standing, Standing::Broken { .. });
                prop_assert!(is_broken, "{:?}", judged.standing);
            }
        }
    }
}
