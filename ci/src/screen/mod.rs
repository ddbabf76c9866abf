//! What `andon watch` shows on a whole terminal: the run, other runs, lanes, failures as they come, the end of a failing log.
//!
//! ```text
//!   Input (an event of the farm, a key, an answer) ──> model::Screen ──> Effect (follow, fetch, leave)
//!                                                          │
//!                                                     draw::draw ──> a frame
//! ```
//!
//! Both halves are pure: no terminal, no farm, no clock. `cli::screen` connects them to all three. Invariant: whatever names and
//! logs hold, what is drawn is harmless for a terminal and as large as the terminal.

mod draw;
mod model;
#[cfg(test)]
mod tests;

pub(crate) use draw::draw;
pub(crate) use model::{Effect, Input, Key, Screen, Wanted};
