//! The worker's own Docker daemon: an own containerd and a dockerd, started, watched, restarted and shut down.
//!
//! `machine.rs` decides, `driver.rs` does, the other files know one matter each. Nothing here knows lanes, baselines or
//! the coordinator; the daemon's API is reached through `engine/`.
//!
//! Invariants: neither process outlives the agent (`process.rs`); after [`NestedDaemon::shutdown`] no container, process
//! or mount of the daemon is left; a daemon that cannot be kept up says why, with its last lines; no container outlives the
//! daemon that it belonged to; a data root that a daemon does not come up on is given up, and its images are not.

mod bridges;
mod cgroups;
mod config;
mod driver;
mod images;
mod leftovers;
mod machine;
mod memory;
mod mounts;
mod orphans;
mod prepare;
mod process;
mod unsynced;

use std::ffi::OsStr;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use config::NestedConfig;
pub use machine::{ATTEMPTS_MAX, START_LIMIT};

use crate::engine::direct::{DirectEngine, DirectOptions};
use crate::engine::{DockerEngine, EngineError, SharedEngine};

/// The nested daemon cannot serve.
#[derive(Debug, Error)]
pub enum NestedError {
    /// It could not be started, or not be kept up.
    #[error("the nested Docker daemon does not run: {reason}{}", last_words(.log))]
    GaveUp {
        /// The last failure.
        reason: String,
        /// The last lines of the process that failed; may be empty.
        log: String,
    },
    /// It runs and does not answer us.
    #[error("the nested Docker daemon does not answer")]
    Engine(#[from] EngineError),
    /// No thread could be started.
    #[error("cannot start the thread that watches over the nested Docker daemon")]
    Thread(#[source] std::io::Error),
}

fn last_words(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; its last lines:\n{log}") }
}

/// Seals the images of a data root whose daemon is stopped, and makes another in its place that has them; the one before is
/// deleted. Answers with how many images there are, and what making the other took. What the daemon's own driver does where
/// it gives a data root up, for whoever wants to measure it. Blocks.
pub fn renew(config: &NestedConfig) -> std::io::Result<(usize, std::time::Duration)> {
    let store = images::ImageStore::new(&config.data_root, None);
    store.seal()?;
    let began = std::time::Instant::now();
    let renewed = store.renew()?;
    let took = began.elapsed();
    images::delete(&store.discard()?);
    Ok((renewed.images, took))
}

/// What the daemon's containers are restarted with: without the daemon, where that is asked for and can be.
fn with_direct(engine: SharedEngine, config: &NestedConfig) -> SharedEngine {
    if !config.direct {
        return engine;
    }
    let filter = config.filter();
    let prefix = match filter.is_file() {
        true => {
            let words =
                ["setpriv".as_ref()].into_iter().chain(unsynced::loading(&filter)).chain(["--".as_ref()]);
            words.map(OsStr::to_owned).collect()
        }
        false => Vec::new(),
    };
    let (folder, tasks) = (config.direct_folder(), config.tasks());
    let options = DirectOptions { folder, tasks, prefix, fsync: config.fsync };
    match DirectEngine::over(Arc::clone(&engine), options) {
        Ok(direct) => Arc::new(direct),
        Err(reason) => {
            tracing::warn!(%reason, "services are restarted by the daemon, which takes longer");
            engine
        }
    }
}

/// Where the daemon is in its life, for whoever depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonState {
    /// Not yet up for the first time.
    Starting,
    /// Serves requests.
    Running,
    /// Fell over and is being started again. Every container is gone.
    Restarting {
        /// Why.
        reason: String,
    },
    /// Is being shut down, or was.
    Stopped,
    /// Will not come back: this worker is unfit.
    GaveUp {
        /// Why.
        reason: String,
        /// The last lines of the process that failed; may be empty.
        log: String,
    },
}

/// A running nested daemon. Dropping it shuts the daemon down in the background; [`NestedDaemon::shutdown`] waits for it.
#[derive(Debug)]
pub struct NestedDaemon {
    engine: SharedEngine,
    state: watch::Receiver<DaemonState>,
    /// Closing it is the request to shut down.
    stop: mpsc::Sender<()>,
    driver: JoinHandle<()>,
}

impl NestedDaemon {
    /// Starts the daemon and waits until it answers, or until it is given up: at most about
    /// [`ATTEMPTS_MAX`] × [`START_LIMIT`], normally a third of a second.
    pub async fn start(config: NestedConfig) -> Result<Self, NestedError> {
        let address = config.address();
        let direct = config.clone();
        let (stop, stop_asked) = mpsc::channel(1);
        let (announce, mut state) = watch::channel(DaemonState::Starting);
        let driver = driver::Driver::new(config, announce, stop_asked).map_err(NestedError::Thread)?;
        let driver = tokio::spawn(driver.run());
        let settled =
            |state: &DaemonState| !matches!(state, DaemonState::Starting | DaemonState::Restarting { .. });
        let first = state.wait_for(settled).await.map(|state| state.clone());
        match first {
            Ok(DaemonState::Running) => {}
            Ok(DaemonState::GaveUp { reason, log }) => return Err(NestedError::GaveUp { reason, log }),
            Ok(_) | Err(_) => {
                let reason = "it was stopped before it was up".to_owned();
                return Err(NestedError::GaveUp { reason, log: String::new() });
            }
        }
        let engine = with_direct(Arc::new(DockerEngine::open(&address)?), &direct);
        Ok(Self { engine, state, stop, driver })
    }

    /// The daemon's API. Stays valid over restarts.
    #[must_use]
    pub fn engine(&self) -> SharedEngine {
        Arc::clone(&self.engine)
    }

    /// Where the daemon is, and each change.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<DaemonState> {
        self.state.clone()
    }

    /// Ends every container, then both processes; leaves no mount. Bounded: what does not end by itself is killed.
    pub async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.driver.await {
            tracing::error!(%error, "the nested daemon's driver failed");
        }
    }
}
