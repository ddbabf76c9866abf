//! Level and noise of logarithms of durations, such that a few outliers do not count.

/// Smaller noise is taken for this: a hundredth of a duration is never worth telling.
pub(super) const NOISE_MIN: f64 = 0.01;

/// What is farther from the level around it is an outlier: so many times the noise.
const OUTLIER: f64 = 3.0;

/// The level around a point is the median of it and so many on each side.
const AROUND: usize = 3;

/// The median absolute deviation times this is the deviation of a normal distribution.
const MAD_TO_DEVIATION: f64 = 1.482_602_218_505_602;

/// 0 of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

/// The deviation of the noise, from differences of neighbours: a change of level is one difference among many, and does not count.
pub(super) fn noise(values: &[f64]) -> f64 {
    let differences: Vec<f64> = values.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
    (median(&differences) * MAD_TO_DEVIATION / std::f64::consts::SQRT_2).max(NOISE_MIN)
}

/// Each value no farther from the level around it than [`OUTLIER`] times the noise. A running median keeps edges where they are.
pub(super) fn tamed(values: &[f64], noise: f64) -> Vec<f64> {
    let tame = |(place, value): (usize, &f64)| {
        let around = &values[place.saturating_sub(AROUND)..(place + AROUND + 1).min(values.len())];
        let level = median(around);
        value.clamp(level - OUTLIER * noise, level + OUTLIER * noise)
    };
    values.iter().enumerate().map(tame).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn noise_is_seen_through_changes_of_level_and_outliers() {
        let mut dice = crate::dice::Dice::new(&[2]);
        let values: Vec<f64> = (0..400)
            .map(|at| {
                let level = f64::from(at / 100) * 0.7;
                let outlier = if at % 23 == 0 { 2.0 } else { 0.0 };
                level + outlier + 0.1 * dice.normal()
            })
            .collect();
        let told = noise(&values);
        assert!((0.08..0.13).contains(&told), "{told}");
        assert_eq!(noise(&[1.0; 50]), NOISE_MIN);
    }

    #[test]
    fn taming_takes_outliers_and_leaves_edges() {
        let mut values = vec![0.0; 10];
        values.extend([1.0; 10]);
        assert_eq!(tamed(&values, 0.05), values, "an edge is no outlier");
        values[5] = 3.0;
        let tamed = tamed(&values, 0.05);
        assert!((tamed[5] - 0.15).abs() < 1e-9);
        assert_eq!(tamed[10], 1.0);
    }
}
