//! What a stand does where its used state is kept: its services stop by themselves, and their layers are taken aside.
//!
//! Must not know what becomes of it (`kept.rs` does). Invariant: that a state cannot be kept is nobody's failure, and leaves the
//! rebase as it would be without it.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;

use super::super::kept::{Begun, Keeping};
use super::{LayerWork, Stand};
use crate::engine::EngineError;
use crate::hands::{blocking, chain};

/// How long a service whose state is kept may take to stop, however long it asks for.
const STOP_GRACE_MAX: Duration = Duration::from_secs(10);

impl Stand {
    /// The next rebase is to keep what it finds.
    pub(crate) fn keep(&mut self, keeping: Keeping) {
        self.keeping = Some(keeping);
    }

    /// Nobody touched it: it is kept as it is, and stays.
    pub(crate) fn keep_untouched(&mut self) {
        if let Some(keeping) = self.keeping.take() {
            keeping.untouched();
        }
    }

    /// Lets services write out what they hold in memory before they are killed: a database may owe its files the last second.
    pub(super) async fn ask_to_stop(&self) {
        let engine = self.ground.engine.as_ref();
        let plans = self.ground.plan.services.iter().zip(&self.rig.containers);
        let stopping = plans.filter(|(service, _)| !service.completes).map(|(service, container)| async move {
            let stopped = engine.stop_container(container, service.stop_grace.min(STOP_GRACE_MAX)).await;
            if let Err(error) = stopped {
                let (lane, service) = (&self.ground.lane, &service.name);
                tracing::warn!(lane, service, error = %chain(&error), "asking a service to stop before its state is kept");
            }
        });
        join_all(stopping).await;
    }

    /// What its services wrote into their own layers is taken aside while they are dead. That the unit's stack cannot be kept is
    /// nobody's failure.
    pub(super) async fn begin_keeping(&mut self) -> Option<Begun> {
        let keeping = self.keeping.take()?;
        let LayerWork { pool, baseline, layers } = self.layer_work();
        match blocking(move || keeping.begin(&pool, &baseline, &layers)).await {
            Ok(Ok(begun)) => Some(begun),
            Ok(Err(error)) => {
                tracing::warn!(lane = self.ground.lane, error = %chain(&error), "a failed test's stack is not kept");
                None
            }
            Err(failure) => {
                tracing::warn!(
                    lane = self.ground.lane,
                    reason = failure.reason,
                    "a failed test's stack is not kept"
                );
                None
            }
        }
    }

    /// Where a service is reached from the worker, by its place in the plan.
    pub(crate) async fn address_of(&self, place: usize) -> Result<Option<IpAddr>, EngineError> {
        if let Some(address) = self.rig.addresses.get(place).copied().flatten() {
            return Ok(Some(address.into()));
        }
        let Some(container) = self.rig.containers.get(place) else { return Ok(None) };
        let state = self.ground.engine.inspect_container(container).await?;
        Ok(state.addresses.get(&self.ground.network()).copied())
    }
}
