//! The worker agent: one nested Docker daemon, a pool of baselines, lanes that tests run on, and the session with the
//! coordinator. It knows Docker (`engine/` and `outer/` only) and the wire (`link/`); it must not know git, the store
//! or the coordinator's crates. See `docs/architecture.md`.

pub mod agent;
pub mod baseline;
pub mod clock;
mod egress;
pub mod engine;
pub mod hands;
pub mod host;
pub mod images;
mod lane;
mod lane_docker;
pub mod link;
pub mod nested;
pub mod outer;
pub mod registry;
pub mod runner;
pub mod stack;

pub use lane::service_of_log;
