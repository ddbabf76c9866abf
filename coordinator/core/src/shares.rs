//! How runs share the lanes: deficit round robin over flows, a flow being one project's runs of one class.
//!
//! Each flow has a credit in milliseconds of lane time. Work is served from a flow that can pay for it; when none can,
//! all are given credit by their weights until one can. Of those that can pay the better class goes first, then the one
//! that was served least lately. So a person's rerun gets the next lane at once, and a flood of reruns still cannot take
//! more than its share for long. After M. Shreedhar and G. Varghese, "Efficient Fair Queueing Using Deficit Round Robin",
//! SIGCOMM 1995.

use std::collections::BTreeMap;

use crate::model::Trigger;

/// What a flow of weight 1 is given in one round.
const QUANTUM_MS: u64 = 100;
/// Credit that a flow of weight 1 may save.
const CREDIT_MAX_MS: u64 = 10_000;

/// One project's runs of one class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub(crate) class: Trigger,
    pub(crate) project: String,
}

impl Flow {
    /// Its share of the lanes beside others. `of_project` is what the operator gives the project.
    pub(crate) fn weight(&self, of_project: u32) -> u64 {
        let of_class = match self.class {
            Trigger::Rerun => 8,
            Trigger::Person => 4,
            Trigger::Push => 2,
            Trigger::Scheduled => 1,
        };
        of_class * u64::from(of_project.max(1))
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Balance {
    credit_ms: u64,
    served_at: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    balances: BTreeMap<Flow, Balance>,
    served: u64,
}

/// What a flow would have served next.
#[derive(Debug, Clone)]
pub(crate) struct Bid {
    pub(crate) flow: Flow,
    pub(crate) weight: u64,
    pub(crate) cost_ms: u64,
}

impl Shares {
    /// The place of the bid that is served; it is charged. `None` where there is none.
    pub(crate) fn serve(&mut self, bids: &[Bid]) -> Option<usize> {
        let rounds = bids.iter().map(|bid| self.rounds_until_paid(bid)).min()?;
        for bid in bids {
            let most = (CREDIT_MAX_MS * bid.weight).max(bid.cost_ms);
            let balance = self.balances.entry(bid.flow.clone()).or_default();
            let given = rounds.saturating_mul(QUANTUM_MS * bid.weight);
            balance.credit_ms = balance.credit_ms.saturating_add(given).min(most);
        }
        let can_pay = |bid: &Bid| self.balances[&bid.flow].credit_ms >= bid.cost_ms;
        let place = (0..bids.len())
            .filter(|place| can_pay(&bids[*place]))
            .min_by_key(|place| (bids[*place].flow.class, self.balances[&bids[*place].flow].served_at))?;
        self.served += 1;
        let balance = self.balances.get_mut(&bids[place].flow).expect("every bidder has a balance");
        balance.credit_ms -= bids[place].cost_ms;
        balance.served_at = self.served;
        Some(place)
    }

    /// Forgets flows that have no run any more: who comes back begins without savings.
    pub(crate) fn keep(&mut self, mut is_active: impl FnMut(&Flow) -> bool) {
        self.balances.retain(|flow, _| is_active(flow));
    }

    fn rounds_until_paid(&self, bid: &Bid) -> u64 {
        let credit = self.balances.get(&bid.flow).map_or(0, |balance| balance.credit_ms);
        bid.cost_ms.saturating_sub(credit).div_ceil(QUANTUM_MS * bid.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bid(project: &str, class: Trigger, cost_ms: u64) -> Bid {
        let flow = Flow { class, project: project.into() };
        Bid { weight: flow.weight(1), flow, cost_ms }
    }

    /// Lane time that each of these flows gets while all of them always have work.
    fn shared(bids: &[Bid], times: usize) -> Vec<u64> {
        let mut shares = Shares::default();
        let mut got = vec![0; bids.len()];
        for _ in 0..times {
            let place = shares.serve(bids).unwrap();
            got[place] += bids[place].cost_ms;
        }
        got
    }

    #[test]
    fn projects_share_by_time_and_not_by_number_of_units() {
        let got = shared(&[bid("quick", Trigger::Push, 10), bid("slow", Trigger::Push, 1_000)], 10_000);
        let ratio = got[0] as f64 / got[1] as f64;
        assert!((0.95..1.05).contains(&ratio), "{got:?}");
    }

    #[test]
    fn classes_share_by_weight_and_none_starves() {
        let all = [Trigger::Rerun, Trigger::Person, Trigger::Push, Trigger::Scheduled];
        let got = shared(&all.map(|class| bid("p", class, 500)), 15_000);
        let parts: Vec<_> = got.iter().map(|ms| ms / got[3]).collect();
        assert_eq!(parts, [8, 4, 2, 1]);
    }

    #[test]
    fn who_waits_for_a_rerun_gets_the_next_lane() {
        let mut shares = Shares::default();
        let push = bid("p", Trigger::Push, 60_000);
        for _ in 0..50 {
            assert_eq!(shares.serve(std::slice::from_ref(&push)), Some(0));
        }
        assert_eq!(shares.serve(&[push, bid("p", Trigger::Rerun, 1_000)]), Some(1));
    }

    #[test]
    fn what_was_not_used_is_not_saved_for_ever() {
        let mut shares = Shares::default();
        let (busy, dear) = (bid("busy", Trigger::Push, 10), bid("dear", Trigger::Push, 5_000_000));
        for _ in 0..100_000 {
            shares.serve(&[busy.clone(), dear.clone()]);
        }
        assert!(shares.balances.values().all(|balance| balance.credit_ms <= 5_000_000));
        shares.keep(|flow| flow.project == "busy");
        assert_eq!(shares.balances.len(), 1);
    }
}
