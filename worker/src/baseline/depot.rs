//! Where a baseline's blobs lie: in the registry, where this worker has one, or in the coordinator's blob store.
//!
//! ```text
//!   publish:  registry ──(away, refuses, full)──> coordinator's store       all blobs of a baseline in one of the two
//!   fetch:    named by SHA-256? registry ──(away, refuses, has it not)──> coordinator's store ──> told what is missing, where
//! ```
//!
//! Must not know the pool. Invariant: only this worker's own registry is asked; what a manifest says of another is told, and
//! never followed: manifests come from outside.

use std::path::Path;

use andon_proto::{BaselineLayer, BaselineManifest};
use thiserror::Error;

use super::shelf::Shelf;
use crate::hands::{Farm, FarmError, WorkFailure};
use crate::registry::{Registry, RegistryError};

/// One of the two places, to publish to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Depot<'a> {
    Farm(&'a dyn Farm),
    Registry(&'a Registry),
}

/// A baseline could not be put into a place.
#[derive(Debug, Error)]
pub(super) enum PutFault {
    /// This worker could not make what it wanted to put there.
    #[error(transparent)]
    Here(#[from] WorkFailure),
    /// The place did not take it.
    #[error("{0}")]
    There(String),
}

impl Depot<'_> {
    /// Whether the layer is there. Not knowing is as good as not having.
    pub(super) async fn has(&self, layer: &BaselineLayer) -> bool {
        match self {
            Self::Farm(farm) => matches!(farm.has_blob(&layer.blob_digest).await, Ok(true)),
            Self::Registry(registry) => {
                !layer.sha256.is_empty() && matches!(registry.has_blob(&layer.sha256).await, Ok(true))
            }
        }
    }

    /// Stores a file's bytes; answers with how a manifest names them.
    pub(super) async fn put(&self, file: &Path, size: u64) -> Result<BaselineLayer, PutFault> {
        match self {
            Self::Farm(farm) => {
                let put = farm.put_blob(file).await;
                let blob_digest = put.map_err(|error| PutFault::There(error.to_string()))?;
                Ok(BaselineLayer { blob_digest, blob_size: size, sha256: String::new() })
            }
            Self::Registry(registry) => {
                let put = registry.put_blob(file).await;
                let (layer, sent) = put.map_err(|error| PutFault::There(error.to_string()))?;
                tracing::debug!(
                    sha256 = layer.sha256,
                    bytes = layer.blob_size,
                    sent,
                    "a layer for the registry"
                );
                Ok(layer)
            }
        }
    }

    /// All blobs are there: says so. Answers with the artifact's address, if it is one.
    pub(super) async fn seal(&self, manifest: &BaselineManifest) -> Result<String, PutFault> {
        match self {
            Self::Farm(_) => Ok(String::new()),
            Self::Registry(registry) => {
                let put = registry.put_artifact(manifest).await;
                put.map_err(|error| PutFault::There(error.to_string()))
            }
        }
    }
}

/// Why a blob cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GetFault {
    /// It is nowhere any more; so it was published there.
    Gone(String),
    /// It may be had later, or by another worker.
    Failed(String),
}

/// What became of asking a registry for a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    /// The blob was never in a registry.
    NotThere,
    /// It is in one, and this worker has none.
    NoRegistry,
    Failed(RegistryError),
}

impl Shelf {
    /// Has the blob in a file, whole, from wherever it is. What an earlier call left in the file is gone on with.
    pub(super) async fn obtain(
        &self,
        layer: &BaselineLayer,
        artifact: &str,
        file: &Path,
    ) -> Result<(), GetFault> {
        let asked = match (&self.registry, layer.sha256.is_empty()) {
            (_, true) => Asked::NotThere,
            (None, false) => Asked::NoRegistry,
            (Some(registry), false) => match registry.resume_blob(layer, file).await {
                Ok(()) => return Ok(()),
                Err(error) => Asked::Failed(error),
            },
        };
        let stored = match asked {
            // It should be there: no need to ask first.
            Asked::NotThere => Ok(true),
            _ => self.farm.has_blob(&layer.blob_digest).await,
        };
        let got = match stored {
            Ok(true) => self.farm.resume_blob(&layer.blob_digest, file).await,
            Ok(false) => Err(FarmError::NoBlob(layer.blob_digest.clone())),
            Err(error) => Err(error),
        };
        let own = self.registry.as_ref().map(Registry::address);
        got.map_err(|stored| verdict(layer, artifact, own.as_deref(), &asked, &stored))
    }
}

/// What is said of a blob that neither place gave.
fn verdict(
    layer: &BaselineLayer,
    artifact: &str,
    own: Option<&str>,
    asked: &Asked,
    stored: &FarmError,
) -> GetFault {
    let digest = &layer.blob_digest;
    let is_gone = matches!(stored, FarmError::NoBlob(_));
    let stored = if is_gone { "the coordinator's store has no copy".to_owned() } else { stored.to_string() };
    let published = if artifact.is_empty() { String::new() } else { format!(" of {artifact}") };
    let blob = format!("blob {digest}{published}");
    match asked {
        Asked::NotThere if is_gone => GetFault::Gone(format!("{blob}: {stored}")),
        Asked::NotThere => GetFault::Failed(format!("{blob}: {stored}")),
        Asked::NoRegistry => GetFault::Failed(format!(
            "{blob} is in a registry, and this worker has none (ANDON_REGISTRY); {stored}"
        )),
        Asked::Failed(error @ RegistryError::Missing { .. }) if is_gone => {
            // Gone only from where it was put: another registry may never have had it.
            let here =
                own.is_some_and(|own| artifact.strip_prefix(own).is_some_and(|rest| rest.starts_with(':')));
            let said = format!("{blob}: {error}; {stored}");
            if here { GetFault::Gone(said) } else { GetFault::Failed(said) }
        }
        Asked::Failed(error) => GetFault::Failed(format!("{blob}: {error}; {stored}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARTIFACT: &str = "h:5000/andon:k@sha256:d";

    fn judged(artifact: &str, own: Option<&str>, asked: &Asked, stored: &FarmError) -> GetFault {
        let layer = BaselineLayer { blob_digest: "b".into(), blob_size: 1, sha256: "s".into() };
        verdict(&layer, artifact, own, asked, stored)
    }

    fn none() -> FarmError {
        FarmError::NoBlob("b".into())
    }

    #[test]
    fn a_blob_is_gone_only_where_its_place_says_so() {
        let missing =
            Asked::Failed(RegistryError::Missing { registry: "h:5000/andon".into(), what: "blob".into() });
        let away =
            Asked::Failed(RegistryError::Away { registry: "h:5000/andon".into(), why: "refused".into() });
        let broken = || FarmError::Broken("cut".into());
        let is_gone = |fault: GetFault| matches!(fault, GetFault::Gone(_));
        assert!(is_gone(judged(ARTIFACT, Some("h:5000/andon"), &missing, &none())));
        assert!(is_gone(judged("", None, &Asked::NotThere, &none())));
        for other in [Some("h:5000/and"), Some("other/andon"), None] {
            assert!(!is_gone(judged(ARTIFACT, other, &missing, &none())), "{other:?}");
        }
        assert!(!is_gone(judged(ARTIFACT, Some("h:5000/andon"), &missing, &broken())));
        assert!(!is_gone(judged(ARTIFACT, Some("h:5000/andon"), &away, &none())));
        assert!(!is_gone(judged("", None, &Asked::NotThere, &broken())));
    }

    #[test]
    fn what_is_missing_is_told_with_both_places() {
        let GetFault::Failed(said) = judged(ARTIFACT, None, &Asked::NoRegistry, &none()) else { panic!() };
        for part in [ARTIFACT, "ANDON_REGISTRY", "the coordinator's store has no copy"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
