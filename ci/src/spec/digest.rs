//! What of a baseline's key is known before images are resolved.

use andon_proto::{BaselineSpec, Stack};
use prost::Message as _;

use super::{against, convert};
use crate::config::compose::Compose;
use crate::config::{Config, Image};
use crate::git::{GitError, Snapshot};

/// The baseline's part of a specification.
///
/// `inputs_digest` covers the files that `inputs` names and those beneath a bind of a service: both decide what the
/// seeded stack holds. `spec_digest` covers the stack, the seed, that digest, and the folders that services are
/// built from; the seed runs in the first suite's image, whose reference (not whose content) is covered too.
pub(super) fn baseline(
    snapshot: &Snapshot<'_>,
    config: &Config,
    compose: Option<&Compose>,
    stack: Option<&Stack>,
) -> Result<BaselineSpec, GitError> {
    let seed: Vec<String> = config.baseline.seed.iter().map(|command| command.value.clone()).collect();
    let (inputs_digest, _) = snapshot.digest(against::input_paths(config, compose))?;
    let mut hasher = blake3::Hasher::new_derive_key("andon 2026 baseline specification");
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    // The compose file's own bytes are left out: a comment changes no baseline.
    let stack = stack.map(|stack| Stack { compose_digest: String::new(), ..stack.clone() });
    field(&stack.unwrap_or_default().encode_to_vec());
    field(&(seed.len() as u64).to_le_bytes());
    for command in &seed {
        field(command.as_bytes());
    }
    field(inputs_digest.as_bytes());
    for service in compose.map(|compose| compose.services.as_slice()).unwrap_or_default() {
        if let Image::Build(build) = &service.image.value {
            let (digest, _) = snapshot.digest(|path| build.context.holds(path))?;
            field(digest.as_bytes());
        }
    }
    let first = config.suites.first().filter(|_| !seed.is_empty());
    if let Some(Image::Reference(reference)) = first.map(|suite| &suite.image.value) {
        field(reference.as_bytes());
    }
    Ok(BaselineSpec {
        seed,
        inputs_digest,
        labels: convert::pairs(&config.baseline.labels),
        seed_timeout_ms: u64::try_from(config.baseline.seed_timeout.as_millis()).unwrap_or(u64::MAX),
        spec_digest: hasher.finalize().to_hex().to_string(),
        inputs: config.baseline.inputs.iter().map(|input| input.value.clone()).collect(),
    })
}
