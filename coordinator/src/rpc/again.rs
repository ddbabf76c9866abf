//! Reruns, as pages ask for them: through one narrow door, which leads to the call that clients make.

use andon_core::ids::{RunId, TestIx};
use andon_proto as wire;
use tonic::Status;

use super::farm::FarmService;
use super::internal;
use crate::driver::Farm;

/// What pages may ask to be run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// What failed, or what the farm could not run.
    Failed,
    /// The test at this place.
    Test(TestIx),
}

/// The one door through which pages ask for something: a rerun, as the call of that name makes it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reruns {
    farm: Farm,
}

impl Reruns {
    pub(crate) fn new(farm: Farm) -> Self {
        Self { farm }
    }

    /// The number of the new run. Asked twice with one `once`, it is one.
    ///
    /// # Errors
    /// As the call's.
    pub(crate) async fn ask(&self, run: u64, what: Again, by: &str, once: &str) -> Result<u64, Status> {
        let service = FarmService::new(self.farm.clone());
        let tests = match what {
            Again::Failed => Vec::new(),
            Again::Test(test) => {
                let found = self.farm.store.test(RunId(run), test).await.map_err(|error| internal(&error))?;
                let found = found.ok_or_else(|| Status::not_found(format!("run {run} has no such test")))?;
                vec![format!("{}/{}", found.suite, found.id)]
            }
        };
        let failed = what == Again::Failed;
        let dedup_key = format!("page:{run}:{once}");
        let request = wire::RerunRequest { run, failed, tests, dedup_key, ..wire::RerunRequest::default() };
        Ok(service.again(request, Some(by.to_owned())).await?.into_inner().run)
    }
}

impl std::fmt::Debug for Reruns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reruns")
    }
}
