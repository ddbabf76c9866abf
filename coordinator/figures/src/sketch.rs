//! Percentiles of many values in little space, that merge exactly: what a day, a suite or a year of durations is kept as.
//!
//! This is a DDSketch (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
//! guarantees", VLDB 2019) over whole numbers: microseconds, bytes, counts. Its mapping is the one that the paper's authors
//! call linearly interpolated: each power of two is cut into [`PIECES`] equal pieces. That costs some more buckets than the logarithm
//! and needs integers alone, so that a value falls into the same bucket on every machine.
//!
//! Own, and not a crate: those at hand bound their size by throwing buckets together, after which the order of merges
//! shows in the result; they compute buckets in floating point; and none of them reads bytes that it does not trust. Here the whole range
//! of `u64` has [`BUCKETS_MAX`] buckets, so nothing is ever thrown together.
//!
//! Invariants: merging is associative and commutative, and merged parts equal the whole, byte for byte; a quantile is off by at most
//! [`RELATIVE_ERROR`]; smallest, largest, count and sum are exact (they stop at the ends of their types).

mod bytes;

use std::collections::BTreeMap;

pub use bytes::{BYTES_MAX, SketchError};

/// So many pieces has each power of two.
pub const PIECES: u64 = 1 << PIECES_LOG2;
const PIECES_LOG2: u32 = 6;

/// A quantile differs from the exact one by at most this share of the exact one.
pub const RELATIVE_ERROR: f64 = 1.0 / (2 * PIECES) as f64;

/// So many buckets at most, whatever comes.
pub const BUCKETS_MAX: u16 = 3_776;

/// The number of a value's bucket. Below twice [`PIECES`] each value has its own.
fn bucket_of(value: u64) -> u16 {
    let shift = value.checked_ilog2().unwrap_or(0).saturating_sub(PIECES_LOG2);
    let bucket = (u64::from(shift) << PIECES_LOG2) + (value >> shift);
    u16::try_from(bucket).expect("57 shifts of 64 pieces and 127 more are below 3,776")
}

/// The smallest and the largest value of a bucket.
fn bounds_of(bucket: u16) -> (u64, u64) {
    let bucket = u64::from(bucket);
    if bucket < 2 * PIECES {
        return (bucket, bucket);
    }
    let shift = (bucket >> PIECES_LOG2) - 1;
    let low = (bucket - (shift << PIECES_LOG2)) << shift;
    (low, low + ((1 << shift) - 1))
}

/// The value that stands for a bucket: as far from its smallest as from its largest, as shares of these.
fn middle_of(bucket: u16) -> u64 {
    let (low, high) = bounds_of(bucket);
    // 2·low·high / (low + high), in an order that fits.
    let above = u128::from(low) * u128::from(high - low);
    let above = above.checked_div(u128::from(low) + u128::from(high)).unwrap_or(0);
    low + u64::try_from(above).expect("less than from the smallest to the largest")
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sketch {
    /// Bucket to how many; none of them is 0.
    buckets: BTreeMap<u16, u64>,
    sum: u128,
    /// `None` where nothing was added.
    ends: Option<(u64, u64)>,
}

impl Sketch {
    /// Of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one more value.
    pub fn add(&mut self, value: u64) {
        self.add_many(value, 1);
    }

    /// Takes a value that came so many times.
    pub fn add_many(&mut self, value: u64, times: u64) {
        if times == 0 {
            return;
        }
        let held = self.buckets.entry(bucket_of(value)).or_default();
        *held = held.saturating_add(times);
        self.sum = self.sum.saturating_add(u128::from(value) * u128::from(times));
        self.widen(value, value);
    }

    /// Takes all that another one has seen, as if it had been added here.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, times) in &other.buckets {
            let held = self.buckets.entry(*bucket).or_default();
            *held = held.saturating_add(*times);
        }
        self.sum = self.sum.saturating_add(other.sum);
        if let Some((min, max)) = other.ends {
            self.widen(min, max);
        }
    }

    fn widen(&mut self, min: u64, max: u64) {
        let (known_min, known_max) = self.ends.unwrap_or((min, max));
        self.ends = Some((known_min.min(min), known_max.max(max)));
    }

    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.values().fold(0, |sum, times| sum.saturating_add(*times))
    }

    /// All values together.
    #[must_use]
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// The smallest value.
    #[must_use]
    pub fn min(&self) -> Option<u64> {
        self.ends.map(|(min, _)| min)
    }

    /// The largest value.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.ends.map(|(_, max)| max)
    }

    /// The mean, exact but for its rounding.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        self.ends.map(|_| self.sum as f64 / self.count() as f64)
    }

    /// The value below which a share `q` of all values lies: of the n values in order the one at ⌊q·(n − 1)⌋, off by at most
    /// [`RELATIVE_ERROR`] of it. A `q` outside of 0 to 1 is taken for the nearer end, one that is no number for 0.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let (min, max) = self.ends?;
        let q = if q.is_nan() { 0.0 } else { q.clamp(0.0, 1.0) };
        let last = self.count() - 1;
        let wanted = ((q * last as f64) as u64).min(last);
        let mut before = 0_u64;
        for (bucket, times) in &self.buckets {
            before = before.saturating_add(*times);
            if before > wanted {
                return Some(middle_of(*bucket).clamp(min, max));
            }
        }
        Some(max)
    }
}

impl Extend<u64> for Sketch {
    fn extend<I: IntoIterator<Item = u64>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.add(value));
    }
}

impl FromIterator<u64> for Sketch {
    fn from_iter<I: IntoIterator<Item = u64>>(values: I) -> Self {
        let mut sketch = Self::new();
        sketch.extend(values);
        sketch
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of every size: small ones, ones like durations, ones near the end of the type.
    pub(super) fn values() -> impl Strategy<Value = Vec<u64>> {
        let value = prop_oneof![0..200_u64, 1_000..600_000_000_u64, any::<u64>()];
        prop::collection::vec(value, 1..300)
    }

    fn is_near(told: u64, exact: u64) -> bool {
        told.abs_diff(exact) as f64 <= exact as f64 * RELATIVE_ERROR
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap_over_all_numbers() {
        let mut next = 0_u64;
        for bucket in 0..BUCKETS_MAX {
            let (low, high) = bounds_of(bucket);
            assert_eq!(low, next, "bucket {bucket}");
            assert_eq!((bucket_of(low), bucket_of(high)), (bucket, bucket));
            next = high.wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket ends where the type does");
    }

    #[test]
    fn no_value_of_a_bucket_is_farther_from_its_middle_than_stated() {
        for bucket in 0..BUCKETS_MAX {
            let ((low, high), middle) = (bounds_of(bucket), middle_of(bucket));
            assert!(is_near(middle, low) && is_near(middle, high), "bucket {bucket}: {low} {middle} {high}");
        }
    }

    #[test]
    fn of_nothing_nothing_is_told() {
        let empty = Sketch::new();
        assert_eq!((empty.count(), empty.sum(), empty.quantile(0.5)), (0, 0, None));
        assert_eq!((empty.min(), empty.max(), empty.mean()), (None, None, None));
    }

    #[test]
    fn small_numbers_are_exact() {
        let sketch: Sketch = (0..128).collect();
        assert_eq!(sketch.quantile(0.0), Some(0));
        assert_eq!(sketch.quantile(0.5), Some(63));
        assert_eq!(sketch.quantile(1.0), Some(127));
        assert_eq!(sketch.mean(), Some(63.5));
    }

    #[test]
    fn counts_stop_at_their_end_and_do_not_wrap() {
        let mut sketch = Sketch::new();
        sketch.add_many(u64::MAX, u64::MAX);
        sketch.add_many(u64::MAX, u64::MAX);
        sketch.add_many(3, 0);
        assert_eq!((sketch.count(), sketch.min()), (u64::MAX, Some(u64::MAX)));
        assert_eq!(sketch.quantile(0.99), Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn a_quantile_is_off_by_no_more_than_stated(mut values in values(), q in 0.0..=1.0_f64) {
            let sketch: Sketch = values.iter().copied().collect();
            values.sort_unstable();
            let exact = values[(q * (values.len() - 1) as f64) as usize];
            let told = sketch.quantile(q).expect("there are values");
            prop_assert!(is_near(told, exact), "{} for {}", told, exact);
        }

        #[test]
        fn what_need_not_be_guessed_is_exact(values in values()) {
            let sketch: Sketch = values.iter().copied().collect();
            prop_assert_eq!(sketch.count(), values.len() as u64);
            prop_assert_eq!(sketch.sum(), values.iter().map(|v| u128::from(*v)).sum::<u128>());
            prop_assert_eq!(sketch.min(), values.iter().copied().min());
            prop_assert_eq!(sketch.max(), values.iter().copied().max());
        }

        #[test]
        fn merged_parts_are_the_whole_in_every_order(a in values(), b in values(), c in values()) {
            let parts = [&a, &b, &c].map(|part| part.iter().copied().collect::<Sketch>());
            let whole: Sketch = a.iter().chain(&b).chain(&c).copied().collect();
            for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
                let mut merged = Sketch::new();
                order.iter().for_each(|part| merged.merge(&parts[*part]));
                prop_assert_eq!(merged.to_bytes(), whole.to_bytes());
                prop_assert_eq!(merged, whole.clone());
            }
        }
    }
}
