//! What the simulation in `tests/simulation` shares with the driver, and what fills stores (`examples/pages`) with the task that enters runs
//! into the ledger, so that there is one implementation of each.

pub use crate::restore::{Histories, candidate, stored_run};
pub use crate::round::Round;
pub use crate::views::entering::{POINTS_MAX as JUDGED_RUNS, step as enter_ended};
