//! Baselines that this worker has: in its pool, with the manifest under which they were published.
//!
//! Knows the pool and the farm's blobs; must not know Docker. Invariants: a baseline counts only with its manifest, which is
//! written last, after the clone of it came up healthy; a fetched tree has the digest that the manifest says.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use andon_proto::{BaselineManifest, BaselinePrefix};
use andon_snapshot::{Baseline, Pool, PoolError};
use prost::Message;

use super::build::Built;
use super::carry::{FetchFault, is_published};
use super::parent::{Candidate, with_prefixes};
use super::room::{self, Space, Why, Wish};
use crate::clock;
use crate::hands::{Farm, Notices, WorkFailure, blocking, chain, notice};
use crate::registry::Registry;

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

/// What came of looking for a baseline.
#[derive(Debug)]
pub(crate) enum Found {
    /// In the pool, and published.
    Here(Shelved),
    /// In the pool; what was published of it was gone, and it was published again.
    Again(Shelved),
    /// It was published, and cannot be had any more.
    Gone,
    /// Nobody has published it.
    Nowhere,
}

/// The worker's baselines.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    pub(crate) pool: Pool,
    pub(crate) farm: Arc<dyn Farm>,
    /// Where blobs go first, if there is one.
    pub(crate) registry: Option<Registry>,
    /// For archives on their way.
    pub(crate) scratch: PathBuf,
    /// Where blobs lie on their way here. Kept over a restart of the worker, which goes on with them.
    pub(crate) downloads: PathBuf,
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

    /// From the pool, else from where it was published.
    pub(crate) async fn find(&self, key: &str, notices: &Notices) -> Result<Found, WorkFailure> {
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
            // The farm forgot it, or never heard of it.
            (Some(local), None) => self.publish_again(local, notices).await.map(Found::Here),
            (Some(local), Some(manifest)) if matches(&local.baseline, &manifest) => {
                if self.is_lost(&manifest).await {
                    notice(notices, format!("{} is gone: publishing it again", manifest.artifact));
                    return self.publish_again(local, notices).await.map(Found::Again);
                }
                Ok(Found::Here(Shelved { baseline: local.baseline, manifest }))
            }
            (_, Some(manifest)) => match self.fetch(key, manifest, notices).await {
                Ok(shelved) => Ok(Found::Here(shelved)),
                Err(FetchFault::Failed(failure)) => Err(failure),
                Err(FetchFault::Gone(why)) => {
                    notice(notices, format!("published baseline {key} cannot be had any more: {why}"));
                    Ok(Found::Gone)
                }
            },
            (None, None) => Ok(Found::Nowhere),
        }
    }

    async fn publish_again(&self, local: Shelved, notices: &Notices) -> Result<Shelved, WorkFailure> {
        let manifest = self.upload(&local.baseline, local.manifest, None, notices).await?;
        self.keep(&manifest)?;
        Ok(Shelved { baseline: local.baseline, manifest })
    }

    /// Whether somebody deleted its tag from this worker's own registry.
    async fn is_lost(&self, manifest: &BaselineManifest) -> bool {
        let Some(registry) = &self.registry else { return false };
        let own = format!("{}:{}@", registry.address(), manifest.key);
        manifest.artifact.starts_with(&own) && registry.has_lost(&manifest.key).await
    }

    /// Forgets what is in the pool without a manifest: a build that was never finished.
    pub(crate) async fn clear(&self, key: &str) -> Result<(), WorkFailure> {
        self.disown(key);
        let (pool, name) = (self.pool.clone(), key.to_owned());
        blocking(move || pool.remove(&name)).await?.map(drop).map_err(|error| farm_fault(&error))
    }

    /// Does not count what is in the pool any more, though something may stand on it.
    pub(crate) fn disown(&self, key: &str) {
        if let Some(file) = self.manifest_file(key) {
            let _ = std::fs::remove_file(file);
        }
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
            let candidates = self.disposable();
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
    fn disposable(&self) -> Vec<room::Candidate> {
        let now = Duration::from_millis(clock::unix_ms());
        let all = self.pool.baselines().into_iter().map(|baseline| baseline.key().to_owned());
        all.filter_map(|key| {
            let used = std::fs::metadata(self.manifest_file(&key)?).and_then(|meta| meta.modified()).ok();
            let used = used.map(|used| used.duration_since(UNIX_EPOCH).unwrap_or_default());
            Some(room::Candidate {
                users: self.pool.users(&key),
                idle: used.map(|used| now.saturating_sub(used)),
                key,
            })
        })
        .collect()
    }

    /// Everything that is here, whole.
    pub(crate) fn all(&self) -> Vec<Shelved> {
        self.pool.baselines().iter().filter_map(|baseline| self.local(baseline.key())).collect()
    }

    /// What a baseline of this project with this root may be built upon: what is here, and what is published.
    pub(crate) async fn candidates(&self, root_key: &str, project: &str) -> Vec<Candidate> {
        let here = self.all().into_iter().map(|shelved| shelved.manifest);
        let here = here.filter(|manifest| manifest.root_key == root_key && manifest.project == project);
        let mut all: Vec<Candidate> = here.map(|manifest| Candidate { manifest, here: true }).collect();
        match self.farm.related_baselines(root_key, project).await {
            Ok(published) => {
                let published = published.into_iter().flat_map(with_prefixes);
                all.extend(published.map(|manifest| Candidate { manifest, here: false }));
            }
            // A build from what is here, or from nothing, is as good.
            Err(error) => tracing::warn!(%error, root_key, "asking the farm for baselines to build upon"),
        }
        all
    }

    /// Publishes a build with the states that were kept on the way to it. Answers with its manifest.
    pub(crate) async fn publish(
        &self,
        built: Built,
        notices: &Notices,
    ) -> Result<BaselineManifest, WorkFailure> {
        let Built { baseline, mut manifest, parent, kept } = built;
        // What an earlier build kept and, because it failed then, did not publish.
        let orphan = parent.iter().filter(|parent| !is_published(&parent.manifest)).cloned();
        let unpublished: Vec<Shelved> = orphan.chain(kept).collect();
        let mut below = parent.filter(|parent| is_published(&parent.manifest));
        let mut prefixes = Vec::new();
        for state in unpublished {
            let told = self.upload(&state.baseline, state.manifest, below.as_ref(), notices).await?;
            self.keep(&told)?;
            let steps = told.steps.len();
            if manifest.steps.get(steps.wrapping_sub(1)).is_some_and(|step| step.key == told.key) {
                prefixes.push(prefix_of(&told));
            }
            below = Some(Shelved { baseline: state.baseline, manifest: told });
        }
        manifest = self.upload(&baseline, manifest, below.as_ref(), notices).await?;
        manifest.prefixes = prefixes;
        self.keep(&manifest)?;
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

fn prefix_of(manifest: &BaselineManifest) -> BaselinePrefix {
    BaselinePrefix {
        steps: u32::try_from(manifest.steps.len()).unwrap_or(u32::MAX),
        trees: manifest.trees.clone(),
        built_unix_ms: manifest.built_unix_ms,
        build_ms: manifest.build_ms,
        parent_key: manifest.parent_key.clone(),
        artifact: manifest.artifact.clone(),
    }
}

pub(super) fn matches(baseline: &Baseline, manifest: &BaselineManifest) -> bool {
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
