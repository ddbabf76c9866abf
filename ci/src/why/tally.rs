//! Counts of a few tries, and what they say of the rate behind them: exact binomial intervals and Fisher's exact test, since
//! approximations that want dozens of samples are wrong for five.

use std::ops::AddAssign;

/// How sure a statement must be: one in twenty may be wrong.
pub const ALPHA: f64 = 0.05;
/// The same where chance was seen at work on both sides: that a test is flaky explains it already, so one in a thousand.
pub const ALPHA_OF_FLAKY: f64 = 0.001;
/// Halvings of an interval's bound: more than a double has digits.
const HALVINGS: u32 = 60;

/// Tries of one test under one condition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// So many passed …
    pub passed: u32,
    /// … and so many failed or timed out.
    pub failed: u32,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
    }
}

impl Tally {
    /// Both.
    #[must_use]
    pub fn tries(self) -> u32 {
        self.passed + self.failed
    }

    /// The share that failed; 0 for no tries.
    #[must_use]
    pub fn rate(self) -> f64 {
        if self.tries() == 0 { 0.0 } else { f64::from(self.failed) / f64::from(self.tries()) }
    }

    /// The rates of failure that these counts leave possible, at 95 % (Clopper and Pearson, Biometrika 26, 1934): none is
    /// left out that would give counts as extreme in more than one of forty cases.
    #[must_use]
    pub fn interval(self) -> (f64, f64) {
        let (n, k) = (self.tries(), self.failed);
        let low = if k == 0 { 0.0 } else { solve(|rate| at_least(n, k, rate) < ALPHA / 2.0) };
        let high = if k == n { 1.0 } else { solve(|rate| 1.0 - at_least(n, k + 1, rate) > ALPHA / 2.0) };
        (low, high)
    }

    /// How likely it is to see at least so many more failures here than there, were the rates equal (Fisher's exact test,
    /// one-sided).
    #[must_use]
    pub fn chance_of_more_than(self, other: Self) -> f64 {
        let (here, there) = (self.tries(), other.tries());
        let failed = self.failed + other.failed;
        let all = ln_choose(here + there, failed);
        let most = failed.min(here);
        (self.failed..=most)
            .filter(|k| failed - k <= there)
            .map(|k| (ln_choose(here, k) + ln_choose(there, failed - k) - all).exp())
            .sum::<f64>()
            .min(1.0)
    }

    /// Whether it fails more often here than there, surely enough: [`ALPHA`] where it never failed there, else
    /// [`ALPHA_OF_FLAKY`].
    #[must_use]
    pub fn is_worse_than(self, other: Self) -> bool {
        let limit = if other.failed == 0 { ALPHA } else { ALPHA_OF_FLAKY };
        // A rounding error more than the limit is the limit.
        self.chance_of_more_than(other) <= limit + 1e-9
    }
}

/// The rate up to which a monotone question is answered yes.
fn solve(is_below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if is_below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// The chance of at least `k` failures in `n` tries.
fn at_least(n: u32, k: u32, rate: f64) -> f64 {
    if rate <= 0.0 || rate >= 1.0 {
        return f64::from(u8::from(k == 0 || rate >= 1.0));
    }
    let term =
        |k: u32| (ln_choose(n, k) + f64::from(k) * rate.ln() + f64::from(n - k) * (1.0 - rate).ln()).exp();
    (k..=n).map(term).sum::<f64>().min(1.0)
}

fn ln_choose(n: u32, k: u32) -> f64 {
    if k > n {
        return f64::NEG_INFINITY;
    }
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

fn ln_factorial(n: u32) -> f64 {
    (2..=n).map(|n| f64::from(n).ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(failed: u32, tries: u32) -> Tally {
        Tally { passed: tries - failed, failed }
    }

    /// From published tables of exact intervals.
    #[test]
    fn few_tries_leave_much_open() {
        for (failed, tries, low, high) in [
            (0, 5, 0.0, 0.5218),
            (5, 5, 0.4782, 1.0),
            (1, 10, 0.0025, 0.4450),
            (5, 10, 0.1871, 0.8129),
            (0, 100, 0.0, 0.0362),
            (3, 3, 0.2924, 1.0),
        ] {
            let (of_low, of_high) = tally(failed, tries).interval();
            assert!((of_low - low).abs() < 1e-4, "{failed} of {tries}: from {of_low}");
            assert!((of_high - high).abs() < 1e-4, "{failed} of {tries}: to {of_high}");
        }
        assert_eq!(Tally::default().interval(), (0.0, 1.0));
    }

    #[test]
    fn a_difference_counts_where_chance_would_hardly_make_it() {
        let chance = |one: (u32, u32), other: (u32, u32)| {
            tally(one.0, one.1).chance_of_more_than(tally(other.0, other.1))
        };
        assert!((chance((5, 5), (0, 5)) - 1.0 / 252.0).abs() < 1e-9);
        assert!((chance((3, 3), (0, 3)) - 0.05).abs() < 1e-9);
        assert!((chance((4, 5), (0, 5)) - 5.0 / 210.0).abs() < 1e-9);
        assert!((chance((0, 5), (5, 5)) - 1.0).abs() < 1e-9);
        assert!(tally(5, 5).is_worse_than(tally(0, 5)));
        assert!(tally(3, 3).is_worse_than(tally(0, 3)));
        assert!(!tally(2, 2).is_worse_than(tally(0, 2)), "two against two is chance");
        assert!(!tally(3, 5).is_worse_than(tally(0, 5)));
        assert!(!tally(5, 5).is_worse_than(tally(4, 5)));
        assert!(
            !tally(16, 20).is_worse_than(tally(8, 20)),
            "one in a hundred pairs of the same coin are so far apart"
        );
        assert!(tally(18, 20).is_worse_than(tally(4, 20)));
        assert!(!Tally::default().is_worse_than(tally(0, 5)));
    }

    proptest::proptest! {
        // Bounds are searched for by halving, which takes a while where nothing is optimised.
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

        #[test]
        fn an_interval_holds_its_rate_and_narrows_with_tries(failed in 0_u32..60, passed in 0_u32..60) {
            let few = Tally { passed, failed };
            let many = Tally { passed: passed * 4, failed: failed * 4 };
            let (low, high) = few.interval();
            proptest::prop_assert!((0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
            if few.tries() > 0 {
                proptest::prop_assert!(low <= few.rate() + 1e-9 && few.rate() <= high + 1e-9);
                let (of_low, of_high) = many.interval();
                proptest::prop_assert!(of_high - of_low <= high - low + 1e-9);
            }
        }

        #[test]
        fn of_two_tallies_at_most_one_is_worse(a in 0_u32..20, b in 0_u32..20, c in 0_u32..20, d in 0_u32..20) {
            let (one, other) = (Tally { passed: a, failed: b }, Tally { passed: c, failed: d });
            proptest::prop_assert!(!(one.is_worse_than(other) && other.is_worse_than(one)));
        }
    }
}
