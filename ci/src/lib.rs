//! What CI systems and developers touch: configuration, git triggers, submission.
//!
//! The library of the `andon` command. It must not know how tests are scheduled or rebased; of the farm it knows the
//! wire. Start at [`spec::prepare`] (a commit becomes a run) and [`submit::submit`] (the run reaches the farm).

mod clock;
pub mod config;
pub mod connect;
pub mod download;
pub mod forge;
pub mod gateway;
pub mod git;
pub mod hook;
pub mod record;
pub mod spec;
pub mod submit;
pub mod why;

#[cfg(test)]
mod testing;
