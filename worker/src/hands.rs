//! The worker's hands: what the link asks of this machine. One [`Hands`] per worker, one lane object per lane.
//!
//! Knows baselines, lanes and runners; must not know leases, fences, sessions or the store. Whatever goes wrong is a
//! [`WorkFailure`] with a class, so that an infrastructure failure can never look like a test's.
//!
//! ```text
//!   prepare_baseline ──> discover ──> execute ──> settle ──┐
//!                                       ^                  │ rebased, verified, measured
//!                                       └──────────────────┘
//! ```
//!
//! Invariants: `execute` runs tests on a lane that was verified pristine, or runs none; a lane is used by one call at a
//! time (calls queue); every result is sent as soon as it is known; nothing is left of a unit but its results.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use andon_proto::work_failed::Class;
use andon_proto::{
    BaselineManifest, BaselineReady, Discovered, Image, LookEnded, LookOpen, RunSpec, TestCase, Verified,
    WorkFailed, look_in, look_out,
};
use andon_snapshot::{Changes, Pool};
use async_trait::async_trait;
use thiserror::Error;
use tokio::sync::{Mutex, MutexGuard, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::engine::SharedEngine;
use crate::host::Pressure;
use crate::lane::{self, KeepRule, Lane, Looks, UnitWork, Workshop};
use crate::registry::Registry;
use crate::runner::UnitNews;

/// Lines for a person, about what is being prepared. Sent without waiting; lost where nobody takes them.
pub type Notices = mpsc::Sender<String>;

/// How a lane is put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Driver {
    /// Containers are removed and made anew; needs nothing of the host.
    Recreate,
    /// Containers stay; their processes are killed, their files put back, and they are started again.
    Restart,
    /// As `restart`, behind the unit: another stand is ready, and the lane changes over to it.
    Standby,
    /// Processes stay, too: they are frozen, and their memory, descriptors and files put back as they were.
    Rewind,
}

impl Driver {
    /// As options and reports name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recreate => "recreate",
            Self::Restart => "restart",
            Self::Standby => "standby",
            Self::Rewind => "rewind",
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Driver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "recreate" => Ok(Self::Recreate),
            "restart" => Ok(Self::Restart),
            "standby" => Ok(Self::Standby),
            "rewind" => Ok(Self::Rewind),
            other => Err(format!(
                "there is no rebase driver {other:?}; there are: recreate, restart, standby, rewind"
            )),
        }
    }
}

/// Work that failed as a whole.
#[derive(Debug, Clone, Error)]
#[error("{reason}")]
pub struct WorkFailure {
    /// Whose fault it is.
    pub class: Class,
    /// One line or a few, for a person.
    pub reason: String,
    /// Output that belongs to it, uncompressed; may be empty.
    pub log: Vec<u8>,
}

impl WorkFailure {
    /// The farm's fault.
    pub fn infrastructure(reason: impl Into<String>) -> Self {
        Self { class: Class::Infrastructure, reason: reason.into(), log: Vec::new() }
    }

    /// The project's stack, seed or images.
    pub fn baseline(reason: impl Into<String>) -> Self {
        Self { class: Class::Baseline, reason: reason.into(), log: Vec::new() }
    }

    /// The project's suites: discovery, ids, commands.
    pub fn config(reason: impl Into<String>) -> Self {
        Self { class: Class::Config, reason: reason.into(), log: Vec::new() }
    }

    /// With output.
    #[must_use]
    pub fn with_log(mut self, log: impl Into<Vec<u8>>) -> Self {
        self.log = log.into();
        self
    }
}

impl From<WorkFailure> for WorkFailed {
    fn from(failure: WorkFailure) -> Self {
        Self { class: failure.class.into(), reason: failure.reason, log_zstd: compress_log(&failure.log) }
    }
}

/// zstd, empty for empty.
#[must_use]
pub fn compress_log(log: &[u8]) -> Vec<u8> {
    if log.is_empty() {
        return Vec::new();
    }
    zstd::bulk::compress(log, 1).expect("compressing in memory has no way to fail")
}

/// Longest text that tells what was changed, in bytes.
const CHANGES_TEXT_MAX: usize = 16 * 1024;

/// What attempts have changed, for the coordinator. Where the paths are too many for one message they are left out.
pub(crate) fn told_changes(attempts: Vec<u64>, mut changes: Changes) -> andon_proto::Footprint {
    let text = |changes: &Changes| serde_json::to_string(changes).expect("plain data is JSON");
    let mut told = text(&changes);
    if told.len() > CHANGES_TEXT_MAX {
        for tree in &mut changes.trees {
            tree.left_out += tree.files.drain(..).len() as u64;
        }
        told = text(&changes);
    }
    if told.len() > CHANGES_TEXT_MAX {
        told = String::new();
    }
    let Changes { footprint, .. } = changes;
    let dirtied_files = u32::try_from(footprint.files).unwrap_or(u32::MAX);
    andon_proto::Footprint { attempts, dirtied_bytes: footprint.bytes, dirtied_files, changes: told }
}

/// Runs what blocks on a thread that may. The pool is such, and so is dropping its clones.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WorkFailure> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| WorkFailure::infrastructure(format!("a worker thread failed: {error}")))
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}

/// Tells whoever listens.
pub(crate) fn notice(notices: &Notices, line: String) {
    tracing::info!("{line}");
    let _ = notices.try_send(line);
}

/// A lane cannot be made pristine any more: the worker should take no further work.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[error("{reason}")]
pub struct Unfit {
    /// What failed, and how often.
    pub reason: String,
}

/// A lane after [`Hands::settle`].
#[derive(Debug, Default)]
pub struct Settled {
    /// What the lane is a pristine clone of now; empty for nothing.
    pub baseline_key: String,
    /// What the unit before had dirtied, once it is measured; absent where there was nothing to measure. Nothing comes where
    /// measuring failed.
    pub footprint: Option<oneshot::Receiver<Changes>>,
}

/// What the farm keeps for its workers. The link implements it over the session's connection.
#[async_trait]
pub trait Farm: Send + Sync + fmt::Debug {
    /// The published artifact under this key.
    async fn find_baseline(&self, key: &str) -> Result<Option<BaselineManifest>, FarmError>;
    /// The latest published baselines of this project with this root key, the latest first.
    async fn related_baselines(
        &self,
        root_key: &str,
        project: &str,
    ) -> Result<Vec<BaselineManifest>, FarmError>;
    /// Whether the farm has the blob.
    async fn has_blob(&self, digest: &str) -> Result<bool, FarmError>;
    /// Stores a file's bytes, and answers with their digest. Cheap where the farm has them already.
    async fn put_blob(&self, file: &Path) -> Result<String, FarmError>;
    /// Writes a blob's bytes, checked against the digest, to a file that this call creates.
    async fn get_blob(&self, digest: &str, into: &Path) -> Result<(), FarmError>;
    /// The same with a file that an earlier call may have left: goes on where that one broke off, and where this one breaks
    /// off leaves what it has got.
    async fn resume_blob(&self, digest: &str, part: &Path) -> Result<(), FarmError>;
}

/// The farm could not be asked, or has not what it should have.
#[derive(Debug, Clone, Error)]
pub enum FarmError {
    /// No such blob.
    #[error("the farm has no blob {0}")]
    NoBlob(String),
    /// The connection broke, and did not come back for a while: later it may.
    #[error("{0}")]
    Broken(String),
    /// Everything else: a refusal, a disk, a digest that does not match.
    #[error("{0}")]
    Failed(String),
}

/// An image that this worker's engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// `sha256:…`.
    pub id: String,
    /// As the stack names it; for a build, its folder.
    pub reference: String,
    /// Digest of what it was built from; empty for an image that is named by reference.
    pub build_key: String,
}

/// Turns what the specification names into an image id that the engine has.
#[async_trait]
pub trait ImageSource: Send + Sync + fmt::Debug {
    /// `source` is the unpacked source tree. The error's class says whether the project or the farm is at fault.
    async fn resolve(
        &self,
        image: &Image,
        source: &Path,
        notices: &Notices,
    ) -> Result<ResolvedImage, WorkFailure>;

    /// Has the image in the engine under this reference without asking a registry, for the containers of tests. The error
    /// says what was tried.
    async fn have_without_registry(&self, reference: &str) -> Result<(), String> {
        Err(format!("{reference} is not on this worker"))
    }
}

/// What [`Hands`] work with.
#[derive(Debug, Clone)]
pub struct HandsOptions {
    /// The worker's nested daemon.
    pub engine: SharedEngine,
    /// The pool, on a file system that the daemon sees under the same paths.
    pub pool: Pool,
    /// Images.
    pub images: Arc<dyn ImageSource>,
    /// Blobs and published baselines.
    pub farm: Arc<dyn Farm>,
    /// Where baselines go first, if there is one.
    pub registry: Option<Registry>,
    /// The worker's own folder, seen by the daemon under the same path.
    pub data_dir: PathBuf,
    /// How many lanes.
    pub lanes: u32,
    /// Forces a driver; probed where absent.
    pub driver: Option<Driver>,
    /// Each so many rebases of a stand every byte is compared with the baseline's digests; 0 for never.
    pub deep_every: u32,
    /// Tells what the machine can carry, whenever a lane asks: [`Pressure::look`] but in unit tests.
    pub pressure: fn() -> Pressure,
    /// The worker's name, for metadata.
    pub worker: String,
    /// Takes what is told of stands that are not exact, without waiting.
    pub inexact: mpsc::Sender<andon_proto::Inexact>,
    /// The nested daemon's own socket, for suites whose tests use Docker themselves; none where they cannot.
    pub docker_socket: Option<PathBuf>,
}

/// The worker's hands.
#[derive(Debug)]
pub struct Hands {
    workshop: Arc<Workshop>,
    lanes: Vec<Mutex<Lane>>,
    verifying: Mutex<()>,
    looks: Looks,
}

/// Whoever looks into a kept stack, as far as the worker sees them.
#[derive(Debug)]
pub struct LookLine {
    /// What they send; ends where they are gone.
    pub hear: mpsc::Receiver<look_in::Body>,
    /// Where everything goes that they are to see. Waits where they do not read.
    pub say: mpsc::Sender<look_out::Body>,
}

impl Hands {
    /// Removes what an earlier life left in the daemon, and is ready for work.
    pub async fn start(options: HandsOptions) -> Result<Self, WorkFailure> {
        let count = options.lanes;
        let workshop = Arc::new(Workshop::open(options).await?);
        let lanes = (0..count).map(|_| Mutex::new(Lane::new(Arc::clone(&workshop)))).collect();
        Ok(Self { workshop, lanes, verifying: Mutex::new(()), looks: Looks::default() })
    }

    /// How lanes are put back: the forced driver, or what probing found. Until the first stack stood, the one that is
    /// tried first.
    #[must_use]
    pub fn driver(&self) -> Driver {
        self.workshop.driver().unwrap_or(Driver::Standby)
    }

    /// Free and all bytes that the pool can come to hold; `None` where it cannot be told.
    #[must_use]
    pub fn disk(&self) -> Option<(u64, u64)> {
        let space = self.workshop.options.pool.space().ok()?;
        Some((space.free_bytes, space.total_bytes))
    }

    /// Keeps the pool in order: its image grows, baselines that nothing used for so long go, leftovers are deleted. To be
    /// called from time to time.
    pub async fn tend(&self, unused: Option<Duration>) -> Result<(), WorkFailure> {
        self.workshop.tend(unused).await
    }

    /// Resolves images, derives the key, and has the baseline: from the pool, from the farm, or by seeding. A project without
    /// services gets a manifest with an empty key.
    pub async fn prepare_baseline(
        &self,
        run: u64,
        spec: &RunSpec,
        notices: &Notices,
    ) -> Result<BaselineReady, WorkFailure> {
        self.workshop.prepare(run, spec, notices).await
    }

    /// The ids of a suite's tests, as its runner names them. An empty key is a project without services.
    pub async fn discover(
        &self,
        lane: u32,
        run: u64,
        spec: &RunSpec,
        suite: &str,
        baseline_key: &str,
        notices: &Notices,
    ) -> Result<Discovered, WorkFailure> {
        let mut own = self.lane(lane).await?;
        own.let_go_of_damaged().await?;
        let place = self.workshop.place(lane, run, spec, suite, baseline_key, notices).await?;
        own.discover(run, place).await
    }

    /// Runs the tests of one unit, in order, on the lane made pristine for it. Every result is sent as soon as it is
    /// known; tests without a result were not run. Cancelling kills the unit's processes and answers `Ok`.
    #[allow(clippy::too_many_arguments)]
    pub async fn execute(
        &self,
        lane: u32,
        run: u64,
        spec: &RunSpec,
        suite: &str,
        baseline_key: &str,
        tests: Vec<TestCase>,
        news: mpsc::Sender<UnitNews>,
        cancel: CancellationToken,
    ) -> Result<(), WorkFailure> {
        let arrived = Instant::now();
        let (notices, _) = mpsc::channel(1);
        let mut own = self.lane(lane).await?;
        own.let_go_of_damaged().await?;
        let place = self.workshop.place(lane, run, spec, suite, baseline_key, &notices).await?;
        let (project, keep) = (spec.project.clone(), KeepRule::of(spec.policy.as_ref()));
        own.execute(UnitWork { run, place, arrived, tests, project, keep }, news, &cancel).await
    }

    /// Puts the lane back after `discover` or `execute`, verifies it, and measures what had been dirtied. Call it before
    /// the lane is offered again; the lane then waits pristine.
    pub async fn settle(&self, lane: u32) -> Result<Settled, Unfit> {
        let mut own = self.lane(lane).await.map_err(|failure| Unfit { reason: failure.reason })?;
        own.settle().await
    }

    /// The daemon under the lane was replaced: what stood there does not run any more. Call it before `settle`, which then
    /// puts the lane up again.
    pub async fn distrust(&self, lane: u32) {
        if let Ok(mut own) = self.lane(lane).await {
            own.distrust();
        }
    }

    /// Compares what is here of a baseline (of all, for an empty key) with what was published: the pool's trees, and what waits on
    /// idle lanes, which stays pristine. One at a time.
    pub async fn verify(&self, key: &str, limit: Duration) -> Verified {
        let Ok(_alone) = self.verifying.try_lock() else {
            return lane::refused("another verification is under way on this worker");
        };
        let until = Instant::now() + limit;
        let baselines = self.workshop.verify_baselines(key, until).await;
        let mut lanes = Vec::new();
        for (number, lane) in (0..).zip(&self.lanes) {
            match lane.try_lock() {
                Err(_) => lanes.push(lane::busy(number)),
                Ok(_) if Instant::now() >= until => lanes.push(lane::not_looked_at(number)),
                Ok(mut lane) => lanes.extend(lane.verify(number, key).await),
            }
        }
        Verified { baselines, lanes, ..Verified::default() }
    }

    /// Lets somebody look into what a failed test left, beside the lanes, until they are gone. Answers with how that ended.
    pub async fn look(&self, open: LookOpen, line: LookLine) -> LookEnded {
        Box::pin(self.looks.serve(&self.workshop, open, line)).await
    }

    /// Removes every container and network of the lanes. Baselines stay in the pool.
    pub async fn shutdown(&self) {
        for lane in &self.lanes {
            lane.lock().await.close().await;
        }
        self.workshop.close().await;
    }

    async fn lane(&self, lane: u32) -> Result<MutexGuard<'_, Lane>, WorkFailure> {
        let count = self.lanes.len();
        match usize::try_from(lane).ok().and_then(|place| self.lanes.get(place)) {
            Some(lane) => Ok(lane.lock().await),
            None => {
                Err(WorkFailure::infrastructure(format!("there is no lane {lane}; this worker has {count}")))
            }
        }
    }
}
