//! A used box made ready for another unit, as a service of a stack is: killed, its files put back, started again. To make a
//! container anew, and to remove it, takes an engine many times as long.
//!
//! What a unit can have changed of its box, and what becomes of it: processes, shared memory and the mounts of its namespaces die
//! with its first process; its own layer is an empty folder again, with the mode and the owner that the engine gave it; its copy
//! of the source is cloned anew; the out folder is made anew; its network's files and what the kernel remembers there are the
//! berth's to put back ([`Berth::put_back`](super::super::berth::Berth::put_back)). A box that has more than that - volumes of its
//! image, a Docker API, a way out, a network of its own - serves one unit.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use andon_snapshot::PoolError;
use rustix::fs::Mode;

use super::{Doomed, UnitBox, make_out_folder};
use crate::baseline::farm_fault;
use crate::hands::{WorkFailure, blocking, chain};
use crate::runner;

/// After this many units a box is made anew: what an engine keeps of a container's lives has to end somewhere.
const LIVES_MAX: u32 = 500;
/// Where a used layer goes, beside its place: it is removed with the container if nobody removes it before.
const ASIDE: &str = "used-by-a-unit";

/// The folder of a container's own layer, as the engine made it.
#[derive(Debug, Clone)]
pub(super) struct OwnLayer {
    path: PathBuf,
    mode: Mode,
    owner: (u32, u32),
}

impl OwnLayer {
    /// Of a container that was never started. Blocking.
    fn of(path: &Path) -> io::Result<Self> {
        let about = fs::symlink_metadata(path)?;
        let mode = Mode::from_raw_mode(about.mode() & 0o7777);
        Ok(Self { path: path.to_owned(), mode, owner: (about.uid(), about.gid()) })
    }

    /// An empty folder takes the place of the used one. The container has to be dead. Blocking.
    fn put_back(&self) -> io::Result<()> {
        let aside = self.path.with_file_name(ASIDE);
        match fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(&self.path, &aside)?;
        fs::DirBuilder::new().mode(0o700).create(&self.path)?;
        std::os::unix::fs::lchown(&self.path, Some(self.owner.0), Some(self.owner.1))?;
        rustix::fs::chmod(&self.path, self.mode)?;
        fs::remove_dir_all(&aside)
    }
}

impl UnitBox {
    /// Whether it may be refitted once its unit is over.
    pub(crate) fn can_serve_again(&self) -> bool {
        self.layer.is_some() && self.lives < LIVES_MAX
    }

    /// Its layer, where that and what is put back with it is all that a unit can change.
    pub(super) async fn own_layer(&self) -> Option<OwnLayer> {
        let joins = self.berth.is_some() && self.outfit.is_plain() && self.plan.image.volumes.is_empty();
        if !joins {
            return None;
        }
        let state = self.plan.engine.inspect_container(&self.cell.container).await.ok()?;
        let path = state.upper_dir?;
        blocking(move || OwnLayer::of(&path)).await.ok()?.ok()
    }

    /// The same box for another unit, warm. Where that fails nothing is left of it.
    pub(crate) async fn refit(mut self) -> Result<Self, WorkFailure> {
        match self.make_ready().await {
            Ok(()) => {
                self.warm = runner::warm_up(&self.cell, &self.plan.suite);
                Ok(self)
            }
            Err(failure) => {
                self.remove().await?;
                Err(failure)
            }
        }
    }

    async fn make_ready(&mut self) -> Result<(), WorkFailure> {
        let engine = self.plan.engine.clone();
        let failed = |error: &dyn std::error::Error| WorkFailure::infrastructure(chain(error));
        let (Some(berth), Some(layer)) = (&self.berth, self.layer.clone()) else {
            return Err(WorkFailure::infrastructure("not all that a unit can change of it is known"));
        };
        self.warm = None;
        self.doomed.kill(engine.as_ref()).await.map_err(|error| failed(&error))?;
        let (source, out) = (Arc::clone(&self.source), self.cell.out_dir.clone());
        let files = blocking(move || {
            let fault = |action: &'static str, path: PathBuf| {
                move |source: io::Error| PoolError::Io { action, path, source }
            };
            layer.put_back().map_err(fault("empty", layer.path.clone()))?;
            fs::remove_dir_all(&out).map_err(fault("remove", out.clone()))?;
            make_out_folder(&out)?;
            source.reset()?.discard()
        });
        let (files, berth) = tokio::join!(files, berth.put_back());
        files?.map_err(|error| farm_fault(&error))?;
        berth.map_err(|error| failed(&error))?;
        self.cell.overrun = Arc::default();
        self.doomed = Doomed::one(&self.cell.container);
        self.lives += 1;
        engine.start_container(&self.cell.container).await.map_err(|error| failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_layer_is_an_empty_folder_again_with_the_mode_that_the_engine_gave_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("diff");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let layer = OwnLayer::of(&path).unwrap();
        for round in 0..2 {
            fs::create_dir_all(path.join("etc/deep")).unwrap();
            fs::write(path.join("etc/deep/file"), "by a test").unwrap();
            std::os::unix::fs::symlink("/", path.join("root")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o1700)).unwrap();
            if round == 1 {
                // Of a turn that did not come to its end.
                fs::create_dir(folder.path().join(ASIDE)).unwrap();
            }
            layer.put_back().unwrap();
            assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
            assert!(!folder.path().join(ASIDE).exists());
        }
        fs::remove_dir(&path).unwrap();
        layer.put_back().unwrap_err();
    }
}
