//! How a call is refused: a status and a message, in Docker's own form.

use hyper::StatusCode;

/// A call that is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// For a person; names what was refused.
    pub(super) message: String,
}

impl Refusal {
    /// The request makes no sense.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// A lane may not do that.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, message: message.into() }
    }

    /// Not there, or not this lane's: the two read the same.
    pub(super) fn absent(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: message.into() }
    }

    /// Something of that name is there.
    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self { status: StatusCode::CONFLICT, message: message.into() }
    }

    /// The worker or its daemon.
    pub(super) fn broken(message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message: message.into() }
    }

    /// `{"message": …}`.
    pub(super) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "message": self.message })
    }
}
