//! How much of their output units may send while they run: beyond it, what comes is acknowledged and dropped, and shows as a
//! gap.

use std::collections::HashMap;

use andon_core::ids::Fence;

/// Of one grant, compressed. An honest worker stays far below it.
const BYTES_MAX: usize = 4 << 20;
/// Of one grant.
const PIECES_MAX: u32 = 4_096;

/// What open grants have sent so far. After a restart the count begins anew.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    spent: HashMap<Fence, (u32, usize)>,
}

impl Budgets {
    /// Whether a piece is to be kept.
    pub(crate) fn spend(&mut self, fence: Fence, bytes: usize) -> bool {
        let (pieces, sum) = self.spent.entry(fence).or_default();
        if *pieces >= PIECES_MAX || *sum + bytes > BYTES_MAX {
            return false;
        }
        *pieces += 1;
        *sum += bytes;
        true
    }

    /// The grant is over.
    pub(crate) fn close(&mut self, fence: Fence) {
        self.spent.remove(&fence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_has_a_budget_of_bytes_and_pieces_and_others_have_their_own() {
        let mut budgets = Budgets::default();
        assert!(budgets.spend(Fence(1), BYTES_MAX));
        assert!(!budgets.spend(Fence(1), 1));
        assert!((0..PIECES_MAX).all(|_| budgets.spend(Fence(2), 0)));
        assert!(!budgets.spend(Fence(2), 0));
        budgets.close(Fence(1));
        assert!(budgets.spend(Fence(1), 1));
    }
}
