//! Baselines on their way: from the pool to the farm, and back.
//!
//! ```text
//!   child's tree = parent's blobs (there already) + one blob of what changed; after LAYERS_MAX of them a whole one again
//! ```
//!
//! Knows the pool, and by depot.rs where blobs lie; must not know Docker. Invariants: a tree that was put together has the
//! digest that the manifest says, or the baseline is thrown away; what is here is not fetched, what is there is not sent.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use andon_proto::{BaselineLayer, BaselineManifest, BaselineTree};
use andon_snapshot::{Baseline, PoolError, TreeInfo};
use futures::stream::{self, StreamExt, TryStreamExt};
use thiserror::Error;

use super::depot::{Depot, GetFault, PutFault};
use super::shelf::{Shelf, Shelved, farm_fault, matches};
use crate::hands::{Notices, WorkFailure, blocking, notice};
use crate::registry::layers_of;

/// The most blobs that one tree is put together from.
const LAYERS_MAX: usize = 8;
/// Changes have to be smaller than this part of the whole tree's blob, or the tree goes whole again.
const CHANGES_PART_MAX: u64 = 2;
/// How many trees are packed, and how many blobs fetched, at a time.
const AT_ONCE_MAX: usize = 4;

/// Whether every tree is with the farm.
pub(crate) fn is_published(manifest: &BaselineManifest) -> bool {
    manifest.trees.iter().all(|tree| !tree.blob_digest.is_empty())
}

impl Shelf {
    /// Packs each tree and stores it: in the registry, or with the coordinator where there is none or it does not take it.
    /// Answers with the manifest that says where.
    pub(crate) async fn upload(
        &self,
        baseline: &Baseline,
        manifest: BaselineManifest,
        below: Option<&Shelved>,
        notices: &Notices,
    ) -> Result<BaselineManifest, WorkFailure> {
        if let Some(registry) = &self.registry {
            let depot = Depot::Registry(registry);
            match self.upload_to(depot, baseline, manifest.clone(), below).await {
                Ok(manifest) => return Ok(manifest),
                Err(PutFault::Here(failure)) => return Err(failure),
                // The build is not lost for it.
                Err(PutFault::There(why)) => {
                    notice(notices, format!("the baseline goes to the coordinator's store: {why}"));
                }
            }
        }
        let put = self.upload_to(Depot::Farm(self.farm.as_ref()), baseline, manifest, below).await;
        put.map_err(|fault| match fault {
            PutFault::Here(failure) => failure,
            PutFault::There(why) => {
                WorkFailure::infrastructure(format!("cannot publish baseline {}: {why}", baseline.key()))
            }
        })
    }

    /// As changes of the baseline below where there is one and it is worth it.
    async fn upload_to(
        &self,
        depot: Depot<'_>,
        baseline: &Baseline,
        mut manifest: BaselineManifest,
        below: Option<&Shelved>,
    ) -> Result<BaselineManifest, PutFault> {
        let trees = baseline.trees().iter().cloned().enumerate();
        let packing = trees.map(|(place, info)| self.upload_tree(depot, baseline, place, info, below));
        manifest.trees = stream::iter(packing).buffered(AT_ONCE_MAX).try_collect().await?;
        manifest.artifact = depot.seal(&manifest).await?;
        Ok(manifest)
    }

    async fn upload_tree(
        &self,
        depot: Depot<'_>,
        baseline: &Baseline,
        place: usize,
        info: TreeInfo,
        below: Option<&Shelved>,
    ) -> Result<BaselineTree, PutFault> {
        if let Some((under, tree)) = self.tree_below(depot, &info.name, below).await {
            if tree.tree_digest == info.tree_digest {
                return Ok(tree.clone());
            }
            let changes = self.pack(depot, baseline, place, &info, Some(&under.baseline)).await?;
            let whole = layers_of(tree).next().map_or(0, |layer| layer.blob_size);
            if changes.blob_size < whole / CHANGES_PART_MAX {
                return Ok(described(&info, changes, layers_of(tree).collect()));
            }
        }
        let whole = self.pack(depot, baseline, place, &info, None).await?;
        Ok(described(&info, whole, Vec::new()))
    }

    /// The tree of this name that changes can be told of: not too many layers, all of them in that place still.
    async fn tree_below<'a>(
        &self,
        depot: Depot<'_>,
        name: &str,
        below: Option<&'a Shelved>,
    ) -> Option<(&'a Shelved, &'a BaselineTree)> {
        let under = below?;
        let tree = under.manifest.trees.iter().find(|tree| tree.name == name)?;
        if tree.blob_digest.is_empty() || layers_of(tree).count() >= LAYERS_MAX {
            return None;
        }
        for layer in layers_of(tree) {
            if !depot.has(&layer).await {
                return None;
            }
        }
        Some((under, tree))
    }

    async fn pack(
        &self,
        depot: Depot<'_>,
        baseline: &Baseline,
        place: usize,
        info: &TreeInfo,
        below: Option<&Baseline>,
    ) -> Result<BaselineLayer, PutFault> {
        let short = baseline.key().get(..12).unwrap_or(baseline.key());
        let file = self.scratch.join(format!("pack-{short}-{place}.tar.zst"));
        let (packing, below) = (baseline.clone(), below.cloned());
        let (name, into) = (info.name.clone(), file.clone());
        let packed = blocking(move || {
            let io = |action, path: &PathBuf| {
                let path = path.clone();
                move |source| PoolError::Io { action, path, source }
            };
            let made = File::create(&into).map_err(io("create", &into))?;
            match below {
                Some(below) => packing.export_on(&name, &below, &made)?,
                None => packing.export(&name, &made)?,
            }
            made.metadata().map(|meta| meta.len()).map_err(io("read", &into))
        });
        let size = packed.await?.map_err(|error| farm_fault(&error))?;
        let stored = depot.put(&file, size).await;
        let _ = tokio::fs::remove_file(&file).await;
        stored.map_err(|fault| match fault {
            PutFault::There(why) => PutFault::There(format!("tree `{}` is not taken: {why}", info.name)),
            here @ PutFault::Here(_) => here,
        })
    }

    /// Gets what is missing of a published baseline, and puts it together in the pool.
    pub(crate) async fn fetch(
        &self,
        key: &str,
        manifest: BaselineManifest,
        notices: &Notices,
    ) -> Result<Shelved, FetchFault> {
        self.clear(key).await?;
        self.make_room(manifest.trees.iter().map(|tree| tree.bytes).sum()).await?;
        let bases: Vec<Base> = manifest.trees.iter().map(|tree| self.base_of(tree)).collect();
        let missing = missing_of(&manifest, &bases);
        let short = key.get(..12).unwrap_or(key);
        let total: u64 = manifest.trees.iter().flat_map(layers_of).map(|layer| layer.blob_size).sum();
        let wanted: u64 = missing.values().map(|layer| layer.blob_size).sum();
        let rest =
            if wanted < total { format!(" of {} MB, the rest is here", total >> 20) } else { String::new() };
        notice(
            notices,
            format!("fetching baseline {short}: {} tree(s), {} MB{rest}", manifest.trees.len(), wanted >> 20),
        );
        self.forget_downloads_but(&missing)?;
        let files = self.download(&manifest.artifact, missing.into_values()).await?;
        let put_together = self.put_together(key, &manifest, bases, &files).await;
        for file in files.values() {
            let _ = tokio::fs::remove_file(file).await;
        }
        let baseline = put_together?;
        if !matches(&baseline, &manifest) {
            drop(baseline);
            self.clear(key).await?;
            return Err(FetchFault::Failed(WorkFailure::infrastructure(format!(
                "baseline {key} as fetched is not what was published: a tree's digest differs"
            ))));
        }
        self.keep(&manifest)?;
        Ok(Shelved { baseline, manifest })
    }

    /// The baseline here whose tree of that name has the most of the wanted tree's layers.
    fn base_of(&self, wanted: &BaselineTree) -> Base {
        let name = wanted.name.as_str();
        let digests =
            |tree: &BaselineTree| layers_of(tree).map(|layer| layer.blob_digest).collect::<Vec<_>>();
        let layers = digests(wanted);
        let mut best = Base { here: None, layers: 0 };
        for shelved in self.all() {
            let Some(tree) = shelved.manifest.trees.iter().find(|tree| tree.name == name) else { continue };
            let have = digests(tree);
            if layers.starts_with(&have) && have.len() > best.layers {
                best = Base { layers: have.len(), here: Some(shelved.baseline) };
            }
        }
        best
    }

    /// What an earlier life began to fetch is gone on with, or goes: never more than one baseline's blobs lie about.
    fn forget_downloads_but(&self, wanted: &BTreeMap<String, BaselineLayer>) -> Result<(), WorkFailure> {
        let fault = |error: std::io::Error| {
            WorkFailure::infrastructure(format!("cannot use {}: {error}", self.downloads.display()))
        };
        let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let named = |layer: &BaselineLayer| {
            is_digest(&layer.blob_digest) && (layer.sha256.is_empty() || is_digest(&layer.sha256))
        };
        if !wanted.values().all(named) {
            return Err(WorkFailure::infrastructure("a published baseline names a blob by no digest"));
        }
        std::fs::create_dir_all(&self.downloads).map_err(fault)?;
        for entry in std::fs::read_dir(&self.downloads).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            if !entry.file_name().to_str().is_some_and(|name| wanted.contains_key(name)) {
                std::fs::remove_file(entry.path()).map_err(fault)?;
            }
        }
        Ok(())
    }

    async fn download(
        &self,
        artifact: &str,
        layers: impl Iterator<Item = BaselineLayer>,
    ) -> Result<BTreeMap<String, PathBuf>, FetchFault> {
        let fetching = layers.map(|layer| async move {
            let file = self.downloads.join(&layer.blob_digest);
            self.obtain(&layer, artifact, &file).await?;
            Ok::<_, FetchFault>((layer.blob_digest, file))
        });
        stream::iter(fetching).buffer_unordered(AT_ONCE_MAX).try_collect().await
    }

    async fn put_together(
        &self,
        key: &str,
        manifest: &BaselineManifest,
        bases: Vec<Base>,
        files: &BTreeMap<String, PathBuf>,
    ) -> Result<Baseline, WorkFailure> {
        let (pool, key, files, trees) =
            (self.pool.clone(), key.to_owned(), files.clone(), manifest.trees.clone());
        let put_together = blocking(move || {
            let mut staging = pool.stage(&key)?;
            for (tree, base) in trees.iter().zip(bases) {
                let mut layers = Vec::new();
                for layer in layers_of(tree).skip(base.layers) {
                    let path = &files[&layer.blob_digest];
                    let opened = File::open(path);
                    layers.push(opened.map_err(|source| PoolError::Io {
                        action: "open",
                        path: path.clone(),
                        source,
                    })?);
                }
                staging.import_layers(&tree.name, base.here.as_ref(), layers)?;
            }
            staging.publish(serde_json::Value::Null)
        });
        put_together.await?.map_err(|error| farm_fault(&error))
    }
}

/// Why a published baseline is not here.
#[derive(Debug, Error)]
pub(crate) enum FetchFault {
    /// Nobody will have it from there any more.
    #[error("{0}")]
    Gone(String),
    /// It may be had later, or by another worker.
    #[error(transparent)]
    Failed(#[from] WorkFailure),
}

impl From<GetFault> for FetchFault {
    fn from(fault: GetFault) -> Self {
        match fault {
            GetFault::Gone(why) => Self::Gone(why),
            GetFault::Failed(why) => Self::Failed(WorkFailure::infrastructure(format!("cannot fetch {why}"))),
        }
    }
}

/// What is here of a tree: the baseline that has its first layers, and how many these are.
struct Base {
    here: Option<Baseline>,
    layers: usize,
}

/// Every layer that is needed and not here, by its digest.
fn missing_of(manifest: &BaselineManifest, bases: &[Base]) -> BTreeMap<String, BaselineLayer> {
    let trees = manifest.trees.iter().zip(bases);
    let layers = trees.flat_map(|(tree, base)| layers_of(tree).skip(base.layers));
    layers.map(|layer| (layer.blob_digest.clone(), layer)).collect()
}

fn described(info: &TreeInfo, top: BaselineLayer, lower: Vec<BaselineLayer>) -> BaselineTree {
    let BaselineLayer { blob_digest, blob_size, sha256 } = top;
    BaselineTree {
        name: info.name.clone(),
        blob_digest,
        blob_size,
        sha256,
        files: info.files,
        bytes: info.bytes,
        tree_digest: info.tree_digest.clone(),
        lower,
    }
}

/// A tree that is not with the farm yet.
pub(crate) fn unpublished(info: &TreeInfo) -> BaselineTree {
    described(info, BaselineLayer::default(), Vec::new())
}
