//! Baselines that this worker has: in its pool, with the manifest under which they were published.
//!
//! Knows the pool and the farm's blobs; must not know Docker. Invariants: a baseline counts only with its manifest, which is
//! written last, after the clone of it came up healthy; a fetched tree has the digest that the manifest says.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use andon_proto::{BaselineManifest, BaselineTree};
use andon_snapshot::{Baseline, Pool, PoolError};
use prost::Message;

use super::room::{self, Candidate, Space, Why, Wish};
use super::source::fetch;
use crate::clock;
use crate::hands::{Farm, Notices, WorkFailure, blocking, chain, notice};

/// With less than this free, no baseline is built or fetched.
const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// How many baselines went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    pub(crate) unused: u64,
    pub(crate) for_space: u64,
}

/// A baseline with its manifest.
#[derive(Debug, Clone)]
pub(crate) struct Shelved {
    pub(crate) baseline: Baseline,
    pub(crate) manifest: BaselineManifest,
}

/// The worker's baselines.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    pub(crate) pool: Pool,
    pub(crate) farm: Arc<dyn Farm>,
    /// For archives on their way.
    pub(crate) scratch: PathBuf,
    /// Where manifests lie.
    pub(crate) manifests: PathBuf,
}

impl Shelf {
    /// What the pool has under this key, whole.
    pub(crate) fn local(&self, key: &str) -> Option<Shelved> {
        let bytes = std::fs::read(self.manifest_file(key)?).ok()?;
        let manifest = BaselineManifest::decode(bytes.as_slice()).ok()?;
        let baseline = self.pool.baseline(key)?;
        matches(&baseline, &manifest).then_some(Shelved { baseline, manifest })
    }

    /// Marks it as used now, for [`Shelf::make_room`].
    pub(crate) fn touch(&self, key: &str) {
        let Some(file) = self.manifest_file(key) else { return };
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        let empty = rustix::fs::AtFlags::empty();
        if let Err(error) = rustix::fs::utimensat(rustix::fs::CWD, &file, &times, empty) {
            tracing::debug!(%error, key, "marking a baseline as used");
        }
    }

    /// From the pool, else from the farm; `None` where nobody has published it.
    pub(crate) async fn find(&self, key: &str, notices: &Notices) -> Result<Option<Shelved>, WorkFailure> {
        let local = self.local(key);
        let published = match self.farm.find_baseline(key).await {
            Ok(published) => published,
            // What is here is good, also while the farm cannot be asked.
            Err(error) if local.is_some() => {
                tracing::warn!(%error, key, "asking the farm for a baseline");
                None
            }
            Err(error) => {
                return Err(WorkFailure::infrastructure(format!("cannot ask for baseline {key}: {error}")));
            }
        };
        match (local, published) {
            (Some(local), None) => {
                // The farm forgot it, or never heard of it: publish it again.
                let manifest = self.upload(&local.baseline, local.manifest).await?;
                self.keep(&manifest)?;
                Ok(Some(Shelved { baseline: local.baseline, manifest }))
            }
            (Some(local), Some(manifest)) if matches(&local.baseline, &manifest) => {
                Ok(Some(Shelved { baseline: local.baseline, manifest }))
            }
            (_, Some(manifest)) => self.fetch(key, manifest, notices).await.map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Forgets what is in the pool without a manifest: a build that was never finished.
    pub(crate) async fn clear(&self, key: &str) -> Result<(), WorkFailure> {
        if let Some(file) = self.manifest_file(key) {
            let _ = std::fs::remove_file(file);
        }
        let (pool, name) = (self.pool.clone(), key.to_owned());
        blocking(move || pool.remove(&name)).await?.map(drop).map_err(|error| farm_fault(&error))
    }

    /// Removes baselines by the policy of room.rs until there is room for another of `need` bytes.
    pub(crate) async fn make_room(&self, need: u64) -> Result<(), WorkFailure> {
        let shelf = self.clone();
        let made = blocking(move || {
            shelf.pool.grow_for(need);
            shelf.collect(need, None)?;
            shelf.pool.space()
        });
        let space = made.await?.map_err(|error| farm_fault(&error))?;
        // `need` counts holes as well: it may fit though less is free, and says so by itself where it does not.
        if space.free_bytes < FREE_BYTES_MIN {
            return Err(WorkFailure::infrastructure(format!(
                "the worker's disk is full: the pool at {} has {} MB free, {} MB are needed, and no baseline can go: \
                 make room on its file system, or raise ANDON_POOL_MAX_GIB",
                self.pool.dir().display(),
                space.free_bytes >> 20,
                FREE_BYTES_MIN.max(need) >> 20
            )));
        }
        Ok(())
    }

    /// What is done from time to time: the pool's image grows, what could not be deleted is, baselines go by the policy.
    pub(crate) async fn tend(&self, unused: Option<Duration>) -> Result<Collected, WorkFailure> {
        let shelf = self.clone();
        let tended = blocking(move || {
            if let Some((was, now)) = shelf.pool.grow_for(0) {
                tracing::info!(from_mb = was >> 20, to_mb = now >> 20, "the pool's image grew");
            }
            if let Some(failure) = shelf.pool.space()?.image.and_then(|image| image.failure) {
                tracing::warn!(failure, "the pool's image cannot grow");
            }
            let swept = shelf.pool.sweep_trash()?;
            if swept > 0 {
                tracing::info!(swept, "deleted what could not be deleted before");
            }
            shelf.collect(0, unused)
        });
        tended.await?.map_err(|error| farm_fault(&error))
    }

    fn collect(&self, need: u64, unused: Option<Duration>) -> Result<Collected, PoolError> {
        let mut wish = Wish { need, unused, making: false };
        let mut collected = Collected::default();
        loop {
            let space = self.pool.space()?;
            let space = Space {
                free_bytes: space.free_bytes,
                total_bytes: space.total_bytes,
                inodes_free: space.inodes_free,
            };
            let candidates = self.candidates();
            let Some((key, why)) = room::next(space, &candidates, wish) else { return Ok(collected) };
            match self.pool.remove(key) {
                Ok(_) => {
                    tracing::info!(key, ?why, free_mb = space.free_bytes >> 20, "removed a baseline");
                    if let Some(file) = self.manifest_file(key) {
                        let _ = std::fs::remove_file(file);
                    }
                    match why {
                        Why::Unused => collected.unused += 1,
                        Why::Space => (collected.for_space, wish.making) = (collected.for_space + 1, true),
                    }
                }
                // A lane took it meanwhile: next time it is no candidate.
                Err(PoolError::BaselineInUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Baselines that may go. Sources and other things in the pool have keys of another shape.
    fn candidates(&self) -> Vec<Candidate> {
        let now = Duration::from_millis(clock::unix_ms());
        let all = self.pool.baselines().into_iter().map(|baseline| baseline.key().to_owned());
        all.filter_map(|key| {
            let used = std::fs::metadata(self.manifest_file(&key)?).and_then(|meta| meta.modified()).ok();
            let used = used.map(|used| used.duration_since(UNIX_EPOCH).unwrap_or_default());
            Some(Candidate {
                users: self.pool.users(&key),
                idle: used.map(|used| now.saturating_sub(used)),
                key,
            })
        })
        .collect()
    }

    async fn fetch(
        &self,
        key: &str,
        manifest: BaselineManifest,
        notices: &Notices,
    ) -> Result<Shelved, WorkFailure> {
        self.clear(key).await?;
        self.make_room(manifest.trees.iter().map(|tree| tree.bytes).sum()).await?;
        let short = key.get(..12).unwrap_or(key);
        let total: u64 = manifest.trees.iter().map(|tree| tree.blob_size).sum();
        notice(
            notices,
            format!("fetching baseline {short}: {} tree(s), {} MB", manifest.trees.len(), total >> 20),
        );
        let (pool, name) = (self.pool.clone(), key.to_owned());
        let mut staging = blocking(move || pool.stage(&name)).await?.map_err(|error| farm_fault(&error))?;
        for (place, tree) in manifest.trees.iter().enumerate() {
            let file = self.scratch.join(format!("fetch-{short}-{place}.tar.zst"));
            fetch(self.farm.as_ref(), &tree.blob_digest, &file).await?;
            let name = tree.name.clone();
            staging = blocking(move || {
                let opened = File::open(&file);
                let opened =
                    opened.map_err(|source| PoolError::Io { action: "open", path: file.clone(), source })?;
                staging.import(&name, opened)?;
                let _ = std::fs::remove_file(&file);
                Ok::<_, PoolError>(staging)
            })
            .await?
            .map_err(|error| farm_fault(&error))?;
        }
        let published = blocking(move || staging.publish(serde_json::Value::Null)).await?;
        let baseline = published.map_err(|error| farm_fault(&error))?;
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

    /// Packs each tree and stores it with the farm; answers with the manifest that says where.
    pub(crate) async fn upload(
        &self,
        baseline: &Baseline,
        mut manifest: BaselineManifest,
    ) -> Result<BaselineManifest, WorkFailure> {
        let mut trees = Vec::new();
        for (place, info) in baseline.trees().iter().enumerate() {
            let short = baseline.key().get(..12).unwrap_or(baseline.key());
            let file = self.scratch.join(format!("pack-{short}-{place}.tar.zst"));
            let (packing, name, into) = (baseline.clone(), info.name.clone(), file.clone());
            let packed = blocking(move || {
                let made = File::create(&into);
                let made =
                    made.map_err(|source| PoolError::Io { action: "create", path: into.clone(), source })?;
                packing.export(&name, &made)?;
                let size = made.metadata().map(|meta| meta.len());
                size.map_err(|source| PoolError::Io { action: "read", path: into, source })
            });
            let blob_size = packed.await?.map_err(|error| farm_fault(&error))?;
            let stored = self.farm.put_blob(&file).await;
            let _ = tokio::fs::remove_file(&file).await;
            let blob_digest = stored.map_err(|error| {
                WorkFailure::infrastructure(format!("cannot publish tree `{}`: {error}", info.name))
            })?;
            trees.push(BaselineTree {
                name: info.name.clone(),
                blob_digest,
                blob_size,
                files: info.files,
                bytes: info.bytes,
                tree_digest: info.tree_digest.clone(),
            });
        }
        manifest.trees = trees;
        Ok(manifest)
    }

    /// Writes the manifest: from now on the baseline counts.
    pub(crate) fn keep(&self, manifest: &BaselineManifest) -> Result<(), WorkFailure> {
        let fault = |error: std::io::Error| {
            WorkFailure::infrastructure(format!("cannot write to {}: {error}", self.manifests.display()))
        };
        let Some(file) = self.manifest_file(&manifest.key) else {
            return Err(WorkFailure::infrastructure(format!("{:?} is no baseline key", manifest.key)));
        };
        let partial = file.with_extension("partial");
        std::fs::write(&partial, manifest.encode_to_vec()).map_err(fault)?;
        std::fs::rename(&partial, &file).map_err(fault)
    }

    fn manifest_file(&self, key: &str) -> Option<PathBuf> {
        // Keys come from outside; a digest in hex chooses no path.
        let valid = key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        valid.then(|| self.manifests.join(format!("{key}.pb")))
    }
}

fn matches(baseline: &Baseline, manifest: &BaselineManifest) -> bool {
    let here = baseline.trees();
    here.len() == manifest.trees.len()
        && here.iter().all(|tree| {
            manifest
                .trees
                .iter()
                .any(|other| other.name == tree.name && other.tree_digest == tree.tree_digest)
        })
}

pub(crate) fn farm_fault(error: &PoolError) -> WorkFailure {
    WorkFailure::infrastructure(chain(error))
}

#[cfg(test)]
mod tests;
