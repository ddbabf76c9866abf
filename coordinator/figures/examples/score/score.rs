//! What was found of what there was.

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Score {
    /// Found, and there.
    pub(crate) right: u64,
    /// Found, and not there.
    pub(crate) wrong: u64,
    /// There, and not found.
    pub(crate) missed: u64,
}

impl Score {
    pub(crate) fn add(&mut self, other: Self) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.missed += other.missed;
    }

    /// Of what was found, the share that was there.
    pub(crate) fn precision(self) -> f64 {
        self.share_of(self.right + self.wrong)
    }

    /// Of what was there, the share that was found.
    pub(crate) fn recall(self) -> f64 {
        self.share_of(self.right + self.missed)
    }

    /// The harmonic mean of both.
    pub(crate) fn both(self) -> f64 {
        let (precision, recall) = (self.precision(), self.recall());
        if self.right == 0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
    }

    fn share_of(self, all: u64) -> f64 {
        if all == 0 { 0.0 } else { self.right as f64 / all as f64 }
    }
}
