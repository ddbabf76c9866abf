//! What the simulation in `tests/simulation` shares with the driver, so that there is one implementation of each.

pub use crate::restore::{Histories, candidate, stored_run};
pub use crate::round::Round;
