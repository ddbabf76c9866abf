//! What of a baseline's key is known before images are resolved.

use andon_proto::{BaselineInput, BaselineSpec, BaselineStep, Proof, Stack};
use prost::Message as _;

use super::{against, convert};
use crate::config::compose::Compose;
use crate::config::{Config, Image, Step, proof};
use crate::git::{GitError, Snapshot};

/// The most input files of a step that grows: they are told one by one, and stay in every manifest.
const GROWING_FILES_MAX: usize = 8192;

/// The baseline's part of a specification.
///
/// `inputs_digest` covers the files that `inputs` name and those beneath a bind of a service: both decide what the
/// seeded stack holds; each step has the digest of its own. `spec_digest` covers the stack, the steps, the proofs, those digests, and
/// the folders that services are built from; the seed runs in the first suite's image, whose reference (not whose content)
/// is covered too.
pub(super) fn baseline(
    snapshot: &Snapshot<'_>,
    config: &Config,
    compose: Option<&Compose>,
    stack: Option<&Stack>,
) -> Result<BaselineSpec, GitError> {
    let seed: Vec<String> = config.baseline.commands().map(|command| command.value.clone()).collect();
    let bound = against::bound_paths(compose);
    let named = against::named_paths(config.baseline.inputs());
    let (inputs_digest, _) = snapshot.digest(|path| named.is_match(path) || bound(path))?;
    let (bound_digest, _) = snapshot.digest(&bound)?;
    let steps = config.baseline.steps.iter().map(|step| self::step(snapshot, step));
    let steps = steps.collect::<Result<Vec<_>, _>>()?;
    let mut hasher = blake3::Hasher::new_derive_key("andon 2026 baseline specification");
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    // The compose file's own bytes are left out: a comment changes no baseline.
    let stack = stack.map(|stack| Stack { compose_digest: String::new(), ..stack.clone() });
    field(&stack.unwrap_or_default().encode_to_vec());
    field(bound_digest.as_bytes());
    for step in &steps {
        field(&(step.run.len() as u64).to_le_bytes());
        for command in &step.run {
            field(command.as_bytes());
        }
        field(step.inputs_digest.as_bytes());
    }
    field(&(steps.len() as u64).to_le_bytes());
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
    let proofs = config.baseline.proofs.iter();
    let sent = |proof: &proof::Proof| Proof {
        service: proof.service.value.clone(),
        run: proof.run.clone(),
        only_reads: proof.only_reads,
    };
    let proofs: Vec<Proof> = proofs.map(sent).collect();
    for proof in &proofs {
        field(b"proof");
        field(proof.service.as_bytes());
        field(proof.run.as_bytes());
    }
    Ok(BaselineSpec {
        seed,
        inputs_digest,
        labels: convert::pairs(&config.baseline.labels),
        seed_timeout_ms: u64::try_from(config.baseline.seed_timeout.as_millis()).unwrap_or(u64::MAX),
        spec_digest: hasher.finalize().to_hex().to_string(),
        inputs: config.baseline.inputs().map(|input| input.value.clone()).collect(),
        steps,
        bound_digest,
        proofs,
    })
}

fn step(snapshot: &Snapshot<'_>, step: &Step) -> Result<BaselineStep, GitError> {
    let named = against::named_paths(step.inputs.iter());
    let (inputs_digest, count) = snapshot.digest(|path| named.is_match(path))?;
    // Beyond the limit the step does not grow: it is run anew where a file is added.
    let grows = step.grows && usize::try_from(count).is_ok_and(|count| count <= GROWING_FILES_MAX);
    let mut files = Vec::new();
    if grows {
        let named = snapshot.file_digests(|path| named.is_match(path))?;
        files.extend(named.into_iter().map(|(path, digest)| BaselineInput { path, digest }));
    }
    Ok(BaselineStep {
        name: step.name.clone(),
        run: step.run.iter().map(|command| command.value.clone()).collect(),
        inputs: step.inputs.iter().map(|input| input.value.clone()).collect(),
        inputs_digest,
        grows,
        files,
        keep: step.keep,
    })
}
