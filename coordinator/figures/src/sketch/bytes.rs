//! A sketch as bytes, for a column of a database that is kept for years.
//!
//! ```text
//! 1                    the version
//! buckets              0 for a sketch of nothing, which ends here
//! sum
//! min − low            of the first bucket's low end
//! max − low            of the last bucket's low end
//! gap, times  …        a bucket's number less that of the one before less one; how many
//! ```
//!
//! Numbers are little-endian base 128 as in Protocol Buffers, in their shortest form alone. So each sketch has one form: what is read and
//! written again is the same bytes. A day of durations of one test is some 50 to 300 bytes.
//!
//! Bytes are not trusted: whatever no sketch would have written is refused by name, and no more is held than [`super::BUCKETS_MAX`] buckets.

use std::collections::BTreeMap;

use super::{BUCKETS_MAX, Sketch, bounds_of};

/// The only version there is.
const VERSION: u8 = 1;

/// No sketch is longer.
pub const BYTES_MAX: usize = 64 * 1024;

/// Why bytes are no sketch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SketchError {
    /// Nothing longer is looked at.
    #[error("a sketch of {0} bytes is longer than {BYTES_MAX}")]
    TooLong(usize),
    /// Of another Andon.
    #[error("a sketch of version {0}: this andon reads version {VERSION}")]
    Version(u8),
    /// It ends within.
    #[error("the sketch is cut off")]
    Cut,
    /// Bytes come after its end.
    #[error("{0} bytes after the sketch's end")]
    Trailing(usize),
    /// A number is not in its shortest form, or too large for what it counts.
    #[error("a number of the sketch is too large, or not in its shortest form")]
    Number,
    /// A bucket that does not exist.
    #[error("the sketch has a bucket {0}: there are {BUCKETS_MAX}")]
    Bucket(u64),
    /// A bucket of nothing.
    #[error("the sketch has a bucket of nothing")]
    Empty,
    /// Smallest and largest are not in the first and the last bucket.
    #[error("the sketch's smallest and largest value are not in its buckets")]
    Ends,
    /// The sum is not that of any values in these buckets.
    #[error("the sketch's sum is not one of values in its buckets")]
    Sum,
}

impl Sketch {
    /// See the module. Always the same bytes for the same values.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        put(&mut bytes, self.buckets.len() as u128);
        let (Some((min, max)), Some((first, _)), Some((last, _))) =
            (self.ends, self.buckets.first_key_value(), self.buckets.last_key_value())
        else {
            return bytes;
        };
        put(&mut bytes, self.sum);
        put(&mut bytes, u128::from(min - bounds_of(*first).0));
        put(&mut bytes, u128::from(max - bounds_of(*last).0));
        let mut next = 0;
        for (bucket, times) in &self.buckets {
            put(&mut bytes, u128::from(bucket - next));
            put(&mut bytes, u128::from(*times));
            next = bucket + 1;
        }
        bytes
    }

    /// Reads what [`Sketch::to_bytes`] wrote.
    ///
    /// # Errors
    ///
    /// For all bytes that it would not have written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        if bytes.len() > BYTES_MAX {
            return Err(SketchError::TooLong(bytes.len()));
        }
        let (version, mut rest) = bytes.split_first().ok_or(SketchError::Cut)?;
        if *version != VERSION {
            return Err(SketchError::Version(*version));
        }
        let buckets = take(&mut rest)?;
        let sketch = if buckets == 0 { Self::new() } else { some_buckets(&mut rest, buckets)? };
        if rest.is_empty() { Ok(sketch) } else { Err(SketchError::Trailing(rest.len())) }
    }
}

fn some_buckets(rest: &mut &[u8], wanted: u128) -> Result<Sketch, SketchError> {
    let (sum, above_low, above_last) = (take(rest)?, take_u64(rest)?, take_u64(rest)?);
    let mut buckets = BTreeMap::new();
    let mut next = 0_u64;
    while (buckets.len() as u128) < wanted {
        let bucket = next.checked_add(take_u64(rest)?).ok_or(SketchError::Number)?;
        let known = u16::try_from(bucket).ok().filter(|bucket| *bucket < BUCKETS_MAX);
        let times = take_u64(rest)?;
        if times == 0 {
            return Err(SketchError::Empty);
        }
        buckets.insert(known.ok_or(SketchError::Bucket(bucket))?, times);
        next = bucket + 1;
    }
    let ends = ends_of(&buckets, above_low, above_last).ok_or(SketchError::Ends)?;
    let sum_of = |value: fn(u16) -> u64| {
        let each = buckets.iter().map(|(bucket, times)| u128::from(value(*bucket)) * u128::from(*times));
        each.fold(0, u128::saturating_add)
    };
    if sum < sum_of(|bucket| bounds_of(bucket).0) {
        return Err(SketchError::Sum);
    }
    // A count that stopped at its end has lost some of what its sum holds.
    let is_whole = buckets.values().all(|times| *times < u64::MAX);
    if is_whole && sum > sum_of(|bucket| bounds_of(bucket).1) {
        return Err(SketchError::Sum);
    }
    Ok(Sketch { buckets, sum, ends: Some(ends) })
}

/// Smallest and largest value, if they are where they must be.
fn ends_of(buckets: &BTreeMap<u16, u64>, above_low: u64, above_last: u64) -> Option<(u64, u64)> {
    let within = |bucket: u16, above: u64| {
        let (low, high) = bounds_of(bucket);
        low.checked_add(above).filter(|value| *value <= high)
    };
    let (first, _) = buckets.first_key_value()?;
    let (last, _) = buckets.last_key_value()?;
    let (min, max) = (within(*first, above_low)?, within(*last, above_last)?);
    let alone = buckets.len() == 1 && buckets.values().all(|times| *times == 1);
    (min <= max && (!alone || min == max)).then_some((min, max))
}

fn put(bytes: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        bytes.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(rest: &mut &[u8]) -> Result<u128, SketchError> {
    let mut number = 0_u128;
    for shift in (0..128).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(SketchError::Cut)?;
        *rest = after;
        let bits = u128::from(byte & 0x7F);
        if (bits << shift) >> shift != bits || (*byte == 0 && shift > 0) {
            return Err(SketchError::Number);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(SketchError::Number)
}

fn take_u64(rest: &mut &[u8]) -> Result<u64, SketchError> {
    u64::try_from(take(rest)?).map_err(|_| SketchError::Number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_days_durations_take_little_space() {
        let mut dice = crate::dice::Dice::new(&[1]);
        let day: Sketch = (0..5_000).map(|_| (dice.normal() * 0.2 + 13.0).exp() as u64).collect();
        let length = day.to_bytes().len();
        assert!(length < 300, "{length} bytes for 5,000 durations of a test");
    }

    #[test]
    fn even_the_fullest_sketch_is_within_the_bound() {
        let mut fullest = Sketch::new();
        for bucket in 0..BUCKETS_MAX {
            fullest.add_many(bounds_of(bucket).1, u64::MAX);
        }
        let bytes = fullest.to_bytes();
        assert!(bytes.len() <= BYTES_MAX, "{}", bytes.len());
        assert_eq!(Sketch::from_bytes(&bytes), Ok(fullest));
    }

    #[test]
    fn bytes_that_no_sketch_writes_are_refused_by_name() {
        let cases: &[(&[u8], SketchError)] = &[
            (&[], SketchError::Cut),
            (&[2, 0], SketchError::Version(2)),
            (&[1], SketchError::Cut),
            (&[1, 0, 0], SketchError::Trailing(1)),
            (&[1, 0x80, 0], SketchError::Number),
            (&[1, 1, 5, 0, 0, 5], SketchError::Cut),
            (&[1, 1, 5, 0, 0, 5, 0], SketchError::Empty),
            (&[1, 1, 5, 0, 0, 0xC0, 0x1D, 1], SketchError::Bucket(3_776)),
            (&[1, 1, 5, 1, 0, 5, 1], SketchError::Ends),
            (&[1, 1, 6, 0, 0, 5, 1], SketchError::Sum),
            (&[1, 1, 4, 0, 0, 5, 1], SketchError::Sum),
            (&[1, 0xFF, 0xFF, 3, 5, 0, 0, 5, 1], SketchError::Cut),
        ];
        for (bytes, why) in cases {
            assert_eq!(Sketch::from_bytes(bytes), Err(*why), "{bytes:?}");
        }
        assert_eq!(Sketch::from_bytes(&[1, 1, 5, 0, 0, 5, 1]), Ok([5].into_iter().collect()));
        assert_eq!(Sketch::from_bytes(&vec![1; BYTES_MAX + 1]), Err(SketchError::TooLong(BYTES_MAX + 1)));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(values in super::super::tests::values()) {
            let sketch: Sketch = values.into_iter().collect();
            prop_assert_eq!(Sketch::from_bytes(&sketch.to_bytes()), Ok(sketch));
        }

        #[test]
        fn hostile_bytes_are_refused_or_are_a_sketch_in_its_only_form(
            values in super::super::tests::values(),
            place in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = values.into_iter().take(20).collect::<Sketch>().to_bytes();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(cut.index(bytes.len() * 2) + 1);
            if let Ok(sketch) = Sketch::from_bytes(&bytes) {
                prop_assert_eq!(sketch.to_bytes(), bytes);
                prop_assert!(sketch.count() == 0 || sketch.quantile(0.5).is_some());
            }
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Sketch::from_bytes(&bytes);
        }
    }
}
