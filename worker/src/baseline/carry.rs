//! Baselines on their way: from the pool to the farm, and back.
//!
//! ```text
//!   child's tree = parent's blobs (there already) + one blob of what changed; after LAYERS_MAX of them a whole one again
//! ```
//!
//! Knows the pool and the farm's blobs; must not know Docker. Invariants: a tree that was put together has the digest that the
//! manifest says, or the baseline is thrown away; what is here is not fetched, what is there is not sent.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use andon_proto::{BaselineLayer, BaselineManifest, BaselineTree};
use andon_snapshot::{Baseline, PoolError, TreeInfo};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::shelf::{Shelf, Shelved, farm_fault, matches};
use crate::hands::{Notices, WorkFailure, blocking, notice};

/// The most blobs that one tree is put together from.
const LAYERS_MAX: usize = 8;
/// Changes have to be smaller than this part of the whole tree's blob, or the tree goes whole again.
const CHANGES_PART_MAX: u64 = 2;
/// How many trees are packed, and how many blobs fetched, at a time.
const AT_ONCE_MAX: usize = 4;

/// The blobs of a tree, from the bottom.
pub(crate) fn blobs_of(tree: &BaselineTree) -> impl Iterator<Item = (&str, u64)> {
    let lower = tree.lower.iter().map(|layer| (layer.blob_digest.as_str(), layer.blob_size));
    lower.chain(std::iter::once((tree.blob_digest.as_str(), tree.blob_size)))
}

/// Whether every tree is with the farm.
pub(crate) fn is_published(manifest: &BaselineManifest) -> bool {
    manifest.trees.iter().all(|tree| !tree.blob_digest.is_empty())
}

impl Shelf {
    /// Packs each tree and stores it with the farm, as changes of the baseline below where there is one and it is worth it.
    /// Answers with the manifest that says where.
    pub(crate) async fn upload(
        &self,
        baseline: &Baseline,
        mut manifest: BaselineManifest,
        below: Option<&Shelved>,
    ) -> Result<BaselineManifest, WorkFailure> {
        let trees = baseline.trees().iter().cloned().enumerate();
        let packing = trees.map(|(place, info)| self.upload_tree(baseline, place, info, below));
        manifest.trees = stream::iter(packing).buffered(AT_ONCE_MAX).try_collect().await?;
        Ok(manifest)
    }

    async fn upload_tree(
        &self,
        baseline: &Baseline,
        place: usize,
        info: TreeInfo,
        below: Option<&Shelved>,
    ) -> Result<BaselineTree, WorkFailure> {
        if let Some((under, tree)) = self.tree_below(&info.name, below).await {
            if tree.tree_digest == info.tree_digest {
                return Ok(tree.clone());
            }
            let (digest, size) = self.pack(baseline, place, &info, Some(&under.baseline)).await?;
            let whole = blobs_of(tree).next().map_or(0, |(_, size)| size);
            if size < whole / CHANGES_PART_MAX {
                let layer = |(digest, size): (&str, u64)| BaselineLayer {
                    blob_digest: digest.to_owned(),
                    blob_size: size,
                };
                return Ok(described(&info, digest, size, blobs_of(tree).map(layer).collect()));
            }
        }
        let (digest, size) = self.pack(baseline, place, &info, None).await?;
        Ok(described(&info, digest, size, Vec::new()))
    }

    /// The tree of this name that changes can be told of: not too many layers, all of them with the farm still.
    async fn tree_below<'a>(
        &self,
        name: &str,
        below: Option<&'a Shelved>,
    ) -> Option<(&'a Shelved, &'a BaselineTree)> {
        let under = below?;
        let tree = under.manifest.trees.iter().find(|tree| tree.name == name)?;
        if tree.blob_digest.is_empty() || blobs_of(tree).count() >= LAYERS_MAX {
            return None;
        }
        for (digest, _) in blobs_of(tree) {
            // Not knowing is as good as not having: the tree goes whole.
            if !matches!(self.farm.has_blob(digest).await, Ok(true)) {
                return None;
            }
        }
        Some((under, tree))
    }

    async fn pack(
        &self,
        baseline: &Baseline,
        place: usize,
        info: &TreeInfo,
        below: Option<&Baseline>,
    ) -> Result<(String, u64), WorkFailure> {
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
        let stored = self.farm.put_blob(&file).await;
        let _ = tokio::fs::remove_file(&file).await;
        let digest = stored.map_err(|error| {
            WorkFailure::infrastructure(format!("cannot publish tree `{}`: {error}", info.name))
        })?;
        Ok((digest, size))
    }

    /// Gets what is missing of a published baseline, and puts it together in the pool.
    pub(crate) async fn fetch(
        &self,
        key: &str,
        manifest: BaselineManifest,
        notices: &Notices,
    ) -> Result<Shelved, WorkFailure> {
        self.clear(key).await?;
        self.make_room(manifest.trees.iter().map(|tree| tree.bytes).sum()).await?;
        let bases: Vec<Base> = manifest.trees.iter().map(|tree| self.base_of(tree)).collect();
        let missing = missing_of(&manifest, &bases);
        let short = key.get(..12).unwrap_or(key);
        let total: u64 = manifest.trees.iter().flat_map(blobs_of).map(|(_, size)| size).sum();
        let wanted: u64 = missing.values().sum();
        let rest =
            if wanted < total { format!(" of {} MB, the rest is here", total >> 20) } else { String::new() };
        notice(
            notices,
            format!("fetching baseline {short}: {} tree(s), {} MB{rest}", manifest.trees.len(), wanted >> 20),
        );
        self.forget_downloads_but(&missing)?;
        let files = self.download(missing.into_keys()).await?;
        let put_together = self.put_together(key, &manifest, bases, &files).await;
        for file in files.values() {
            let _ = tokio::fs::remove_file(file).await;
        }
        let baseline = put_together?;
        if !matches(&baseline, &manifest) {
            drop(baseline);
            self.clear(key).await?;
            return Err(WorkFailure::infrastructure(format!(
                "baseline {key} as fetched is not what was published: a tree's digest differs"
            )));
        }
        self.keep(&manifest)?;
        Ok(Shelved { baseline, manifest })
    }

    /// The baseline here whose tree of that name has the most of the wanted tree's layers.
    fn base_of(&self, wanted: &BaselineTree) -> Base {
        let wanted: Vec<&str> =
            blobs_of(wanted).map(|(digest, _)| digest).chain([wanted.name.as_str()]).collect();
        let (layers, name) = (&wanted[..wanted.len() - 1], wanted[wanted.len() - 1]);
        let mut best = Base { here: None, layers: 0 };
        for shelved in self.all() {
            let Some(tree) = shelved.manifest.trees.iter().find(|tree| tree.name == name) else { continue };
            let have: Vec<&str> = blobs_of(tree).map(|(digest, _)| digest).collect();
            if layers.starts_with(&have) && have.len() > best.layers {
                best = Base { layers: have.len(), here: Some(shelved.baseline) };
            }
        }
        best
    }

    /// What an earlier life began to fetch is gone on with, or goes: never more than one baseline's blobs lie about.
    fn forget_downloads_but(&self, wanted: &BTreeMap<String, u64>) -> Result<(), WorkFailure> {
        let fault = |error: std::io::Error| {
            WorkFailure::infrastructure(format!("cannot use {}: {error}", self.downloads.display()))
        };
        if wanted.keys().any(|digest| digest.len() != 64 || !digest.bytes().all(|c| c.is_ascii_hexdigit())) {
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
        digests: impl Iterator<Item = String>,
    ) -> Result<BTreeMap<String, PathBuf>, WorkFailure> {
        let fetching = digests.map(|digest| async move {
            let file = self.downloads.join(&digest);
            let got = self.farm.resume_blob(&digest, &file).await;
            got.map_err(|error| WorkFailure::infrastructure(format!("cannot fetch blob {digest}: {error}")))?;
            Ok::<_, WorkFailure>((digest, file))
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
                for (digest, _) in blobs_of(tree).skip(base.layers) {
                    let path = &files[digest];
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

/// What is here of a tree: the baseline that has its first layers, and how many these are.
struct Base {
    here: Option<Baseline>,
    layers: usize,
}

/// Digest and size of every blob that is needed and not here.
fn missing_of(manifest: &BaselineManifest, bases: &[Base]) -> BTreeMap<String, u64> {
    let trees = manifest.trees.iter().zip(bases);
    let blobs = trees.flat_map(|(tree, base)| blobs_of(tree).skip(base.layers));
    blobs.map(|(digest, size)| (digest.to_owned(), size)).collect()
}

fn described(
    info: &TreeInfo,
    blob_digest: String,
    blob_size: u64,
    lower: Vec<BaselineLayer>,
) -> BaselineTree {
    BaselineTree {
        name: info.name.clone(),
        blob_digest,
        blob_size,
        files: info.files,
        bytes: info.bytes,
        tree_digest: info.tree_digest.clone(),
        lower,
    }
}

/// A tree that is not with the farm yet.
pub(crate) fn unpublished(info: &TreeInfo) -> BaselineTree {
    described(info, String::new(), 0, Vec::new())
}
