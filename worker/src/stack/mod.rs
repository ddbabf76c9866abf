//! A stack on a network: which containers it is made of, their order, their health, their end.
//!
//! Must not know pools, baselines, lanes or runs: trees are paths to it, and a stack is put up where it is told.
//!
//! ```text
//!   Stack + images ──plan──> StackPlan ──container──> specs ──(made by the lane)──> bring_up ──> healthy
//!                                                                                  kill_all / stop_cleanly
//! ```

mod fault;
mod front;
mod health;
mod kept;
mod order;
mod pause;
mod plan;
mod rig;
mod sandbox;
mod up;
mod wire;

pub use fault::StackFault;
pub use front::{fronts, hosts_lines};
pub use health::Probe;
pub use order::{Order, OrderRefused, Stage};
pub use plan::{PlanRefused, ServicePlan, Site, StackPlan, TreeMount};
pub use rig::{
    LANE_LABEL, Rig, RigFault, create_network, ensure_network, lane_labels, stand_labels, sweep, sweep_stand,
};
pub use sandbox::{Sandbox, SandboxSpec, joins};
pub use up::{Completing, bring_up, kill_all, last_lines, stop_cleanly, tail};
pub use wire::{Lead, Wire};
