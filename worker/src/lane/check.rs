//! A fresh baseline is tried out before anybody hears of it: a clone of it comes up, and its proofs hold.
//!
//! Must not know how it was built. Invariant: nothing of the try is left, and nothing of a baseline that did not stand it.

use std::sync::Arc;

use andon_snapshot::Baseline;

use super::stand::{Ground, Proofs, Stand, StandFault};
use super::workshop::Workshop;
use crate::baseline::Source;
use crate::hands::{Notices, WorkFailure, notice};
use crate::stack::{StackPlan, sweep};

/// The lane that a fresh baseline is checked on.
const CHECK_LANE: &str = "check";

impl Workshop {
    /// A clone of the fresh baseline must come up healthy once, or it is none; with proofs twice, and they must print the same
    /// both times. Answers with what they print.
    pub(super) async fn check(
        &self,
        baseline: &Baseline,
        plan: &Arc<StackPlan>,
        source: &Arc<Source>,
        proofs: &Proofs,
        notices: &Notices,
    ) -> Result<Vec<String>, WorkFailure> {
        notice(notices, "checking the baseline on a clone".to_owned());
        let ground = Ground {
            engine: self.options.engine.clone(),
            pool: self.options.pool.clone(),
            baseline: baseline.clone(),
            plan: Arc::clone(plan),
            source: Arc::clone(source),
            lane: CHECK_LANE.to_owned(),
            slot: 0,
            fronted: false,
            deep_every: 0,
            doubted: false,
            proofs: proofs.clone(),
            teller: None,
            rewinding: Arc::clone(&self.rewinding),
        };
        let checked = match self.raise_checked(ground.clone(), true).await {
            Ok(first) if proofs.is_empty() => Ok(first),
            Ok(first) => {
                notice(notices, "running the proofs of the baseline on another clone".to_owned());
                // With containers, network and clone of its own: what a proof prints may depend on none of them.
                self.raise_checked(Ground { slot: 1, ..ground }, false).await.and_then(|second| {
                    proofs.compare(&first, &second).map(|()| first).map_err(|fault| {
                        WorkFailure::baseline(format!(
                            "{fault}\nTwo stacks of the same fresh baseline print this, so it can prove nothing: leave \
                             out what changes by itself."
                        ))
                    })
                })
            }
            Err(failure) => Err(failure),
        };
        self.sweep_check().await?;
        if checked.is_err() {
            self.shelf.clear(baseline.key()).await?;
        }
        checked
    }

    /// Raises a clone, runs the proofs, takes it down.
    async fn raise_checked(&self, ground: Ground, choose: bool) -> Result<Vec<String>, WorkFailure> {
        let raised = Stand::raise(ground).await;
        let (mut stand, _) = raised.map_err(|error| {
            let mut failure = error.into_failure();
            failure.reason = format!("a clone of the fresh baseline does not come up: {}", failure.reason);
            failure
        })?;
        let printed = stand.print_proofs().await.map_err(StandFault::into_failure);
        let chosen = if choose { self.choose_driver(&mut stand).await.map(drop) } else { Ok(()) };
        let lowered = stand.lower().await;
        lowered.map_err(|error| WorkFailure::infrastructure(error.to_string()))?;
        chosen.and(printed)
    }

    async fn sweep_check(&self) -> Result<(), WorkFailure> {
        let swept = sweep(self.options.engine.as_ref(), Some(CHECK_LANE)).await;
        swept.map_err(|error| WorkFailure::infrastructure(error.to_string()))
    }
}
