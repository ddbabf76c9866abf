//! What can go wrong with a stack's services, and whose fault it is.
//!
//! A service that ends, stays unhealthy or cannot be started is the project's; a daemon that does not answer is the farm's.

use std::time::Duration;

use thiserror::Error;

use crate::engine::EngineError;
use crate::hands::WorkFailure;

/// A stack did not come up, or did not stop, as it should.
#[derive(Debug, Clone, Error)]
pub enum StackFault {
    /// A service ended while it should run.
    #[error("service `{service}` ended with exit code {exit_code}{memory}{}", after(log), memory = out_of_memory.as_ref().map(|how| format!(" ({how})")).unwrap_or_default())]
    Ended {
        /// Who.
        service: String,
        /// How.
        exit_code: i64,
        /// Where the kernel killed it for want of memory: how much it had.
        out_of_memory: Option<String>,
        /// Its last lines.
        log: String,
    },
    /// A service did not become healthy.
    #[error(
        "service `{service}` was not healthy after {limit:?}; its check `{check}` said: {said}{}",
        after(log)
    )]
    Unhealthy {
        /// Who.
        service: String,
        /// How long it had.
        limit: Duration,
        /// The check.
        check: String,
        /// What the check printed last.
        said: String,
        /// The service's last lines.
        log: String,
    },
    /// A service that is expected to complete did not.
    #[error("service `{service}` did not complete within {limit:?}{}", after(log))]
    Endless {
        /// Who.
        service: String,
        /// How long it had.
        limit: Duration,
        /// Its last lines.
        log: String,
    },
    /// The daemon cannot start it: a command that is not there, a refused option.
    #[error("service `{service}` cannot be started: {message}")]
    Unstartable {
        /// Who.
        service: String,
        /// The engine's words.
        message: String,
    },
    /// A service had to be killed where it was asked to stop.
    #[error(
        "service `{service}` did not stop within {grace:?} of {signal} and was killed; where its first process ignores the signal, `init: true` or another stop_signal helps{}",
        after(log)
    )]
    Killed {
        /// Who.
        service: String,
        /// What it was sent.
        signal: String,
        /// How long it had.
        grace: Duration,
        /// Its last lines.
        log: String,
    },
    /// A service stopped, but not well.
    #[error("service `{service}` stopped with exit code {exit_code}{}", after(log))]
    StoppedBadly {
        /// Who.
        service: String,
        /// How.
        exit_code: i64,
        /// Its last lines.
        log: String,
    },
    /// The daemon.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl StackFault {
    /// With the class that it has while a baseline is built.
    #[must_use]
    pub fn into_failure(self) -> WorkFailure {
        let reason = self.to_string();
        match self {
            Self::Engine(_) | Self::Ended { out_of_memory: Some(_), .. } => {
                WorkFailure::infrastructure(reason)
            }
            Self::Ended { log, .. }
            | Self::Unhealthy { log, .. }
            | Self::Endless { log, .. }
            | Self::Killed { log, .. }
            | Self::StoppedBadly { log, .. } => WorkFailure::baseline(reason).with_log(log),
            Self::Unstartable { .. } => WorkFailure::baseline(reason),
        }
    }
}

fn after(log: &str) -> String {
    if log.trim().is_empty() { String::new() } else { format!("\n{}", log.trim_end()) }
}
