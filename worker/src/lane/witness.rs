//! Asked before a failure is blamed on a test: is the farm well?

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use andon_snapshot::Pool;
use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use crate::engine::{ContainerState, SharedEngine};
use crate::hands::{WorkFailure, chain};
use crate::host::{OomKills, container_oom_kills};
use crate::runner::{Overrun, Witness};

/// With less than this free, failures are the disk's.
const FREE_BYTES_MIN: u64 = 32 * 1024 * 1024;
/// What a shell and an engine say of a process that SIGKILL ended.
const CODE_KILLED: i64 = 137;
/// A daemon hears that a container has ended, and that memory ran out in it, by messages that come late and in any order; a
/// failed test may be here before them.
const MESSAGES_LIMIT: Duration = Duration::from_secs(2);
const MESSAGES_PAUSE: Duration = Duration::from_millis(20);

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
            self.check_service(name, container).await?;
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

impl LaneWitness {
    async fn check_service(&self, name: &str, container: &str) -> Result<(), WorkFailure> {
        let deadline = Instant::now() + MESSAGES_LIMIT;
        loop {
            let state = self.engine.inspect_container(container).await;
            let mut state = state.map_err(|error| {
                WorkFailure::infrastructure(format!("service `{name}` vanished: {error}"))
            })?;
            match word_on(&mut state) {
                Word::Well => return Ok(()),
                Word::OutOfMemory(how) => {
                    return Err(WorkFailure::infrastructure(format!("service `{name}` ran {how}")));
                }
                Word::Awaited if Instant::now() < deadline => sleep(MESSAGES_PAUSE).await,
                // No test reaches the processes of a service: whoever killed it is of the farm.
                Word::Awaited if state.exit_code == CODE_KILLED => {
                    return Err(WorkFailure::infrastructure(format!(
                        "service `{name}` was killed{}",
                        limit(&state)
                    )));
                }
                Word::Awaited => return Ok(()),
            }
        }
    }
}

enum Word {
    /// It runs, or has ended by itself.
    Well,
    OutOfMemory(String),
    /// It has ended, and how is not known yet.
    Awaited,
}

/// What the kernel has counted goes into the state, as if the daemon had told it.
fn word_on(state: &mut ContainerState) -> Word {
    let mut is_awaited = state.exit_code == CODE_KILLED;
    if state.is_running() {
        let kills = container_oom_kills(&state.id, state.pid);
        state.oom_killed |= matches!(kills, OomKills::Are(1..));
        is_awaited = kills == OomKills::Ended;
    }
    match state.out_of_memory() {
        Some(how) => Word::OutOfMemory(how),
        None if is_awaited => Word::Awaited,
        None => Word::Well,
    }
}

fn limit(state: &ContainerState) -> String {
    match state.memory_limit_bytes {
        0 => String::new(),
        bytes => format!(", as where it is out of memory: limit {} MiB", bytes >> 20),
    }
}
