//! What the simulation in `tests/simulation` shares with the driver, and what fills stores (`examples/pages`) with the task that enters runs
//! into the ledger, so that there is one implementation of each.

use crate::owning::Owning;
pub use crate::restore::{Histories, candidate, stored_run};
pub use crate::round::Round;
use crate::store::{Store, StoreError};
pub use crate::views::entering::POINTS_MAX as JUDGED_RUNS;
use crate::views::entering::step;

/// Enters runs that wait for it, and answers how many there were; nobody owns their tests.
///
/// # Errors
/// Where the store fails.
pub async fn enter_ended(store: &dyn Store) -> Result<usize, StoreError> {
    step(store, &Owning::silent(), |_| ()).await
}
