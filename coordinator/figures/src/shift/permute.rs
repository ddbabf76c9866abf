//! The chance that a window of values without a change looks as if it had one: a permutation test of its strongest split.
//!
//! It stops early where that chance is plainly not small (Besag, Clifford: "Sequential Monte Carlo p-values", Biometrika 1991), and
//! counts what was seen among the permutations otherwise (Phipson, Smyth: "Permutation p-values should never be zero", 2010).

use super::SEGMENT_MIN;
use crate::dice::Dice;

/// So many permutations at most.
pub const PERMUTATIONS: usize = 1_999;

/// After so many that are as strong the chance is not small.
const AS_STRONG_MAX: usize = 10;

/// How far apart the two parts of the best split are: the largest square of the CUSUM, each place weighed by its lengths.
fn strongest(values: &[f64], mean: f64) -> f64 {
    let len = values.len() as f64;
    let (mut sum, mut strongest) = (0.0, 0.0_f64);
    for (before, value) in (1..).zip(values) {
        sum += value - mean;
        if before >= SEGMENT_MIN && values.len() - before >= SEGMENT_MIN {
            let before = before as f64;
            strongest = strongest.max(sum * sum * len / (before * (len - before)));
        }
    }
    strongest
}

/// See the module. The window decides the permutations, together with the seed: not when it is asked.
pub(super) fn chance(window: &[f64], seed: u64) -> f64 {
    if window.len() < 2 * SEGMENT_MIN {
        return 1.0;
    }
    let mean = window.iter().sum::<f64>() / window.len() as f64;
    // A permutation adds in another order: what differs by rounding alone is as strong.
    let observed = strongest(window, mean) * (1.0 - 1e-9);
    let mut dice = Dice::new(&[seed, window.len() as u64, window[0].to_bits()]);
    let mut shuffled = window.to_vec();
    let mut as_strong = 0;
    for tried in 1..=PERMUTATIONS {
        dice.shuffle(&mut shuffled);
        as_strong += usize::from(strongest(&shuffled, mean) >= observed);
        if as_strong == AS_STRONG_MAX {
            return as_strong as f64 / tried as f64;
        }
    }
    (as_strong + 1) as f64 / (PERMUTATIONS + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_unlikely_to_be_none() {
        let mut dice = Dice::new(&[6]);
        let window: Vec<f64> =
            (0..40).map(|at| if at < 20 { 0.0 } else { 0.5 } + 0.1 * dice.normal()).collect();
        assert!(chance(&window, 1) <= 0.001);
        assert_eq!(chance(&window, 1), chance(&window, 1));
    }

    #[test]
    fn equal_values_have_no_change() {
        assert_eq!(chance(&[1.0; 30], 1), 1.0);
        assert_eq!(chance(&[1.0, 2.0], 1), 1.0);
    }

    #[test]
    fn of_windows_without_a_change_no_more_are_taken_for_one_than_was_allowed() {
        let mut dice = Dice::new(&[8]);
        let alarms = (0..300).filter(|_| {
            let window: Vec<f64> = (0..30).map(|_| dice.normal()).collect();
            chance(&window, 3) <= 0.05
        });
        let alarms = alarms.count();
        assert!((3..=30).contains(&alarms), "{alarms} of 300 at a level of 5 %");
    }
}
