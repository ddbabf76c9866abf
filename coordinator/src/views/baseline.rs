//! Baselines: where they come from and who starts from them.

use std::collections::BTreeSet;

use andon_proto::{BaselineManifest, BaselineTree as WireTree};
use prost::Message as _;

use super::{
    Ancestor, Baseline, BaselineLine, BaselineService, BaselineStep, BaselineTree, ViewError, Views, lines,
};
use crate::store::ledger::{FROM_THE_NEWEST, RunsOf};

/// Baselines that are listed.
const LISTED_MAX: usize = 200;
/// What a baseline was built on is followed so far.
const ANCESTORS_MAX: usize = 50;
/// Runs that start from it.
const RUNS_MAX: u32 = 30;

impl Views {
    /// Published baselines, the latest first.
    pub(crate) async fn baselines(&self) -> Result<Vec<BaselineLine>, ViewError> {
        let stored = self.store.baselines().await?;
        Ok(stored
            .iter()
            .take(LISTED_MAX)
            .filter_map(|bytes| read(bytes))
            .map(|manifest| line(&manifest))
            .collect())
    }

    /// One of them, by its whole key.
    pub(crate) async fn baseline(&self, key: &str) -> Result<Baseline, ViewError> {
        let manifest = self.manifest(key).await?;
        let manifest =
            manifest.ok_or_else(|| ViewError::NotFound(format!("no baseline has the key {key:?}")))?;
        let runs = self.store.runs_of(&RunsOf::Baseline(key.to_owned()), FROM_THE_NEWEST, RUNS_MAX).await?;
        Ok(Baseline {
            line: line(&manifest),
            ancestors: self.ancestors(&manifest).await?,
            artifact: manifest.artifact,
            labels: manifest.labels.into_iter().map(|label| (label.key, label.value)).collect(),
            steps: manifest
                .steps
                .into_iter()
                .map(|step| BaselineStep {
                    key: step.key,
                    name: step.name,
                    run: step.run,
                    took_ms: step.took_ms,
                })
                .collect(),
            services: manifest
                .services
                .into_iter()
                .map(|service| BaselineService {
                    name: service.name,
                    reference: service.reference,
                    image_id: service.image_id,
                    build_key: service.build_key,
                })
                .collect(),
            trees: manifest.trees.into_iter().map(tree).collect(),
            runs: runs.into_iter().map(lines::run).collect(),
        })
    }

    async fn manifest(&self, key: &str) -> Result<Option<BaselineManifest>, ViewError> {
        Ok(self.store.baseline(key).await?.as_deref().and_then(read))
    }

    async fn ancestors(&self, of: &BaselineManifest) -> Result<Vec<Ancestor>, ViewError> {
        let (mut ancestors, mut seen) = (Vec::new(), BTreeSet::from([of.key.clone()]));
        let mut key = of.parent_key.clone();
        while !key.is_empty() && ancestors.len() < ANCESTORS_MAX && seen.insert(key.clone()) {
            let manifest = self.manifest(&key).await?;
            ancestors.push(Ancestor { key, line: manifest.as_ref().map(line) });
            key = manifest.map(|manifest| manifest.parent_key).unwrap_or_default();
        }
        Ok(ancestors)
    }
}

/// What a worker published may be anything: what cannot be read is not shown.
fn read(bytes: &[u8]) -> Option<BaselineManifest> {
    BaselineManifest::decode(bytes).ok()
}

fn line(manifest: &BaselineManifest) -> BaselineLine {
    BaselineLine {
        key: manifest.key.clone(),
        project: manifest.project.clone(),
        built_unix_ms: manifest.built_unix_ms,
        build_ms: manifest.build_ms,
        bytes: manifest.trees.iter().fold(0, |sum, tree| sum.saturating_add(tree.bytes)),
        parent_key: manifest.parent_key.clone(),
        root_key: manifest.root_key.clone(),
    }
}

fn tree(tree: WireTree) -> BaselineTree {
    let lower = tree.lower.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.blob_size));
    BaselineTree {
        name: tree.name,
        files: tree.files,
        bytes: tree.bytes,
        blob_bytes: lower.saturating_add(tree.blob_size),
        tree_digest: tree.tree_digest,
    }
}
