//! HTTP beside gRPC on the coordinator's TCP address: JSON API, metrics, pages. It looks by [`crate::views`] and cannot reach the driver.
//!
//! ```text
//!   TCP ──> gRPC (application/grpc)                    tokens of its own, rpc/mod.rs
//!      └──> guard (Host, token or sign-in) ──> /api/v1   api.rs: views as JSON, OpenAPI
//!                                          ──> /metrics  metrics.rs
//!                                          ──> /         pages
//! ```

use std::sync::Arc;

use crate::views::Views;

/// What every handler is given. Cheap to clone.
#[derive(Clone)]
pub(crate) struct State {
    /// What there is to see.
    pub(crate) views: Views,
    /// Digest of the client token: digests compare in constant time.
    pub(crate) client_token: Arc<blake3::Hash>,
    /// It listens on this machine's loopback alone: who can connect may look.
    pub(crate) is_loopback: bool,
}
