//! The segmentation with the least squares left over, where each cut costs a penalty: optimal partitioning. See `shift.rs` for the sources.
//!
//! It proposes: its penalty is mild, and cuts that do not hold are dropped afterwards.

use super::SEGMENT_MIN;

/// A cut must save so many times the logarithm of the length, in squares of the noise. Three is what a place and a level cost by the modified
/// criterion of Zhang and Siegmund ("A modified Bayes information criterion", Biometrics 2007); with two, noise has bumps.
const PENALTY: f64 = 3.0;

/// Sums of values and of squares up to each place, so that each segment's squares are had at once.
struct Sums {
    values: Vec<f64>,
    squares: Vec<f64>,
}

impl Sums {
    fn new(values: &[f64]) -> Self {
        // From the middle, so that little is lost where large squares are subtracted.
        let middle = super::robust::median(values);
        let running = |of: fn(f64) -> f64| {
            let mut sum = 0.0;
            let sums = values.iter().map(|value| {
                sum += of(value - middle);
                sum
            });
            std::iter::once(0.0).chain(sums).collect()
        };
        Self { values: running(|value| value), squares: running(|value| value * value) }
    }

    /// The squares around the mean of `from..to`.
    fn left_over(&self, from: usize, to: usize) -> f64 {
        let sum = self.values[to] - self.values[from];
        (self.squares[to] - self.squares[from] - sum * sum / (to - from) as f64).max(0.0)
    }
}

/// The places at which a new segment begins, in order; without the first.
pub(super) fn cuts(values: &[f64], noise: f64) -> Vec<usize> {
    let len = values.len();
    if len < 2 * SEGMENT_MIN {
        return Vec::new();
    }
    let sums = Sums::new(values);
    let penalty = PENALTY * (len as f64).ln() * noise * noise;
    // Of the values up to each place: the least cost, and where the last segment begins.
    let mut best = vec![(f64::INFINITY, 0); len + 1];
    best[0] = (-penalty, 0);
    for to in SEGMENT_MIN..=len {
        for from in 0..=to - SEGMENT_MIN {
            let cost = best[from].0 + sums.left_over(from, to) + penalty;
            if cost < best[to].0 {
                best[to] = (cost, from);
            }
        }
    }
    let mut cuts: Vec<usize> = std::iter::successors(Some(best[len].1), |cut| Some(best[*cut].1))
        .take_while(|cut| *cut > 0)
        .collect();
    cuts.reverse();
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Levels, each for so many points, with noise.
    fn series(levels: &[(f64, usize)], noise: f64) -> Vec<f64> {
        let mut dice = crate::dice::Dice::new(&[4]);
        let level = |(level, len): &(f64, usize)| vec![*level; *len];
        levels.iter().flat_map(level).map(|level| level + noise * dice.normal()).collect()
    }

    #[test]
    fn too_few_values_have_no_cut() {
        assert!(cuts(&[], 0.1).is_empty());
        assert!(cuts(&[0.0, 0.0, 0.0, 9.0, 9.0, 9.0], 0.1).is_empty());
    }

    #[test]
    fn clear_levels_are_told_apart_at_their_edges() {
        assert_eq!(
            cuts(&series(&[(0.0, 30), (1.0, 4), (0.0, 30)], 0.05), 0.05),
            [30, 34],
            "they undo each other"
        );
        assert_eq!(cuts(&series(&[(0.0, 20), (0.5, 20), (1.0, 20)], 0.05), 0.05), [20, 40]);
    }

    #[test]
    fn no_segment_is_shorter_than_the_least() {
        let noise = series(&[(0.0, 200)], 1.0);
        let cuts = cuts(&noise, 0.2);
        assert!(!cuts.is_empty(), "noise that is thought small makes cuts");
        let ends: Vec<usize> = std::iter::once(0).chain(cuts).chain([200]).collect();
        assert!(ends.windows(2).all(|pair| pair[1] - pair[0] >= SEGMENT_MIN), "{ends:?}");
    }

    #[test]
    fn the_recursion_finds_what_trying_every_segmentation_finds() {
        let values = series(&[(0.0, 5), (0.6, 5), (0.2, 4)], 0.2);
        let (noise, len) = (0.2_f64, values.len());
        let penalty = PENALTY * (len as f64).ln() * noise * noise;
        let sums = Sums::new(&values);
        let cost = |cuts: &[usize]| {
            let ends: Vec<usize> = std::iter::once(0).chain(cuts.iter().copied()).chain([len]).collect();
            let is_allowed = ends.windows(2).all(|pair| pair[1] - pair[0] >= SEGMENT_MIN);
            let squares: f64 = ends.windows(2).map(|pair| sums.left_over(pair[0], pair[1])).sum();
            if is_allowed { squares + penalty * cuts.len() as f64 } else { f64::INFINITY }
        };
        let every = (0..1_u32 << (len - 1))
            .map(|mask| (1..len).filter(|cut| (mask >> (cut - 1)) & 1 == 1).collect::<Vec<_>>());
        let best = every.map(|cuts| cost(&cuts)).fold(f64::INFINITY, f64::min);
        assert!((cost(&cuts(&values, noise)) - best).abs() < 1e-9);
    }
}
