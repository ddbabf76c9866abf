//! Run specifications by digest: fetched once, kept while they are likely to be asked for again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use andon_proto::RunSpec;
use prost::Message;

use super::farm::FarmClient;
use crate::hands::WorkFailure;

/// The largest specification that is taken.
const SPEC_BYTES_MAX: usize = 16 << 20;
/// So many are kept.
const SPECS_KEPT: usize = 16;

#[derive(Debug)]
pub(super) struct Specs {
    farm: FarmClient,
    /// Most recently used first.
    kept: Mutex<VecDeque<(String, Arc<RunSpec>)>>,
}

impl Specs {
    pub(super) fn new(farm: FarmClient) -> Self {
        Self { farm, kept: Mutex::default() }
    }

    pub(super) async fn get(&self, digest: &str) -> Result<Arc<RunSpec>, WorkFailure> {
        if let Some(spec) = self.kept(digest) {
            return Ok(spec);
        }
        let bytes = self.farm.read_blob(digest, SPEC_BYTES_MAX).await.map_err(|error| {
            WorkFailure::infrastructure(format!("cannot have the run's specification: {error}"))
        })?;
        let spec = RunSpec::decode(bytes.as_slice())
            .map_err(|error| WorkFailure::config(format!("the run's specification is not one: {error}")))?;
        let spec = Arc::new(spec);
        let mut kept = self.kept.lock().expect("no holder of this lock panics");
        kept.push_front((digest.to_owned(), spec.clone()));
        kept.truncate(SPECS_KEPT);
        Ok(spec)
    }

    fn kept(&self, digest: &str) -> Option<Arc<RunSpec>> {
        let mut kept = self.kept.lock().expect("no holder of this lock panics");
        let place = kept.iter().position(|(known, _)| known == digest)?;
        let entry = kept.remove(place)?;
        let spec = entry.1.clone();
        kept.push_front(entry);
        Some(spec)
    }
}
