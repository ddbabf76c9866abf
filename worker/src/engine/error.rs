//! What can go wrong with an engine, by what a caller can do about it.

use std::time::Duration;

use thiserror::Error;

/// A call to the engine failed. `what` names the call and its object: `start container lane0-db`.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum EngineError {
    /// The object, or one that it needs, is absent.
    #[error("cannot {what}: not found: {message}")]
    NotFound {
        /// The call and its object.
        what: String,
        /// The engine's own words.
        message: String,
    },
    /// The object exists already, is in use, or is in a state that the call does not allow.
    #[error("cannot {what}: {message}")]
    Conflict {
        /// The call and its object.
        what: String,
        /// The engine's own words.
        message: String,
    },
    /// No daemon answered, or the connection broke.
    #[error("cannot {what}: the Docker engine at {address} cannot be reached: {message}")]
    Unreachable {
        /// The call and its object.
        what: String,
        /// The daemon's address.
        address: String,
        /// The connection's error.
        message: String,
    },
    /// The daemon understood and said no, or failed itself.
    #[error("cannot {what}: the Docker engine answered {status}: {message}")]
    Refused {
        /// The call and its object.
        what: String,
        /// The HTTP status; 200 where the refusal came within a stream.
        status: u16,
        /// The engine's own words.
        message: String,
    },
    /// Every range of addresses that the engine may give to networks is taken.
    #[error(
        "cannot {what}: the Docker engine at {address} has no addresses left for another network ({message}): see with `docker network ls` what has them and remove what is left over; a worker has 256 ranges, so with many lanes give it fewer, or let tests make fewer networks"
    )]
    NoAddresses {
        /// The call and its object.
        what: String,
        /// The daemon's address.
        address: String,
        /// The engine's own words.
        message: String,
    },
    /// No answer within the limit; what the call does may still happen.
    #[error("cannot {what}: no answer within {limit:?}")]
    TimedOut {
        /// The call and its object.
        what: String,
        /// The limit that passed.
        limit: Duration,
    },
    /// The daemon answered something that makes no sense.
    #[error("cannot {what}: unexpected answer of the Docker engine: {message}")]
    Protocol {
        /// The call and its object.
        what: String,
        /// What was wrong with the answer.
        message: String,
    },
    /// The caller's own side of a stream (an image being loaded) failed.
    #[error("cannot {what}: {message}")]
    Input {
        /// The call and its object.
        what: String,
        /// The stream's error.
        message: String,
    },
}

/// Whether an engine says that it has no range of addresses left. It has no status of its own (moby, libnetwork/ipamapi:
/// `ErrNoAvailablePool`; since 27 in other words).
#[must_use]
pub(crate) fn is_out_of_addresses(message: &str) -> bool {
    ["non-overlapping IPv4 address pool", "address pools have been fully subnetted"]
        .iter()
        .any(|words| message.contains(words))
}

impl EngineError {
    /// Whether the object is absent.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the object exists already or its state forbids the call.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// Whether the daemon itself may be gone.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// A build gave no image.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum BuildError {
    /// The Dockerfile's own fault.
    #[error("{0}")]
    Failed(BuildFailure),
    /// The engine's.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A build whose Dockerfile failed.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[error("the image build failed: {message}")]
pub struct BuildFailure {
    /// The builder's last word.
    pub message: String,
    /// What the build printed, head and tail.
    pub log: String,
}
