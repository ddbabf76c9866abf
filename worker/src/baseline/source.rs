//! A commit's files on this worker: unpacked once per digest, cloned for whoever needs them.
//!
//! Knows the farm's blobs and the pool; must not know Docker or runs. The archive is not trusted: the pool imports it within
//! limits. Invariant: what [`Source::path`] shows is never written by a container (mounted read-only).

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use andon_snapshot::{Baseline, LaneClone, Pool};
use tokio::sync::Mutex;

use crate::hands::{Farm, WorkFailure, blocking, chain};

/// The one tree of a source.
pub(crate) const TREE: &str = "source";
/// Before a source's key in the pool.
const PREFIX: &str = "source/";
/// How many sources stay unpacked besides those in use.
const KEPT: usize = 12;

/// A commit's files.
#[derive(Debug)]
pub(crate) struct Source {
    /// To clone from.
    pub(crate) baseline: Baseline,
    view: LaneClone,
}

impl Source {
    /// The files, to be read.
    pub(crate) fn path(&self) -> Result<PathBuf, WorkFailure> {
        self.view.path(TREE).map_err(|error| WorkFailure::infrastructure(chain(&error)))
    }
}

/// All sources of a worker.
#[derive(Debug)]
pub(crate) struct Sources {
    pool: Pool,
    farm: Arc<dyn Farm>,
    scratch: PathBuf,
    open: Mutex<HashMap<String, (u64, Arc<Source>)>>,
}

impl Sources {
    pub(crate) fn new(pool: Pool, farm: Arc<dyn Farm>, scratch: PathBuf) -> Self {
        Self { pool, farm, scratch, open: Mutex::new(HashMap::new()) }
    }

    /// The source under this digest; an empty digest is an empty folder.
    pub(crate) async fn get(&self, digest: &str) -> Result<Arc<Source>, WorkFailure> {
        let mut open = self.open.lock().await;
        let turn = open.values().map(|(turn, _)| *turn).max().unwrap_or(0) + 1;
        if let Some((used, source)) = open.get_mut(digest) {
            *used = turn;
            return Ok(Arc::clone(source));
        }
        let key = format!("{PREFIX}{digest}");
        let baseline = match self.pool.baseline(&key) {
            Some(baseline) => baseline,
            None => self.unpack(&key, digest).await?,
        };
        let (pool, lane) = (self.pool.clone(), format!("view/{digest}"));
        let source = blocking(move || {
            let view = pool.clone_lane(&lane, &baseline)?;
            Ok::<_, andon_snapshot::PoolError>(Source { baseline, view })
        });
        let source = source.await?.map_err(|error| WorkFailure::infrastructure(chain(&error)))?;
        let source = Arc::new(source);
        open.insert(digest.to_owned(), (turn, Arc::clone(&source)));
        self.tidy(&mut open).await;
        Ok(source)
    }

    async fn unpack(&self, key: &str, digest: &str) -> Result<Baseline, WorkFailure> {
        let blob = self.scratch.join(format!("source-{digest}.tar.zst"));
        if !digest.is_empty() {
            fetch(self.farm.as_ref(), digest, &blob).await?;
        }
        let (pool, key, empty) = (self.pool.clone(), key.to_owned(), digest.is_empty());
        let folder = self.scratch.join("empty");
        blocking(move || {
            let mut staging = pool.stage(&key)?;
            if empty {
                // Fails later, at the capture, where it matters.
                let _ = std::fs::create_dir_all(&folder);
                staging.capture(TREE, &folder)?;
            } else {
                let opened = File::open(&blob).map_err(|source| andon_snapshot::PoolError::Io {
                    action: "open",
                    path: blob.clone(),
                    source,
                });
                staging.import(TREE, opened?)?;
                let _ = std::fs::remove_file(&blob);
            }
            staging.publish(serde_json::Value::Null)
        })
        .await?
        .map_err(|error| refused(&error))
    }

    /// Closes what was used least recently; who still has it keeps it.
    async fn tidy(&self, open: &mut HashMap<String, (u64, Arc<Source>)>) {
        while open.len() > KEPT {
            let oldest = open.iter().min_by_key(|(_, (turn, _))| *turn).map(|(digest, _)| digest.clone());
            let Some(digest) = oldest else { return };
            let closed = open.remove(&digest);
            let (pool, key) = (self.pool.clone(), format!("{PREFIX}{digest}"));
            let removed = blocking(move || {
                drop(closed);
                pool.remove(&key)
            });
            if let Ok(Err(error)) = removed.await {
                tracing::debug!(error = %chain(&error), digest, "a source stays in the pool");
            }
        }
    }
}

/// An archive that the pool refuses is the submitter's; everything else is the farm's.
fn refused(error: &andon_snapshot::PoolError) -> WorkFailure {
    match error {
        andon_snapshot::PoolError::Import { .. } => {
            WorkFailure::config(format!("the source archive: {}", chain(error)))
        }
        _ => WorkFailure::infrastructure(chain(error)),
    }
}

/// Gets a blob into a file that may be there from an earlier try.
pub(crate) async fn fetch(farm: &dyn Farm, digest: &str, into: &Path) -> Result<(), WorkFailure> {
    if let Err(error) = tokio::fs::remove_file(into).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(WorkFailure::infrastructure(format!("cannot remove {}: {error}", into.display())));
    }
    let got = farm.get_blob(digest, into).await;
    got.map_err(|error| WorkFailure::infrastructure(format!("cannot fetch blob {digest}: {error}")))
}
