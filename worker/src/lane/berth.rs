//! The sandboxes that a lane's unit boxes join, in turn: while the box of one unit is being killed in one, the box of the
//! next is made in another.
//!
//! Knows sandboxes; must not know boxes or rebases. Invariants: a sandbox is used by one box at a time, and again only
//! when it was put back; where none is free the caller goes without, and the box has a network of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::{NetworkMode, SharedEngine};
use crate::hands::chain;
use crate::stack::{RigFault, Sandbox, SandboxSpec, lane_labels};

/// The one in use, the one being made ready, and one whose last box is still being removed.
const BERTHS_MAX: u32 = 3;

/// All of a lane, made as they are needed. They go with the lane, by its label.
#[derive(Debug)]
pub(crate) struct Berths {
    engine: SharedEngine,
    lane: String,
    network: String,
    moored: Mutex<Moored>,
}

#[derive(Debug, Default)]
struct Moored {
    made: u32,
    free: Vec<Sandbox>,
}

/// One, taken.
#[derive(Debug)]
pub(crate) struct Berth {
    sandbox: Sandbox,
    home: Arc<Berths>,
}

impl Berths {
    pub(crate) fn new(engine: SharedEngine, lane: &str, network: &str) -> Arc<Self> {
        let (lane, network) = (lane.to_owned(), network.to_owned());
        Arc::new(Self { engine, lane, network, moored: Mutex::default() })
    }

    fn moored(&self) -> MutexGuard<'_, Moored> {
        self.moored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A free one, or a new one, or none.
    pub(crate) async fn take(self: &Arc<Self>) -> Option<Berth> {
        let number = {
            let mut moored = self.moored();
            if let Some(sandbox) = moored.free.pop() {
                return Some(Berth { sandbox, home: Arc::clone(self) });
            }
            if moored.made == BERTHS_MAX {
                return None;
            }
            moored.made += 1;
            moored.made
        };
        match self.make(number).await {
            Ok(sandbox) => Some(Berth { sandbox, home: Arc::clone(self) }),
            Err(error) => {
                tracing::warn!(error = %chain(&error), lane = self.lane, "making a sandbox for units");
                None
            }
        }
    }

    async fn make(&self, number: u32) -> Result<Sandbox, RigFault> {
        let spec = SandboxSpec {
            // Two dots: no service's sandbox can be called so.
            name: format!("andon-lane{}..unit{number}", self.lane),
            labels: lane_labels(&self.lane),
            network: NetworkMode::Named { network: self.network.clone(), aliases: Vec::new() },
            hostname: String::new(),
        };
        Sandbox::make(self.engine.as_ref(), spec).await
    }
}

impl Berth {
    /// What a box joins.
    pub(crate) fn network(&self) -> NetworkMode {
        self.sandbox.joined()
    }

    /// Fails where its sandbox has ended.
    pub(crate) async fn check(&self) -> Result<(), RigFault> {
        self.sandbox.check(self.home.engine.as_ref()).await
    }

    /// Ready for another box. What joined it has to be dead. One that cannot be put back is not used again.
    pub(crate) async fn leave(self) {
        let Self { sandbox, home } = self;
        match sandbox.put_back(home.engine.as_ref()).await {
            Ok(()) => home.moored().free.push(sandbox),
            // The lane may be gone already, and its sandboxes with it.
            Err(error) => tracing::debug!(error = %chain(&error), lane = home.lane, "leaving a sandbox"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::FakeEngine;
    use crate::engine::{Engine as _, NetworkSpec};

    #[tokio::test]
    async fn a_berth_is_used_again_once_it_was_put_back_and_nobody_waits_for_one() {
        let engine = FakeEngine::new();
        engine.create_network(&NetworkSpec { name: "n".into(), ..NetworkSpec::default() }).await.unwrap();
        let berths = Berths::new(engine.clone(), "0", "n");
        let mut taken = Vec::new();
        for _ in 0..BERTHS_MAX {
            taken.push(berths.take().await.unwrap());
        }
        assert!(berths.take().await.is_none());
        let first = taken.remove(0);
        let network = first.network();
        first.leave().await;
        assert_eq!(berths.take().await.unwrap().network(), network);
        // That one was dropped and never put back, so it is lost; and so is one whose sandbox has ended.
        engine.end_container("andon-lane0..unit2", 137, true);
        assert!(taken[0].check().await.is_err());
        taken.remove(0).leave().await;
        assert!(berths.take().await.is_none());
    }
}
