//! Where in a window the change is, and how sure that is.
//!
//! With a flat prior, normal noise and the levels as they come out best, a place is as likely as e to the power of minus the squares
//! that it leaves over, in twice the noise's square.

use super::{SEGMENT_MIN, robust};

/// The places told together hold this much probability.
const HELD: f64 = 0.95;

/// Places count from the window's start: the new level's first point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Location {
    pub(super) split: usize,
    /// The probability of that place.
    pub(super) share: f64,
    pub(super) first: usize,
    pub(super) last: usize,
}

/// The window has at least two segments' points: it stands around a cut.
pub(super) fn locate(window: &[f64]) -> Location {
    let left = left_over(window);
    let least = left.iter().map(|(_, squares)| *squares).fold(f64::INFINITY, f64::min);
    let freedom = window.len().saturating_sub(2).max(1) as f64;
    let variance = (least / freedom).max(robust::NOISE_MIN * robust::NOISE_MIN);
    let weigh = |(place, squares): &(usize, f64)| (*place, (-(squares - least) / (2.0 * variance)).exp());
    let mut weights: Vec<(usize, f64)> = left.iter().map(weigh).collect();
    weights.sort_by(|(a_place, a), (b_place, b)| b.total_cmp(a).then(a_place.cmp(b_place)));

    let all: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let (split, weight) = weights.first().copied().unwrap_or((window.len() / 2, 1.0));
    let (mut first, mut last, mut held) = (split, split, 0.0);
    for (place, weight) in weights {
        if held >= HELD * all {
            break;
        }
        held += weight;
        (first, last) = (first.min(place), last.max(place));
    }
    Location { split, share: if all > 0.0 { weight / all } else { 1.0 }, first, last }
}

/// For each place the squares around the means on both sides.
fn left_over(window: &[f64]) -> Vec<(usize, f64)> {
    let len = window.len();
    let mean = window.iter().sum::<f64>() / len.max(1) as f64;
    let squares: f64 = window.iter().map(|value| (value - mean).powi(2)).sum();
    let mut sum = 0.0;
    let mut places = Vec::with_capacity(len);
    for (place, value) in (1..).zip(window) {
        sum += value - mean;
        if place >= SEGMENT_MIN && len - place >= SEGMENT_MIN {
            let saved = sum * sum * len as f64 / (place * (len - place)) as f64;
            places.push((place, (squares - saved).max(0.0)));
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clear_edge_is_one_place() {
        let mut window = vec![0.0; 10];
        window.extend([1.0; 15]);
        let found = locate(&window);
        assert_eq!((found.split, found.first, found.last), (10, 10, 10));
        assert!(found.share > 0.99);
    }

    #[test]
    fn a_faint_edge_is_one_of_several_that_hold_the_true_one() {
        let mut held = 0;
        for seed in 0..100 {
            let mut dice = crate::dice::Dice::new(&[seed]);
            let window: Vec<f64> =
                (0..60).map(|at| if at < 30 { 0.0 } else { 1.0 } + dice.normal()).collect();
            let found = locate(&window);
            assert!(found.first <= found.split && found.split <= found.last);
            held += usize::from((found.first..=found.last).contains(&30));
        }
        assert!(held >= 85, "{held} of 100 at 95 %");
    }
}
