//! How often something happens, with an interval that respects few samples.
//!
//! The interval is Wilson's (Wilson: "Probable inference, the law of succession, and statistical inference", JASA 1927), which unlike
//! the textbook's holds its level with few samples and near 0 and 1 (Brown, Cai, DasGupta: "Interval estimation for a binomial
//! proportion", Statistical Science 2001).

/// The normal distribution's two-sided quantile of 95 %.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// Something happened in `hits` of `of` cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rate {
    hits: u64,
    of: u64,
}

/// The rate is between these, both from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Not below.
    pub low: f64,
    /// Not above.
    pub high: f64,
}

impl Rate {
    /// There are never more hits than cases: what is more is not counted.
    #[must_use]
    pub fn new(hits: u64, of: u64) -> Self {
        Self { hits: hits.min(of), of }
    }

    /// One more case.
    pub fn count(&mut self, hit: bool) {
        self.hits = self.hits.saturating_add(u64::from(hit));
        self.of = self.of.saturating_add(1);
    }

    /// In so many cases it happened.
    #[must_use]
    pub fn hits(self) -> u64 {
        self.hits
    }

    /// So many cases.
    #[must_use]
    pub fn of(self) -> u64 {
        self.of
    }

    /// The share of the cases in which it happened; `None` where there were none.
    #[must_use]
    pub fn share(self) -> Option<f64> {
        (self.of > 0).then(|| self.hits as f64 / self.of as f64)
    }

    /// Where the rate is, with a confidence of 95 %. Of no cases nothing is known: from 0 to 1.
    #[must_use]
    pub fn interval(self) -> Interval {
        self.interval_at(Z_95)
    }

    /// The same for another quantile of the normal distribution.
    #[must_use]
    pub fn interval_at(self, z: f64) -> Interval {
        let Some(share) = self.share() else { return Interval { low: 0.0, high: 1.0 } };
        let (n, z2) = (self.of as f64, z * z);
        let middle = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = z / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
        // Exact at the ends, where rounding would leave a trace.
        let low = if self.hits == 0 { 0.0 } else { (middle - half).max(0.0) };
        let high = if self.hits == self.of { 1.0 } else { (middle + half).min(1.0) };
        Interval { low, high }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn intervals_are_those_of_the_literature() {
        // Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 1998, table I, method 3.
        for (hits, of, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let Interval { low: told_low, high: told_high } = Rate::new(hits, of).interval();
            assert!((told_low - low).abs() < 5e-5 && (told_high - high).abs() < 5e-5, "{hits} of {of}");
        }
    }

    #[test]
    fn of_nothing_nothing_is_known() {
        assert_eq!(Rate::default().share(), None);
        assert_eq!(Rate::default().interval(), Interval { low: 0.0, high: 1.0 });
    }

    #[test]
    fn the_interval_holds_the_truth_about_as_often_as_it_says() {
        for truth in [0.01, 0.1, 0.5] {
            let mut dice = crate::dice::Dice::new(&[9]);
            let mut held = Rate::default();
            for _ in 0..2_000 {
                let mut rate = Rate::default();
                (0..60).for_each(|_| rate.count(dice.chance(truth)));
                let Interval { low, high } = rate.interval();
                held.count((low..=high).contains(&truth));
            }
            let share = held.share().expect("2,000 cases");
            assert!((0.85..=0.995).contains(&share), "{share} at {truth}");
        }
    }

    proptest! {
        #[test]
        fn the_share_is_within_its_interval_and_more_cases_make_it_narrower(hits in 0..1_000_u64, more in 0..1_000_u64) {
            let of = hits + more + 1;
            let (few, many) = (Rate::new(hits, of), Rate::new(hits * 10, of * 10));
            let (wide, narrow) = (few.interval(), many.interval());
            let share = few.share().expect("there are cases");
            prop_assert!(0.0 <= wide.low && wide.low <= share && share <= wide.high && wide.high <= 1.0);
            prop_assert!(narrow.high - narrow.low < wide.high - wide.low);
        }
    }
}
