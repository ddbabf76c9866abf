//! The session with the coordinator: leases come in, results go out and are sent again until they are acknowledged, and
//! work whose lease may be over is stopped (self-fencing).
//!
//! ```text
//!   driver ── owns ──> Session (pure: inputs in, effects out) ── Outbox (pure)
//!     │ effects                      ^ inputs
//!     ├──> bench: one task a lane ───┤ results, ends          ──> Crew: the seam to crate::hands
//!     └──> connection: one task ─────┘ words of the coordinator
//!   farm: blobs, baselines, images, on a connection of its own
//! ```
//!
//! It knows the wire and leases; it must not know Docker, baselines or how tests run.

mod backoff;
mod bench;
mod connection;
mod crew;
mod dial;
mod driver;
mod farm;
mod outbox;
mod session;
mod show;
mod specs;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod upload;

pub(crate) use backoff::Backoff;
pub use crew::{Crew, Job, Unit};
pub use dial::{AddressError, Coordinator};
pub use driver::{DRAIN_LIMIT, Health, LinkError, LinkOptions, run};
pub use farm::FarmClient;
