//! Asked before a failure is blamed on a test: is the farm well?

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use andon_snapshot::Pool;
use async_trait::async_trait;

use crate::engine::SharedEngine;
use crate::hands::{WorkFailure, chain};
use crate::runner::{Overrun, Witness};

/// With less than this free, failures are the disk's.
const FREE_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// Looks at the daemon, the lane's services and the disk.
#[derive(Debug, Clone)]
pub(crate) struct LaneWitness {
    pub(crate) engine: SharedEngine,
    pub(crate) pool: Pool,
    /// Name and container of each service that serves now; they change with a rebase within the unit.
    pub(crate) services: Services,
    /// Set where the unit itself has filled the disk.
    pub(crate) overrun: Arc<OnceLock<Overrun>>,
}

/// Shared with the lane.
pub(crate) type Services = Arc<Mutex<Vec<(String, String)>>>;

#[async_trait]
impl Witness for LaneWitness {
    async fn check(&self) -> Result<(), WorkFailure> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if services.is_empty() {
            self.engine.ping().await.map_err(|error| WorkFailure::infrastructure(error.to_string()))?;
        }
        for (name, container) in &services {
            let state = self.engine.inspect_container(container).await;
            let state = state.map_err(|error| {
                WorkFailure::infrastructure(format!("service `{name}` vanished: {error}"))
            })?;
            if let Some(how) = state.out_of_memory() {
                return Err(WorkFailure::infrastructure(format!("service `{name}` ran {how}")));
            }
        }
        if self.overrun.get().is_some() {
            return Ok(());
        }
        let free = self.pool.free_bytes().map_err(|error| WorkFailure::infrastructure(chain(&error)))?;
        if free < FREE_BYTES_MIN {
            return Err(WorkFailure::infrastructure(format!(
                "the worker's disk is full: {free} bytes are free"
            )));
        }
        Ok(())
    }
}
