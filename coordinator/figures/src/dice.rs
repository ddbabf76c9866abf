//! The only source of chance: splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
//! Written out here, so that a seed means the same figures whatever version of whatever crate is used.
//!
//! It never reads entropy: every seed comes in as an argument.

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Dice for some words, which are what the throw is for: the same words, the same throws.
    pub(crate) fn new(words: &[u64]) -> Self {
        let mut dice = Self(0x5851_F42D_4C95_7F2D);
        for word in words {
            dice.0 ^= *word;
            dice.0 = dice.next();
        }
        dice
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to `n - 1`; 0 where `n` is 0. The bias of the remainder is below 2⁻⁴⁰ for what is asked for here.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        let thrown = if n == 0 { 0 } else { self.next() % n };
        usize::try_from(thrown).expect("smaller than a usize")
    }

    /// From 0 inclusive to 1 exclusive.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From `low` to `high`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Of the normal distribution with mean 0 and deviation 1 (Box, Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Fisher and Yates' shuffle.
    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Dice;

    #[test]
    fn the_same_words_throw_the_same_and_others_do_not() {
        let thrown = |words: &[u64]| {
            let mut dice = Dice::new(words);
            [dice.next(), dice.next(), dice.next()]
        };
        assert_eq!(thrown(&[1, 2]), thrown(&[1, 2]));
        assert_ne!(thrown(&[1, 2]), thrown(&[2, 1]));
        assert_ne!(thrown(&[1]), thrown(&[1, 0]));
    }

    #[test]
    fn normal_throws_have_the_mean_and_deviation_of_the_normal_distribution() {
        let mut dice = Dice::new(&[7]);
        let thrown: Vec<f64> = (0..20_000).map(|_| dice.normal()).collect();
        let mean = thrown.iter().sum::<f64>() / 20_000.0;
        let variance = thrown.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
    }

    #[test]
    fn a_shuffle_loses_nothing_and_moves_something() {
        let mut all: Vec<u32> = (0..100).collect();
        Dice::new(&[3]).shuffle(&mut all);
        assert_ne!(all, (0..100).collect::<Vec<_>>());
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }
}
